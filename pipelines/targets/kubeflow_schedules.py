"""Schedules of the pipeline on Kubeflow Pipelines: recurring runs, known by their names."""

import datetime
import re
from collections.abc import Callable
from typing import Any

from components.common.errors import ConfigError
from components.common.patience import NotFoundError
from pipelines.targets.kubeflow import Kubeflow, equals, run_request
from pipelines.targets.kubeflow_config import KubeflowTarget
from pipelines.targets.schedules import ScheduleConfig, ScheduleView, first_of, split_cron

# What Vertex AI's cron has and that of Kubeflow Pipelines has not: last days, n-th weekdays.
_BEYOND = re.compile(r"\dL|#")
_STATES = {"ENABLED": "active", "DISABLED": "paused"}


def to_six_fields(cron: str, zone: str) -> str:
    """A cron of five fields as Kubeflow Pipelines has it: seconds first, the time zone before.

    Its parser numbers weekdays from 0 to 6, so a Sunday that is written 7 becomes 0.

    Raises:
        ConfigError: It asks for what Kubeflow Pipelines cannot do.

    Source: Parse of github.com/robfig/cron 1.2.0, which Kubeflow Pipelines reads a cron with.
    """
    minute, hour, day, month, weekday = cron.upper().split()
    if "L" in day or _BEYOND.search(weekday):
        raise ConfigError(
            f"--cron {cron!r}: Kubeflow Pipelines has no last days and no n-th weekdays; name days"
        )
    return f"TZ={zone} 0 {minute} {hour} {day} {month} {_weekdays(weekday)}"


def to_five_fields(cron: str) -> tuple[str, str]:
    """Cron of five fields, and time zone, of a recurring run."""
    fields, zone = split_cron(cron)
    return " ".join(fields.split()[-5:]), zone


def _weekdays(field: str) -> str:
    """A field of weekdays from 0 to 6; a star stays, since it also says how days combine."""
    from cronsim.cronsim import Field

    if field.startswith("*"):
        return field
    days = {day % 7 for day in Field.DOW.parse(field) if isinstance(day, int)}
    return ",".join(map(str, sorted(days)))


def recurring_run(
    documents: list[dict[str, Any]], target: KubeflowTarget, config: ScheduleConfig
) -> dict[str, Any]:
    """The request that makes a schedule, as the REST API has it.

    Raises:
        ConfigError: It asks for what Kubeflow Pipelines cannot do.
    """
    if config.max_runs:
        raise ConfigError("--max-runs: Kubeflow Pipelines counts no runs; give --end")
    if config.concurrency > 10:
        raise ConfigError(
            f"--concurrency: Kubeflow Pipelines takes 1 to 10, received {config.concurrency}"
        )
    when = config.when()
    schedule = {"cron": to_six_fields(config.cron, config.time_zone)}
    for key, name in (("startTime", "start_time"), ("endTime", "end_time")):
        if key in when:
            schedule[name] = when[key]
    return run_request(documents, target, config.name) | {
        "trigger": {"cron_schedule": schedule},
        "max_concurrency": str(config.concurrency),
        "mode": "ENABLE",
        # Runs that were missed are not made up for, as on Vertex AI.
        "no_catchup": True,
    }


class KubeflowSchedules:
    """The schedules of an installation."""

    def __init__(self, kubeflow: Kubeflow) -> None:
        self._kubeflow = kubeflow

    def all(self, name: str = "") -> list[Any]:
        """All schedules, or those of a name; the oldest first."""
        found: list[Any] = []
        token = ""
        while True:
            answer = self._kubeflow.repeat(
                lambda page=token: self._kubeflow.client.list_recurring_runs(  # type: ignore[misc]
                    page_token=page,
                    page_size=100,
                    namespace=self._kubeflow.namespace,
                    filter=equals(name) if name else None,
                )
            )
            found += answer.recurring_runs or []
            token = answer.next_page_token or ""
            if not token:
                never = datetime.datetime.min.replace(tzinfo=datetime.UTC)
                return sorted(
                    found, key=lambda one: (one.created_at or never, one.recurring_run_id)
                )

    def find(self, name: str) -> Any:
        """The schedule of a name.

        Raises:
            ConfigError: There is none; lists those there are.
        """
        return first_of(self.all, name)

    @staticmethod
    def view(schedule: Any) -> ScheduleView:
        """A schedule of `all` or `find` for people; one that was made by hand may have no cron."""
        trigger = schedule.trigger and schedule.trigger.cron_schedule
        cron, zone = to_five_fields(trigger.cron) if trigger else ("none", "UTC")
        return ScheduleView(
            schedule.display_name,
            schedule.recurring_run_id,
            _STATES.get(schedule.status, "unknown"),
            cron,
            zone,
            trigger.start_time if trigger else None,
            trigger.end_time if trigger else None,
            "",
            int(schedule.max_concurrency or 1),
        )

    def create(
        self, documents: list[dict[str, Any]], config: ScheduleConfig, request: dict[str, Any]
    ) -> tuple[Any, bool]:
        """Makes a schedule, once; the one that is there already where the name is taken.

        Args:
            documents: The compiled pipeline.
            config: When it runs.
            request: What `recurring_run` returned.

        Returns:
            The schedule, and whether it is new.
        """
        target = self._kubeflow.target
        found = self.all(config.name)
        if found:
            return found[0], False
        schedule = request["trigger"]["cron_schedule"]
        experiment = self._kubeflow.experiment()
        with self._kubeflow.package(documents) as package:
            self._kubeflow.change(
                lambda: self.all(config.name) or None,
                lambda: self._kubeflow.client.create_recurring_run(
                    experiment,
                    config.name,
                    start_time=schedule.get("start_time"),
                    end_time=schedule.get("end_time"),
                    cron_expression=schedule["cron"],
                    max_concurrency=config.concurrency,
                    no_catchup=request["no_catchup"],
                    pipeline_package_path=package,
                    pipeline_root=target.pipeline_root or None,
                    service_account=target.service_account or None,
                ),
                f"creation of schedule {config.name}",
            )
        first, *doubles = self.all(config.name)
        # Of a request that was sent again before the first had shown.
        for double in doubles:
            self._delete(double.recurring_run_id)
        return first, True

    def pause(self, name: str) -> None:
        """No run starts until it is resumed."""
        self._switch(name, "disable_recurring_run", "DISABLED")

    def resume(self, name: str) -> None:
        """Runs start again; those that were missed are not made up for."""
        self._switch(name, "enable_recurring_run", "ENABLED")

    def _switch(self, name: str, method: str, state: str) -> None:
        key = self.find(name).recurring_run_id
        client = self._kubeflow.client

        def done() -> bool | None:
            now = self._kubeflow.repeat(lambda: client.get_recurring_run(key))
            return now.status == state or None

        if not done():
            call: Callable[[str], Any] = getattr(client, method)
            self._kubeflow.change(done, lambda: call(key), f"schedule {name}")

    def delete(self, name: str) -> None:
        """Removes a schedule; runs that it started go on."""
        self.find(name)
        for schedule in self.all(name):
            self._delete(schedule.recurring_run_id)

    def _delete(self, key: str) -> None:
        client = self._kubeflow.client

        def done() -> bool | None:
            try:
                self._kubeflow.repeat(lambda: client.get_recurring_run(key))
            except NotFoundError:
                return True
            return None

        self._kubeflow.change(done, lambda: client.delete_recurring_run(key), f"removal of {key}")
