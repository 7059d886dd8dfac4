"""The images that train on TPUs, on a machine that has none."""

import json
import re
import subprocess
import sys

import docker
import pytest

from pipelines.image_lock import load_image_lock

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]
# What is imported where, and the backend that Keras takes there.
VERSIONS = """
import importlib.metadata as metadata, json, keras, tensorflow
{imports}
names = {names}
print(json.dumps([keras.backend.backend(), *(metadata.version(name) for name in names)]))
"""
IMAGES = {
    "tpu": (("jax", "kubernetes"), ("jax", "libtpu", "tensorflow-cpu"), "jax"),
    "tpu-tf": (("tensorflow",), ("libtpu", "tensorflow-tpu"), "tensorflow"),
}


@pytest.fixture(scope="module", params=IMAGES)
def image(request, engine, workspace, repository):
    path = workspace / f"{request.param}.lock.json"
    arguments = ["images", "build", request.param, "--image-lock", path]
    subprocess.run([sys.executable, "-m", "pipelines", *arguments], check=True, cwd=repository)
    return request.param, load_image_lock(path).images[request.param]


def call(engine, image, *command, **environment):
    """Exit code, standard output and standard error of a command, locked down."""
    started = engine.containers.run(
        image,
        list(command),
        detach=True,
        read_only=True,
        tmpfs={"/tmp": ""},
        user="12345:12345",
        cap_drop=["ALL"],
        network_mode="none",
        environment=environment,
    )
    try:
        code = started.wait(timeout=600)["StatusCode"]
        return code, *(started.logs(stdout=out, stderr=not out).decode() for out in (True, False))
    except docker.errors.APIError:
        started.kill()
        raise
    finally:
        started.remove(force=True)


def test_imports_what_is_pinned(engine, image, repository):
    target, name = image
    modules, packages, backend = IMAGES[target]
    imports = "\n".join(f"import {module}" for module in modules)
    program = VERSIONS.format(imports=imports, names=packages)
    # A bare import asks the metadata server of Google Cloud, which is not here.
    code, out, err = call(engine, name, "python", "-c", program, TPU_SKIP_MDS_QUERY="1")
    assert code == 0, err
    locked = (repository / "containers" / "requirements" / f"{target}.txt").read_text()
    pins = [re.search(rf"^{one}==([\w.]+)", locked, re.MULTILINE)[1] for one in packages]  # type: ignore[index]
    assert json.loads(out.splitlines()[-1]) == [backend, *pins]


def test_training_without_a_tpu_says_so_in_one_line(engine, image):
    runtime = {"tpu": "jax", "tpu-tf": "tensorflow"}[image[0]]
    accelerator = json.dumps({"kind": "tpu", "runtime": runtime})
    code, _, err = call(
        engine, image[1], "python", "-m", "components.train_model", "--examples", "/none",
        "--augmented", "/none", "--recipe", "quick", "--output", "/tmp/training",
        "--accelerator", accelerator,
    )  # fmt: skip
    assert code == 2
    (line,) = [one for one in err.splitlines() if one.startswith("train-model: ")]
    assert "accelerator.kind: received tpu, and there is none here" in line


@pytest.mark.parametrize("image", ["tpu"], indirect=True)
def test_pod_of_several_hosts_is_a_command_of_the_image(engine, image):
    code, out, _ = call(engine, image[1], "python", "-m", "components.train_model.pod", "--help")
    assert code == 0
    assert "Trains as one of several hosts" in out
