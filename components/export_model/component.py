"""The KFP interface of the step."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def export_model(
    examples: Input[Dataset],
    model: Input[Model],
    evaluation: Input[Metrics],
    verdict: Input[Artifact],
    saved_model: Output[Model],
    exports: Output[Artifact],
    report: Output[HTML],
    export_config: dict = {},  # noqa: B006
    images: str = "",
    manifest: str = "",
    model_config: dict = {},  # noqa: B006
    train_config: dict = {},  # noqa: B006
) -> None:
    """Writes a SavedModel that takes photos as they are, other formats, and the model card.

    Args:
        examples: Data set that was evaluated on.
        model: Model of `train_model`.
        evaluation: Figures of `evaluate_model`.
        verdict: Decision of `gate_model`.
        saved_model: SavedModel; see `components.export_model.export` for its signatures.
        exports: Keras, LiteRT and ONNX files, the model card, and what was found out about each.
        report: Page about the export.
        export_config: Which formats, and what the card says; see `ExportConfig`.
        images: Where the photos are, for licence and credits on the card.
        manifest: Their manifest, for the same.
        model_config: Architecture, for the card.
        train_config: Training, for the card.
    """
    from pathlib import Path

    from components.common.config import build
    from components.common.lineage import check_stamps, stamp
    from components.common.step import import_tensorflow_quietly, run_step

    with run_step("export-model"):
        from components.export_model.config import ExportConfig, Origin

        config = build(ExportConfig, export_config)
        origin = Origin(images, manifest, model_config, train_config)
        check_stamps(examples=examples, model=model, evaluation=evaluation, verdict=verdict)
        import_tensorflow_quietly()
        from components.export_model.export import Outputs, export

        checks = export(
            Path(examples.path),
            Path(model.path),
            Path(evaluation.path),
            Path(verdict.path),
            Outputs(Path(saved_model.path), Path(exports.path), Path(report.path)),
            config,
            origin,
        )
        stamp(saved_model, exports)
        saved_model.metadata["framework"] = "tensorflow"
        exports.metadata["formats"] = ", ".join(check.name for check in checks)
        exports.metadata["flagged"] = ", ".join(check.name for check in checks if check.flagged)
