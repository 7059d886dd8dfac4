"""Tests of images by digest."""

import copy
import json
import subprocess
import sys

import pytest
import yaml

from components.common.errors import ConfigError
from components.images import CPU, DEPLOY, GPU, IMAGES
from pipelines.image_lock import ImageLock, load_image_lock, pin_images, save_image_lock

COMMIT = "1a2b3c4d5e6f"
CPU_DIGEST = f"localhost:5000/project/flowers-cpu@sha256:{'c' * 64}"
GPU_DIGEST = f"localhost:5000/project/flowers-gpu@sha256:{'9' * 64}"
DEPLOY_DIGEST = f"localhost:5000/project/flowers-deploy@sha256:{'d' * 64}"
LOCK = ImageLock(COMMIT, {"cpu": CPU_DIGEST, "gpu": GPU_DIGEST, "deploy": DEPLOY_DIGEST})


def test_lock_is_read_as_it_was_written(tmp_path):
    lock = ImageLock(f"{COMMIT}-changed", {"cpu": CPU_DIGEST, "gpu": f"sha256:{'0' * 64}"})
    save_image_lock(lock, tmp_path / "lock.json")
    assert load_image_lock(tmp_path / "lock.json") == lock


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"images": {}}, ["commit", "missing"]),
        ({"commit": "main", "images": {}}, ["commit", "'main'"]),
        ({"commit": COMMIT, "images": {"cpu": CPU}}, ["images.cpu", "sha256:DIGEST", CPU]),
        ({"commit": COMMIT, "images": {"cpu": f"{CPU}@sha256:12"}}, ["images.cpu"]),
        ({"commit": COMMIT, "images": {"cpu": 1}}, ["images.cpu", "expected text"]),
        ({"commit": COMMIT, "images": {"cup": CPU_DIGEST}}, ["'cup'", "cpu, gpu"]),
        ([], ["expected keys"]),
    ],
)
def test_damaged_lock_is_refused(tmp_path, content, words):
    path = tmp_path / "lock.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError) as error:
        load_image_lock(path)
    assert str(error.value).startswith(f"--image-lock {path}: ")
    assert all(word in str(error.value) for word in [*words, "flowers images build"])


def test_absent_lock_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.json: no such file; .* flowers images build"):
        load_image_lock(tmp_path / "none.json")


def test_lock_that_cannot_be_written(tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        save_image_lock(LOCK, tmp_path / "none" / "lock.json")


def test_names_become_digests_wherever_they_stand():
    spec = {
        "image": CPU,
        "workers": [{"containerSpec": {"imageUri": GPU}}, {"image": "python:3.11"}],
        "text": f"runs in {CPU}",
        "count": 3,
        "none": None,
    }
    before = copy.deepcopy(spec)
    assert pin_images(spec, LOCK) == {
        **spec,
        "image": CPU_DIGEST,
        "workers": [{"containerSpec": {"imageUri": GPU_DIGEST}}, {"image": "python:3.11"}],
    }
    assert spec == before


@pytest.mark.parametrize(
    ("images", "words"),
    [({}, "not in the lock file"), ({"cpu": f"sha256:{'0' * 64}"}, "not pushed")],
)
def test_image_that_no_backend_could_pull_is_refused(images, words):
    with pytest.raises(ConfigError) as error:
        pin_images({"image": CPU}, ImageLock(COMMIT, images))
    assert words in str(error.value)
    assert "flowers images build cpu --push" in str(error.value)


def test_image_that_is_not_used_may_be_missing():
    assert pin_images([CPU], ImageLock(COMMIT, {"cpu": CPU_DIGEST})) == [CPU_DIGEST]


def compile_(output, *arguments, **options):
    command = [sys.executable, "-m", "pipelines", "compile", "--images", "gs://bucket/photos"]
    return subprocess.run(
        [*command, "--output", output, *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_compiled_pipeline_differs_in_its_images_alone(tmp_path):
    lock = tmp_path / "lock.json"
    save_image_lock(LOCK, lock)
    named, pinned = tmp_path / "named.yaml", tmp_path / "pinned.yaml"
    assert compile_(named).returncode == 0
    assert compile_(pinned, "--image-lock", lock).returncode == 0
    text = pinned.read_text()
    assert not any(name in text for name in IMAGES.values())
    expected = named.read_text().replace(CPU, CPU_DIGEST).replace(DEPLOY, DEPLOY_DIGEST)
    assert yaml.safe_load(text) == yaml.safe_load(expected)
    assert text.startswith("# PIPELINE DEFINITION\n# Name: flowers\n")


def test_lock_that_was_not_pushed_compiles_nothing(tmp_path):
    lock = tmp_path / "lock.json"
    save_image_lock(ImageLock(COMMIT, {"cpu": f"sha256:{'0' * 64}"}), lock)
    finished = compile_(tmp_path / "pinned.yaml", "--image-lock", lock)
    assert finished.returncode == 2
    assert len(finished.stderr.splitlines()) == 1
    assert "--push" in finished.stderr
    assert not (tmp_path / "pinned.yaml").exists()
