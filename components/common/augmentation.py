"""Augmentation of whole batches in `keras.ops` alone, so that it runs where the model runs.

On an accelerator it takes what the host would need many cores for. Chance comes in from outside as
`draws`, so results can be repeated on every backend.
"""

import math

import keras
from keras import KerasTensor, ops

from components.common.policy import AugmentPolicy

# Area, aspect, row and column of the crop, angle, flip, saturation, brightness, contrast, hue.
DRAWS = 10
# What makes cutting off fractions a rounding. Many pixels lie half way between two whole numbers,
# but for the noise of a device's arithmetic: so they go up on every device.
ROUNDING = 0.501
# Pixels of a result that a CPU makes together: fewer are many small products, more see more zeros.
_NEIGHBOURS = 16
# Source: luma of ITU-R BT.601, as JPEG has it.
_LUMA = ((0.299,), (0.587,), (0.114,))
# What a quarter turn of the hue makes of red, green and blue less their greys, a row each. Source:
# the plane of I and Q of YIQ, as NTSC defines it, whose luma is the one above.
_QUARTER_TURN = (
    (0.167740, -0.328113, 1.249546),
    (0.329310, 0.035467, -1.046339),
    (-0.497049, 0.292646, -0.203207),
)


def augment(
    images: KerasTensor, draws: KerasTensor, policy: AugmentPolicy, size: int | None = None
) -> KerasTensor:
    """Applies a policy to every image of a batch.

    Args:
        images: `uint8` [batch, side, side, 3].
        draws: `float32` [batch, DRAWS], independent, uniform between 0 and 1; they decide all.
        policy: What may be done.
        size: Side of the results, in pixels; None for that of the images.

    Returns:
        `uint8` [batch, size, size, 3].
    """
    size = size or images.shape[1]
    columns = ops.unstack(draws, DRAWS, axis=1)
    flipped = columns[5] < 0.5 if policy.flip else None
    if policy.crop_area < 1.0 or policy.rotation > 0.0 or size != images.shape[1]:
        images = _random_crop(images, columns[:5], flipped, policy, size)
    elif flipped is not None:
        images = _flip(images, flipped)
    if (
        policy.saturation != (1.0, 1.0)
        or policy.brightness > 0.0
        or policy.contrast > 0.0
        or policy.hue > 0.0
    ):
        images = _random_colours(ops.cast(images, "float32"), columns[6:], policy)
    return to_uint8(images)


def _flip(images: KerasTensor, flipped: KerasTensor) -> KerasTensor:
    """Mirrors some images: whole images are copied, since choosing pixel by pixel takes longer."""
    both = ops.concatenate([images, ops.flip(images, axis=2)])
    count = ops.shape(images)[0]
    return ops.take(both, ops.arange(count) + count * ops.cast(flipped, "int32"), axis=0)


def to_uint8(images: KerasTensor) -> KerasTensor:
    """Rounds to `uint8` and cuts off what lies outside of 0 to 255."""
    if keras.backend.standardize_dtype(images.dtype) == "uint8":
        return images
    return ops.cast(ops.clip(ops.round(images), 0.0, 255.0), "uint8")


def resize(images: KerasTensor, size: int) -> KerasTensor:
    """Resizes whole images just as crops of them are resized.

    Args:
        images: `uint8` [batch, side, side, 3].
        size: Side of the results, in pixels.

    Returns:
        `uint8` [batch, size, size, 3].
    """
    axis = _whole_axis(images.shape[1], size)
    resized = _resample(images, axis, axis)
    return ops.cast(resized + ROUNDING, "uint8")


def resizing_matrix(side: int, size: int) -> KerasTensor:
    """Weights that resize a whole axis, `float32` [size, side]; every row adds up to 1."""
    return _whole_axis(side, size).matrix()[0]


def _random_colours(
    pixels: KerasTensor, draws: list[KerasTensor], policy: AugmentPolicy
) -> KerasTensor:
    """Changes saturation, hue, brightness and contrast: together one matrix and one shift.

    The saturation moves a colour along the line through the grey of its luma; the hue, on an
    ellipse around that grey; the contrast, along the line through the mean of the image.

    Args:
        pixels: `float32` [batch, side, side, 3].
        draws: Four of `float32` [batch].
        policy: Ranges.

    Returns:
        `float32`, of the same shape, which may lie outside of 0 to 255.
    """
    low, high = policy.saturation
    saturation = low + (high - low) * draws[0]
    shift = 255.0 * policy.brightness * (2.0 * draws[1] - 1.0)
    contrast = 1.0 + policy.contrast * (2.0 * draws[2] - 1.0)
    grey = ops.tile(ops.convert_to_tensor(_LUMA, "float32"), [1, 3])
    chroma = saturation[:, None, None] * (ops.eye(3) - grey)
    if policy.hue > 0.0:
        angle = 2.0 * math.pi * policy.hue * (2.0 * draws[3] - 1.0)
        turn = ops.cos(angle)[:, None, None] * ops.eye(3)
        turn += ops.sin(angle)[:, None, None] * ops.convert_to_tensor(_QUARTER_TURN, "float32")
        chroma = ops.matmul(chroma, turn)
    matrix = grey + chroma
    shape = ops.shape(pixels)
    flat = ops.reshape(pixels, [shape[0], shape[1] * shape[2], 3])
    if policy.brightness == 0.0 and policy.contrast == 0.0:
        return ops.reshape(ops.matmul(flat, matrix), shape)
    # contrast * (flat @ matrix + shift) + (1 - contrast) * mean of the same
    mean = ops.matmul(ops.mean(flat, axis=1, keepdims=True), matrix)
    offset = shift[:, None, None] + (1.0 - contrast)[:, None, None] * mean
    return ops.reshape(ops.matmul(flat, contrast[:, None, None] * matrix) + offset, shape)


def _random_crop(
    images: KerasTensor,
    draws: list[KerasTensor],
    flipped: KerasTensor | None,
    policy: AugmentPolicy,
    size: int,
) -> KerasTensor:
    """Cuts random boxes out, possibly rotated or mirrored, and resizes them.

    Args:
        images: `uint8` [batch, side, side, 3].
        draws: Five of `float32` [batch]: area, aspect, row, column, angle.
        flipped: `bool` [batch]: which to mirror; None for none.
        policy: Smallest area, largest aspect ratio, largest angle.
        size: Side of the results, in pixels.

    Returns:
        `float32` [batch, size, size, 3], 0 to 255.
    """
    part = policy.crop_area + (1.0 - policy.crop_area) * draws[0]
    # What keeps the whole area keeps its shape too.
    aspect = policy.crop_aspect if policy.crop_area < 1.0 else 1.0
    ratio = ops.exp((2.0 * draws[1] - 1.0) * math.log(aspect))
    # A long thin box of a large area would not fit: its sides stop at the edge.
    height = ops.minimum(ops.sqrt(part / ratio), 1.0)
    width = ops.minimum(ops.sqrt(part * ratio), 1.0)
    top, left = (1.0 - height) * draws[2], (1.0 - width) * draws[3]
    if policy.rotation > 0.0:
        angle = (2.0 * draws[4] - 1.0) * math.radians(policy.rotation)
        images = ops.cast(images, "float32")
        images = _turn(images, angle, top + height / 2, left + width / 2)
    side = images.shape[1]
    return _resample(
        images, _Axis(top, height, side, size), _Axis(left, width, side, size, flipped)
    )


def _on_cpu() -> bool:
    """Whether TensorFlow runs on CPUs alone, to which a product with 0 is as dear as any."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return all(device.device_type == "CPU" for device in tf.config.list_logical_devices())


class _Axis:
    """How a part of an axis is resized: linearly and antialiased.

    Args:
        start: `float32` [batch], where the part begins, as a fraction of the axis.
        extent: `float32` [batch], its length, as a fraction of the axis.
        side: Pixels of the axis.
        size: Pixels of the result.
        flipped: `bool` [batch]: whose results to mirror; None for none.
    """

    def __init__(
        self,
        start: KerasTensor,
        extent: KerasTensor,
        side: int,
        size: int,
        flipped: KerasTensor | None = None,
    ) -> None:
        self._side = side
        step = extent[:, None] * side / size
        index = ops.arange(size, dtype="float32") + 0.5
        if flipped is not None:
            index = ops.where(flipped[:, None], size - index, index)
        centres = start[:, None] * side + index * step - 0.5
        # Where an enlarged part ends at the edge, the last pixel is all there is.
        self._centres = ops.clip(centres, 0.0, side - 1.0)
        # How far from its centre a pixel of the result sees, in pixels of the axis.
        self._reach = ops.maximum(step, 1.0)

    def matrix(self) -> KerasTensor:
        """Weights of all pixels of the axis, `float32` [batch, size, side]."""
        positions = ops.arange(self._side, dtype="float32")
        return _weights(self._centres, positions, self._reach)

    def resize(self, lines: KerasTensor) -> KerasTensor:
        """Resizes the axis of every image, or of all alike where it is one axis for all.

        Args:
            lines: [batch, side, width].

        Returns:
            `float32` [batch, size, width].
        """
        if _on_cpu():
            return self._resize_by_windows(lines)
        # A large product, which a matrix unit makes much faster than a gather.
        return ops.matmul(self.matrix(), ops.cast(lines, "float32"))

    def _resize_by_windows(self, lines: KerasTensor) -> KerasTensor:
        """The same to the last bits, without most of the zeros that the matrix consists of.

        Some neighbours of the result at a time are made of the few lines that they see.
        """
        side, size, width = self._side, self._centres.shape[1], lines.shape[2]
        parts = next(n for n in range(-(-size // _NEIGHBOURS), size + 1) if size % n == 0)
        each = size // parts
        seen = math.ceil((each - 1) * side / size + 2 * max(side / size, 1.0)) + 1
        seen = min(side, seen)
        centres = ops.reshape(self._centres, [-1, parts, each])
        first = ops.floor(ops.min(centres, axis=2) - self._reach) + 1.0
        first = ops.clip(first, 0.0, float(side - seen))
        positions = first[:, :, None] + ops.arange(seen, dtype="float32")
        weights = _weights(centres, positions[:, :, None, :], self._reach[:, :, None])
        # All lines of all images stand in one row to be taken from.
        before = side * ops.arange(ops.shape(lines)[0])
        indices = ops.cast(positions, "int32") + before[:, None, None]
        windows = ops.take(ops.reshape(lines, [-1, width]), indices, axis=0)
        resized = ops.matmul(weights, ops.cast(windows, "float32"))
        return ops.reshape(resized, [-1, size, width])


def _whole_axis(side: int, size: int) -> _Axis:
    return _Axis(ops.zeros([1]), ops.ones([1]), side, size)


def _weights(centres: KerasTensor, positions: KerasTensor, reach: KerasTensor) -> KerasTensor:
    """Weights of what lies around centres, the last axis; they add up to 1."""
    weights = ops.relu(1.0 - ops.abs(centres[..., None] - positions) / reach[..., None])
    return weights / ops.sum(weights, axis=-1, keepdims=True)


def _resample(images: KerasTensor, rows: _Axis, columns: _Axis) -> KerasTensor:
    """Resizes both axes: [batch, side, side, 3] to `float32` [batch, size, size, 3]."""
    side = images.shape[1]
    by_row = rows.resize(ops.reshape(images, [-1, side, side * 3]))
    size = by_row.shape[1]
    turned = ops.transpose(ops.reshape(by_row, [-1, size, side, 3]), [0, 2, 1, 3])
    by_column = columns.resize(ops.reshape(turned, [-1, side, size * 3]))
    return ops.transpose(ops.reshape(by_column, [-1, size, size, 3]), [0, 2, 1, 3])


def _turn(
    pixels: KerasTensor, angle: KerasTensor, centre_y: KerasTensor, centre_x: KerasTensor
) -> KerasTensor:
    """Turns images around a point of theirs; what comes in from beyond the edge is mirrored.

    Args:
        pixels: `float32` [batch, side, side, 3].
        angle: `float32` [batch], in radians.
        centre_y: `float32` [batch], the row to turn around, as a fraction of the side.
        centre_x: `float32` [batch], its column.

    Returns:
        `float32`, of the same shape.
    """
    side = pixels.shape[1]
    cos, sin = ops.cos(angle), ops.sin(angle)
    x, y = centre_x * side - 0.5, centre_y * side - 0.5
    zero = ops.zeros_like(angle)
    transforms = [
        cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y, zero, zero
    ]  # fmt: skip
    turned = ops.image.affine_transform(
        pixels,
        ops.stack(transforms, axis=1),
        interpolation="bilinear",
        fill_mode="reflect",
        data_format="channels_last",
    )
    return ops.reshape(turned, [-1, side, side, 3])
