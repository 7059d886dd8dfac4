"""The KFP interface of the step."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Metrics, Model, Output

from components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def gate_model(
    model: Input[Model],
    evaluation: Input[Metrics],
    threshold: float,
    verdict: Output[Artifact],
) -> bool:
    """Decides whether a model may be exported; in doubt, no.

    Args:
        model: Model of `train_model`.
        evaluation: Figures of `evaluate_model`.
        threshold: Smallest top-1 accuracy, above 0 and at most 1.
        verdict: The decision with its reason, as JSON.

    Returns:
        Whether the gate is open.
    """
    from pathlib import Path

    from components.common.lineage import check_stamps, stamp
    from components.common.step import run_step

    with run_step("gate-model"):
        check_stamps(model=model, evaluation=evaluation)
        from components.gate_model.gate import gate

        decision = gate(Path(model.path), Path(evaluation.path), threshold, Path(verdict.path))
        stamp(verdict)
        verdict.metadata["blessed"] = decision.blessed
        verdict.metadata["reason"] = decision.reason
    return decision.blessed


@dsl.component(base_image=CPU, install_kfp_package=False)
def refuse_model(verdict: Input[Artifact]) -> None:
    """Fails the run, so that exit codes and alerts say that the gate is closed.

    Args:
        verdict: Decision of `gate_model`.
    """
    from pathlib import Path

    from components.common.step import run_step

    with run_step("refuse-model"):
        from components.gate_model.gate import refuse

        refuse(Path(verdict.path))
