"""What survives a killed training: weights, optimizer, history and position, whole at every moment.

DIR/state.json                     position and history; names the two files below
DIR/EPOCH-STEP.weights.h5          weights and the optimizer's variables at that position
DIR/kept-EPOCH.weights.h5          weights of the epoch that would be kept if training ended now;
                                   with `keep: last` there are none before the end

A file is written under a name of its own before `state.json` names it, and `state.json` is replaced
in one step, so a process may be killed at any moment.
"""

import contextlib
import dataclasses
import errno
import fcntl
import math
import os
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from components.common.config import build, read_mapping, to_json
from components.common.errors import ConfigError, DataError, UserError
from components.common.files import file_digest
from components.common.outputs import write_text
from components.train_model.checkpoint_files import STATE_FILE, SUFFIX, is_weights, unreadable
from components.train_model.history import Epoch

# More than HDF5 adds to each variable, which is 1 to 2 KiB.
_BYTES_AROUND_VARIABLE = 4096


@dataclasses.dataclass(frozen=True)
class Saved:
    """A file of weights.

    Attributes:
        file: Its name.
        digest: SHA-256, in hexadecimal: Keras reads some damaged files without complaint.
    """

    file: str
    digest: str


@dataclasses.dataclass(frozen=True)
class Position:
    """How far training is.

    Attributes:
        epoch: Epochs done.
        step: Steps done of the one after them.
        loss: Mean loss over these steps.
        accuracy: Mean accuracy over these steps.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    accuracy: float = 0.0


@dataclasses.dataclass(frozen=True)
class State:
    """What `state.json` holds.

    Attributes:
        training: Digest of everything that decides the course of the training.
        position: How far it is.
        history: One entry per epoch done.
        weights: Weights and optimizer at that position.
        seeds: State of every random generator of the net, which Keras leaves out of the file.
        kept: The epoch that would be kept if training ended now; None before the first that is
            validated, and until training has ended where that is its last.
        kept_weights: Its weights, or their moving average.
    """

    training: str
    position: Position
    history: tuple[Epoch, ...]
    weights: Saved
    seeds: tuple[tuple[int, ...], ...] = ()
    kept: Epoch | None = None
    kept_weights: Saved | None = None


class Checkpoint:
    """The checkpoint of one training, in a folder that may hold that of an earlier try.

    Args:
        folder: Made where it is missing.
        name: What messages call it.
        training: Digest of everything that decides the course of the training.
        writes: Whether what is saved is written; of several hosts that train one model, one does.

    Raises:
        ConfigError: The folder cannot be made, or holds the checkpoint of another training.
        DataError: What it holds is damaged.
    """

    def __init__(self, folder: Path, name: str, training: str, *, writes: bool = True) -> None:
        self.folder = folder
        self.name = name
        self.training = training
        self._writes = writes
        _make(folder, name)
        self.state = self._read()

    @property
    def position(self) -> Position:
        """How far training is; the start where there is no checkpoint."""
        return self.state.position if self.state else Position()

    @property
    def history(self) -> tuple[Epoch, ...]:
        """One entry per epoch done."""
        return self.state.history if self.state else ()

    @property
    def kept(self) -> Epoch | None:
        """The epoch that would be kept if training ended now, as far as it is known."""
        return self.state.kept if self.state else None

    def save(
        self,
        model: keras.Model,
        position: Position,
        history: tuple[Epoch, ...],
        kept: tuple[Epoch, Saved] | None = None,
    ) -> None:
        """Saves a position, in one step with what is to be kept from it.

        Args:
            model: Compiled; its optimizer is saved too.
            position: How far training is.
            history: One entry per epoch done.
            kept: The epoch to keep and its weights; None to leave what is kept.
        """
        former = (self.state.kept, self.state.kept_weights) if self.state else (None, None)
        epoch, weights = kept or former
        self._replace(
            State(
                training=self.training,
                position=position,
                history=history,
                weights=self.write(model, f"{position.epoch:05d}-{position.step:06d}"),
                seeds=tuple(
                    tuple(map(int, keras.ops.convert_to_numpy(seed))) for seed in _seeds(model)
                ),
                kept=epoch,
                kept_weights=weights,
            )
        )

    def write(self, model: keras.Model, name: str) -> Saved:
        """Writes the weights of a model; `save` has to name them for them to stay.

        Raises:
            OSError: There is no room for them; nothing of them is left.
        """
        if not self._writes:
            return Saved("", "")
        path = self.folder / f"{name}{SUFFIX}"
        # Keras insists on the suffix, so what is not whole has another prefix.
        partial = self.folder / f"partial-{os.getpid()}{SUFFIX}"
        try:
            _make_sure_of_room(partial, model)
            with _undistributed():
                model.save_weights(partial, overwrite=True)
            saved = Saved(path.name, file_digest(partial))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return saved

    def restore(self, model: keras.Model) -> None:
        """Gives a model the weights of the last position, and its optimizer too if it has one."""
        assert self.state is not None
        self._load(model, self.state.weights)
        for seed, value in zip(_seeds(model), self.state.seeds, strict=True):
            seed.assign(value)

    def restore_kept(self, model: keras.Model) -> None:
        """Gives a model that has no optimizer the weights to keep."""
        assert self.state is not None
        assert self.state.kept_weights is not None
        self._load(model, self.state.kept_weights)

    def _load(self, model: keras.Model, saved: Saved) -> None:
        path = self.folder / saved.file
        try:
            if file_digest(path) != saved.digest:
                raise DataError(
                    f"checkpoint {self.name}: {saved.file} is damaged; delete it all to start anew"
                )
        except OSError as error:
            raise unreadable(self.name, saved.file, error) from error
        model.load_weights(path)

    def _replace(self, state: State) -> None:
        if not self._writes:
            self.state = state
            return
        write_text(self.folder / STATE_FILE, to_json(dataclasses.asdict(state)))
        self.state = state
        named = {saved.file for saved in (state.weights, state.kept_weights) if saved}
        for path in self.folder.iterdir():
            if is_weights(path.name) and path.name not in named:
                path.unlink(missing_ok=True)

    def _read(self) -> State | None:
        path = self.folder / STATE_FILE
        if not path.exists():
            return None
        try:
            state = build(State, read_mapping(str(path)))
        except UserError as error:
            raise DataError(
                f"checkpoint {self.name}: damaged ({error}); delete it to start anew"
            ) from error
        if state.training != self.training:
            raise ConfigError(
                f"checkpoint {self.name}: expected that of this training, received that of one "
                "with another recipe, other examples, other devices or another precision (a CPU "
                "may choose it); give another folder, or delete this one"
            )
        return state


@contextlib.contextmanager
def alone_in(folder: Path, name: str) -> Iterator[None]:
    """Keeps a folder to this training within the block: two would remove each other's files.

    Args:
        folder: Made where it is missing.
        name: What messages call it.

    Raises:
        ConfigError: Another training has it, or it cannot be made.
    """
    _make(folder, name)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"checkpoint {name}: expected a folder that no other training uses, received one "
                "that another is in; wait for its end, or give another folder"
            ) from error
        except OSError:
            # Some network file systems cannot lock a folder, and are used without.
            pass
        yield
    finally:
        os.close(handle)


def _make(folder: Path, name: str) -> None:
    """Makes the folder before hours of training are to go into it.

    Raises:
        ConfigError: It cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        reason = str(error.strerror)
    else:
        reason = "" if os.access(folder, os.W_OK) else os.strerror(errno.EACCES)
    if reason:
        raise ConfigError(
            f"checkpoint {name}: expected a folder that can be made and written ({reason}); give "
            "another, or free this one"
        )


def _make_sure_of_room(path: Path, model: keras.Model) -> None:
    """Makes a file as large as that of the weights of a model will be, which replaces it.

    Where a disk is full, HDF5 does not say so but crashes the process.

    Raises:
        OSError: There is no room.
    """
    # A model that was not compiled has none.
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else [])]
    size = sum(math.prod(one.shape) * np.dtype(one.dtype).itemsize for one in variables)
    with path.open("wb") as file:
        # Not on macOS.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size + _BYTES_AROUND_VARIABLE * len(variables))


@contextlib.contextmanager
def _undistributed() -> Iterator[None]:
    """Takes the distribution of devices away, so that one of several hosts can save alone."""
    # Keras makes an optimizer to look at, whose variables all hosts would have to make together.
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def _seeds(model: keras.Model) -> list[keras.Variable]:
    """The states of the random generators, of dropout say, in the order of the layers."""
    return [one for one in model.variables if "seed_generator" in one.path]
