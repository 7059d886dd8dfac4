"""What model and training must agree on: checked where a recipe is written, without TensorFlow."""

from components.common.errors import ConfigError
from components.train_model.architectures import NO_WEIGHTS, ModelConfig
from components.train_model.config import FROZEN, TrainConfig


def check_agreement(model: ModelConfig, train: TrainConfig, image_size: int) -> None:
    """Refuses a training that cannot work with the net it is for.

    Args:
        model: The net.
        train: How it is trained.
        image_size: Side of the examples, in pixels.

    Raises:
        ConfigError: Names the key, what was expected and what was received.
    """
    if train.global_batch_size:
        # What one replica can do; more have to divide it further.
        train.batch_size(replicas=1)
    _check_sizes(model, train, image_size)
    if model.stochastic_depth() and (train.head or train.fine_tune_at):
        raise ConfigError(
            "model.drop_path: expected 0 with train.head or train.fine_tune_at, whose frozen "
            f"layers answer as they are, received {model.stochastic_depth()}"
        )
    if model.weights != NO_WEIGHTS:
        return
    if train.batch_norm == FROZEN:
        raise ConfigError(
            f"train.batch_norm: expected another one than {FROZEN} with model.weights "
            f"{NO_WEIGHTS}, which bring no means to keep, received {FROZEN}"
        )
    if train.fine_tune_at:
        raise ConfigError(
            f"train.fine_tune_at: expected nothing with model.weights {NO_WEIGHTS}, of which all "
            f"have to learn, received {train.fine_tune_at}"
        )


def _check_sizes(model: ModelConfig, train: TrainConfig, image_size: int) -> None:
    """Refuses crops that the net cannot take, or that do not grow where they should."""
    asked = model.net_size(image_size)
    for section, phase in train.after_head().items():
        if asked != image_size and not phase.crop_size:
            raise ConfigError(
                f"{section}.crop_size: expected one with a model.test_size of {asked}, without "
                f"which training would see images of {image_size}, received 0"
            )
        size = phase.train_size(image_size)
        if size != asked and not model.takes_any_size():
            raise ConfigError(
                f"{section}.crop_size: expected {asked} with {model.name}, whose weights fit one "
                f"size of images, received {size}"
            )
        if size < model.smallest_size():
            raise ConfigError(
                f"{section}.crop_size: expected at least {model.smallest_size()} for {model.name}, "
                f"received {size}"
            )
    resizing, size = train.progressive_resizing, train.train_size(image_size)
    if resizing is not None and resizing.crop_size >= size:
        raise ConfigError(
            f"train.progressive_resizing.crop_size: expected less than {size}, which is what comes "
            f"after it, received {resizing.crop_size}"
        )
