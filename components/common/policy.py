"""What augmentation may do to an image, as data."""

import dataclasses

from components.common.config import Range, check

CROP_AREAS = Range(0.05, 1.0)


@dataclasses.dataclass(frozen=True)
class AugmentPolicy:
    """What `augment` may do to an image; a value that changes nothing switches an operation off.

    Attributes:
        flip: Mirror left and right, half of the time.
        saturation: Range of the factor on the saturation; 0 is grey, 1 changes nothing.
        brightness: Largest shift of the brightness, up or down, as a fraction of full scale.
        contrast: Largest relative change of the contrast, up or down.
        crop_area: Smallest part of the area that a random-resized crop keeps; 1 keeps all.
        crop_aspect: Largest aspect ratio of such a crop, either way.
        rotation: Largest angle, either way, in degrees.
        hue: Largest turn of the hue, either way, as a fraction of the colour wheel.
    """

    flip: bool = True
    saturation: tuple[float, float] = (0.0, 2.0)
    brightness: float = 0.1
    contrast: float = 0.2
    crop_area: float = 0.35
    crop_aspect: float = 1.33
    rotation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.saturation
        check("saturation", low, Range(0.0, high))
        check("saturation", high, Range(low, 10.0))
        check("brightness", self.brightness, Range(0.0, 1.0))
        check("contrast", self.contrast, Range(0.0, 1.0))
        check("crop_area", self.crop_area, CROP_AREAS)
        check("crop_aspect", self.crop_aspect, Range(1.0, 4.0))
        check("rotation", self.rotation, Range(0.0, 180.0))
        check("hue", self.hue, Range(0.0, 0.5))
