"""Registers an exported model, holds it against the champion, and rolls it out."""

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from components.common.config import read_mapping, to_json
from components.common.dataset import load_dataset
from components.common.errors import ChampionStaysError, ConfigError, DataError, FlowersError
from components.common.evaluation import Evaluation, load_evaluation, percent
from components.common.lineage import saved_model_digest
from components.common.outputs import staged
from components.common.progress import say
from components.common.resizing import resize_of
from components.common.verdict import Verdict, require_blessing
from components.deploy_model.champion import Comparison, compare
from components.deploy_model.config import DeployConfig
from components.deploy_model.registries import prober
from components.deploy_model.registry import (
    STEP,
    Candidate,
    Prediction,
    Registry,
    recover,
    roll_out,
    serving,
)
from components.deploy_model.scoring import Photo, SplitPhotos, predict

_METADATA_FILE = Path("assets.extra", "flowers.json")
Predict = Callable[[Path, Iterable[bytes]], Iterable[Prediction]]


class _Answers(NamedTuple):
    """What a model says of the test photos, as far as it is needed.

    Attributes:
        right: Whether it is right, photo by photo.
        class_names: Those it knows.
        probes: Some of the photos, with all that it says of them.
    """

    right: list[bool]
    class_names: frozenset[str]
    probes: list[tuple[bytes, Prediction]]


@dataclasses.dataclass(frozen=True)
class Deployment:
    """How a deployment ended.

    Attributes:
        version: Version of the challenger.
        champion: Version that serves now.
        deployed: Whether that is the challenger.
        reason: Why, in one sentence.
        comparison: Challenger against the champion before; None where there was none.
    """

    version: str
    champion: str
    deployed: bool
    reason: str
    comparison: Comparison | None


def deploy(
    examples: Path,
    saved_model: Path,
    evaluation: Path,
    verdict: Path,
    registry: Registry,
    config: DeployConfig,
    run: str,
    deployment: Path,
) -> Deployment:
    """Registers a model and deploys it if it is better than the champion.

    Args:
        examples: Data set with the test split that was evaluated on.
        saved_model: SavedModel of `export_model`.
        evaluation: JSON file of `evaluate_model` for this model.
        verdict: JSON file of `gate_model` for this evaluation.
        registry: Where to.
        config: When and how.
        run: Name of the run, for the labels.
        deployment: JSON file to make.

    Raises:
        ChampionStaysError: The champion is at least as good.
        DataError: The inputs do not belong together.
        GateClosedError: The gate is closed.
        RolledBackError: The canary failed; traffic is what it was before.
    """
    dataset = load_dataset(examples)
    scores = load_evaluation(evaluation)
    decision = require_blessing(verdict, evaluation)
    candidate = _candidate(saved_model, scores, decision, dataset.fingerprint, run)
    photos = SplitPhotos(dataset, "test")
    with staged(deployment) as (path,):
        result = decide_and_roll_out(registry, candidate, photos, config, predict)
        path.write_text(to_json(dataclasses.asdict(result)), encoding="utf-8")
    if not result.deployed:
        raise ChampionStaysError(f"version {result.champion} stays champion: {result.reason}")
    say(STEP, f"version {result.version} serves: {result.reason}")
    return result


def _candidate(
    saved_model: Path, scores: Evaluation, decision: Verdict, fingerprint: str, run: str
) -> Candidate:
    """The model with its papers, which must belong together."""
    metadata = read_mapping(str(saved_model / _METADATA_FILE))
    for name, expected, received in (
        ("model", scores.model_digest, metadata.get("model_digest")),
        ("data set", scores.data_fingerprint, fingerprint),
        ("export", decision.evaluation_digest, metadata.get("evaluation_digest")),
    ):
        if expected != received:
            raise DataError(
                f"the evaluation is of another {name}: expected digest {expected[:12]}, received "
                f"{str(received)[:12]}; give what belongs together"
            )
    written, found = str(metadata.get("files_digest")), saved_model_digest(saved_model)
    if written != found:
        raise DataError(
            f"model {saved_model}: expected the files that export_model wrote, digest "
            f"{written[:12]}, received {found[:12]}; they were changed, so export anew"
        )
    labels = {
        "run": run,
        "data": scores.data_fingerprint,
        "accuracy": f"{scores.accuracy:.4f}",
    }
    return Candidate(saved_model, scores.model_digest, labels, dataclasses.asdict(scores))


def decide_and_roll_out(
    registry: Registry,
    candidate: Candidate,
    photos: Collection[Photo],
    config: DeployConfig,
    predict: Predict,
) -> Deployment:
    """What `deploy` does, with the photos at hand.

    Args:
        registry: Where to.
        candidate: The challenger.
        photos: The test split.
        config: When and how.
        predict: Asks a SavedModel about photos.
    """
    # The same run may be started again; two runs by hand have one name.
    owner = f"{candidate.labels['run'][:50]}-{candidate.digest[:8]}"
    with registry.claim(owner):
        recover(registry)
        every = max(1, len(photos) // config.probes)
        chosen = range(0, len(photos), every)[: config.probes]
        answers = _ask(predict, candidate.saved_model, photos, chosen)
        counted = (candidate.evaluation["correct"], candidate.evaluation["examples"])
        if (sum(answers.right), len(answers.right)) != counted:
            raise FlowersError(
                f"the SavedModel has {sum(answers.right)} of {len(answers.right)} test photos "
                f"right, and its evaluation says {counted[0]} of {counted[1]}"
            )
        champion = serving(registry.traffic())
        version = registry.add(candidate)
        if champion == version:
            return Deployment(version, version, True, "it is the champion already", None)
        comparison = None
        if champion is not None:
            comparison = _compare(registry, champion, candidate, answers, photos, config, predict)
            if not comparison.better:
                return Deployment(version, champion, False, comparison.reason, comparison)
        jpegs, expected = zip(*answers.probes, strict=True)
        check = prober(registry, jpegs, expected, config.tolerance)
        roll_out(registry, version, config.canary_percent, check)
        accuracy = percent(candidate.evaluation["accuracy"])
        reason = comparison.reason if comparison else f"the first version, test accuracy {accuracy}"
        return Deployment(version, version, True, reason, comparison)


def _ask(
    predict: Predict, saved_model: Path, photos: Collection[Photo], probes: Sequence[int] = ()
) -> _Answers:
    """Asks a SavedModel about the test photos, of which only the probes stay in memory."""
    asked, seen = itertools.tee(photos)
    predictions = predict(saved_model, (photo.jpeg for photo in asked))
    answers = _Answers([], frozenset(), [])
    for number, (photo, answer) in enumerate(zip(seen, predictions, strict=True)):
        answers.right.append(answer.label == photo.class_name)
        if number in probes:
            answers.probes.append((photo.jpeg, answer))
        if not answers.class_names:
            answers = answers._replace(class_names=frozenset(answer.probabilities))
    return answers


def _resize_of(saved_model: Path) -> str:
    """How photos became the squares that a model learnt from."""
    file = saved_model / _METADATA_FILE
    # For a note's sake no deployment ends: what does not say is taken for an old export.
    return resize_of(read_mapping(str(file)) if file.is_file() else {})


def _compare(
    registry: Registry,
    champion: str,
    candidate: Candidate,
    answers: _Answers,
    photos: Collection[Photo],
    config: DeployConfig,
    predict: Predict,
) -> Comparison:
    """Scores the champion in this run, on the photos that the challenger was scored on."""
    with registry.artifact(champion) as saved_model:
        former = _ask(predict, saved_model, photos)
        learnt, asked = _resize_of(saved_model), _resize_of(candidate.saved_model)
    if learnt != asked:
        say(
            STEP,
            f"note: the champion learnt from photos with ingest.resize {learnt} and is asked about "
            f"the test photos as this run has them, with {asked}, which may cost it a little",
        )
    lost = former.class_names - answers.class_names
    if lost:
        raise ConfigError(
            f"the champion knows {', '.join(sorted(lost))}, and the challenger does not: deploy it "
            "under another --model-name, or train it with photos of these classes"
        )
    return compare(answers.right, former.right, config.significance)
