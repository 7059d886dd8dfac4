"""How a run on a backend is waited for, whatever the backend."""

import pytest
from google.auth.exceptions import RefreshError, TransportError

from components.common.errors import ConfigError, FlowersError
from components.common.patience import NotFoundError
from components.common.vertex import translate
from pipelines.targets import runs
from pipelines.targets.kubeflow import Kubeflow
from pipelines.targets.kubeflow_config import KubeflowTarget
from pipelines.targets.runs import Progress, follow

UNANSWERED = FlowersError("the backend does not answer")


def backend(*answers):
    """A look at a run, each time with the next of these answers."""
    left = list(answers)

    def look():
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Progress(answer, [])

    return look


def test_backend_that_is_out_of_reach_for_a_while():
    told: list[str] = []
    look = backend(UNANSWERED, UNANSWERED, "running", UNANSWERED, "succeeded")
    assert follow(look, told.append, 0.0) == (0, "succeeded")
    assert told == [f"{UNANSWERED}; the run goes on, and is asked for again"] * 2


def test_backend_that_stays_out_of_reach(monkeypatch):
    monkeypatch.setattr(runs, "_OUTAGE", -1.0)
    with pytest.raises(FlowersError, match="does not answer"):
        follow(backend(UNANSWERED, "succeeded"), print, 0.0)


@pytest.mark.parametrize("error", [ConfigError("no permission"), NotFoundError("no such run")])
def test_backend_that_refuses_is_not_asked_again(error):
    with pytest.raises(type(error), match=r"^no "):
        follow(backend(error, "succeeded"), print, 0.0)


def raised_from(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "is_the_users"),
    [
        (TransportError("no network"), False),
        (RefreshError("the server is busy", retryable=True), False),
        (raised_from(RefreshError("no answer"), TransportError("no network")), False),
        (RefreshError("it is too old"), True),
    ],
)
def test_network_that_fails_is_no_wrong_credential(error, is_the_users):
    kubeflow = Kubeflow(KubeflowTarget("http://127.0.0.1:1"))
    for said in (translate(error), kubeflow.translate(error)):
        assert isinstance(said, ConfigError) is is_the_users
    assert kubeflow.may_pass(error) is not is_the_users
