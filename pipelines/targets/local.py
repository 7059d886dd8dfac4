"""Runs the pipeline on this machine, under `kfp.local`; a runner says how a task is run."""

import contextlib
import dataclasses
import datetime
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

from components.common.config import build, read_mapping, to_json
from components.common.errors import ConfigError, GateClosedError, UserError
from components.common.files import DATASET_FILE
from components.common.outputs import remove, write_text
from components.common.progress import parse_line, parse_message
from components.common.step import Failure, parse_failure, parse_took
from components.export_model.config import ExportConfig
from components.ingest_examples.config import PhotosConfig
from components.train_model.accelerators import AcceleratorConfig
from components.train_model.architectures import NO_WEIGHTS, ModelConfig
from pipelines.code import code_digest
from pipelines.console import Console, open_console
from pipelines.history import check_earlier_splits
from pipelines.recipe import (
    ANY_ACCELERATOR,
    NO_DEPLOYMENT,
    DeploymentConfig,
    Recipe,
    pipeline_parameters,
)
from pipelines.targets.runners import Inputs, Runner, find_inputs, find_weights
from pipelines.targets.target_files import TRAIN_TASK

RUN_FILE = "run.json"
LOG_FILE = "run.log"
REPORT_FILE = "report.html"
STEPS_LINK = "steps"
# What KFP writes; containers see this folder of a run and no other.
ROOT = ".kfp"
# Of the training, below it; goes when the run has its verdict.
CHECKPOINT = "checkpoint"
# What KFP notes of tasks that are done, below it, for a run that goes on.
CACHE = "cache"
# How a run may have ended that has something left to do; one that was killed never says more than
# that it is running.
RESUMABLE = ("running", "failed", "interrupted")
DEPLOY_TASK = "deploy-model"
EXIT_INTERRUPTED = 130
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_STARTED = re.compile(r"[\d:.]+ - INFO - Executing task '(?P<task>[\w-]+)'")
_FINISHED = re.compile(
    r"[\d:.]+ - (?:INFO|ERROR) - Task '(?P<task>[\w-]+)' finished with status (?P<status>\w+)"
)


class _InterruptedRunError(BaseException):
    """Somebody asked the run to stop; not an Exception, so that nothing on the way catches it."""


class Run:
    """The folder of one run and its `run.json`, which is whole at every moment."""

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.folder = folder
        self.content = content
        self.failure: Failure | None = None
        self._began = time.monotonic() - content["seconds"]

    def save(self, **changes: Any) -> None:
        """Changes entries of `run.json` and writes it."""
        self.content.update(changes, seconds=round(time.monotonic() - self._began, 1))
        write_text(self.folder / RUN_FILE, to_json(self.content))

    def task(self, name: str, **changes: Any) -> None:
        """Changes entries of one task and writes `run.json`."""
        self.content["tasks"].setdefault(name, {}).update(changes)
        self.save()

    def note_fingerprint(self) -> None:
        """Takes the fingerprint of the data over, once ingestion has written it."""
        dataset = _read_if_there(self.output("ingest-examples", "examples") / DATASET_FILE)
        if dataset:
            self.content["inputs"]["data_fingerprint"] = dataset["fingerprint"]

    def end_tasks(self, state: str) -> None:
        """Gives tasks that still run a last state."""
        for task in self.content["tasks"].values():
            if task["state"] == "running":
                task["state"] = state

    def output(self, task: str, name: str) -> Path:
        """Where a task puts an output."""
        return self.folder / STEPS_LINK / task / name


def run_local(
    photos: PhotosConfig,
    recipe: Recipe,
    recipe_name: str,
    output: Path,
    runner: Runner,
    deployment: DeploymentConfig = NO_DEPLOYMENT,
    hourly_price: float | None = None,
    accelerator: AcceleratorConfig = ANY_ACCELERATOR,
    checkpoint_steps: int = 0,
) -> int:
    """Runs the pipeline and tells how it went.

    Args:
        photos: Where the photos are.
        recipe: Everything else.
        recipe_name: How the user called the recipe.
        output: Folder in which the run gets a folder of its own.
        runner: How tasks are run.
        deployment: Where the model goes.
        hourly_price: What this machine costs in an hour, for the report; None where nobody knows.
        accelerator: What the model is trained on.
        checkpoint_steps: Steps between two checkpoints within an epoch; 0 for none.

    Returns:
        Exit code: 0 gate passed and model exported, 1 a fault of ours, 2 the user's mistake,
        3 the gate is closed or the champion stays, 130 interrupted.

    Raises:
        ConfigError: The run cannot start on this machine.
        DataError: The first look at the photos shows that it would fail.
    """
    _check_photos(photos)
    photos, recipe = _absolute(photos), _with_absolute_weights(recipe)
    inputs = find_inputs(photos, recipe.model, recipe.export)
    images = runner.check(inputs)
    check_earlier_splits(photos, recipe.ingest, output)
    run = _new_run(
        photos,
        recipe,
        recipe_name,
        output,
        runner,
        images,
        deployment,
        accelerator,
        checkpoint_steps,
    )
    with _open_log(run.folder) as log:
        run.save(hourly_price=hourly_price)
        return _carry_out(run, runner, inputs, log)


def resume_local(folder: Path, runner: Runner) -> int:
    """Goes on with a run that was killed, interrupted or failed.

    What was done stays: the outputs of tasks that ended well, unless the folder was moved, and the
    checkpoint of the training.

    Args:
        folder: Folder of the run.
        runner: How tasks are run, the same as before.

    Returns:
        Exit code, as of `run_local`.

    Raises:
        ConfigError: The run has ended, still runs, or was begun by other code or other images.
    """
    with _open_log(folder) as log:
        content = read_mapping(str(folder / RUN_FILE))
        parameters = content["parameters"]
        # KFP knows what was done by the place where it lies. A training goes on all the same.
        moved = parameters["checkpoint"] != _checkpoint_place(folder)
        parameters["checkpoint"] = _checkpoint_place(folder)
        tasks = {} if moved else content["tasks"]
        done = [name for name, task in tasks.items() if task["state"] == "succeeded"]
        model = build(ModelConfig, parameters["model_config"])
        if TRAIN_TASK in done:
            # Nobody asks for its first weights again, which may be gone.
            model = dataclasses.replace(model, weights=NO_WEIGHTS, weights_sha256="")
        inputs = find_inputs(
            build(PhotosConfig, {key: parameters[key] for key in _PHOTOS_KEYS}),
            model,
            build(ExportConfig, parameters["export_config"]),
        )
        _check_resumable(folder, content, runner, runner.check(inputs))
        run = Run(folder, content)
        if moved:
            remove(folder / ROOT / CACHE)
        _remove_unfinished(folder, done)
        run.save(
            state="running",
            exit_code=None,
            failure=None,
            pid=os.getpid(),
            tasks={name: content["tasks"][name] for name in done},
        )
        print(f"goes on with {folder}; done before: {', '.join(done) or 'nothing'}", flush=True)
        return _carry_out(run, runner, inputs, log)


_PHOTOS_KEYS = tuple(field.name for field in dataclasses.fields(PhotosConfig))


def _check_resumable(
    folder: Path, content: dict[str, Any], runner: Runner, images: dict[str, str]
) -> None:
    """Refuses to go on where the two halves of a run would not be of one piece."""
    if content["state"] not in RESUMABLE:
        raise ConfigError(
            f"--resume {folder}: expected a run that was killed, interrupted or failed, received "
            f"one that ended: {content['state']}"
        )
    for name, expected, received in (
        ("code and packages", content["versions"], _versions(runner.packages)),
        ("images", content["images"], images),
    ):
        differing = [key for key in expected if received.get(key) != expected[key]]
        if differing:
            key = differing[0]
            raise ConfigError(
                f"--resume {folder}: expected the {name} that began it, {key} "
                f"{expected[key]:.19}, received {received.get(key)!s:.19}; start a new run"
            )


def _remove_unfinished(folder: Path, done: list[str]) -> None:
    """Removes what tasks left that did not end well; nobody would read it."""
    kept = {(folder / STEPS_LINK / name).resolve() for name in done}
    for attempt in (folder / ROOT).glob("*/"):
        if attempt.name not in {CHECKPOINT, CACHE}:
            for task in attempt.iterdir():
                if task.resolve() not in kept:
                    remove(task)


@contextlib.contextmanager
def _open_log(folder: Path) -> Iterator[IO[str]]:
    """Opens the log of a run and keeps it to this process, until it ends, in whatever way.

    Raises:
        ConfigError: Another process has it, or there is no such folder.
    """
    try:
        log = (folder / LOG_FILE).open("a", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"run {folder}: {LOG_FILE} cannot be written: {error.strerror}"
        ) from error
    with log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"--resume {folder}: it still runs; wait for its end, or stop it"
            ) from error
        yield log


def _carry_out(run: Run, runner: Runner, inputs: Inputs, log: IO[str]) -> int:
    """Runs what is left to do and tells how it went; returns the exit code."""
    with _interruptible(), open_console() as console:
        try:
            with runner.open(inputs, run.folder, run.content["images"]) as kfp_runner:
                exit_code = _run(run, console, kfp_runner, log)
        except _InterruptedRunError:
            exit_code = EXIT_INTERRUPTED
    return _finish(run, exit_code)


def _check_photos(photos: PhotosConfig) -> None:
    """Finds at once what the first step would find after the start of everything."""
    from components.ingest_examples.sources import find_class_names, read_groups

    find_class_names(photos.images)
    manifest = photos.manifest_place()
    if manifest:
        read_groups(manifest, photos.group_column)


def _absolute(photos: PhotosConfig) -> PhotosConfig:
    """Makes local paths absolute, so that `run.json` means the same wherever it is read."""
    manifest = photos.manifest_path()
    if manifest:
        photos = dataclasses.replace(photos, manifest=str(manifest.resolve()))
    if photos.previous and "://" not in photos.previous:
        photos = dataclasses.replace(photos, previous=str(Path(photos.previous).resolve()))
    if "://" in photos.images:
        return photos
    return dataclasses.replace(photos, images=str(Path(photos.images).resolve()))


def _with_absolute_weights(recipe: Recipe) -> Recipe:
    weights = find_weights(recipe.model)
    if weights is None:
        return recipe
    return dataclasses.replace(
        recipe, model=dataclasses.replace(recipe.model, weights=str(weights))
    )


def _new_run(
    photos: PhotosConfig,
    recipe: Recipe,
    recipe_name: str,
    output: Path,
    runner: Runner,
    images: dict[str, str],
    deployment: DeploymentConfig,
    accelerator: AcceleratorConfig,
    checkpoint_steps: int,
) -> Run:
    started = datetime.datetime.now().astimezone()
    folder = _new_folder(output, f"{started:%Y%m%d-%H%M%S}-{Path(recipe_name).stem}")
    deployment = dataclasses.replace(deployment, run_name=folder.name)
    parameters = pipeline_parameters(photos, recipe, deployment, accelerator, checkpoint_steps)
    content = {
        "state": "running",
        "exit_code": None,
        "started_at": started.isoformat(timespec="seconds"),
        "seconds": 0.0,
        "command": shlex.join(["flowers", *sys.argv[1:]]),
        "pid": os.getpid(),
        "recipe": recipe_name,
        "parameters": parameters,
        "inputs": _input_digests(photos, parameters),
        "runner": runner.name,
        "images": images,
        "versions": _versions(runner.packages),
        "tasks": {},
        "verdict": None,
        "deployment": None,
        "failure": None,
        "outputs": {},
    }
    # After the digest of the parameters, which is the same for every run.
    parameters["command"] = content["command"]
    parameters["checkpoint"] = _checkpoint_place(folder)
    run = Run(folder, content)
    run.save()
    return run


def _checkpoint_place(folder: Path) -> str:
    return str(folder.resolve() / ROOT / CHECKPOINT)


def _new_folder(output: Path, name: str) -> Path:
    """Makes a folder that no other run has."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            folder = output / (name if number == 1 else f"{name}-{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        raise ConfigError(
            f"--output {output}: cannot be made ({error.strerror}); name a folder that can be "
            "written"
        ) from error
    raise ConfigError(f"--output {output}: holds a thousand runs named {name}; name another")


def _input_digests(photos: PhotosConfig, parameters: dict[str, Any]) -> dict[str, str]:
    """Digests of what is known before the first step; the data's fingerprint follows."""
    digests = {"parameters": hashlib.sha256(to_json(parameters).encode()).hexdigest()}
    manifest = photos.manifest_path()
    if manifest and manifest.is_file():
        digests["manifest"] = hashlib.sha256(manifest.read_bytes()).hexdigest()
    return digests


def _versions(packages: Iterable[str]) -> dict[str, str]:
    versions = {
        "flowers": metadata.version("flowers"),
        "code": code_digest(),
        "python": sys.version.split()[0],
    }
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _run(run: Run, console: Console, kfp_runner: Any, log: IO[str]) -> int:
    """Runs the graph; the exit code is that of the step which ended it."""
    from kfp import dsl, local

    from pipelines.flowers import NAME, graph_with

    root = run.folder / ROOT
    # Before a container engine would make it, as root.
    root.mkdir(exist_ok=True)
    # The cache is of this run alone, so ingestion too may be taken from it.
    pipeline = dsl.pipeline(name=NAME)(graph_with(cache_photos=True))
    local.init(
        kfp_runner, pipeline_root=str(root), enable_caching=True, cache_root=str(root / CACHE)
    )
    listener = _Listener(run, root, console, log)
    try:
        with contextlib.redirect_stdout(listener):
            pipeline(**run.content["parameters"])
    # KFP raises RuntimeError when a task fails; why is in the line that the step printed. Any
    # other error is a fault, goes into the log, and must not leave the run without an end.
    except Exception:
        listener.write(traceback.format_exc())
        return run.failure.exit_code if run.failure else 1
    return 0


class _Listener:
    """Stands in for standard output while KFP runs: keeps the log and picks out what matters."""

    def __init__(self, run: Run, root: Path, console: Console, log: IO[str]) -> None:
        self._run = run
        self._root = root
        self._console = console
        self._log = log
        # Told apart by what was there before, and not by the time in their names: a clock may jump.
        self._earlier = set(root.iterdir())
        self._rest = ""
        self._started_at = 0.0

    def write(self, text: str) -> int:
        """Takes text in pieces of any size and works on whole lines."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            plain = _COLOUR.sub("", line)
            self._log.write(plain + "\n")
            self._log.flush()
            self._take(plain.strip())
        return len(text)

    def flush(self) -> None:
        """Every line is flushed as it comes."""

    def isatty(self) -> bool:
        """No: KFP prints lines here."""
        return False

    def _take(self, line: str) -> None:
        if started := _STARTED.match(line):
            self._start(started["task"])
        elif finished := _FINISHED.match(line):
            self._finish(finished["task"], finished["status"] == "SUCCESS")
        elif event := parse_line(line):
            self._console.progress(event)
        elif message := parse_message(line):
            self._message(*message)
        elif failure := parse_failure(line):
            self._run.failure = failure

    def _start(self, task: str) -> None:
        self._started_at = time.monotonic()
        self._run.task(task, state="running")
        self._console.started(task)

    def _message(self, task: str, text: str) -> None:
        seconds = parse_took(text)
        if seconds is None:
            self._console.message(task, text)
        elif task in self._run.content["tasks"]:
            self._run.task(task, work_seconds=seconds)

    def _finish(self, task: str, succeeded: bool) -> None:
        self._link(task)
        if task == "ingest-examples":
            self._run.note_fingerprint()
        seconds = round(time.monotonic() - self._started_at, 2)
        self._run.task(task, state="succeeded" if succeeded else "failed", seconds=seconds)
        self._console.finished(task, succeeded, seconds)

    def _link(self, task: str) -> None:
        """Gives the outputs a short path: KFP puts them below a folder with a time in its name."""
        made = [one for one in self._root.glob(f"*/{task}") if one.parent not in self._earlier]
        if not made:
            return
        link = self._run.folder / STEPS_LINK / task
        link.parent.mkdir(exist_ok=True)
        partial = link.with_name(f".{task}")
        partial.unlink(missing_ok=True)
        partial.symlink_to(Path("..", made[0].relative_to(self._run.folder)))
        partial.replace(link)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Makes SIGINT, SIGTERM and SIGHUP end the run with its running task, and be written down."""

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        # All are listed before one is ended: an orphan would no longer be found.
        for pid in list(_descendants(os.getpid())):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        raise _InterruptedRunError

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        # The terminal is gone; under nohup that ends nothing.
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _descendants(pid: int) -> Iterator[int]:
    """Children, grandchildren and so on, where the system tells (Linux)."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        # A thread may end between its being listed and its being read.
        with contextlib.suppress(OSError):
            for child in children.read_text(encoding="ascii").split():
                yield from _descendants(int(child))
                yield int(child)


def _finish(run: Run, exit_code: int) -> int:
    """Writes the end of `run.json` and the report, and tells the user."""
    verdict = _read_if_there(run.output("gate-model", "verdict"))
    saved_model = run.output("export-model", "saved_model")
    message = _message(run, exit_code)
    if exit_code == 0 and not (verdict and verdict["blessed"] and saved_model.is_dir()):
        exit_code = 1
        message = f"the run ended without an error and without a model; see {run.folder / LOG_FILE}"
    outputs = {"report": REPORT_FILE}
    champion_stays = run.failure is not None and run.failure.step == DEPLOY_TASK and exit_code == 3
    if exit_code == 0 or champion_stays:
        outputs["saved_model"] = str(saved_model.relative_to(run.folder))
    if exit_code in {0, GateClosedError.exit_code}:
        shutil.rmtree(run.folder / ROOT / CHECKPOINT, ignore_errors=True)
    refused = "champion stays" if champion_stays else "gate closed"
    states = {0: "succeeded", 3: refused, EXIT_INTERRUPTED: "interrupted"}
    state = states.get(exit_code, "failed")
    run.end_tasks(state)
    run.save(
        state=state,
        exit_code=exit_code,
        verdict=verdict,
        deployment=_read_if_there(run.output(DEPLOY_TASK, "deployment")),
        failure=None if exit_code == 0 else message,
        outputs=outputs,
    )
    _write_report(run)
    _tell(run, exit_code, message)
    return exit_code


def _read_if_there(path: Path) -> dict[str, Any] | None:
    """A JSON file of a step; None when the step did not come to write it."""
    try:
        return read_mapping(str(path))
    except UserError:
        return None


def _message(run: Run, exit_code: int) -> str:
    """The last line, without the name of the command."""
    if exit_code == 0:
        return ""
    if exit_code == EXIT_INTERRUPTED:
        return "interrupted"
    if run.failure:
        return run.failure.message
    failed = [name for name, task in run.content["tasks"].items() if task["state"] == "failed"]
    where = f"step {failed[0]} failed" if failed else "the pipeline failed"
    return f"{where}, which is a fault of the software; see {run.folder / LOG_FILE}"


def _write_report(run: Run) -> None:
    from pipelines.report import write_run_report

    write_run_report(run.folder, run.content)


def _tell(run: Run, exit_code: int, message: str) -> None:
    verdict = run.content["verdict"]
    # Flushed, so that the reason is the last line also where both streams go into one file.
    print(f"report  {run.folder / REPORT_FILE}", flush=True)
    if exit_code == 0:
        print(f"model   {run.folder / run.content['outputs']['saved_model']}")
        deployment = run.content["deployment"]
        if deployment:
            print(f"version {deployment['version']} serves: {deployment['reason']}")
        print(f"gate open: {verdict['reason']}")
    else:
        print(f"flowers run: {message}", file=sys.stderr)
