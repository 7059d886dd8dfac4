"""Published architectures with a new head: MobileNetV2 and Xception of `keras.applications`."""

from collections.abc import Callable

import keras

from components.train_model.architectures import BackboneConfig, MobilenetV2Config, XceptionConfig
from components.train_model.models import blocks


def build_mobilenet_v2(
    config: MobilenetV2Config, image_size: int | None, classes: int
) -> keras.Model:
    """Builds MobileNetV2; see `components.train_model.models.build_model`.

    Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018).
    """

    def backbone(shape: list[int | None]) -> keras.Model:
        return keras.applications.MobileNetV2(
            shape, config.alpha, include_top=False, weights=None, pooling="avg", name=config.name
        )

    return _with_head(config, backbone, image_size, classes)


def build_xception(config: XceptionConfig, image_size: int | None, classes: int) -> keras.Model:
    """Builds Xception; see `components.train_model.models.build_model`.

    Source: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions" (2017).
    """

    def backbone(shape: list[int | None]) -> keras.Model:
        return keras.applications.Xception(
            include_top=False, weights=None, input_shape=shape, pooling="avg", name=config.name
        )

    return _with_head(config, backbone, image_size, classes)


def _with_head(
    config: BackboneConfig,
    make_backbone: Callable[[list[int | None]], keras.Model],
    image_size: int | None,
    classes: int,
) -> keras.Model:
    inputs = blocks.image_input(image_size)
    backbone = make_backbone([image_size, image_size, 3])
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = config.batch_norm_momentum
    features = backbone(blocks.scale_around_zero(inputs))
    outputs = blocks.classify(features, config.dropout, classes)
    return keras.Model(inputs, outputs, name=f"{config.name}_classifier")
