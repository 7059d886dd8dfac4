"""Renders the embedded default data set: five classes of synthetic flowers.

The pipeline must run on a fresh machine with no account and no download, so its default examples
are drawn here with numpy and Pillow alone. Shape and petal texture tell the class; colour, light,
scale, position and background are shared between classes on purpose, so that a model which only
averages colours cannot pass the accuracy gate.

A point is the complex number `x + 1j * y`, y down, and an outline is an array of points. The canvas
is measured in pixels; a bloom is drawn in a frame of its own, centre 0 and petal tips at about 1.
"""

import cmath
import colorsys
import io
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

CLASS_NAMES: tuple[str, ...] = ("daisy", "dandelion", "roses", "sunflowers", "tulips")

SHORT_SIDE = (160, 260)  # pixels, both ends included
MAX_ASPECT = 1.5  # long side over short side
JPEG_QUALITY = 90
SUPERSAMPLING = 2  # Pillow draws without antialiasing, so the canvas is reduced by this factor.
BACKDROP_REDUCTION = 4  # A backdrop drawn this much smaller comes out softly out of focus.
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))  # radians between successive seeds of a flower head

Outline = NDArray[np.complex128]
Colour = tuple[int, int, int]
Range = tuple[float, float]

# Hue, saturation and value, each 0 to 1; a hue may leave that range and wraps.
_TONES: dict[str, tuple[Range, Range, Range]] = {
    "white": ((0.08, 0.16), (0.02, 0.10), (0.93, 1.0)),
    "yellow": ((0.125, 0.155), (0.72, 0.95), (0.90, 1.0)),
    "orange": ((0.05, 0.09), (0.70, 0.92), (0.88, 1.0)),
    "pink": ((0.89, 0.96), (0.30, 0.55), (0.88, 1.0)),
    "red": ((-0.02, 0.01), (0.75, 0.92), (0.70, 0.90)),
    "violet": ((0.76, 0.84), (0.35, 0.60), (0.70, 0.90)),
    "leaf": ((0.22, 0.36), (0.40, 0.70), (0.30, 0.62)),
    "soil": ((0.04, 0.10), (0.30, 0.55), (0.25, 0.48)),
    "sky": ((0.54, 0.62), (0.15, 0.60), (0.75, 1.0)),
    "stone": ((0.05, 0.15), (0.03, 0.15), (0.45, 0.80)),
    "brown": ((0.04, 0.08), (0.60, 0.80), (0.20, 0.36)),
    "studio": ((0.0, 1.0), (0.0, 0.35), (0.20, 0.95)),
}
# Tones are drawn uniformly; a repeated one is likelier.
_PETAL_TONES: dict[str, list[str]] = {
    "daisy": ["white"] * 3 + ["pink"] * 2 + ["yellow", "violet"],
    "dandelion": ["yellow"] * 4 + ["orange"],
    "roses": ["red", "pink", "yellow", "white", "orange"],
    "sunflowers": ["yellow"] * 4 + ["orange", "red"],
    "tulips": ["red", "pink", "yellow", "orange", "violet", "white"],
}
# Backdrop to the tones of its out-of-focus blobs.
_BACKDROPS: dict[str, list[str]] = {
    "sky": ["white"],
    "leaf": ["leaf", "leaf", "yellow"],
    "bokeh": ["leaf", "yellow", "pink", "white", "red", "violet", "sky"],
    "soil": ["soil", "stone"],
    "studio": ["studio"],
}


@dataclass(frozen=True)
class _Brush:
    """Paints in a frame placed on the canvas; by default the frame is the canvas itself."""

    draw: ImageDraw.ImageDraw  # in RGBA mode, which blends translucent fills
    rng: random.Random
    centre: complex = 0  # canvas pixels
    radius: float = 1  # canvas pixels per unit of the frame
    roll: float = 0  # radians
    squash: float = 1  # height over width; below 1 the bloom faces away from the camera
    light: float = 0  # direction the light comes from, radians
    tone: Colour = (255, 255, 255)  # petals

    def fill(self, outline: Outline, colour: Colour, alpha: int = 255) -> None:
        """Fills an outline given in this frame; alpha 0 to 255."""
        tilted = outline.real + 1j * self.squash * outline.imag
        points = self.centre + self.radius * cmath.rect(1, self.roll) * tilted
        self.draw.polygon(points.view(np.float64).tolist(), fill=(*colour, alpha))

    def pick(self, name: str) -> Colour:
        """Draws one colour of the named tone."""
        hue, saturation, value = (self.rng.uniform(*bounds) for bounds in _TONES[name])
        red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
        return round(255 * red), round(255 * green), round(255 * blue)

    def whorl(self, petal: Outline, count: int, colour: Colour, rim: float, loose: float) -> None:
        """Draws a ring of `count` petals like the one given along +x, lit from one side.

        `rim` is the brightness of a petal's edge over its blade: below 1 it parts flat rays, above
        1 it curls them. `loose` is the jitter of length and angle, 0 for a perfect rosette.
        """
        start, middle = self.rng.uniform(0, math.tau), petal.mean()
        blade = 0.86 * (petal - middle) + 0.97 * middle
        for k in self.rng.sample(range(count), count):
            angle = start + math.tau * (k + self.rng.uniform(-loose, loose)) / count
            spoke = cmath.rect(1 - loose * self.rng.random() / 2, angle)
            facing = math.cos(angle + self.roll - self.light)
            lit = self.rng.uniform(0.94, 1.06) + 0.13 * facing
            self.fill(petal * 1.03 * spoke, _shade(colour, 0.45), 90)
            self.fill(petal * spoke, _shade(colour, lit * rim))
            self.fill(blade * spoke, _shade(colour, lit))

    def seeds(self, radius: float, count: int, dot: float, colour: Colour) -> None:
        """Covers a disc with a spiral of uneven dots."""
        for k in range(count):
            where = cmath.rect(radius * math.sqrt((k + 0.5) / count), k * GOLDEN_ANGLE)
            self.fill(where + _disc(dot, 5), _shade(colour, self.rng.uniform(0.6, 1.7)))

    def leaf(self, base: complex, tip: complex, width: float) -> None:
        """Draws a leaf with a shaded half and a pale midrib; `width` is relative to its length."""
        tone, blade, axis = self.pick("leaf"), _petal(0, 1, width, 0.8, 0.42), tip - base
        self.fill(base + axis * blade, tone)
        self.fill(base + axis * (blade.real + 1j * blade.imag.clip(0)), _shade(tone, 0.82))
        self.fill(base + axis * _petal(0, 0.92, 0.03, 0.6, 0.3), _shade(tone, 1.35))

    def grass(self, width: float, height: float, count: int, tallest: float) -> None:
        """Draws blades from the lower edge, the tallest a fraction `tallest` of the height."""
        for _ in range(count):
            foot = complex(self.rng.uniform(0, width), height * self.rng.uniform(0.95, 1.1))
            reach = height * self.rng.uniform(0.1, tallest)
            blade = _petal(0, 1, self.rng.uniform(0.03, 0.08), 0.7, 0.3)
            upward = cmath.rect(reach, -math.pi / 2 + self.rng.uniform(-0.4, 0.4))
            self.fill(foot + upward * blade, self.pick("leaf"))


def _shade(colour: Colour, factor: float) -> Colour:
    """Scales the brightness of a colour; shadows turn warm, as dark yellow would look green."""
    powers = (0.75, 1.0, 1.1)
    red, green, blue = (min(255, round(c * factor**p)) for c, p in zip(colour, powers, strict=True))
    return red, green, blue


def _petal(inner: float, outer: float, width: float, bluntness: float, belly: float) -> Outline:
    """Outlines a petal along +x, from `inner` to `outer`, at most `width` wide.

    `bluntness` is 0.5 for round ends, 1 for a lens, more for points; `belly` is where the petal is
    widest, as a fraction of its length.
    """
    along = (1 - np.cos(np.linspace(0, np.pi, 11))) / 2  # Denser at the ends, which curve most.
    swell = np.sin(np.pi * along ** (math.log(0.5) / math.log(belly))).clip(0) ** bluntness
    side: Outline = inner + (outer - inner) * along + 0.5j * width * swell
    return np.concatenate([side, side[::-1].conj()])


def _disc(radius: float, points: int = 28) -> Outline:
    """Outlines a circle round 0."""
    circle: Outline = radius * np.exp(2j * np.pi * np.arange(points) / points)
    return circle


def _draw_daisy(brush: _Brush) -> None:
    """Thin, separated ray petals round a small yellow disc."""
    count, size = brush.rng.randint(11, 17), brush.rng.uniform(0.20, 0.27)
    brush.whorl(_petal(0.12, 1.0, 3.6 / count, 0.55, 0.62), count, brush.tone, 0.80, 0.16)
    disc = brush.pick("yellow")
    brush.fill(_disc(size * 1.1), _shade(disc, 0.55), 140)
    brush.fill(_disc(size), _shade(disc, 0.88))
    brush.seeds(size * 0.85, 26, 0.03, _shade(disc, 0.85))


def _draw_dandelion(brush: _Brush) -> None:
    """A dense, fine-toothed round head; now and then the white seed globe."""
    if brush.rng.random() < 0.15:
        _draw_seed_globe(brush)
        return
    for layer in range(7):
        reach = 1.0 - 0.13 * layer
        brush.fill(_disc(0.85 * reach), _shade(brush.tone, 0.7 + 0.04 * layer))
        floret = _petal(reach - 0.45, reach, 0.085, 0.6, 0.6)
        for k in range(58 - 8 * layer):
            spoke = cmath.rect(brush.rng.uniform(0.88, 1.02), k * GOLDEN_ANGLE + layer)
            brush.fill(floret * spoke, _shade(brush.tone, brush.rng.uniform(0.68, 1.12)))


def _draw_seed_globe(brush: _Brush) -> None:
    """A translucent ball of parachutes round a small brown core."""
    brush.fill(_disc(0.95), (240, 240, 235), 60)
    brush.fill(_disc(0.13), brush.pick("brown"))
    for k in range(70):
        reach, spoke = 0.95 * math.sqrt((k + 6) / 76), cmath.rect(1, k * GOLDEN_ANGLE)
        brush.fill(_petal(0.1, reach, 0.015, 0.5, 0.5) * spoke, (225, 222, 210), 130)
        tuft = reach + 0.13 * np.exp(1j * np.linspace(-2.2, 2.2, 15)) * np.tile([1, 0.15, 0.15], 5)
        brush.fill(tuft * spoke, (250, 250, 248), 190)


def _draw_roses(brush: _Brush) -> None:
    """Overlapping rounded petals in layers that close to a spiral."""
    heart = complex(0, -0.12)  # Inner layers sit off centre: a rose is a bowl seen at an angle.
    for layer, reach in enumerate((1.0, 0.86, 0.68, 0.52, 0.37, 0.24)):
        petal = _petal(-0.1, reach, 1.5 * reach, 0.5, 0.68)
        inner = replace(brush, centre=brush.centre + brush.radius * heart * layer / 5)
        inner.whorl(petal, 5 - layer // 3, _shade(brush.tone, 1.0 - 0.075 * layer), 1.25, 0.3)
    turns = np.linspace(0.5, 3.2 * np.pi, 30)
    swirl = np.exp(1j * (turns + brush.rng.uniform(0, math.tau)))
    ribbon = np.concatenate([0.016 * turns * swirl, ((0.016 * turns + 0.03) * swirl)[::-1]])
    brush.fill(heart + ribbon, _shade(brush.tone, 0.40))


def _draw_sunflowers(brush: _Brush) -> None:
    """A large, dark, textured disc inside a crown of pointed rays."""
    count, size = brush.rng.randint(15, 21), brush.rng.uniform(0.44, 0.54)
    for reach, lit in ((1.0, 0.82), (0.93, 1.0)):
        petal = _petal(size - 0.1, reach, 4.6 / count, 0.95, 0.42)
        brush.whorl(petal, count, _shade(brush.tone, lit), 0.80, 0.22)
    brown = brush.pick("brown")
    brush.fill(_disc(size * 1.04), _shade(brown, 0.7))
    brush.seeds(size, 130, 0.028, _shade(brown, 1.25))
    brush.fill(_disc(size * 0.45), _shade(brown, 0.8), 130)


def _draw_tulips(brush: _Brush) -> None:
    """A cup of three visible petals, seen from the side."""
    upright, tone = -1j, brush.tone  # y points down, so a petal along -1j stands up.
    for angle in (-0.26, 0.26):
        back = _petal(-0.7, 0.86, 0.75, 0.75, 0.45)
        brush.fill(back * upright * cmath.rect(1, angle), _shade(tone, 0.70))
    for side in (-1, 1):
        flank = _petal(-0.95, 0.95, 0.95, 0.7, 0.40) * upright * cmath.rect(1, side * 0.12)
        lit = 0.93 + 0.12 * side * math.cos(brush.light)
        brush.fill(flank + side * 0.30, _shade(tone, lit * 0.78))
        brush.fill(0.93 * flank + side * 0.31, _shade(tone, lit))
    front = _petal(-1.0, brush.rng.uniform(0.6, 0.85), 0.95, 0.75, 0.42) * upright
    brush.fill(front * 1.03, _shade(tone, 0.72))
    brush.fill(front, _shade(tone, 1.06))
    for bend in (-0.2, 0.0, 0.2):
        vein = _petal(-0.85, 0.45, 0.05, 0.8, 0.5) * upright * cmath.rect(1, bend / 2)
        brush.fill(vein + bend, _shade(tone, 0.85), 120)


def _stem(bloom: _Brush, height: float) -> None:
    """Grows a bent stem with up to two leaves; the lower edge lies `height` pixels below."""
    rng, brush = bloom.rng, replace(bloom, roll=0, squash=1)
    foot = complex(rng.uniform(-0.8, 0.8), 1 + height / bloom.radius)
    t = np.linspace(0, 1, 12)
    path = 2 * t * (1 - t) * 1.5 * cmath.rect(1, bloom.roll + math.pi / 2) + t**2 * foot
    thick, tone = rng.uniform(0.04, 0.07), brush.pick("leaf")
    brush.fill(np.concatenate([path - thick, path[::-1] + thick]), tone)
    brush.fill(np.concatenate([path, path[::-1] + thick]), _shade(tone, 0.8))
    for _ in range(rng.randint(0, 2)):
        base, lean = complex(path[rng.randint(5, 9)]), rng.choice((-1, 1)) * rng.uniform(0.4, 1.4)
        tip = base + cmath.rect(rng.uniform(0.7, 1.5), lean - math.pi / 2)
        brush.leaf(base, tip, rng.uniform(0.2, 0.5))


def _occlude(bloom: _Brush) -> None:
    """Lays a leaf over a part of the bloom's edge, its tip towards the centre."""
    rng, angle = bloom.rng, bloom.rng.uniform(0, math.tau)
    tip = cmath.rect(rng.uniform(0.35, 0.6), angle)
    base = tip + cmath.rect(1.4, angle + rng.uniform(-0.9, 0.9))
    bloom.leaf(base, tip, rng.uniform(0.25, 0.45))


def _backdrop(rng: random.Random, width: int, height: int) -> Image.Image:
    """Paints sky, grass, bokeh, soil or a studio wall, out of focus."""
    kind = rng.choice(list(_BACKDROPS))
    image = Image.new("RGB", (width // BACKDROP_REDUCTION, height // BACKDROP_REDUCTION))
    brush = _Brush(ImageDraw.Draw(image, "RGBA"), rng)
    tone = brush.pick("leaf" if kind == "bokeh" else kind)
    top, bottom = rng.uniform(0.8, 1.2), rng.uniform(0.5, 1.1)
    for y in range(image.height):
        row = _shade(tone, top + (bottom - top) * y / image.height)
        brush.draw.line((0, y, image.width, y), fill=row)
    for _ in range(0 if kind == "studio" else rng.randint(6, 22)):
        where = complex(rng.uniform(0, image.width), rng.uniform(0, image.height))
        blob = where + _disc(min(image.size) * rng.uniform(0.04, 0.22))
        brush.fill(blob, brush.pick(rng.choice(_BACKDROPS[kind])), rng.randint(40, 190))
    if kind in ("leaf", "sky"):
        brush.grass(*image.size, rng.randint(10, 40), 0.9 if kind == "leaf" else 0.45)
    blurred = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.9, 2.5)))
    return blurred.resize((width, height), Image.Resampling.BICUBIC)


def _clutter(brush: _Brush, width: int, height: int) -> None:
    """Scatters leaves, stones and grass behind the blooms."""
    rng, short = brush.rng, min(width, height)
    for _ in range(rng.randint(0, 4)):
        base = complex(rng.uniform(0, width), rng.uniform(0.8, 1.1) * height)
        tip = base + cmath.rect(short * rng.uniform(0.2, 0.5), rng.uniform(-2.6, -0.5))
        brush.leaf(base, tip, rng.uniform(0.2, 0.6))
    for _ in range(rng.choice((0, 0, 0, 3, 5))):
        where = complex(rng.uniform(0, width), rng.uniform(0.75, 1) * height)
        pebble = replace(brush, centre=where, radius=short * rng.uniform(0.03, 0.10), squash=0.65)
        stone = brush.pick("stone")
        pebble.fill(_disc(1), _shade(stone, 0.5))
        pebble.fill(0.86 * _disc(1) - 0.15j, _shade(stone, 0.85))
    if rng.random() < 0.3:
        brush.grass(width, height, rng.randint(4, 14), 0.6)


def _places(rng: random.Random, width: int, height: int) -> list[tuple[complex, float]]:
    """Chooses centre and radius, in pixels, of one to three blooms, the largest last."""
    count = rng.choices((1, 2, 3), (6, 3, 1))[0]
    fills = sorted(rng.uniform(0.35, 0.90 / math.sqrt(count)) for _ in range(count))
    places: list[tuple[complex, float]] = []
    for radius in (min(width, height) * fill / 2 for fill in fills):
        edge = 0.85 * radius  # A bloom may leave the picture by a little.
        tries = [
            complex(rng.uniform(edge, width - edge), rng.uniform(edge, height - edge))
            for _ in range(6)
        ]
        # Of six tries the one farthest from its neighbours: blooms may overlap, seldom much.
        place = max(tries, key=lambda z: min((abs(z - other) for other, _ in places), default=0))
        places.append((place, radius))
    return places


def _photograph(image: Image.Image, rng: random.Random) -> Image.Image:
    """Adds what a camera does: focus, exposure, colour temperature, uneven light and noise."""
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    warmth, tint = rng.uniform(-0.10, 0.10), rng.uniform(-0.03, 0.03)
    gain = rng.uniform(0.75, 1.12) * np.array([1 + warmth, 1 + tint, 1 - warmth])
    across = np.linspace(-1, 1, image.width) * rng.uniform(-0.18, 0.18)
    down = np.linspace(-1, 1, image.height) * rng.uniform(-0.18, 0.18)
    light = ((1 + across + down[:, None])[..., None] * gain).astype(np.float32)
    sensor = np.random.default_rng(rng.getrandbits(64))
    noise = sensor.standard_normal((*light.shape[:2], 1), np.float32) * rng.uniform(0.5, 5)
    return Image.fromarray((np.asarray(image) * light + noise).clip(0, 255).astype(np.uint8))


_DRAW: dict[str, Callable[[_Brush], None]] = {
    "daisy": _draw_daisy,
    "dandelion": _draw_dandelion,
    "roses": _draw_roses,
    "sunflowers": _draw_sunflowers,
    "tulips": _draw_tulips,
}


def _plant(class_name: str, placed: _Brush, height: int) -> None:
    """Draws one bloom, its stem and perhaps a leaf before it, on a canvas `height` pixels high."""
    rng, from_side = placed.rng, class_name == "tulips"
    squash = rng.uniform(0.9, 1.1) if from_side else rng.uniform(0.62, 1.0)
    bloom = replace(placed, roll=rng.uniform(-0.5, 0.5), squash=squash)
    if from_side or rng.random() < 0.85:
        _stem(bloom, height - bloom.centre.imag)
    _DRAW[class_name](bloom)
    if rng.random() < 0.15:
        _occlude(bloom)


def render_flower(class_name: str, index: int, seed: int) -> Image.Image:
    """Draws one example; depends on its three arguments alone, so workers may run in any order.

    Args:
        class_name: One of `CLASS_NAMES`.
        index: Number of the example within its class.
        seed: Seed of the whole data set.

    Returns:
        RGB image, portrait or landscape; short side within `SHORT_SIDE` pixels, long side at most
        `MAX_ASPECT` times that.

    Raises:
        ValueError: `class_name` is not one of `CLASS_NAMES`.
    """
    if class_name not in CLASS_NAMES:
        raise ValueError(
            f"class_name: expected one of {', '.join(CLASS_NAMES)}; received {class_name!r}"
        )
    # `random` hashes a text seed with SHA-512, the same in every process, unlike `hash`.
    rng = random.Random(f"{class_name}/{index}/{seed}")
    short = rng.randint(*SHORT_SIDE) * SUPERSAMPLING
    long = int(short * rng.uniform(1, MAX_ASPECT)) // SUPERSAMPLING * SUPERSAMPLING
    width, height = (short, long) if rng.random() < 0.4 else (long, short)
    image = _backdrop(rng, width, height)
    canvas = _Brush(ImageDraw.Draw(image, "RGBA"), rng, light=rng.uniform(0, math.tau))
    _clutter(canvas, width, height)
    tone = rng.choice(_PETAL_TONES[class_name])
    for centre, radius in _places(rng, width, height):
        placed = replace(canvas, centre=centre, radius=radius, tone=canvas.pick(tone))
        _plant(class_name, placed, height)
    return _photograph(image.reduce(SUPERSAMPLING), rng)


def render_jpeg(class_name: str, index: int, seed: int) -> bytes:
    """Draws one example as `render_flower` does, encoded as JPEG of quality `JPEG_QUALITY`."""
    buffer = io.BytesIO()
    render_flower(class_name, index, seed).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
