"""Schedules of the pipeline, and those of Vertex AI; a schedule is known by its name."""

import dataclasses
import datetime
import re
import zoneinfo
from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple

from components.common.config import Range, check
from components.common.errors import ConfigError, FlowersError
from components.common.vertex import Vertex
from pipelines.targets.vertex import to_message

_NAME = re.compile(r"[A-Za-z0-9][\w .-]{0,127}")
_CRON = re.compile(r"(?:(?:CRON_)?TZ=(?P<zone>\S+) )?(?P<cron>.+)")


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """When the pipeline runs.

    Attributes:
        name: Name of the schedule; the same name is the same schedule.
        cron: Five fields, e.g. `0 3 * * 1` for Mondays at three.
        time_zone: Time zone of the cron, e.g. `Europe/Zurich`.
        start: First moment a run may start, ISO 8601; empty for now.
        end: Last moment, ISO 8601; empty for never.
        max_runs: Number of runs after which it ends; 0 for no limit.
        concurrency: Number of runs at the same time. At 1 a run that is due while another goes on
            waits for it.
    """

    name: str
    cron: str
    time_zone: str = "UTC"
    start: str = ""
    end: str = ""
    max_runs: int = 0
    concurrency: int = 1

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                "--name: expected letters, digits, spaces, - and _, up to 128, received "
                f"{self.name!r}"
            )
        check("--max-runs", self.max_runs, Range(0))
        check("--concurrency", self.concurrency, Range(1, 100))
        self.next_runs(datetime.datetime.now(datetime.UTC))
        start, end = self._moment("start"), self._moment("end")
        now = datetime.datetime.now(datetime.UTC)
        for flag, moment in (("--start", start), ("--end", end)):
            if moment and moment <= now:
                raise ConfigError(
                    f"{flag} {moment.isoformat()} is in the past: expected a moment after "
                    f"{now.isoformat(timespec='seconds')}"
                )
        if start and end and end <= start:
            raise ConfigError(f"--end {self.end}: expected a moment after --start {self.start}")

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        """The time zone.

        Raises:
            ConfigError: There is none of that name.
        """
        try:
            return zoneinfo.ZoneInfo(self.time_zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(
                f"--time-zone: expected a name such as Europe/Zurich, received {self.time_zone!r}"
            ) from error

    def next_runs(self, after: datetime.datetime, count: int = 3) -> list[datetime.datetime]:
        """The next moments the cron names.

        Raises:
            ConfigError: The cron is none of five fields, or names no moment.
        """
        from cronsim import CronSim, CronSimError

        fields = self.cron.split()
        if len(fields) != 5:
            raise ConfigError(
                f"--cron {self.cron!r}: expected five fields (minute, hour, day, month, weekday), "
                f"got {len(fields)}"
            )
        try:
            moments = CronSim(self.cron, after.astimezone(self.zone))
            found = list(islice(moments, count))
        except CronSimError as error:
            raise ConfigError(f"--cron {self.cron!r}: {error}") from error
        if not found:
            raise ConfigError(f"--cron {self.cron!r}: names no moment in the years to come")
        return found

    def _moment(self, name: str) -> datetime.datetime | None:
        text = getattr(self, name)
        if not text:
            return None
        try:
            moment = datetime.datetime.fromisoformat(text)
        except ValueError as error:
            raise ConfigError(
                f"--{name}: expected a moment such as 2030-01-31T03:00, received {text!r}"
            ) from error
        return moment if moment.tzinfo else moment.replace(tzinfo=self.zone)

    def first_runs(self) -> list[datetime.datetime]:
        """The next three runs, start and end kept."""
        limit = min(3, self.max_runs or 3)
        return self.runs_within(self._moment("start"), self._moment("end"), limit)

    def runs_within(
        self, start: datetime.datetime | None, end: datetime.datetime | None, count: int = 3
    ) -> list[datetime.datetime]:
        """The next moments the cron names, of those that are not over or outside.

        Args:
            start: First moment; None for now.
            end: Last moment; None for never.
            count: Most moments.
        """
        now = datetime.datetime.now(datetime.UTC)
        found = self.next_runs(max(now, start or now), count)
        return [one for one in found if not end or one <= end]

    def when(self) -> dict[str, Any]:
        """What says when, as the REST API has it."""
        plain: dict[str, Any] = {
            "cron": f"TZ={self.time_zone} {self.cron}",
            "maxConcurrentRunCount": str(self.concurrency),
        }
        for key, moment in (("startTime", self._moment("start")), ("endTime", self._moment("end"))):
            if moment:
                utc = moment.astimezone(datetime.UTC)
                plain[key] = utc.isoformat().replace("+00:00", "Z")
        if self.max_runs:
            plain["maxRunCount"] = str(self.max_runs)
        return plain

    def to_plain(self, vertex: Vertex, job: dict[str, Any]) -> dict[str, Any]:
        """The schedule as the REST API has it."""
        return self.when() | {
            "displayName": self.name,
            # A run that is due while another goes on waits for it, and is not left out.
            "allowQueueing": True,
            "createPipelineJobRequest": {"parent": vertex.parent, "pipelineJob": job},
        }


class ScheduleView(NamedTuple):
    """A schedule as it is shown to people.

    Attributes:
        name: Its name.
        resource: What the backend calls it.
        state: E.g. `active` or `paused`.
        cron: Five fields.
        zone: Time zone of the cron.
        start: First moment; None for now.
        end: Last moment; None for never.
        runs: How many runs there were and may be, in words; empty where the backend does not say.
        concurrency: Number of runs at the same time.
        left: How many runs there may still be; None for no limit, or where nobody says.
    """

    name: str
    resource: str
    state: str
    cron: str
    zone: str
    start: datetime.datetime | None
    end: datetime.datetime | None
    runs: str
    concurrency: int
    left: int | None = None

    def next_runs(self) -> list[datetime.datetime] | None:
        """The next three runs, start and end kept; none of one that is not active.

        None where the cron does not say: that of a schedule which was made by hand may have other
        fields, or be an interval.
        """
        count = 3 if self.left is None else min(3, self.left)
        if self.state != "active" or count < 1:
            return []
        try:
            # Its name may be one that we would not give. KFP's documents write ? for any day.
            config = ScheduleConfig("shown", self.cron.replace("?", "*"), self.zone)
        except ConfigError:
            return None
        return config.runs_within(self.start, self.end, count)


def first_of(schedules: Callable[..., list[Any]], name: str) -> Any:
    """The oldest schedule of a name.

    Args:
        schedules: Gives those of a name, or without one all of them.
        name: The name.

    Raises:
        ConfigError: There is none; lists those there are.
    """
    found = schedules(name)
    if not found:
        names = ", ".join(sorted(one.display_name for one in schedules())) or "none"
        raise ConfigError(f"--name {name!r}: there is no such schedule; there are: {names}")
    return found[0]


class Schedules:
    """The schedules of a project and region."""

    def __init__(self, vertex: Vertex) -> None:
        self._vertex = vertex
        self._client = vertex.client("ScheduleServiceClient")

    def all(self, name: str = "") -> list[Any]:
        """All schedules, or those of a name."""
        request = {"parent": self._vertex.parent}
        if name:
            request["filter"] = f'display_name="{name}"'
        pages = self._vertex.read(self._client.list_schedules, request)
        return sorted(pages, key=lambda one: (one.create_time or 0, one.name))

    def find(self, name: str) -> Any:
        """The schedule of a name.

        Raises:
            ConfigError: There is none; lists those there are.
        """
        return first_of(self.all, name)

    @staticmethod
    def view(schedule: Any) -> ScheduleView:
        """A schedule of `all` or `find` for people."""
        cron, zone = split_cron(schedule.cron)
        return ScheduleView(
            schedule.display_name,
            schedule.name,
            schedule.state.name.lower(),
            cron,
            zone,
            schedule.start_time,
            schedule.end_time,
            f"{schedule.started_run_count} of {schedule.max_run_count or 'any number'}",
            schedule.max_concurrent_run_count,
            schedule.max_run_count - schedule.started_run_count if schedule.max_run_count else None,
        )

    def create(self, schedule: dict[str, Any]) -> tuple[Any, bool]:
        """Makes a schedule, once; the one that is there already where the name is taken.

        Returns:
            The schedule, and whether it is new.
        """
        name = schedule["displayName"]
        found = self.all(name)
        if found:
            return found[0], False
        self._vertex.ensure(
            lambda: self.all(name) or None,
            self._client.create_schedule,
            {"parent": self._vertex.parent, "schedule": _message(schedule)},
            f"creation of schedule {name}",
        )
        first, *doubles = self.all(name)
        # Of a request that was sent again before the first had shown.
        for double in doubles:
            self._delete(double.name)
        return first, True

    def update(self, config: ScheduleConfig, fields: list[str]) -> None:
        """Changes some fields of the schedule of that name; what it runs stays.

        Args:
            config: The schedule as it shall be.
            fields: Names of the fields as the API's messages have them.
        """
        from google.cloud import aiplatform_v1
        from google.protobuf import json_format

        name = self.find(config.name).name
        message = aiplatform_v1.Schedule(name=name)
        json_format.ParseDict(config.when(), aiplatform_v1.Schedule.pb(message))

        def done() -> bool | None:
            now = self._vertex.read(self._client.get_schedule, {"name": name})
            return all(getattr(now, one) == getattr(message, one) for one in fields) or None

        self._vertex.ensure(
            done,
            self._client.update_schedule,
            {"schedule": message, "update_mask": {"paths": fields}},
            f"change of schedule {config.name}",
        )

    def pause(self, name: str) -> None:
        """No run starts until it is resumed."""
        self._switch(name, self._client.pause_schedule, "PAUSED")

    def resume(self, name: str) -> None:
        """Runs start again; those that were missed are not made up for."""
        self._switch(name, self._client.resume_schedule, "ACTIVE")

    def _switch(self, name: str, method: Callable[..., Any], state: str) -> None:
        schedule = self.find(name)
        if schedule.state.name == "COMPLETED":
            raise FlowersError(f"schedule {name} has ended; create another")

        def done() -> bool | None:
            now = self._vertex.read(self._client.get_schedule, {"name": schedule.name})
            return now.state.name == state or None

        if not done():
            self._vertex.ensure(done, method, {"name": schedule.name}, f"schedule {name}")

    def delete(self, name: str) -> None:
        """Removes a schedule; runs that it started go on."""
        self.find(name)
        for schedule in self.all(name):
            self._delete(schedule.name)

    def _delete(self, resource: str) -> None:
        self._vertex.ensure(
            lambda: (
                self._vertex.find(self._client.get_schedule, {"name": resource}) is None or None
            ),
            self._client.delete_schedule,
            {"name": resource},
            f"removal of {resource}",
        )


def _message(schedule: dict[str, Any]) -> Any:
    from google.cloud import aiplatform_v1
    from google.protobuf import json_format

    job = schedule["createPipelineJobRequest"]["pipelineJob"]
    to_message(job)
    message = aiplatform_v1.Schedule()
    json_format.ParseDict(schedule, aiplatform_v1.Schedule.pb(message))
    return message


def split_cron(text: str) -> tuple[str, str]:
    """Cron and time zone of a schedule as Vertex AI has it."""
    found = _CRON.fullmatch(text)
    assert found
    return found["cron"], found["zone"] or "UTC"
