"""What every step does around its work: quiet libraries, one line for an error, an exit code."""

import importlib.util
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, NoReturn

from components.common.errors import ConfigError, FlowersError, UserError
from components.common.extras import how_to_install
from components.common.processes import end_with_run
from components.common.progress import say
from components.common.resources import lacking_resource

_TOOK = re.compile(r"took (?P<seconds>[\d.]+) s")
# Tasks that are graphs of steps, and no steps.
_GRAPHS = ("exit-handler", "condition", "for-loop", "flowers")
_FAILURE = re.compile(r"(?P<step>[\w-]+): exit (?P<exit_code>\d+): (?P<message>.+)")


class Failure(NamedTuple):
    """How a step ended when it did not succeed."""

    step: str
    exit_code: int
    message: str


def parse_failure(line: str) -> Failure | None:
    """Reads the line by which a step says why it ended; None for any other text."""
    found = _FAILURE.fullmatch(line.strip())
    if not found:
        return None
    return Failure(found["step"], int(found["exit_code"]), found["message"])


def parse_took(text: str) -> float | None:
    """Reads the message by which a step says how long it worked, in seconds; None for others."""
    found = _TOOK.fullmatch(text)
    return float(found["seconds"]) if found else None


def require_tensorflow() -> None:
    """Refuses to go on where TensorFlow is not installed.

    Raises:
        ConfigError: Says what to install.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise ConfigError(
            f"TensorFlow is not installed, and the steps need it: {how_to_install('local')}"
        )


def import_tensorflow_quietly(backend: str = "tensorflow") -> None:
    """Imports TensorFlow without its start-up notes, and with them when the import fails.

    The native library writes them to file descriptor 2 whatever the log level, so the descriptor
    itself is turned away. With `TF_CPP_MIN_LOG_LEVEL=0` the user asks to see everything.

    Args:
        backend: What Keras computes with once it is imported. Training alone has a choice; what it
            made is read by TensorFlow, whatever `KERAS_BACKEND` says.

    Raises:
        ConfigError: It is not installed.
    """
    require_tensorflow()
    # Left to itself, TensorFlow takes oneDNN on CPUs with AVX-512 only. With AVX2 its convolutions
    # are the faster ones too, and with it comes an allocator that keeps what a training step takes
    # and gives back: the system would clear that memory anew for every step.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ["KERAS_BACKEND"] = backend
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        import tensorflow

        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except ImportError:
            notes.seek(0)
            os.write(stderr, notes.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def is_step(task_name: str) -> bool:
    """Whether a task of a run is a step, and not a graph of steps."""
    return not task_name.startswith(_GRAPHS)


@contextmanager
def run_step(name: str) -> Iterator[None]:
    """Runs a step's body so that it ends the same way in a shell, in a container and under KFP.

    An error of the exception tree becomes one line, `<step>: exit <code>: <message>`, and the
    process exits with its code; so does a full disk, or whatever else the machine lacks. Anything
    else is a fault of ours and keeps its traceback.

    Args:
        name: The step as its task is called, e.g. `ingest-examples`.
    """
    end_with_run()
    began = time.monotonic()
    try:
        yield
        say(name, f"took {time.monotonic() - began:.2f} s")
    except FlowersError as error:
        _fail(name, error)
    except Exception as error:
        message = lacking_resource(error)
        if not message:
            raise
        _fail(name, UserError(message))


def _fail(name: str, error: FlowersError) -> NoReturn:
    message = " ".join(str(error).split())
    print(f"{name}: exit {error.exit_code}: {message}", file=sys.stderr, flush=True)
    sys.exit(error.exit_code)
