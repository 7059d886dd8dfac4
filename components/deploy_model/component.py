"""The KFP interface of the step."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components.images import DEPLOY


@dsl.component(base_image=DEPLOY, install_kfp_package=False)
def deploy_model(
    examples: Input[Dataset],
    saved_model: Input[Model],
    evaluation: Input[Metrics],
    verdict: Input[Artifact],
    registry: str,
    model_name: str,
    run_name: str,
    deploy_config: dict,
    serving_config: dict,
    deployment: Output[Artifact],
) -> None:
    """Deploys a model behind the champion rule.

    Args:
        examples: Data set that was evaluated on.
        saved_model: SavedModel of `export_model`.
        evaluation: Figures of `evaluate_model`.
        verdict: Decision of `gate_model`.
        registry: A folder, or `vertex://PROJECT/REGION`.
        model_name: Name of the model and of its endpoint.
        run_name: Name of the run, for the labels of the version.
        deploy_config: When and how; see `DeployConfig`.
        serving_config: What serves on Vertex AI; see `ServingConfig`.
        deployment: How it ended, as JSON.
    """
    from pathlib import Path

    from components.common.lineage import check_stamps
    from components.common.step import import_tensorflow_quietly, run_step

    with run_step("deploy-model"):
        check_stamps(
            examples=examples, saved_model=saved_model, evaluation=evaluation, verdict=verdict
        )
        import_tensorflow_quietly()
        from components.common.config import build
        from components.deploy_model.config import DeployConfig, ServingConfig
        from components.deploy_model.deploy import deploy
        from components.deploy_model.registries import open_registry

        config = build(DeployConfig, deploy_config)
        # An earlier try of the task wrote here why the champion stays.
        Path(deployment.path).unlink(missing_ok=True)
        with open_registry(registry, model_name, build(ServingConfig, serving_config)) as opened:
            result = deploy(
                Path(examples.path),
                Path(saved_model.path),
                Path(evaluation.path),
                Path(verdict.path),
                opened,
                config,
                run_name,
                Path(deployment.path),
            )
        deployment.metadata["version"] = result.version
        deployment.metadata["reason"] = result.reason
