"""Trainings that end as abruptly as a process can be ended from within."""

import itertools
from typing import Any

import pytest

from components.train_model.checkpoints import Checkpoint


class Killed(BaseException):
    """Ends a training as abruptly as a process can be ended from within."""


def killed_after(monkeypatch: pytest.MonkeyPatch, saves: int) -> None:
    """Ends the process, so to say, right after `state.json` was replaced so many times."""
    replace, calls = Checkpoint._replace, itertools.count(1)

    def replace_and_die(checkpoint: Checkpoint, state: Any) -> None:
        replace(checkpoint, state)
        if next(calls) == saves:
            raise Killed

    monkeypatch.setattr(Checkpoint, "_replace", replace_and_die)
