"""What the gate decided, in the JSON file that export and deployment ask for."""

import dataclasses
from pathlib import Path

from components.common.config import build, read_mapping
from components.common.errors import DataError, GateClosedError, UserError
from components.common.files import file_digest


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the gate decided.

    Attributes:
        blessed: Whether the model may be exported.
        reason: Why, in one sentence.
        threshold: What was asked for; None when nobody set it.
        accuracy: What the model reached; None when it is not a number.
        model_digest: SHA-256 of the Keras file that was judged.
        evaluation_digest: SHA-256 of the evaluation file that was judged by.
    """

    blessed: bool
    reason: str
    threshold: float | None
    accuracy: float | None
    model_digest: str = ""
    evaluation_digest: str = ""


def load_verdict(path: Path) -> Verdict:
    """Reads the JSON file of `gate_model`.

    Raises:
        DataError: The file is absent, damaged, or no verdict.
    """
    try:
        return build(Verdict, read_mapping(str(path)))
    except UserError as error:
        raise DataError(f"verdict {path}: expected gate_model's JSON file ({error})") from error


def require_blessing(verdict: Path, evaluation: Path) -> Verdict:
    """Goes on only where the gate has opened, and by this very evaluation.

    Args:
        verdict: JSON file of `gate_model`.
        evaluation: JSON file of `evaluate_model`.

    Raises:
        GateClosedError: The gate is closed.
        DataError: The verdict is of another evaluation, or the evaluation was changed since.
    """
    decision = load_verdict(verdict)
    if not decision.blessed:
        raise GateClosedError(f"gate closed: {decision.reason}")
    require_same_evaluation(decision, evaluation)
    return decision


def require_same_evaluation(decision: Verdict, evaluation: Path) -> None:
    """Goes on only where a verdict is of this very evaluation.

    Raises:
        DataError: It is of another one, or the evaluation was changed since.
    """
    received = file_digest(evaluation)
    if decision.evaluation_digest != received:
        raise DataError(
            f"the verdict is of another evaluation: expected digest "
            f"{decision.evaluation_digest[:12] or 'unknown'}, received {received[:12]}; have the "
            "gate judge this evaluation"
        )
