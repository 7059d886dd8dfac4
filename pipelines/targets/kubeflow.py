"""Kubeflow Pipelines: where it is, who asks, how its requests fail, and its runs."""

import contextlib
import functools
import io
import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from components.common.config import to_json
from components.common.errors import ConfigError, FlowersError
from components.common.patience import PATIENT, NotFoundError, Patience, Service
from components.common.step import is_step
from components.common.vertex import credentials, no_token_now
from pipelines.targets.kubeflow_config import TOKEN_VARIABLE, KubeflowTarget
from pipelines.targets.kubeflow_pipeline import to_text
from pipelines.targets.preflight import find_problems
from pipelines.targets.runs import Progress, Step, follow, refuse

_PASSING = {429, 500, 502, 503, 504}
_CONNECT = 15.0
_ADDRESS = "is the address right, and kubectl port-forward running?"
# How urllib3 begins its messages.
_OBJECT = re.compile(r"<[^>]+>: |\w+\(host=[^)]*\): ")
# What Kubeflow Pipelines lists beside the tasks of the graph.
_DRIVERS = ("executor", "root", "system-")


class Kubeflow(Service):
    """The client of one installation."""

    title = "Kubeflow Pipelines"

    def __init__(self, target: KubeflowTarget, patience: Patience = PATIENT) -> None:
        super().__init__(patience)
        self.target = target
        # None is what a single-user installation is asked with.
        self.namespace = target.namespace or None

    @functools.cached_property
    def client(self) -> Any:
        """The client of KFP, which asks for the health of the installation.

        Raises:
            ConfigError: The host does not answer, or there is no credential.
        """
        import kfp

        health = self._health

        class Client(kfp.Client):  # type: ignore[misc]
            """KFP's client, without its own retries and their log."""

            def _load_config(self, *arguments: Any) -> Any:
                config = super()._load_config(*arguments)
                config.retries = 0
                return config

            def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
                return health(self._healthz_api.healthz_service_get_healthz)

        with warnings.catch_warnings():
            # That it speaks to Kubeflow Pipelines 2 only.
            warnings.simplefilter("ignore", FutureWarning)
            made = Client(
                host=self.target.host,
                existing_token=self._token(),
                credentials=_GoogleCredentials() if self.target.auth == "adc" else None,
                # Its default, for which it keeps what was named before on this machine.
                namespace=self.target.namespace or "kubeflow",
            )
        _bound(made, self.patience.request)
        if self.target.namespace:
            # Without one its constructor has asked.
            made.get_kfp_healthz()
        return made

    def _token(self) -> str | None:
        if self.target.auth != "token":
            return None
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            raise ConfigError(f"auth: token, and {TOKEN_VARIABLE} holds none; put the token there")
        return token

    def _health(self, call: Callable[..., Any]) -> Any:
        """Asks once whether the host is Kubeflow Pipelines, and lets the client in."""
        host = f"--host {self.target.host}"
        try:
            answer = call(_request_timeout=_CONNECT)
        except Exception as error:
            problem = self.translate(error)
            hint = "" if isinstance(problem, ConfigError) else f"; {_ADDRESS}"
            raise ConfigError(f"{host}: {problem}{hint}") from error
        # Of a page, such as one to log in on, KFP's client makes an empty answer.
        if all(value is None for value in answer.to_dict().values()):
            raise ConfigError(f"{host}: what answers is not Kubeflow Pipelines; {_ADDRESS}")
        return answer

    def may_pass(self, error: Exception) -> bool:
        """Whether the same request may succeed in a while."""
        import kfp_server_api
        import urllib3

        if isinstance(error, kfp_server_api.ApiException):
            return error.status in _PASSING
        return isinstance(error, urllib3.exceptions.HTTPError) or no_token_now(error)

    def is_taken(self, error: Exception) -> bool:
        """Never: Kubeflow Pipelines gives the ids itself."""
        return False

    def translate(self, error: Exception) -> FlowersError:
        """What KFP's client raised, as one line that says what to do."""
        import kfp_server_api
        import urllib3
        from google.auth.exceptions import GoogleAuthError

        if isinstance(error, FlowersError):
            return error
        if no_token_now(error):
            return FlowersError(f"Google does not answer ({_one_line(error)})")
        if isinstance(error, GoogleAuthError):
            return ConfigError(f"no valid Google credential ({_one_line(error)})")
        if isinstance(error, urllib3.exceptions.HTTPError):
            reason = _OBJECT.sub("", _one_line(getattr(error, "reason", None) or error))
            return FlowersError(f"Kubeflow Pipelines does not answer ({reason})")
        if not isinstance(error, kfp_server_api.ApiException):
            raise error
        return _refusal(error.status, _message(error))

    def finish(self, answer: Any, what: str) -> None:
        """Nothing: the answer comes when the change is made."""

    def experiment(self) -> str:
        """Id of the target's experiment, which is made where it is absent."""
        name = self.target.experiment

        def found() -> str | None:
            try:
                return str(self.client.get_experiment(experiment_name=name).experiment_id)
            except ValueError as error:
                if "No experiment is found" in str(error):
                    return None
                # Of a request that was sent again, or made by hand.
                raise ConfigError(f"experiment: there are several named {name!r}") from error

        existing = self.repeat(found)
        if existing:
            return existing
        return self.change(
            lambda: self.repeat(found),
            lambda: _quietly(self.client.create_experiment, name),
            f"creation of experiment {name}",
        )

    @contextlib.contextmanager
    def package(self, documents: list[dict[str, Any]]) -> Iterator[str]:
        """A compiled pipeline as a file, which is how KFP's client takes it."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "pipeline.yaml")
            path.write_text(to_text(documents), encoding="utf-8")
            yield str(path)


def _refusal(status: int, text: str) -> FlowersError:
    if status == 404:
        return NotFoundError(f"Kubeflow Pipelines knows of no such thing: {text}")
    if status in {401, 403}:
        return ConfigError(
            f"Kubeflow Pipelines refuses you ({text}); auth of the target file says what is shown, "
            "docs/gke-tpu.md how to get it"
        )
    if status == 400:
        return ConfigError(f"Kubeflow Pipelines refuses the request: {text}")
    return FlowersError(
        f"Kubeflow Pipelines does not answer as it should (status {status}: {text}); try later"
    )


class _GoogleCredentials:
    """Google's application default credentials, renewed when they are about to end."""

    def __init__(self) -> None:
        self._credentials = credentials("")

    def refresh_api_key_hook(self, config: Any) -> None:
        """Puts a valid token where KFP's client takes it from."""
        from google.auth.transport.requests import Request

        if not self._credentials.valid:
            self._credentials.refresh(Request())
        config.api_key["authorization"] = self._credentials.token


def _bound(client: Any, seconds: float) -> None:
    """Gives every request of a client a time limit, which its methods have no argument for."""
    rest = client._run_api.api_client.rest_client
    send = rest.request

    def request(*arguments: Any, **named: Any) -> Any:
        limit = named.get("_request_timeout") or (_CONNECT, seconds)
        return send(*arguments, **{**named, "_request_timeout": limit})

    rest.request = request


def _quietly(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Calls a method of KFP's client, which prints links of its own."""
    with contextlib.redirect_stdout(io.StringIO()):
        return call(*arguments, **named)


def _message(error: Any) -> str:
    """What the API server says in an error's body."""
    try:
        body = json.loads(error.body)
        return _one_line(body.get("message") or body.get("error") or error.reason)
    except (TypeError, ValueError, AttributeError):
        return _one_line(error.reason or "no reason is given")


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())[:300]


def equals(name: str) -> str:
    """A filter of the API for things of a name."""
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})


def run_request(
    documents: list[dict[str, Any]], target: KubeflowTarget, name: str
) -> dict[str, Any]:
    """The request that makes a run, as the REST API has it; the experiment's id comes with it."""
    spec, *platform = documents
    request: dict[str, Any] = {
        "display_name": name,
        "pipeline_spec": {
            "pipeline_spec": spec,
            "platform_spec": platform[0] if platform else {},
        },
        "runtime_config": {"parameters": {}},
    }
    if target.pipeline_root:
        request["runtime_config"]["pipeline_root"] = target.pipeline_root
    if target.service_account:
        request["service_account"] = target.service_account
    return request


def dry_run(path: str, request: dict[str, Any]) -> str:
    """A request as it would be sent."""
    return f"POST /apis/v2beta1/{path}\n{to_json(request)}"


def check(kubeflow: Kubeflow, documents: list[dict[str, Any]]) -> None:
    """Refuses to go on where something is missing.

    Raises:
        ConfigError: Names all that is missing.
    """

    def ask() -> None:
        kubeflow.repeat(lambda: kubeflow.client.list_runs(page_size=1))

    refuse(find_problems(documents[0], kubeflow.target.pipeline_root, ask))


def submit(kubeflow: Kubeflow, documents: list[dict[str, Any]], name: str) -> str:
    """Makes a run, once, however often the answer is lost.

    Args:
        kubeflow: The client.
        documents: The compiled pipeline.
        name: Name that no other run has.

    Returns:
        Id of the run.
    """
    target = kubeflow.target
    experiment = kubeflow.experiment()

    def found() -> str | None:
        answer = kubeflow.repeat(
            lambda: kubeflow.client.list_runs(experiment_id=experiment, filter=equals(name))
        )
        return str(answer.runs[0].run_id) if answer.runs else None

    with kubeflow.package(documents) as package:
        return kubeflow.change(
            found,
            lambda: _quietly(
                kubeflow.client.run_pipeline,
                experiment,
                name,
                pipeline_package_path=package,
                pipeline_root=target.pipeline_root or None,
                service_account=target.service_account or None,
            ),
            "creation of the run",
        )


def run_url(kubeflow: Kubeflow, run_id: str) -> str:
    """Where a person looks at a run."""
    return f"{kubeflow.target.host.rstrip('/')}/#/runs/details/{run_id}"


def wait(kubeflow: Kubeflow, run_id: str, tell: Callable[[str], None]) -> tuple[int, str]:
    """Waits for the end of a run and tells each change of a task.

    Args:
        kubeflow: The client.
        run_id: What `submit` returned.
        tell: Takes one line.

    Returns:
        Exit code of the run as that of `flowers run`, and the last line.
    """
    return follow(
        lambda: _progress(kubeflow.repeat(lambda: kubeflow.client.get_run(run_id))),
        tell,
        kubeflow.patience.poll,
    )


def _progress(run: Any) -> Progress:
    details = (run.run_details.task_details if run.run_details else None) or []
    steps = [
        Step(task.display_name, _word(task.state), _error(task))
        for task in details
        if _is_task(task.display_name or "")
    ]
    return Progress(_word(run.state), steps, _error(run))


def _is_task(name: str) -> bool:
    return is_step(name) and not (name.startswith(_DRIVERS) or name.endswith("-driver"))


def _word(state: str | None) -> str:
    # One letter less than Vertex AI has.
    return (state or "pending").lower().replace("canceled", "cancelled")


def _error(thing: Any) -> str:
    return str(thing.error.message or "") if thing.error else ""
