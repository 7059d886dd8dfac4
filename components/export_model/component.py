"""The KFP interface of the step."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def export_model(
    examples: Input[Dataset],
    model: Input[Model],
    evaluation: Input[Metrics],
    saved_model: Output[Model],
) -> None:
    """Writes a SavedModel that takes photos as they are.

    Args:
        examples: Data set that was evaluated on.
        model: Model of `train_model`.
        evaluation: Figures of `evaluate_model`.
        saved_model: SavedModel; see `components.export_model.export` for its signature.
    """
    from pathlib import Path

    from components.common.step import import_tensorflow_quietly, run_step

    with run_step("export-model"):
        import_tensorflow_quietly()
        from components.export_model.export import export

        export(
            Path(examples.path),
            Path(model.path),
            Path(evaluation.path),
            Path(saved_model.path),
        )
        saved_model.metadata["framework"] = "tensorflow"
