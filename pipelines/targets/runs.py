"""A run on a backend: its name, the checks before it, and how it goes and ends."""

import datetime
import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from components.common.errors import (
    ConfigError,
    FlowersError,
    GateClosedError,
    RetryError,
    UserError,
)
from components.common.patience import NotFoundError

# End of a step that means something to the caller, by the name of the task.
_REFUSING = "refuse-model"
_EXIT = re.compile(r"(?:non-zero status of|exit (?:status|code)) (\d+)")
_MEANING_SOMETHING = {UserError.exit_code, GateClosedError.exit_code, RetryError.exit_code}
# How long a backend may be out of reach while its run goes on, in seconds.
_OUTAGE = 1800.0


class Step(NamedTuple):
    """A task of a run.

    Attributes:
        name: Name of the task.
        state: In words, e.g. `running`, `succeeded`, `failed`, `cancelled`.
        message: Why it failed.
    """

    name: str
    state: str
    message: str


class Progress(NamedTuple):
    """A run at one moment.

    Attributes:
        state: `succeeded`, `failed` or `cancelled` once it ended; any other word before.
        steps: Its tasks.
        message: Why it failed.
        reasons: (task, output) -> why the step came to its result.
    """

    state: str
    steps: Sequence[Step]
    message: str = ""
    reasons: Callable[[str, str], str] = lambda task, output: ""


def new_run_name() -> str:
    """A name that no other run has, and that sorts by time."""
    now = datetime.datetime.now(datetime.UTC)
    return f"flowers-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def refuse(problems: Sequence[str]) -> None:
    """Refuses to go on where something is missing.

    Raises:
        ConfigError: Names all that is missing.
    """
    if len(problems) == 1:
        raise ConfigError(problems[0])
    if problems:
        numbered = "; ".join(f"({number}) {one}" for number, one in enumerate(problems, 1))
        raise ConfigError(f"{len(problems)} things are missing: {numbered}")


def follow(
    look: Callable[[], Progress], tell: Callable[[str], None], poll: float
) -> tuple[int, str]:
    """Waits for the end of a run and tells each change of a step.

    Args:
        look: Asks for the run.
        tell: Takes one line.
        poll: Seconds between two looks.

    Returns:
        Exit code of the run as that of `flowers run`, and the last line.

    Raises:
        FlowersError: The backend refuses the question, has no such run, or is out of reach for
            half an hour.
    """
    seen: dict[str, str] = {}
    answered = time.monotonic()
    out_of_reach = False
    while True:
        try:
            run = look()
        except (UserError, NotFoundError):
            raise
        except FlowersError as error:
            if time.monotonic() - answered > _OUTAGE:
                raise
            if not out_of_reach:
                tell(f"{error}; the run goes on, and is asked for again")
            out_of_reach = True
            time.sleep(poll)
            continue
        answered, out_of_reach = time.monotonic(), False
        for step in run.steps:
            if seen.get(step.name) != step.state:
                seen[step.name] = step.state
                tell(f"[{step.name}] {step.state}")
        if run.state in {"succeeded", "failed", "cancelled"}:
            return _ending(run)
        time.sleep(poll)


def _ending(run: Progress) -> tuple[int, str]:
    """Exit code and last line of a run that ended."""
    if run.state == "succeeded":
        return 0, f"succeeded{_colon(run.reasons('deploy-model', 'deployment'))}"
    if run.state == "cancelled":
        return 130, "cancelled"
    failed = [step for step in run.steps if step.state in {"failed", "cancelled"}]
    if _REFUSING in [step.name for step in failed]:
        return 3, f"gate closed{_colon(run.reasons('gate-model', 'verdict'))}"
    if not failed:
        return 1, f"failed: {run.message or 'the backend does not say why'}"
    first = failed[0]
    message = " ".join((first.message or run.message).split())
    return _exit_code(message), f"step {first.name} failed: {message or 'no reason is given'}"


def _colon(reason: str) -> str:
    return f": {reason}" if reason else ""


def _exit_code(message: str) -> int:
    """The exit code of the step, where the backend's message has it."""
    found = _EXIT.search(message)
    return int(found[1]) if found and int(found[1]) in _MEANING_SOMETHING else 1
