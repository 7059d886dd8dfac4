"""`flowers deploy` on a folder and on Vertex AI."""

import json

import pytest

from components.common import vertex as connection
from components.common.cli import run_cli
from components.common.patience import Patience
from components.deploy_model.config import ServingConfig
from components.deploy_model.local_registry import LocalRegistry
from components.deploy_model.registry import Registry
from components.deploy_model.vertex_registry import VertexRegistry
from pipelines.cli import flowers
from tests.fakes import story
from tests.fakes.vertex import PROJECT, REGION, serve_vertex


@pytest.fixture
def fake(monkeypatch, tmp_path):
    with serve_vertex() as (state, address):
        monkeypatch.setenv(connection.ENDPOINT_VARIABLE, address)
        state.predictor = story.serve_table(tmp_path)
        yield state


@pytest.fixture(params=["local", "vertex"])
def place(request, tmp_path):
    """A registry of two versions, the second of which serves; the value of --registry."""
    if request.param == "local":
        (tmp_path / "registry" / "flowers").mkdir(parents=True)
        registry: Registry = LocalRegistry(tmp_path / "registry" / "flowers")
        named = str(tmp_path / "registry")
    else:
        request.getfixturevalue("fake")
        hasty = Patience(poll=0.0, settle=0.05)
        vertex = connection.Vertex(PROJECT, REGION, hasty)
        registry = VertexRegistry(vertex, "flowers", ServingConfig(), tmp_path)
        named = f"vertex://{PROJECT}/{REGION}"
    for name, correct in (("a", 30), ("b", 50)):
        registry.add(story.make_candidate(tmp_path, name, correct))
    registry.deploy("2", {"2": 100})
    registry.set_aliases("2", "1")
    return named


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        run_cli(flowers, ["deploy", *arguments])
    printed = capsys.readouterr()
    return exit_.value.code, printed.out, printed.err


def status(capsys, place):
    code, out, _ = run(capsys, "status", "--registry", place, "--json")
    assert code == 0
    return json.loads(out)


def test_status_shows_versions_aliases_and_traffic(place, capsys):
    code, out, err = run(capsys, "status", "--registry", place)
    assert (code, err) == (0, "")
    first, second = out.splitlines()
    assert first.split()[:3] == ["1", "-", "previous"]
    assert second.split()[:3] == ["2", "100", "%"]
    assert "champion" in second
    assert "run run-b" in second


def test_rollback_and_back_again(place, capsys):
    assert run(capsys, "rollback", "--registry", place)[0] == 0
    assert status(capsys, place)["traffic"] == {"1": 100}
    assert run(capsys, "rollback", "--registry", place)[0] == 0
    assert status(capsys, place)["traffic"] == {"2": 100}


def test_promote_names_a_version(place, capsys):
    assert run(capsys, "promote", "--registry", place, "--version", "1")[0] == 0
    found = status(capsys, place)
    assert found["traffic"] == {"1": 100}
    aliases = {alias: one["id"] for one in found["versions"] for alias in one["aliases"]}
    assert (aliases["champion"], aliases["previous"]) == ("1", "2")


@pytest.mark.parametrize("command", [["promote", "--version", "1"], ["rollback"]])
def test_photo_that_is_not_there(place, capsys, tmp_path, command):
    before = status(capsys, place)
    photo = tmp_path / "none.jpg"
    code, _, err = run(capsys, *command, "--registry", place, "--photos", photo)
    assert (code, err) == (
        2,
        f"flowers: --photos {photo}: cannot be read (No such file or directory)\n",
    )
    assert status(capsys, place) == before


def test_version_that_is_not_there(place, capsys):
    code, _, err = run(capsys, "promote", "--registry", place, "--version", "9")
    assert (code, err) == (2, "flowers: --version 9: expected one of 1, 2\n")
    assert status(capsys, place)["traffic"] == {"2": 100}


def test_canary_that_answers_no_probabilities_is_rolled_back(fake, tmp_path, capsys, monkeypatch):
    hasty = Patience(poll=0.0, settle=0.05)
    registry = VertexRegistry(
        connection.Vertex(PROJECT, REGION, hasty), "flowers", ServingConfig(), tmp_path
    )
    for name, correct in (("a", 30), ("b", 50)):
        registry.add(story.make_candidate(tmp_path, name, correct))
    registry.deploy("2", {"2": 100})
    fake.predictor = lambda uri, photo: {
        "label": "x",
        "class_names": ["x"],
        "probabilities": [1.0 if uri.endswith("b") else 9.0],
    }
    (tmp_path / "photo.jpg").write_bytes(b"photo 1")
    place = f"vertex://{PROJECT}/{REGION}"
    photos = ["--photos", str(tmp_path / "photo.jpg")]
    code, _, err = run(capsys, "promote", "--registry", place, "--version", "1", *photos)
    assert code == 1
    assert "add to 1, received 9.000; traffic is what it was before" in err
    assert fake.traffic() == {"2": 100}
