"""A registry in a folder: the same versions, aliases and traffic as on Vertex AI, without a cloud.

DIR/flowers/state.json                    aliases, traffic, and a roll-out that is under way
DIR/flowers/serving                       a link to the version that serves, switched in one step
DIR/flowers/versions/1/saved_model        the model
DIR/flowers/versions/1/version.json       its digest, labels and evaluation
"""

import contextlib
import dataclasses
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from components.common.config import build, read_mapping, to_json
from components.common.errors import ConfigError, DataError
from components.common.outputs import staged, write_text
from components.deploy_model.registry import (
    CHAMPION,
    PREVIOUS,
    Candidate,
    ModelVersion,
    Prediction,
    Rollout,
    Traffic,
)

STATE_FILE = "state.json"
SERVING_LINK = "serving"
VERSION_FILE = "version.json"


@dataclasses.dataclass(frozen=True)
class State:
    """What changes together, in one file.

    Attributes:
        aliases: Alias -> version.
        traffic: Version that is up -> percent.
        former: Traffic before a roll-out that is under way.
        candidate: Version that is rolled out.
        checked: Whether it passed its checks.
    """

    aliases: dict[str, str] = dataclasses.field(default_factory=dict)
    traffic: dict[str, int] = dataclasses.field(default_factory=dict)
    former: dict[str, int] | None = None
    candidate: str = ""
    checked: bool = False


@dataclasses.dataclass(frozen=True)
class _Record:
    """Content of `version.json`."""

    digest: str
    labels: dict[str, str]
    evaluation: dict[str, Any]


class LocalRegistry:
    """One model of a registry folder; open it with `open_local`, which keeps others out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._versions = folder / "versions"
        self._link()

    def versions(self) -> list[ModelVersion]:
        """All versions, oldest first."""
        aliases = self._state().aliases
        return [
            ModelVersion(
                number,
                record.digest,
                record.labels,
                tuple(sorted(name for name, version in aliases.items() if version == number)),
            )
            for number, record in ((one, self._record(one)) for one in self._numbers())
        ]

    def add(self, candidate: Candidate) -> str:
        """Copies a model in; the version that is there already where its digest is known."""
        for version in self.versions():
            if version.digest == candidate.digest:
                return version.id
        number = str(max(map(int, self._numbers()), default=0) + 1)
        record = _Record(candidate.digest, candidate.labels, candidate.evaluation)
        with staged(self._versions / number) as (folder,):
            shutil.copytree(candidate.saved_model, folder / "saved_model")
            text = to_json(dataclasses.asdict(record))
            (folder / VERSION_FILE).write_text(text, encoding="utf-8")
        return number

    @contextlib.contextmanager
    def artifact(self, version: str) -> Iterator[Path]:
        """The SavedModel of a version."""
        path = self._versions / version / "saved_model"
        if not path.is_dir():
            raise DataError(f"registry {self.folder}: version {version} has lost its SavedModel")
        yield path

    def traffic(self) -> Traffic:
        """Every version that is up, with its share."""
        return dict(self._state().traffic)

    def deploy(self, version: str, traffic: Traffic) -> None:
        """Sets the traffic; a version that gets some is up."""
        self._change(traffic=self.traffic() | {version: 0} | traffic)

    def set_traffic(self, traffic: Traffic) -> None:
        """Sets the traffic of versions that are up; the others get none."""
        self._change(traffic=dict.fromkeys(self.traffic(), 0) | traffic)

    def undeploy(self, version: str) -> None:
        """Takes a version down."""
        traffic = self.traffic()
        traffic.pop(version, None)
        self._change(traffic=traffic)

    def set_aliases(self, champion: str, previous: str | None) -> None:
        """Moves the two aliases."""
        aliases = self._state().aliases | {CHAMPION: champion}
        if previous:
            aliases[PREVIOUS] = previous
        self._change(aliases=aliases)

    def predict(self, version: str, photos: Sequence[bytes]) -> list[Prediction]:
        """Asks the copy in the registry."""
        from components.deploy_model.scoring import predict

        with self.artifact(version) as saved_model:
            return list(predict(saved_model, photos))

    @contextlib.contextmanager
    def claim(self, owner: str, take_over: bool = False) -> Iterator[None]:
        """Nothing to do: `open_local` keeps others out."""
        yield

    def note_rollout(self, rollout: Rollout | None) -> None:
        """Writes down how far a roll-out is; None ends it."""
        if rollout is None:
            self._change(former=None, candidate="", checked=False)
            return
        self._change(former=rollout.former, candidate=rollout.version, checked=rollout.checked)

    def noted_rollout(self) -> Rollout | None:
        """What was last written down."""
        state = self._state()
        if state.former is None:
            return None
        return Rollout(state.candidate, state.former, state.checked)

    def _numbers(self) -> list[str]:
        names = (path.name for path in self._versions.glob("[1-9]*"))
        # A version that is being put in place has none yet.
        whole = (name for name in names if (self._versions / name / VERSION_FILE).is_file())
        return sorted((name for name in whole if name.isdigit()), key=int)

    def _record(self, number: str) -> _Record:
        return build(_Record, read_mapping(str(self._versions / number / VERSION_FILE)))

    def _state(self) -> State:
        path = self.folder / STATE_FILE
        return build(State, read_mapping(str(path))) if path.is_file() else State()

    def _change(self, **changes: Any) -> None:
        state = dataclasses.replace(self._state(), **changes)
        write_text(self.folder / STATE_FILE, to_json(dataclasses.asdict(state)))
        self._link()

    def _link(self) -> None:
        """Makes the link follow the state, which is the truth."""
        champion = self._state().aliases.get(CHAMPION)
        link = self.folder / SERVING_LINK
        target = Path("versions", champion) if champion else None
        if target and not (link.is_symlink() and link.readlink() == target):
            partial = link.with_name(f".{SERVING_LINK}.partial-{os.getpid()}")
            partial.unlink(missing_ok=True)
            partial.symlink_to(target)
            partial.replace(link)


@contextlib.contextmanager
def open_local(root: Path, model: str) -> Iterator[LocalRegistry]:
    """Opens a registry folder, and makes it where it is absent; others wait meanwhile.

    Raises:
        ConfigError: The folder cannot be made or written.
    """
    folder = root / model
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise ConfigError(
            f"--registry {root}: cannot be written ({error.strerror}); name another folder"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield LocalRegistry(folder)
