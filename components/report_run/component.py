"""The KFP interface of the step."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Input, Metrics, Output

from components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def report_run(
    verdict: Input[Artifact],
    evaluation: Input[Metrics],
    evaluation_page: Input[HTML],
    training_page: Input[HTML],
    augmentation_page: Input[HTML],
    data_page: Input[HTML],
    report: Output[HTML],
    run_name: str = "",
    command: str = "",
) -> None:
    """Puts the pages of the steps behind the verdict of the gate, for the console.

    Args:
        verdict: Decision of `gate_model`.
        evaluation: Figures of `evaluate_model`.
        evaluation_page: Page of `evaluate_model`.
        training_page: Page of `train_model`.
        augmentation_page: Page of `augment_examples`.
        data_page: Page of `ingest_examples`.
        report: The page about the run.
        run_name: Name of the run.
        command: What made the run, to be called again.
    """
    from pathlib import Path

    from components.common.step import run_step

    with run_step("report-run"):
        from components.report_run.report import report_at_gate

        pages = (evaluation_page, training_page, augmentation_page, data_page)
        report_at_gate(
            Path(verdict.path),
            Path(evaluation.path),
            [Path(page.path) for page in pages],
            Path(report.path),
            run_name,
            command,
        )
