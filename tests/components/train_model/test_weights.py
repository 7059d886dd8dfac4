import functools
import hashlib
import http.server
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from components.common.config import build
from components.common.errors import ConfigError, DataError, RetryError
from components.common.model_files import ModelMetadata
from components.common.models import save_model
from components.train_model import weights
from components.train_model.architectures import ModelConfig
from components.train_model.models import build_model
from components.train_model.models.blocks import average_over_flip, resize_first
from components.train_model.preemption import Preemption
from components.train_model.weights import Published, fetch_imagenet, load_first_weights, published
from tests.buckets import emulator

MOBILENET = {"name": "mobilenet_v2", "alpha": 0.35}
CONVNET = {"name": "convnet", "stages": [[[4, 3]]]}
CLASS_NAMES = ("daisy", "roses", "tulips")


def net(architecture, classes=3, seed=0):
    keras.utils.set_random_seed(seed)
    return build_model(build(ModelConfig, architecture), 32, classes)


def load(model, architecture, place, class_names=CLASS_NAMES):
    config = build(ModelConfig, architecture | {"weights": str(place)})
    load_first_weights(model, config, class_names, 32)


def same(one, other):
    return all(
        np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True)
    )


@pytest.fixture(scope="module")
def backbone_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    net(MOBILENET, seed=1).get_layer("mobilenet_v2").save_weights(path)
    return path


def test_none_leaves_the_random_weights():
    one, other = net(CONVNET), net(CONVNET)
    load(one, CONVNET, "none")
    assert same(one, other)


def test_file_without_head_fills_the_backbone_only(backbone_file):
    model, source, before = net(MOBILENET), net(MOBILENET, seed=1), net(MOBILENET)
    load(model, MOBILENET, backbone_file)
    assert same(model.get_layer("mobilenet_v2"), source.get_layer("mobilenet_v2"))
    assert same(model.get_layer("softmax"), before.get_layer("softmax"))


def test_legacy_file_of_keras_2(tmp_path):
    path = tmp_path / "mobilenet_notop.h5"
    source = net(MOBILENET, seed=1).get_layer("mobilenet_v2")
    source.save_weights(tmp_path / "new.weights.h5")
    write_legacy(source, path)
    model = net(MOBILENET)
    load(model, MOBILENET, path)
    assert same(model.get_layer("mobilenet_v2"), source)


def write_legacy(model, path):
    """The layout of the published files: a group per layer, and the names as attributes."""
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)


def test_file_with_head(tmp_path):
    source = net(CONVNET, seed=1)
    source.save_weights(tmp_path / "whole.weights.h5")
    model = net(CONVNET)
    load(model, CONVNET, tmp_path / "whole.weights.h5")
    assert same(model, source)


def test_file_with_the_head_of_other_classes(tmp_path):
    net(CONVNET, classes=4).save_weights(tmp_path / "four.weights.h5")
    with pytest.raises(ConfigError, match="its head has 4 classes, and the examples have 3"):
        load(net(CONVNET), CONVNET, tmp_path / "four.weights.h5")


def test_file_of_another_architecture(backbone_file):
    with pytest.raises(ConfigError, match=r"weights: .*expected 127 weights of convnet, received"):
        load(net(CONVNET), CONVNET, backbone_file)


def test_file_of_another_width(tmp_path, backbone_file):
    wide = {"name": "mobilenet_v2", "alpha": 0.5}
    with pytest.raises(ConfigError, match=r"expected [\d,]+ or, with the head, [\d,]+ weights"):
        load(net(wide), wide, backbone_file)


def test_optimizer_in_the_file_is_left_alone(tmp_path):
    source = net(CONVNET, seed=1)
    source.compile("adam", "categorical_crossentropy")
    source.optimizer.build(source.trainable_variables)
    source.save_weights(tmp_path / "trained.weights.h5")
    model = net(CONVNET)
    load(model, CONVNET, tmp_path / "trained.weights.h5")
    assert same(model, source)


@pytest.mark.parametrize("content", [None, b"", b"no weights at all"])
def test_file_that_is_none(tmp_path, content):
    path = tmp_path / "broken.weights.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="expected a file of Keras weights or a model folder"):
        load(net(CONVNET), CONVNET, path)


def test_published_name_with_other_content(tmp_path, backbone_file):
    path = tmp_path / "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
    shutil.copy(backbone_file, path)
    with pytest.raises(DataError, match="expected the file with SHA-256 e3fa32521ed4, received"):
        load(net(MOBILENET), MOBILENET, path)


def test_file_with_the_digest_that_the_recipe_gives(backbone_file):
    source = net(MOBILENET, seed=1)
    model = net(MOBILENET)
    digest = hashlib.sha256(Path(backbone_file).read_bytes()).hexdigest()
    load(model, MOBILENET | {"weights_sha256": digest}, backbone_file)
    assert same(model.get_layer("mobilenet_v2"), source.get_layer("mobilenet_v2"))


def test_file_with_another_digest_than_the_recipe_gives(backbone_file):
    model = net(MOBILENET)
    before = model.get_weights()
    with pytest.raises(DataError, match="expected the file with SHA-256 abababababab, received"):
        load(model, MOBILENET | {"weights_sha256": "ab" * 32}, backbone_file)
    assert all((one == other).all() for one, other in zip(model.get_weights(), before, strict=True))


def test_damaged_file_is_known_by_the_digest_that_the_recipe_gives(tmp_path):
    (tmp_path / "w.h5").write_bytes(b"cut off")
    with pytest.raises(DataError, match="it is damaged or another one, so fetch it anew"):
        load(net(MOBILENET), MOBILENET | {"weights_sha256": "ab" * 32}, tmp_path / "w.h5")


def test_digest_of_a_model_of_ours(model_folder_of_ours):
    with pytest.raises(ConfigError, match="weights_sha256: expected nothing with"):
        load(net(CONVNET), CONVNET | {"weights_sha256": "ab" * 32}, model_folder_of_ours)


FIRE = {
    "name": "squeezenet",
    "stem_filters": 8,
    "stem_stride": 2,
    "stages": [[[4, 8], [4, 8]]],
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bypass": True}, "of another model.bypass: expected true as in the recipe, received fa"),
        ({"stem_stride": 1}, "of another model.stem_stride: expected 1 as in the recipe, rec"),
        (
            {"stages": [[[4, 8]], [[4, 8]]]},
            r"model.stages: expected \[\[\[4, 8\]\], \[\[4, 8\]\]\]",
        ),
    ],
)
def test_model_of_ours_that_is_wired_otherwise(tmp_path, changed, message):
    wiring = build(ModelConfig, FIRE).wiring()
    metadata = ModelMetadata(CLASS_NAMES, 32, "data", "squeezenet", 7, wiring=wiring)
    save_model(net(FIRE), metadata, tmp_path)
    model = net(FIRE | changed)
    # Their weights would fit.
    assert [one.shape for one in model.get_weights()] == [w.shape for w in net(FIRE).get_weights()]
    with pytest.raises(ConfigError, match=message):
        load(model, FIRE | changed, tmp_path)


def test_model_of_ours_that_was_trained_otherwise(tmp_path):
    source = net(FIRE | {"bypass": True}, seed=1)
    wiring = build(ModelConfig, FIRE | {"bypass": True}).wiring()
    metadata = ModelMetadata(CLASS_NAMES, 32, "data", "squeezenet", 7, wiring=wiring)
    save_model(source, metadata, tmp_path)
    trained = FIRE | {"bypass": True, "dropout": 0.5, "drop_path": 0.2, "test_size": 48}
    model = net(trained)
    load(model, trained, tmp_path)
    assert same(model, source)


@pytest.fixture
def model_folder_of_ours(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    save_model(
        net(CONVNET, seed=1),
        ModelMetadata(CLASS_NAMES, 32, "fingerprint", "convnet", 127),
        folder,
    )
    return folder


@pytest.mark.parametrize("file", ["", "model.keras"])
def test_model_of_ours(model_folder_of_ours, file):
    model = net(CONVNET)
    load(model, CONVNET, model_folder_of_ours / file)
    assert same(model, net(CONVNET, seed=1))


def test_model_of_ours_that_resizes_its_images(model_folder_of_ours):
    source = net(CONVNET, seed=1)
    save_model(
        resize_first(average_over_flip(source), 32, 48),
        ModelMetadata(CLASS_NAMES, 48, "fingerprint", "convnet", 127),
        model_folder_of_ours,
    )
    model = net(CONVNET)
    load(model, CONVNET, model_folder_of_ours)
    assert same(model, source)


def test_model_of_ours_for_other_classes(model_folder_of_ours):
    with pytest.raises(ConfigError, match=r"daisy, roses, lilies of the examples"):
        load(net(CONVNET), CONVNET, model_folder_of_ours, ("daisy", "roses", "lilies"))


def test_model_of_ours_of_another_architecture(model_folder_of_ours):
    with pytest.raises(ConfigError, match="expected weights of mobilenet_v2, received a model of"):
        load(net(MOBILENET), MOBILENET, model_folder_of_ours)


def test_model_of_ours_of_other_sizes(model_folder_of_ours):
    wider = {"name": "convnet", "stages": [[[6, 3]]]}
    with pytest.raises(ConfigError, match="is a convnet of other sizes"):
        load(net(wider), wider, model_folder_of_ours)


@pytest.mark.parametrize(
    ("architecture", "size", "file"),
    [
        ({"name": "mobilenet_v2"}, 192, "kernels_1.0_192_no_top.h5"),
        ({"name": "mobilenet_v2", "test_size": 160}, 192, "kernels_1.0_160_no_top.h5"),
        ({"name": "mobilenet_v2", "alpha": 0.35}, 331, "kernels_0.35_224_no_top.h5"),
        # The two widest are published for one size.
        ({"name": "mobilenet_v2", "alpha": 1.4}, 192, "kernels_1.4_224_no_top.h5"),
        ({"name": "xception"}, 331, "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"),
    ],
)
def test_published_files(architecture, size, file):
    assert published(build(ModelConfig, architecture), size).file.endswith(file)


def test_width_that_is_not_published():
    config = {"name": "mobilenet_v2", "alpha": 0.4, "weights": "imagenet"}
    with pytest.raises(ConfigError, match=r"alpha: expected one of 0.35, .* received 0.4"):
        build(ModelConfig, config)


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    home = tmp_path / "keras"
    monkeypatch.setenv("KERAS_HOME", str(home))
    return home


@pytest.fixture
def published_files(tmp_path, monkeypatch):
    """Serves a folder as the place where Keras publishes weights."""
    folder = tmp_path / "published" / "mobilenet_v2"
    folder.mkdir(parents=True)
    handler = functools.partial(QuietHandler, directory=str(folder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(weights, "PUBLISHED", f"http://127.0.0.1:{server.server_port}")
        yield folder
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """Says nothing."""


def test_imagenet_weights_are_fetched_once(backbone_file, published_files, keras_home, monkeypatch):
    model, source = net(MOBILENET), net(MOBILENET, seed=1)
    name = published(build(ModelConfig, MOBILENET), 32).file
    write_legacy(source.get_layer("mobilenet_v2"), published_files / name)
    load(model, MOBILENET, "imagenet")
    assert same(model.get_layer("mobilenet_v2"), source.get_layer("mobilenet_v2"))
    (published_files / name).unlink()
    load(net(MOBILENET), MOBILENET, "imagenet")
    assert (keras_home / "models" / name).is_file()


def test_file_has_its_name_when_it_is_whole(published_files, keras_home, monkeypatch):
    (published_files / "file.h5").write_bytes(bytes(1 << 20))
    # Of a training that was killed.
    left = keras_home / "models" / "partial-left"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    seen = []

    def copy_and_look(_self, source, target):
        target.write(source.read(1 << 19))
        target.flush()
        while not (begun := [x for x in keras_home.rglob("*") if x.is_file()]):
            time.sleep(0.01)
        seen.extend(begun)
        target.write(source.read())

    monkeypatch.setattr(QuietHandler, "copyfile", copy_and_look)
    path = fetch_imagenet(Published("mobilenet_v2", "file.h5"))
    assert path == keras_home / "models" / "file.h5"
    assert path.stat().st_size == 1 << 20
    assert seen
    assert path not in seen
    assert list(path.parent.iterdir()) == [path]


def test_machine_that_is_taken_away_while_it_fetches(published_files, keras_home, monkeypatch):
    (published_files / "file.h5").write_bytes(bytes(1 << 20))

    def end_when_a_part_is_written(_self, source, target):
        target.write(source.read(1 << 19))
        # Sooner, urllib might have opened the file but not yet be ready to close it.
        deadline = time.monotonic() + 30
        while not any(part.stat().st_size for part in keras_home.rglob("file.h5")):
            assert time.monotonic() < deadline, "nothing was written"
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(QuietHandler, "copyfile", end_when_a_part_is_written)
    with Preemption().listening(), pytest.raises(RetryError, match="start the same again"):
        fetch_imagenet(Published("mobilenet_v2", "file.h5"))
    assert list((keras_home / "models").iterdir()) == []


def test_home_that_cannot_be_written(published_files, tmp_path, monkeypatch):
    (tmp_path / "home").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(weights, "_WITHOUT_HOME", tmp_path / "elsewhere")
    (published_files / "file.h5").write_bytes(b"weights")
    for _ in range(2):
        path = fetch_imagenet(Published("mobilenet_v2", "file.h5"))
        assert path == tmp_path / "elsewhere" / "models" / "file.h5"
        assert path.read_bytes() == b"weights"
        (published_files / "file.h5").unlink(missing_ok=True)


def test_kept_file_that_is_damaged_is_fetched_anew(published_files, keras_home):
    (published_files / "file.h5").write_bytes(b"weights")
    (keras_home / "models").mkdir(parents=True)
    (keras_home / "models" / "file.h5").write_bytes(b"wei")
    digest = hashlib.sha256(b"weights").hexdigest()
    path = fetch_imagenet(Published("mobilenet_v2", "file.h5"), digest)
    assert path == keras_home / "models" / "file.h5"
    assert path.read_bytes() == b"weights"


def test_file_that_cannot_be_fetched_says_where_to_put_it(published_files, keras_home):
    with pytest.raises(ConfigError) as raised:
        fetch_imagenet(Published("mobilenet_v2", "absent.h5"))
    assert "mobilenet_v2/absent.h5 cannot be fetched" in str(raised.value)
    assert f"put the file to {keras_home}/models/absent.h5" in str(raised.value)
    # What Keras leaves open would be noticed in some later test.
    fault: Any = raised.value.__cause__
    fault.__context__.close()


def test_fetched_file_with_another_digest(published_files, keras_home, monkeypatch):
    (published_files / "file.h5").write_bytes(b"damaged")
    monkeypatch.setitem(weights._DIGESTS, "file.h5", "0" * 64)
    with pytest.raises(ConfigError, match="cannot be fetched"):
        fetch_imagenet(Published("mobilenet_v2", "file.h5"))


def test_weights_in_cloud_storage(model_folder_of_ours, backbone_file, monkeypatch):
    with emulator() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        client = storage.Client(project="test", credentials=AnonymousCredentials())
        bucket = client.create_bucket("bucket")
        for file in (backbone_file, *model_folder_of_ours.iterdir()):
            bucket.blob(f"first/model/{file.name}").upload_from_filename(str(file))
        for place in ("gs://bucket/first/model", "gs://bucket/first/model/model.keras"):
            model = net(CONVNET)
            load(model, CONVNET, place)
            assert same(model, net(CONVNET, seed=1))
        model = net(MOBILENET)
        load(model, MOBILENET, f"gs://bucket/first/model/{backbone_file.name}")
        source = net(MOBILENET, seed=1).get_layer("mobilenet_v2")
        assert same(model.get_layer("mobilenet_v2"), source)
        with pytest.raises(ConfigError, match=r"a model of convnet in gs://bucket/first/model$"):
            load(net(MOBILENET), MOBILENET, "gs://bucket/first/model")
        with pytest.raises(ConfigError, match=r"weights: gs://bucket/.*\.h5: expected 127 weights"):
            load(net(CONVNET), CONVNET, f"gs://bucket/first/model/{backbone_file.name}")
        with pytest.raises(
            DataError, match=r"gs://bucket/no/w.weights.h5: there is no such object"
        ):
            load(net(CONVNET), CONVNET, "gs://bucket/no/w.weights.h5")
