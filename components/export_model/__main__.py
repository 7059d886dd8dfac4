"""The command line of the step: `python -m components.export_model`."""

from pathlib import Path
from typing import Any

import click

from components.common.cli import PATH, run_cli
from components.common.config import build, read_mapping
from components.common.outputs import staged
from components.common.recipes import recipe_option, recipe_section
from components.common.step import import_tensorflow_quietly, run_step

_MAPPING: dict[str, Any] = {"default": "{}", "metavar": "FILE|JSON"}


@click.command("export-model")
@click.option("--examples", type=PATH, required=True, help="Examples of ingest-examples.")
@click.option("--model", type=PATH, required=True, help="Model of train-model.")
@click.option("--evaluation", type=PATH, required=True, help="JSON file of evaluate-model.")
@click.option("--verdict", type=PATH, required=True, help="JSON file of gate-model.")
@click.option("--output", type=PATH, required=True, help="Folder to make.")
@recipe_option("export")
@click.option("--export-config", **_MAPPING, help="Formats and card: section export of a recipe.")
@click.option("--images", default="", help="Where the photos are, for licence and credits.")
@click.option("--manifest", default="", help="Their manifest, for the credits.")
@click.option("--model-config", **_MAPPING, help="Architecture, for the model card.")
@click.option("--train-config", **_MAPPING, help="Training, for the model card.")
def command(
    examples: Path,
    model: Path,
    evaluation: Path,
    verdict: Path,
    output: Path,
    recipe: str | None,
    export_config: str,
    images: str,
    manifest: str,
    model_config: str,
    train_config: str,
) -> None:
    """Writes a SavedModel that takes photos as they are, other formats, and the model card.

    Makes OUTPUT/saved_model, once it says the same as the evaluated model on every test image,
    OUTPUT/exports and OUTPUT/report.html.
    """
    with run_step("export-model"):
        from components.export_model.config import ExportConfig, Origin

        def section(name: str, given: str) -> dict[str, Any]:
            return recipe_section(recipe, name, optional=True) | read_mapping(given)

        config = build(ExportConfig, section("export", export_config), "export")
        origin = Origin(
            images, manifest, section("model", model_config), section("train", train_config)
        )
        import_tensorflow_quietly()
        from components.export_model.export import Outputs, export

        with staged(output) as (folder,):
            outputs = Outputs(folder / "saved_model", folder / "exports", folder / "report.html")
            export(examples, model, evaluation, verdict, outputs, config, origin)


if __name__ == "__main__":
    run_cli(command)
