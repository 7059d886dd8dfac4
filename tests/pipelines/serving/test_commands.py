"""`flowers predict` and `flowers serve`, as they are called."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys

import pytest

from components.common import gcs
from components.common.cli import run_cli
from components.common.errors import ConfigError, DataError
from pipelines.cli import flowers
from pipelines.serving.config import ServeConfig
from pipelines.serving.model import ServedModel, saved_model_at
from pipelines.serving.offline import ask, find_photos
from tests.buckets import emulator
from tests.builders import draw_photo, encode, make_photos


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        run_cli(flowers, [str(one) for one in arguments])
    printed = capsys.readouterr()
    return exit_.value.code, printed.out, printed.err


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = make_photos(tmp_path_factory.mktemp("asked") / "photos", per_class=3)
    (folder / "notes.txt").write_text("milk")
    return folder


@pytest.fixture(scope="module")
def model(saved_model):
    return ServedModel(saved_model)


@pytest.fixture(scope="module")
def bucket(saved_model, photos):
    with emulator() as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        gcs._client().create_bucket("bucket")
        for file in [*saved_model.rglob("*"), *photos.rglob("*.jpg")]:
            if file.is_file():
                below = file.relative_to(
                    saved_model.parent if saved_model in file.parents else photos.parent
                )
                gcs.write_blob(f"gs://bucket/{below}", file.read_bytes())
        yield "gs://bucket"
        gcs.close_client()


class TestPredict:
    def test_folder_as_json(self, capsys, saved_model, photos, model):
        code, out, err = run(capsys, "predict", saved_model.parent, photos, "--json")
        lines = [json.loads(line) for line in out.splitlines()]
        assert code == 0
        assert [one["photo"] for one in lines] == sorted(map(str, photos.rglob("*.jpg")))
        assert "9 photos in" in err
        for one in lines:
            assert one["label"] == max(one["probabilities"], key=one["probabilities"].get)
            assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5)

    def test_table_shows_the_top_classes(self, capsys, saved_model, photos):
        photo = photos / "circles" / "000.jpg"
        code, out, err = run(capsys, "predict", saved_model, photo, "--top", 1)
        assert (code, err) == (0, "")
        assert out.startswith(f"{photo}  ")
        assert out.count("%") == 1

    def test_bad_photo_is_named_and_the_others_answered(self, capsys, saved_model, photos):
        bad = photos / "notes.txt"
        code, out, err = run(capsys, "predict", saved_model, bad, photos / "squares")
        assert code == 2
        assert f"{bad}  not an image: no image format is recognised" in out
        assert len(out.splitlines()) == 4
        assert err.splitlines()[-1] == "flowers predict: 1 of 4 photos could not be used"

    def test_standard_input(self, saved_model):
        command = [sys.executable, "-m", "pipelines", "predict", saved_model, "-", "--json"]
        content = encode(draw_photo(0, 0))
        finished = subprocess.run(command, input=content, capture_output=True, check=True)
        assert json.loads(finished.stdout)["photo"] == "-"
        assert finished.stderr == b""

    def test_model_and_photos_in_a_bucket(self, capsys, bucket, saved_model, photos):
        code, out, _ = run(capsys, "predict", f"{bucket}/saved_model", f"{bucket}/photos", "--json")
        assert code == 0
        _, here, _ = run(capsys, "predict", saved_model, photos, "--json")
        answers = [
            [json.loads(line)["probabilities"] for line in text.splitlines()]
            for text in (out, here)
        ]
        assert answers[0] == answers[1]

    @pytest.mark.parametrize("place", ["absent.jpg", "gs://bucket/absent"])
    def test_absent_photo(self, capsys, bucket, saved_model, place):
        code, _, err = run(capsys, "predict", saved_model, place)
        assert (code, err) == (
            2,
            f"flowers: {place}: expected a photo or a folder of photos, found none\n",
        )

    def test_absent_model(self, capsys, tmp_path, photos):
        code, _, err = run(capsys, "predict", tmp_path, photos)
        assert code == 2
        assert "expected a SavedModel that flowers exported" in err

    def test_damaged_model(self, tmp_path):
        (tmp_path / "saved_model.pb").write_bytes(b"no model")
        with (
            saved_model_at(str(tmp_path)) as folder,
            pytest.raises(DataError, match="export it anew"),
        ):
            ServedModel(folder)

    def test_batches_do_not_change_answers(self, model, photos):
        places = list(find_photos([str(photos)])) * 9
        answers = list(ask(model, places))
        assert [one.place for one in answers] == places
        for first, later in zip(answers, answers[9:], strict=False):
            assert later.probabilities == pytest.approx(first.probabilities, abs=1e-5)


@contextlib.contextmanager
def started(model, **environment):
    """A server as it is called, and its port; it does not outlive the test."""
    command = [sys.executable, "-m", "pipelines", "serve", *([model] if model else [])]
    if "AIP_HTTP_PORT" not in environment:
        command += ["--port", "0"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    with process:
        try:
            yield process, int(line.strip().rpartition(":")[2]) if line else 0
        finally:
            process.kill()


def get(port, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST" if body else "GET", path, body, {"Content-Type": "image/jpeg"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class TestServe:
    def test_vertex_contract_and_graceful_stop(self, saved_model):
        routes = {"AIP_PREDICT_ROUTE": "/predict", "AIP_HEALTH_ROUTE": "/health"}
        told = {"AIP_STORAGE_URI": str(saved_model), "AIP_HTTP_PORT": "0", **routes}
        with started(None, **told) as (process, port):
            while get(port, "/health")[0] == 503:
                pass
            assert get(port, "/predict", encode(draw_photo(0, 0)))[0] == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert process.stderr.read() == ""

    def test_absent_model_is_one_line(self, tmp_path):
        with started(tmp_path) as (process, _):
            assert process.wait(60) == 2
            (line,) = process.stderr.read().splitlines()
            assert line.startswith(f"flowers: model {tmp_path}: expected a SavedModel")

    def test_taken_port(self, capsys, running, saved_model):
        code, _, err = run(capsys, "serve", saved_model, "--port", running.port)
        assert code == 2
        assert "cannot be listened on (Address already in use)" in err

    def test_no_model_named(self, capsys, monkeypatch):
        monkeypatch.delenv("AIP_STORAGE_URI", raising=False)
        code, _, err = run(capsys, "serve")
        assert code == 2
        assert "or its place in AIP_STORAGE_URI" in err

    @pytest.mark.parametrize(
        ("limits", "message"),
        [
            ({"port": 65536}, "port: expected 0 to 65535"),
            ({"max_instances": 300}, "max_instances: expected 1 to 256"),
            ({"timeout": float("nan")}, "timeout: expected"),
            ({"name": "../x"}, "name: expected letters"),
        ],
    )
    def test_limits_are_checked(self, limits, message):
        with pytest.raises(ConfigError, match=message):
            ServeConfig(**limits)
