"""Steps by hand that take what a recipe says."""

from pathlib import Path

import pytest
from click import Command

from components.augment_examples.__main__ import command as augment
from components.common.dataset import load_dataset
from components.common.errors import ConfigError
from components.common.recipes import recipe_section
from components.deploy_model.__main__ import command as deploy
from components.export_model.__main__ import command as export
from components.ingest_examples.__main__ import command as ingest

RECIPE = """
ingest: {image_size: 24, validation_fraction: 0.2}
augment: {copies: 2, policy: {flip: true}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    return str(path)


def call(command: Command, *arguments: str) -> int:
    try:
        command.main(list(arguments), standalone_mode=False)
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_steps_do_what_the_recipe_says_and_flags_go_before_it(recipe: str, tmp_path: Path) -> None:
    images = "--images=synthetic://flowers?per_class=40"
    by_recipe, by_flag, copies = (str(tmp_path / name) for name in ("recipe", "flag", "copies"))
    assert call(ingest, images, f"--recipe={recipe}", f"--output={by_recipe}") == 0
    assert call(ingest, images, f"--recipe={recipe}", "--image-size=32", f"--output={by_flag}") == 0
    first, second = (load_dataset(Path(one, "examples")) for one in (by_recipe, by_flag))
    assert (first.image_size, second.image_size) == (24, 32)
    # Of 200 photos a fifth, not the tenth of the default.
    assert first.counts == second.counts
    assert first.counts["validation"] > 30
    arguments = (f"--examples={by_recipe}/examples", f"--recipe={recipe}", f"--output={copies}")
    assert call(augment, *arguments) == 0
    assert load_dataset(Path(copies, "augmented")).counts["train"] == 3 * first.counts["train"]


def test_section_that_is_missing_is_named(recipe: str) -> None:
    assert recipe_section(recipe, "ingest")["image_size"] == 24
    assert recipe_section(None, "ingest") == {}
    assert recipe_section(recipe, "gate", optional=True) == {}
    with pytest.raises(ConfigError, match="a section gate with keys, received ingest, augment"):
        recipe_section(recipe, "gate")


def test_key_of_a_recipe_that_is_wrong_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("ingest: {image_sise: 24}")
    output = tmp_path / "output"
    assert call(ingest, "--images=x", f"--recipe={path}", f"--output={output}") == 2
    assert "image_sise: unknown key; expected one of image_size" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("command", "inputs", "wrong", "said"),
    [
        (export, ["model"], "export: {onyx: true}", "export.onyx: unknown key; expected one of li"),
        (deploy, ["saved-model", "registry"], "deploy: {sure: 1}", "deploy.sure: unknown key; exp"),
    ],
)
def test_steps_behind_the_gate_read_their_section(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: Command,
    inputs: list[str],
    wrong: str,
    said: str,
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(wrong)
    output = tmp_path / "output"
    flags = [f"--{one}=x" for one in ("examples", "evaluation", "verdict", *inputs)]
    assert call(command, *flags, f"--recipe={path}", f"--output={output}") == 2
    assert said in capsys.readouterr().err
    assert not output.exists()
