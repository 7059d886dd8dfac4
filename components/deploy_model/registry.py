"""What a registry with an endpoint can do, and how a model is rolled out on one."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from components.common.errors import FlowersError
from components.common.patience import UnfinishedError
from components.common.progress import say

STEP = "deploy-model"
CHAMPION, PREVIOUS = "champion", "previous"
# Version -> percent of the traffic; a version that is up and gets none stands there with 0.
Traffic = dict[str, int]


class Prediction(NamedTuple):
    """What a model says of one photo.

    Attributes:
        label: The most probable class.
        probabilities: Class -> probability.
    """

    label: str
    probabilities: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A model to be registered.

    Attributes:
        saved_model: Its folder.
        digest: SHA-256 of the Keras file it was exported from; tells models apart.
        labels: What else to remember: run, data fingerprint, accuracy.
        evaluation: The figures of `evaluate_model`, as plain data.
    """

    saved_model: Path
    digest: str
    labels: dict[str, str]
    evaluation: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ModelVersion:
    """A version in a registry.

    Attributes:
        id: Its number, as text.
        digest: That of the candidate.
        labels: Those of the candidate.
        aliases: `champion`, `previous`, and whatever else people set.
    """

    id: str
    digest: str
    labels: dict[str, str]
    aliases: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Rollout:
    """A roll-out that is under way, or was cut off.

    Attributes:
        version: What is rolled out.
        former: The traffic before.
        checked: Whether the version has all traffic and passed its checks, so that it stays.
    """

    version: str
    former: Traffic
    checked: bool = False


class Registry(Protocol):
    """Versions of one model, and the endpoint that serves some of them.

    Every method may be called again after it failed, and changes nothing twice.
    """

    def claim(self, owner: str, take_over: bool = False) -> contextlib.AbstractContextManager[None]:
        """Keeps others from changing the endpoint while the context is open, and waits for them.

        Args:
            owner: Who asks; the same one again goes on where it was cut off.
            take_over: Do not wait for whoever has it.
        """

    def versions(self) -> list[ModelVersion]:
        """All versions, oldest first."""

    def add(self, candidate: Candidate) -> str:
        """Registers a model; the version that is there already where its digest is known."""

    def artifact(self, version: str) -> contextlib.AbstractContextManager[Path]:
        """The SavedModel of a version, as a local folder while the context is open."""

    def traffic(self) -> Traffic:
        """Every version that is up, with its share."""

    def deploy(self, version: str, traffic: Traffic) -> None:
        """Brings a version up and sets the traffic, which sums to 100."""

    def set_traffic(self, traffic: Traffic) -> None:
        """Sets the traffic of versions that are up."""

    def undeploy(self, version: str) -> None:
        """Takes a version without traffic, or the last one, down."""

    def set_aliases(self, champion: str, previous: str | None) -> None:
        """Moves the two aliases."""

    def predict(self, version: str, photos: Sequence[bytes]) -> list[Prediction]:
        """What the endpoint says when this version answers; it must be up."""

    def note_rollout(self, rollout: Rollout | None) -> None:
        """Writes down, for whoever comes after a fault, how far a roll-out is; None ends it."""

    def noted_rollout(self) -> Rollout | None:
        """What was last written down."""


class TakenOverError(FlowersError):
    """Another deployment has the endpoint; nothing there is ours to change any more."""


class RolledBackError(FlowersError):
    """The canary failed; the former traffic is restored."""


# Says what is wrong with a version that is up; nothing when all is well.
Check = Callable[[str], str]


def serving(traffic: Traffic) -> str | None:
    """The version with the most traffic; None when none has any."""
    shares = {version: share for version, share in traffic.items() if share}
    return max(shares, key=lambda version: shares[version]) if shares else None


def canary_traffic(former: Traffic, version: str, percent: int) -> Traffic:
    """The split while `version` is tried out; the others keep their proportions.

    Args:
        former: The split before, without `version`.
        version: The new one.
        percent: Its share, 1 to 99.

    Returns:
        A split that sums to 100.
    """
    if not any(former.values()):
        return {**former, version: 100}
    rest = 100 - percent
    shares = {one: share * rest // 100 for one, share in former.items()}
    largest = serving(former)
    assert largest is not None
    shares[largest] += rest - sum(shares.values())
    return {**shares, version: percent}


def roll_out(registry: Registry, version: str, canary_percent: int, check: Check) -> None:
    """Gives a version all the traffic, by way of a canary.

    Args:
        registry: Where it is registered, claimed by the caller.
        version: The version.
        canary_percent: Its first share, where another version serves.
        check: Asked while the version has that share, and again when it has all.

    Raises:
        RolledBackError: The check or a change failed; traffic is what it was before.
        TakenOverError: Another deployment took the endpoint over meanwhile.
    """
    former = registry.traffic()
    others = {one: share for one, share in former.items() if one != version}
    rollout = Rollout(version, former)
    registry.note_rollout(rollout)
    try:
        registry.deploy(version, canary_traffic(others, version, canary_percent))
        _require(check(version))
        registry.set_traffic({version: 100})
        _require(check(version))
        registry.note_rollout(dataclasses.replace(rollout, checked=True))
    except TakenOverError:
        raise
    except Exception as error:
        # What may still come up is taken down by the next deployment, if the note stays.
        _restore(registry, former, ended=not isinstance(error, UnfinishedError))
        if not isinstance(error, FlowersError):
            raise
        raise RolledBackError(f"{error}; traffic is what it was before") from error
    settle(registry, version, serving(others))


def recover(registry: Registry) -> Rollout | None:
    """Ends a roll-out that was cut off: back where it started, or forward where it was checked.

    Args:
        registry: Claimed by the caller.

    Returns:
        What it undid, if that had traffic.
    """
    rollout = registry.noted_rollout()
    if rollout is None:
        return None
    up = registry.traffic()
    former = {one: share for one, share in rollout.former.items() if one in up}
    whole = sum(former.values()) == sum(rollout.former.values())
    if rollout.checked and rollout.version in up:
        stays: str | None = rollout.version
    else:
        # Where somebody took down what served before, there is no way back.
        stays = None if whole else serving(up)
    if stays is not None:
        say(STEP, f"an earlier roll-out was cut off; version {stays} stays")
        before = {one: s for one, s in rollout.former.items() if one != stays}
        settle(registry, stays, serving(before))
        return None
    say(STEP, "an earlier roll-out was cut off; its traffic is restored")
    _restore(registry, former if whole else dict.fromkeys(former, 0))
    return rollout if up.get(rollout.version) else None


def _restore(registry: Registry, former: Traffic, ended: bool = True) -> None:
    """Sets the traffic that was before, and takes down what was not up then.

    Args:
        registry: Claimed by the caller.
        former: The traffic before.
        ended: Whether nothing of the roll-out can still come up, so that its note may go.
    """
    if former:
        registry.set_traffic(former)
    for version in registry.traffic().keys() - former.keys():
        registry.undeploy(version)
    if ended:
        registry.note_rollout(None)


def settle(registry: Registry, version: str, previous: str | None) -> None:
    """The version that has all traffic becomes the champion; the rest is order.

    Args:
        registry: Claimed by the caller.
        version: The version.
        previous: What served before; None for the champion until now, if nothing did.
    """
    registry.set_traffic({version: 100})
    champion = next((one.id for one in registry.versions() if CHAMPION in one.aliases), None)
    if previous is None and champion != version:
        previous = champion
    registry.set_aliases(version, previous)
    for old in sorted(registry.traffic().keys() - {version}):
        try:
            registry.undeploy(old)
        except FlowersError as error:
            say(STEP, f"version {old} has no traffic and is still up, which costs: {error}")
    registry.note_rollout(None)


def _require(problem: str) -> None:
    if problem:
        raise FlowersError(problem)
