"""Talks to the process that has the compiler of TPUs."""

import dataclasses
import functools
import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from components.common.config import to_json
from components.common.errors import ConfigError, FlowersError
from components.common.extras import how_to_install
from pipelines.tpu_check.hlo import Operation
from pipelines.tpu_check.messages import Compiled, Refused, Task

NOT_INSTALLED = f"the compiler of TPUs is not installed: {how_to_install('local', 'tpu-check')}"
_NEEDED = ("libtpu", "jax", "keras", "tensorflow")


def is_installed() -> bool:
    """Whether the extra is there; imports none of it."""
    return all(importlib.util.find_spec(name) for name in _NEEDED)


class Compiler:
    """Compiles one recipe for one slice, with as many batch sizes as are asked for."""

    def __init__(self, process: "subprocess.Popen[str]", errors: IO[str]) -> None:
        self._process = process
        self._errors = errors

    def compile(self, batch_per_core: int) -> Compiled | Refused:
        """Compiles the train step.

        Raises:
            ConfigError: The batch cannot be divided as the recipe asks for.
            FlowersError: The process ended without an answer.
        """
        answer = self._ask({"batch": batch_per_core})
        if "op" in answer:
            return Refused(**answer)
        heavy = tuple(Operation(**one) for one in answer.pop("heaviest"))
        return Compiled(**answer, heaviest=heavy)

    @functools.cached_property
    def input_rate(self) -> float:
        """Images per second that a core of this machine delivers to the devices."""
        return float(self._ask({"input": True})["images_per_second"])

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise FlowersError(
                f"the compiler of TPUs ended without an answer: {self._last_words()}"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            users = answer["exit_code"] == ConfigError.exit_code
            raise (ConfigError if users else FlowersError)(answer["error"])
        return answer

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        code = self._process.returncode
        said = f"exit code {code}; {lines[-1] if lines else 'it said nothing'}"
        # libtpu has no other way to fail at some programs, and a like one compiles.
        hint = "; try another batch, or another train.batch_norm" if code == -signal.SIGSEGV else ""
        return said + hint


@contextmanager
def open_compiler(task: Task) -> Iterator[Compiler]:
    """Starts the process, and ends it however the block is left.

    Args:
        task: What is to be compiled.

    Raises:
        ConfigError: The extra is not installed.
    """
    if not is_installed():
        raise ConfigError(NOT_INSTALLED)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.tpu_check.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
        )
        try:
            assert process.stdin
            process.stdin.write(to_json(dataclasses.asdict(task)).replace("\n", " ") + "\n")
            yield Compiler(process, errors)
        finally:
            process.kill()
            process.wait()
