"""What the pages tell a reader to type exists: commands and their options."""

import importlib
import itertools
import re
import shlex

import click
import pytest

from components.common.recipes import recipe_names
from pipelines.cli import flowers

PAGES = [
    "README.md",
    *(f"docs/{name}.md" for name in ("containers", "gke-tpu", "recipes", "reliability")),
    *(f"docs/{name}.md" for name in ("serving", "training", "vertex")),
    "benchmarks/README.md",
]
# Where a command of the shell ends.
ENDS = {"|", "&", "<", ">", ";", "#"}


def lines_to_type(text):
    """Lines behind a prompt, those that go on joined, as words up to where the command ends."""
    for line in re.findall(r"^\$ (.*)$", text.replace("\\\n", " "), re.MULTILINE):
        words = shlex.split(line)
        ends = [place for place, word in enumerate(words) if word in ENDS]
        yield words[: ends[0]] if ends else words


def check_command(command, words):
    """Follows words through groups to a command, and asks it for each option among them."""
    words = list(words)
    while isinstance(command, click.Group):
        assert words, f"{command.name} alone does nothing"
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"{command.name} has no command {name}"
        command = found
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    # What it does not know it hands on, to Apache Beam.
    if not command.context_settings.get("ignore_unknown_options"):
        assert options <= known, f"{command.name} has no {', '.join(options - known)}"


def commands_of_flowers(text):
    for words in lines_to_type(text):
        command = list(itertools.dropwhile(lambda word: "=" in word, words))
        if command[:1] == ["flowers"]:
            yield command[1:]


def commands_of_benchmarks(text):
    """In a page behind a prompt, in the docstring of a module indented."""
    joined = text.replace("\\\n", " ")
    for line in re.findall(r"^(?:\$|   ) python -m (benchmarks\..*)$", joined, re.MULTILINE):
        name, *words = shlex.split(line.partition("  ")[0])
        yield name, words


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_exist(page, repository):
    text = (repository / page).read_text()
    commands = list(commands_of_flowers(text))
    assert commands
    for words in commands:
        check_command(flowers, words)


def test_every_page_is_looked_at(repository):
    pages = {f"docs/{path.name}" for path in (repository / "docs").glob("*.md")}
    # The page on how it fits together has nothing to type.
    assert pages - {"docs/architecture.md"} <= set(PAGES)
    assert "$ flowers" not in (repository / "docs" / "architecture.md").read_text()


@pytest.mark.parametrize("words", [["fly"], ["step"], ["step", "fly"], ["run", "--imagez", "x"]])
def test_command_that_does_not_exist_is_found(words):
    with pytest.raises(AssertionError, match=r"has no|does nothing"):
        check_command(flowers, words)


@pytest.mark.parametrize("recipe", recipe_names())
def test_header_of_a_recipe_says_what_to_type_and_what_to_expect(recipe, repository):
    text = (repository / "pipelines" / "recipes" / f"{recipe}.yaml").read_text()
    header = " ".join(line.removeprefix("#").strip() for line in text.split("\n\n")[0].splitlines())
    parts = re.split(r"(Source|Command|Expected|Duration): ", header)
    assert parts[1::2] == ["Source", "Command", "Expected", "Duration"]
    said = dict(zip(parts[1::2], parts[2::2], strict=True))
    words = shlex.split(said["Command"].partition(" Offline:")[0])
    assert words[0] == "flowers"
    check_command(flowers, words[1:])
    named = words[words.index("--recipe") + 1] if "--recipe" in words else recipe
    assert named == recipe
    assert re.search(r"[Mm]easured here|Reported|not measured", said["Expected"])
    assert re.search(r"\d|not measured", said["Duration"])


def test_benchmarks_that_pages_name_exist(repository):
    pages = [repository / "benchmarks" / "README.md", *(repository / "benchmarks").glob("*.py")]
    named = [found for page in pages for found in commands_of_benchmarks(page.read_text())]
    assert len(named) > 20
    for name, words in named:
        command = importlib.import_module(name).main
        if isinstance(command, click.Command):
            check_command(command, words)
        else:
            assert not words, f"{name} takes no arguments"
