"""The first weights of a training: published ones, a file, or a model trained before."""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import h5py
import keras
import numpy as np

from components.common import storage
from components.common.config import to_json
from components.common.errors import ConfigError, DataError, FlowersError
from components.common.files import file_digest
from components.common.model_files import METADATA_FILE, MODEL_FILE, load_metadata
from components.common.models import load_model
from components.train_model.architectures import (
    IMAGENET,
    NO_WEIGHTS,
    MobilenetV2Config,
    ModelConfig,
)
from components.train_model.models.blocks import weights_of_net

PUBLISHED = "https://storage.googleapis.com/tensorflow/keras-applications"
# The widest are published for the largest alone.
_MOBILENET_SIZES = (96, 128, 160, 192, 224)
# Where the home of the user cannot be written, as Keras does.
_WITHOUT_HOME = Path(tempfile.gettempdir(), ".keras")
_PARTIAL = "partial-"
_DAY = 86400.0
_XCEPTION = "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
# SHA-256 of published files, where it is known.
_DIGESTS = {_XCEPTION: "e3fa32521ed48ced4af05adc950ab24963c4a00bd42e6825f8b180c65853163c"}


class Published(NamedTuple):
    """A file of ImageNet weights without head.

    Attributes:
        folder: Below `PUBLISHED`.
        file: Its name.
    """

    folder: str
    file: str


def load_first_weights(
    model: keras.Model, config: ModelConfig, class_names: tuple[str, ...], image_size: int
) -> None:
    """Gives a new model the weights that its recipe names.

    Args:
        model: As `build_model` makes it.
        config: Its architecture; `weights` says what to load.
        class_names: Classes of the examples.
        image_size: Side of the examples, in pixels; MobileNetV2 is published for several sizes.

    Raises:
        ConfigError: The weights are of another architecture, or of other classes, or cannot be
            fetched.
        DataError: The file is absent or damaged.
    """
    if config.weights == NO_WEIGHTS:
        return
    if config.weights == IMAGENET:
        path = fetch_imagenet(published(config, image_size), config.weights_sha256)
        _load_file(model, config, path, str(path))
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = _local(config.weights, Path(scratch))
        if path.name == MODEL_FILE:
            path = path.parent
        if path.is_dir():
            if config.weights_sha256:
                raise ConfigError(
                    f"model.weights_sha256: expected nothing with {config.weights}, a model folder "
                    f"whose model.json has the digest, received {config.weights_sha256[:12]}"
                )
            _load_model(model, config, path, class_names)
        else:
            _load_file(model, config, path, config.weights)


def published(config: ModelConfig, image_size: int) -> Published:
    """Where Keras publishes ImageNet weights of an architecture.

    Args:
        config: The architecture.
        image_size: Side of the examples, in pixels.
    """
    if not isinstance(config, MobilenetV2Config):
        return Published("xception", _XCEPTION)
    # The nets differ in nothing but the images they were trained on.
    size = config.net_size(image_size)
    if size not in _MOBILENET_SIZES or config.alpha > 1.0:
        size = _MOBILENET_SIZES[-1]
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels"
    return Published("mobilenet_v2", f"{name}_{config.alpha}_{size}_no_top.h5")


def fetch_imagenet(weights: Published, sha256: str = "") -> Path:
    """Fetches a published file, or finds it where Keras keeps such files.

    Args:
        weights: Which file.
        sha256: Its digest, where the user knows it.

    Raises:
        ConfigError: It cannot be fetched; says which file to put where.
    """
    url = f"{PUBLISHED}/{weights.folder}/{weights.file}"
    digest = sha256 or _DIGESTS.get(weights.file)
    # Where Keras keeps such files, so that one fetched by it or for it is found.
    wanted = _keras_home() / "models" / weights.file
    path = wanted if _can_write(wanted.parent) else _WITHOUT_HOME / "models" / weights.file
    for there in (wanted, path):
        if there.is_file() and digest in (None, file_digest(there)):
            return there
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_old_partials(path.parent)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=_PARTIAL) as scratch:
            fetched = keras.utils.get_file(
                weights.file, url, cache_dir=scratch, cache_subdir="", file_hash=digest
            )
            # In one step, since another training may look for it, and this one may be killed.
            Path(fetched).replace(path)
    except FlowersError:
        raise
    # Keras raises a bare Exception for whatever the network says.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"model.weights: {url} cannot be fetched ({reason}); put the file to {wanted}, or set "
            "model.weights to where it is, which in a container is the only way"
        ) from error
    return path


def _remove_old_partials(folder: Path) -> None:
    """Removes what trainings left that were killed while they fetched; nobody fetches for a day."""
    for left in folder.glob(f"{_PARTIAL}*"):
        if time.time() - left.stat().st_mtime > _DAY:
            shutil.rmtree(left, ignore_errors=True)


def _keras_home() -> Path:
    if named := os.environ.get("KERAS_HOME"):
        return Path(named)
    try:
        return Path.home() / ".keras"
    # A container may run as a user that nobody knows.
    except RuntimeError:
        return _WITHOUT_HOME


def _can_write(folder: Path) -> bool:
    """Whether files can be put into a folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _local(place: str, scratch: Path) -> Path:
    """A file or a model folder on this machine, copied from Cloud Storage where it is there."""
    if not storage.is_remote(place):
        return Path(place)
    is_file = place.endswith(".h5")
    folder, _, name = place.rstrip("/").rpartition("/")
    wanted = {name: place} if is_file else {n: f"{place.rstrip('/')}/{n}" for n in _MODEL_FILES}
    if name == MODEL_FILE:
        wanted = {n: f"{folder}/{n}" for n in _MODEL_FILES}
    for target, source in wanted.items():
        try:
            (scratch / target).write_bytes(storage.read(source))
        except FileNotFoundError as error:
            raise DataError(f"model.weights: {source}: there is no such object") from error
    return scratch / name if is_file else scratch


_MODEL_FILES = (MODEL_FILE, METADATA_FILE)


def _load_model(
    model: keras.Model, config: ModelConfig, folder: Path, class_names: tuple[str, ...]
) -> None:
    """Copies all weights of a model that `train_model` made."""
    metadata = load_metadata(folder)
    if metadata.architecture != config.name:
        raise ConfigError(
            f"model.weights: expected weights of {config.name}, received a model of "
            f"{metadata.architecture} in {config.weights}"
        )
    if metadata.class_names != class_names:
        raise ConfigError(
            f"model.weights: expected a head for the classes {', '.join(class_names)} of the "
            f"examples, received one for {', '.join(metadata.class_names)} in {config.weights}"
        )
    # As JSON has it, which knows no tuples.
    for key, wanted in json.loads(to_json(config.wiring())).items():
        if (other := metadata.wiring.get(key, wanted)) != wanted:
            raise ConfigError(
                f"model.weights: {config.weights} is a {config.name} of another model.{key}: "
                f"expected {json.dumps(wanted)} as in the recipe, received {json.dumps(other)}"
            )
    values = weights_of_net(load_model(folder))
    expected, received = ([w.shape for w in weights] for weights in (model.get_weights(), values))
    if expected != received:
        raise ConfigError(
            f"model.weights: {config.weights} is a {config.name} of other sizes: expected "
            f"{model.count_params():,} weights, received {sum(map(np.size, values)):,}"
        )
    model.set_weights(values)


def _load_file(model: keras.Model, config: ModelConfig, path: Path, place: str) -> None:
    """Reads a file of weights of the whole net, or of all but its head.

    Args:
        model: Gets them.
        config: What it is.
        path: The file, or its copy on this machine.
        place: Where it is from, for messages.
    """
    expected = config.weights_sha256 or _DIGESTS.get(path.name)
    if expected and path.is_file() and (received := file_digest(path)) != expected:
        raise DataError(
            f"model.weights: {place}: expected the file with SHA-256 {expected[:12]}, received "
            f"{received[:12]}; it is damaged or another one, so fetch it anew"
        )
    count = _count_values(path, place)
    parts = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    fitting = [net for net in (*parts, model) if net.count_params() == count]
    if not fitting:
        raise ConfigError(
            f"model.weights: {place}: expected {_expected(model, parts)} weights of {config.name}, "
            f"received {count:,}{_other_head(model, count)}"
        )
    try:
        fitting[0].load_weights(path)
    except (ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"model.weights: {place}: expected weights of {config.name} ({reason})"
        ) from error


def _expected(model: keras.Model, parts: list[keras.Model]) -> str:
    counts = [f"{net.count_params():,}" for net in parts] + [f"{model.count_params():,}"]
    return " or, with the head, ".join(counts)


def _other_head(model: keras.Model, count: int) -> str:
    """What to add to a message when only the number of classes differs."""
    features, classes = model.get_layer("softmax").kernel.shape
    body = model.count_params() - (features + 1) * classes
    others, rest = divmod(count - body, features + 1)
    if rest or others < 1:
        return ""
    return f": its head has {others} classes, and the examples have {classes}"


def _count_values(path: Path, place: str) -> int:
    """Numbers in a file of weights, without those of an optimizer or a random generator.

    Raises:
        DataError: It is no such file.
    """
    total = 0

    def count(name: str, entry: object) -> None:
        nonlocal total
        if isinstance(entry, h5py.Dataset) and not {"optimizer", "seed_generator"} & set(
            name.split("/")
        ):
            total += entry.size

    try:
        with h5py.File(path) as file:
            file.visititems(count)
    except OSError as error:
        raise DataError(
            f"model.weights: {place}: expected a file of Keras weights or a model folder "
            f"({' '.join(str(error).split())})"
        ) from error
    return total
