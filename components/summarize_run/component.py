"""The KFP interface of the step."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Output, PipelineTaskFinalStatus

from components.images import DEPLOY


@dsl.component(base_image=DEPLOY, install_kfp_package=False)
def summarize_run(
    status: PipelineTaskFinalStatus, summary: Output[Artifact], report: Output[HTML]
) -> None:
    """Writes down what became of the run, whatever happened.

    Args:
        status: How the run ended, from the backend.
        summary: State, tasks and error, as JSON.
        report: The same as a page.
    """
    from pathlib import Path

    from components.common.step import run_step

    with run_step("summarize-run"):
        from components.summarize_run.summarize import summarize

        summarize(
            status.pipeline_job_resource_name,
            status.state,
            status.error_message or "",
            Path(summary.path),
            Path(report.path),
        )
