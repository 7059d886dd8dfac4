"""Every architecture as data: one frozen dataclass for each, chosen by `name`.

Needs no TensorFlow, so that a recipe is checked where it is written, not where it runs. What a
dataclass describes, the module of the same name in `models/` builds.
"""

import dataclasses
import itertools
import re
from collections.abc import Mapping
from typing import Any

from components.common.config import Range, check, choose
from components.common.errors import ConfigError

NO_WEIGHTS = "none"
IMAGENET = "imagenet"
HE_NORMAL = "he_normal"
WHITENING = "whitening"

Fire = tuple[int, int]
Convolution = tuple[int, int]
Inception = tuple[int, int, int, int, int, int]

_FILTERS = Range(1, 8192)
# Of a net, what neither its layers nor what they do with an image depends on.
_NOT_WIRING = {
    *("dropout", "drop_path", "batch_norm_momentum", "stem_init"),
    *("weights", "weights_sha256", "test_time_flip", "test_size"),
}
_WIDE = 32
# Widths of MobileNetV2 that Keras publishes ImageNet weights of.
_PUBLISHED_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What every architecture has.

    Attributes:
        name: Which architecture.
        dropout: Share of the features dropped in front of the head.
        weights: Where the first weights come from: `none` for random ones, `imagenet`, or a local
            path or a `gs://` URI of a model of ours or of a file of weights, which for a net of
            `keras.applications` may lack those of the head.
        weights_sha256: SHA-256 of the file of weights, which is refused if it has another; empty
            for not known. A model of ours says it itself.
        test_time_flip: The finished model averages its answer over the image and its mirror image.
        test_size: Side at which the finished model looks at its images, in pixels; 0 for that of
            the examples. The model makes them smaller, or larger, just as training resizes crops:
            images as ingestion leaves them are sharper than any crop of them, and so unlike what
            the net has learned from.
    """

    name: str
    dropout: float = 0.0
    weights: str = NO_WEIGHTS
    weights_sha256: str = ""
    test_time_flip: bool = False
    test_size: int = 0

    def __post_init__(self) -> None:
        check("dropout", self.dropout, Range(0.0, 0.95))
        check("test_size", self.test_size, Range(0, 4096))
        if not self.weights:
            raise ConfigError(
                "weights: expected none, imagenet, a path or a gs:// URI, received nothing"
            )
        if self.weights == IMAGENET and not self.has_imagenet_weights():
            raise ConfigError(
                f"weights: expected none, a path or a gs:// URI, received {IMAGENET}; Keras has no "
                f"ImageNet weights of {self.name}"
            )
        if self.weights_sha256 and not re.fullmatch("[0-9a-f]{64}", self.weights_sha256):
            raise ConfigError(
                "weights_sha256: expected 64 hexadecimal digits in lower case, received "
                f"{self.weights_sha256!r}"
            )
        if self.weights_sha256 and self.weights == NO_WEIGHTS:
            raise ConfigError(
                f"weights_sha256: expected nothing with weights {NO_WEIGHTS}, received "
                f"{self.weights_sha256[:12]}"
            )

    def net_size(self, image_size: int) -> int:
        """Side of the images that the net itself sees where it is asked, in pixels.

        Args:
            image_size: Side of the examples, in pixels.

        Raises:
            ConfigError: It is too small for the net.
        """
        size = self.test_size or image_size
        if size < self.smallest_size():
            key = "model.test_size" if self.test_size else "ingest.image_size"
            raise ConfigError(
                f"{key}: expected at least {self.smallest_size()} for {self.name}, received {size}"
            )
        return size

    def wiring(self) -> dict[str, Any]:
        """What decides how layers are connected; weights of nets that differ in it may yet fit."""
        values = dataclasses.asdict(self).items()
        return {key: value for key, value in values if key not in _NOT_WIRING}

    @staticmethod
    def kinds() -> Mapping[str, type["ModelConfig"]]:
        """The dataclass of each architecture."""
        return _KINDS

    @classmethod
    def has_imagenet_weights(cls) -> bool:
        """Whether Keras publishes ImageNet weights of it."""
        return False

    @classmethod
    def takes_any_size(cls) -> bool:
        """Whether the same weights fit images of any size."""
        return True

    def smallest_size(self) -> int:
        """Side of the smallest images that it takes, in pixels."""
        return 1

    def whitens_stem(self) -> bool:
        """Whether its first filters come from the photos, which stand in a layer `conv1`."""
        return False

    def stochastic_depth(self) -> float:
        """Chance with which an image in training skips a block of it; 0 for never."""
        return 0.0

    def bfloat16_pays_on_cpu(self) -> bool:
        """Whether it trains faster in bfloat16 on a CPU that has it; see benchmarks/README.md."""
        return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseConfig(ModelConfig):
    """A net without convolutions, to see what these are good for.

    Attributes:
        units: Width of each hidden layer.
    """

    units: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        for units in self.units:
            check("units", units, Range(1, 65536))

    @classmethod
    def takes_any_size(cls) -> bool:
        """The first layer has a weight per pixel."""
        return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvnetConfig(ModelConfig):
    """A plain stack of convolutions.

    Attributes:
        stages: Convolutions as (filters, kernel size); a 2x2 max pooling stands between stages.
    """

    stages: tuple[tuple[Convolution, ...], ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_stages(self.stages, "convolution")
        for filters, kernel in (one for stage in self.stages for one in stage):
            check("stages: filters", filters, _FILTERS)
            check("stages: kernel", kernel, Range(1, 11))

    def smallest_size(self) -> int:
        """So large that a pixel is left behind the poolings."""
        return 1 << (len(self.stages) - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeparableConfig(ModelConfig):
    """A stack of depthwise separable convolutions behind one ordinary convolution.

    Attributes:
        stem_filters: Filters of the first, ordinary 3x3 convolution, of stride 2.
        stages: Filters of each 3x3 separable convolution; a 2x2 max pooling stands between stages.
    """

    stem_filters: int
    stages: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        check("stem_filters", self.stem_filters, _FILTERS)
        _check_stages(self.stages, "separable convolution")
        for filters in (one for stage in self.stages for one in stage):
            check("stages: filters", filters, _FILTERS)

    def smallest_size(self) -> int:
        """So large that a pixel is left behind stem and poolings; the stem rounds up."""
        return (1 << len(self.stages)) - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class InceptionConfig(ModelConfig):
    """Modules of parallel branches whose results are concatenated.

    Attributes:
        stem_filters: Filters of the first 3x3 convolution, of stride 2.
        stages: Modules as the filters of (1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection);
            a 3x3 max pooling of stride 2 stands in front of each stage.
    """

    stem_filters: int
    stages: tuple[tuple[Inception, ...], ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        check("stem_filters", self.stem_filters, _FILTERS)
        _check_stages(self.stages, "inception module")
        for filters in (one for stage in self.stages for module in stage for one in module):
            check("stages: filters", filters, _FILTERS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SqueezenetLabConfig(ModelConfig):
    """The public lab's SqueezeNet, which has nothing to choose."""

    def smallest_size(self) -> int:
        """So large that a pixel is left behind its four poolings."""
        return 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class SqueezenetConfig(ModelConfig):
    """A net of fire modules.

    Attributes:
        stem_filters: Filters of the first convolution.
        stem_stride: Its stride; 2 quarters the work of everything behind it.
        stem_kernel: Its kernel size.
        stem_pool: Pool behind the stem too, which quarters the work once more.
        stem_init: First weights of the first convolution, where `weights` has none: `he_normal`,
            or `whitening`, filters for the directions in which the train split's patches differ.
        stages: Fire modules as (squeeze, expand) filters; `expand` counts the 1x1 and the 3x3
            half together. A 3x3 max pooling of stride 2 stands between two stages.
        bypass: Add the input of a fire module to its output where both have the same shape.
        complex_bypass: Add it whatever the shapes, where they differ through a 1x1 convolution.
        se_reduction: Squeeze-and-excitation in every fire module: how many times narrower its
            bottleneck is than the module; 0 for none.
        drop_path: Stochastic depth: chance with which an image in training takes the bypass of a
            fire module alone; 0 for never.
    """

    stem_filters: int
    stem_stride: int
    stages: tuple[tuple[Fire, ...], ...]
    stem_kernel: int = 3
    stem_pool: bool = False
    stem_init: str = HE_NORMAL
    bypass: bool = False
    complex_bypass: bool = False
    se_reduction: int = 0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check("stem_filters", self.stem_filters, _FILTERS)
        check("stem_stride", self.stem_stride, Range(1, 4))
        check("stem_kernel", self.stem_kernel, Range(1, 11))
        choose("stem_init", self.stem_init, (HE_NORMAL, WHITENING))
        most = 2 * 3 * self.stem_kernel**2
        if self.stem_init == WHITENING and (self.stem_filters % 2 or self.stem_filters > most):
            raise ConfigError(
                f"stem_filters: expected an even number up to {most} with stem_init {WHITENING} "
                f"and kernels of {self.stem_kernel}, received {self.stem_filters}"
            )
        check("se_reduction", self.se_reduction, Range(0, 64))
        check("drop_path", self.drop_path, Range(0.0, 0.9))
        _check_stages(self.stages, "fire module")
        if self.drop_path and not self._has_bypass():
            raise ConfigError(
                "drop_path: expected 0 where no fire module has a bypass (bypass, complex_bypass), "
                f"received {self.drop_path}"
            )
        for squeeze, expand in (fire for stage in self.stages for fire in stage):
            check("stages: squeeze", squeeze, _FILTERS)
            check("stages: expand", expand, Range(2, 8192))
            if expand % 2:
                raise ConfigError(f"stages: expand: expected an even number, received {expand}")

    def _has_bypass(self) -> bool:
        """Whether any fire module adds its input."""
        widths = [self.stem_filters, *(expand for stage in self.stages for _, expand in stage)]
        keeps_width = any(before == after for before, after in itertools.pairwise(widths))
        return self.complex_bypass or (self.bypass and keeps_width)

    def smallest_size(self) -> int:
        """A patch of the photos, where the first filters come from them."""
        return self.stem_kernel if self.whitens_stem() else 1

    def whitens_stem(self) -> bool:
        """Whether its first filters come from the photos."""
        return self.stem_init == WHITENING and self.weights == NO_WEIGHTS

    def stochastic_depth(self) -> float:
        """As `drop_path` says."""
        return self.drop_path

    def bfloat16_pays_on_cpu(self) -> bool:
        """From the width of the recipe `squeezenet` on: narrow nets convert and move numbers."""
        return self.stem_filters >= _WIDE


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneConfig(ModelConfig):
    """An architecture of `keras.applications` with a new head.

    Attributes:
        batch_norm_momentum: Of every BatchNorm. The published nets have 0.99 and 0.999, with which
            the statistics of a short fine-tuning would stay those of ImageNet.
    """

    batch_norm_momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check("batch_norm_momentum", self.batch_norm_momentum, Range(0.0, 0.9999))

    @classmethod
    def has_imagenet_weights(cls) -> bool:
        """Keras publishes them."""
        return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobilenetV2Config(BackboneConfig):
    """MobileNetV2.

    Attributes:
        alpha: Width of the net; 1 is the published one.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check("alpha", self.alpha, Range(0.1, 2.0))
        if self.weights == IMAGENET and self.alpha not in _PUBLISHED_ALPHAS:
            raise ConfigError(
                f"alpha: expected one of {', '.join(map(str, _PUBLISHED_ALPHAS))} with ImageNet "
                f"weights, received {self.alpha:g}"
            )

    def smallest_size(self) -> int:
        """As Keras has it."""
        return 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class XceptionConfig(BackboneConfig):
    """Xception."""

    def bfloat16_pays_on_cpu(self) -> bool:
        """Its convolutions are wide enough."""
        return True

    def smallest_size(self) -> int:
        """As Keras has it."""
        return 71


def _check_stages(stages: tuple[tuple[object, ...], ...], content: str) -> None:
    if not stages or not all(stages):
        raise ConfigError(f"stages: expected at least one stage of at least one {content}")


_KINDS: Mapping[str, type[ModelConfig]] = {
    "dense": DenseConfig,
    "convnet": ConvnetConfig,
    "separable": SeparableConfig,
    "inception": InceptionConfig,
    "squeezenet_lab": SqueezenetLabConfig,
    "squeezenet": SqueezenetConfig,
    "mobilenet_v2": MobilenetV2Config,
    "xception": XceptionConfig,
}
