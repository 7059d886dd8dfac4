"""The command line of the step: `python -m components.deploy_model`."""

from pathlib import Path
from typing import Any

import click

from components.common.cli import PATH, run_cli
from components.common.config import build, read_mapping
from components.common.recipes import recipe_option, recipe_section
from components.common.step import import_tensorflow_quietly, run_step
from components.deploy_model.config import DeployConfig, ServingConfig


@click.command("deploy-model")
@click.option("--examples", type=PATH, required=True, help="Examples of ingest-examples.")
@click.option("--saved-model", type=PATH, required=True, help="SavedModel of export-model.")
@click.option("--evaluation", type=PATH, required=True, help="JSON file of evaluate-model.")
@click.option("--verdict", type=PATH, required=True, help="JSON file of gate-model.")
@click.option("--registry", required=True, help="A folder, or vertex://PROJECT/REGION.")
@click.option("--model-name", default="flowers", show_default=True, help="Model and endpoint.")
@click.option("--run-name", default="by-hand", show_default=True, help="Label of the version.")
@recipe_option("deploy")
@click.option("--deploy-config", default="{}", metavar="FILE|JSON", help="When and how.")
@click.option("--serving-config", default="{}", metavar="FILE|JSON", help="Machines on Vertex AI.")
@click.option("--output", type=PATH, required=True, help="JSON file to make.")
def command(
    examples: Path,
    saved_model: Path,
    evaluation: Path,
    verdict: Path,
    registry: str,
    model_name: str,
    run_name: str,
    recipe: str | None,
    deploy_config: str,
    serving_config: str,
    output: Path,
) -> Any:
    """Registers a model and deploys it if it is better than the champion.

    Exit code 3: the champion stays.
    """
    with run_step("deploy-model"):
        import_tensorflow_quietly()
        from components.deploy_model.deploy import deploy
        from components.deploy_model.registries import open_registry

        section = recipe_section(recipe, "deploy", optional=True) | read_mapping(deploy_config)
        config = build(DeployConfig, section, "deploy")
        serving = build(ServingConfig, read_mapping(serving_config))
        with open_registry(registry, model_name, serving) as opened:
            deploy(examples, saved_model, evaluation, verdict, opened, config, run_name, output)


if __name__ == "__main__":
    run_cli(command)
