"""How a photo of any aspect becomes the square that a model sees.

`crop` keeps its middle and its aspect, and loses what is beside it; `stretch` keeps all of it, and
shows it narrower or lower than it is.
"""

CROP, STRETCH = "crop", "stretch"
RESIZES = (CROP, STRETCH)
