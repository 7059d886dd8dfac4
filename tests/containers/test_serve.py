"""The image `serve`, locked down as a cluster would run it, asked over loopback."""

import http.client
import json
import shutil
import subprocess
import sys
import time

import pytest

from pipelines.image_lock import load_image_lock
from tests.builders import draw_photo, encode, make_export

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def serve_image(engine, workspace, repository):
    path = workspace / "serve.lock.json"
    command = [sys.executable, "-m", "pipelines", "images", "build", "serve", "--image-lock", path]
    subprocess.run(command, check=True, cwd=repository)
    return load_image_lock(path).images["serve"]


@pytest.fixture(scope="module")
def model(workspace, tmp_path_factory):
    saved_model = make_export(tmp_path_factory.mktemp("exported"), litert=False)
    return shutil.copytree(saved_model, workspace / "served")


@pytest.fixture
def container(engine, serve_image, model):
    started = engine.containers.run(
        serve_image,
        detach=True,
        read_only=True,
        tmpfs={"/tmp": ""},
        user="12345:12345",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        mem_limit="2g",
        environment={"AIP_STORAGE_URI": "/model", "AIP_HTTP_PORT": "9000"},
        volumes={str(model): {"bind": "/model", "mode": "ro"}},
        ports={"9000/tcp": ("127.0.0.1", None)},
    )
    try:
        yield started
    finally:
        started.remove(force=True)


def ask(container, method, path, body=None, kind="application/json"):
    container.reload()
    port = int(container.ports["9000/tcp"][0]["HostPort"])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {"Content-Type": kind})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def wait_until_ready(container):
    end = time.monotonic() + 90
    while time.monotonic() < end:
        try:
            if ask(container, "GET", "/readyz")[0] == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.5)
    raise TimeoutError(container.logs().decode())


def test_answers_about_a_photo_and_ends_well(container):
    wait_until_ready(container)
    photo = encode(draw_photo(1, 1, (64, 64)), quality=95)
    status, body = ask(container, "POST", "/v1/models/flowers:predict", photo, "image/jpeg")
    assert status == 200
    (answer,) = json.loads(body)["predictions"]
    assert answer["label"] in answer["class_names"]
    assert sum(answer["probabilities"]) == pytest.approx(1.0, abs=1e-5)
    assert ask(container, "POST", "/v1/models/flowers:predict", b"{")[0] == 400
    container.stop(timeout=20)
    assert container.wait()["StatusCode"] == 0
