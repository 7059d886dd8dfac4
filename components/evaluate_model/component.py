"""The KFP interface of the step."""

from kfp import dsl
from kfp.dsl import HTML, ClassificationMetrics, Dataset, Input, Metrics, Model, Output

from components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def evaluate_model(
    examples: Input[Dataset],
    model: Input[Model],
    evaluation: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    report: Output[HTML],
) -> None:
    """Scores a model on the test split, every example counted once.

    Args:
        examples: Data set of `ingest_examples`.
        model: Model of `train_model`.
        evaluation: Every figure, as JSON.
        confusion: Confusion matrix for the console.
        report: Page about the evaluation.
    """
    from pathlib import Path

    from components.common.config import to_json
    from components.common.lineage import check_stamps, stamp
    from components.common.outputs import write_text
    from components.common.step import import_tensorflow_quietly, run_step

    with run_step("evaluate-model"):
        check_stamps(examples=examples, model=model)
        import_tensorflow_quietly()
        from components.evaluate_model.evaluate import evaluate

        result = evaluate(
            Path(examples.path), Path(model.path), Path(evaluation.path), Path(report.path)
        )
        for name in ("accuracy", "accuracy_low", "accuracy_high", "loss", "examples"):
            evaluation.log_metric(name, getattr(result, name))
        stamp(evaluation)
        matrix = [list(row) for row in result.confusion]
        # It goes into the metadata of the artifact, of which Vertex AI takes 200 kB.
        if len(matrix) <= 100:
            confusion.log_confusion_matrix(list(result.class_names), matrix)
        # KFP takes a task from its local cache only if every output is there as a file.
        write_text(Path(confusion.path), to_json(matrix))
