"""docs/recipes.md is what the code says of a recipe's keys."""

import dataclasses

import pytest

from components.train_model.architectures import ModelConfig
from pipelines.recipe import Recipe
from pipelines.recipe_reference import reference


def test_page_is_that_of_the_code(repository):
    assert (repository / "docs" / "recipes.md").read_text(encoding="utf-8") == reference()


@pytest.mark.parametrize("section", [field.name for field in dataclasses.fields(Recipe)])
def test_every_section_is_there(section):
    assert f"\n## `{section}`\n" in reference()


@pytest.mark.parametrize("name", ModelConfig.kinds())
def test_every_architecture_is_there(name):
    assert f"name: {name}`" in reference()


@pytest.mark.parametrize(
    "row",
    [
        "| `label_smoothing` | `0.0` | Share of the target spread evenly over all classes. |",
        "| `epochs` |  | Passes over the augmented train split, between `head` and `refine`. |",
        "| `saturation` | `[0.0, 2.0]` |",
        "| `head` | none |",
    ],
)
def test_rows_have_default_and_meaning(row):
    assert f"\n{row}" in reference()
