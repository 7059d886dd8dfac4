"""Opens a registry by its place, and changes by hand what serves; needs no TensorFlow to do so."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from components.common.errors import ConfigError
from components.common.vertex import SCHEME
from components.deploy_model.config import DeployConfig, ServingConfig, check_model_name
from components.deploy_model.registry import (
    PREVIOUS,
    Prediction,
    Registry,
    recover,
    roll_out,
    serving,
    settle,
)


@contextlib.contextmanager
def open_registry(
    place: str,
    model: str,
    serving_config: ServingConfig | None = None,
    must_exist: bool = False,
) -> Iterator[Registry]:
    """Opens the registry that `--registry` names.

    Args:
        place: A folder, or `vertex://PROJECT/REGION`.
        model: Name of the model.
        serving_config: What serves on Vertex AI.
        must_exist: Whether an absent folder is a mistake, and not to be made.

    Raises:
        ConfigError: The place or the name is not right.
    """
    check_model_name(model)
    if place.startswith(SCHEME):
        from components.common.vertex import Vertex
        from components.deploy_model.vertex_registry import VertexRegistry

        project, _, region = place.removeprefix(SCHEME).partition("/")
        yield VertexRegistry(Vertex(project, region), model, serving_config or ServingConfig())
        return
    if "://" in place or not place:
        raise ConfigError(
            f"--registry: expected a folder or vertex://PROJECT/REGION, received {place!r}"
        )
    if must_exist and not Path(place, model).is_dir():
        raise ConfigError(f"--registry {place}: has no model {model}; flowers run makes one")
    from components.deploy_model.local_registry import open_local

    with open_local(Path(place), model) as registry:
        yield registry


def plain_status(registry: Registry) -> dict[str, Any]:
    """Versions, aliases and traffic, as plain data."""
    return {
        "traffic": registry.traffic(),
        "unfinished_rollout": registry.noted_rollout() is not None,
        "versions": [dataclasses.asdict(version) for version in registry.versions()],
    }


def previous_version(registry: Registry) -> str:
    """The version that was champion before the one that is.

    Raises:
        ConfigError: There was none.
    """
    for version in registry.versions():
        if PREVIOUS in version.aliases:
            return version.id
    raise ConfigError("no version was champion before this one; flowers deploy promote takes any")


def promote(
    registry: Registry,
    version: str,
    photos: Sequence[bytes],
    owner: str,
    take_over: bool = False,
) -> str:
    """Gives a version all traffic, whatever the champion rule says.

    Args:
        registry: Where it is registered.
        version: The version.
        photos: Photos that the canary must answer about; without any it must only come up.
        owner: Who asks, as for `Registry.claim`.
        take_over: Do not wait for another deployment.

    Returns:
        The version.

    Raises:
        ConfigError: There is no such version.
        RolledBackError: The canary failed; traffic is what it was before.
    """
    known = [one.id for one in registry.versions()]
    if version not in known:
        raise ConfigError(f"--version {version}: expected one of {', '.join(known) or 'none'}")
    with registry.claim(owner, take_over):
        recover(registry)
        _promote(registry, version, photos)
    return version


def roll_back(
    registry: Registry, photos: Sequence[bytes], owner: str, take_over: bool = False
) -> str:
    """Gives all traffic to the version that was champion before.

    Where a roll-out was cut off, undoing it is the way back, unless it was itself one back.

    Args:
        registry: Where to look.
        photos: As for `promote`.
        owner: As for `promote`.
        take_over: As for `promote`.

    Returns:
        The version.

    Raises:
        ConfigError: No version was champion before.
        RolledBackError: The canary failed; traffic is what it was before.
    """
    if registry.noted_rollout() is None:
        # Before the endpoint is claimed, which makes one.
        previous_version(registry)
    with registry.claim(owner, take_over):
        undone = recover(registry)
        up = serving(registry.traffic())
        if undone and up and PREVIOUS not in _aliases(registry, undone.version):
            return up
        version = previous_version(registry)
        _promote(registry, version, photos)
    return version


def _aliases(registry: Registry, version: str) -> tuple[str, ...]:
    return next((one.aliases for one in registry.versions() if one.id == version), ())


def _promote(registry: Registry, version: str, photos: Sequence[bytes]) -> None:
    if registry.traffic() == {version: 100}:
        settle(registry, version, None)
        return
    champion = serving(registry.traffic())
    percent = DeployConfig().canary_percent

    def check(one: str) -> str:
        answers = registry.predict(one, photos) if photos else []
        return next((problem for problem in map(_sanity, answers) if problem), "")

    roll_out(registry, version, percent if champion else 100, check)


def _sanity(answer: Prediction) -> str:
    """What is wrong with an answer that nothing is known about beforehand."""
    total = sum(answer.probabilities.values())
    # Written so that NaN is wrong too.
    if not abs(total - 1.0) <= 0.01:
        return f"expected probabilities that add to 1, received {total:.3f}"
    return ""


def prober(
    registry: Registry,
    photos: Sequence[bytes],
    expected: Sequence[Prediction],
    tolerance: float,
) -> Callable[[str], str]:
    """A check for `roll_out`: the endpoint says what the SavedModel said."""

    def check(version: str) -> str:
        answers = zip(registry.predict(version, photos), expected, strict=True)
        for number, (served, evaluated) in enumerate(answers, start=1):
            problem = _difference(served, evaluated, tolerance)
            if problem:
                return f"version {version} answers probe {number} of {len(photos)} wrong: {problem}"
        return ""

    return check


def _difference(served: Prediction, evaluated: Prediction, tolerance: float) -> str:
    if served.probabilities.keys() != evaluated.probabilities.keys():
        return f"expected the classes {sorted(evaluated.probabilities)}, received others"
    for name, expected in evaluated.probabilities.items():
        received = served.probabilities[name]
        # Written so that NaN is a difference too.
        if not abs(received - expected) <= tolerance:
            return f"expected {name} with {expected:.3f}, received {received:.3f}"
    return ""
