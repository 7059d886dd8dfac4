"""Fits a model by a plan, from wherever its checkpoint stands, and follows what happens."""

import contextlib
import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from components.common.dataset import Dataset
from components.common.errors import FlowersError, RetryError
from components.common.progress import Progress
from components.train_model.accelerators import CPU, Accelerator
from components.train_model.augmented_model import AugmentedModel
from components.train_model.checkpoints import Checkpoint, Position
from components.train_model.history import Epoch
from components.train_model.input_pipeline import (
    eval_batches,
    train_batches,
    weighted_batches,
)
from components.train_model.models.blocks import choose_learning_layers
from components.train_model.optimizers import LossScaling, make_optimizer
from components.train_model.plan import Phase, Plan
from components.train_model.precision import FLOAT16

_EVAL_BATCH = 64
# So many that an accelerator does not wait for its host between them.
_STEPS_PER_EXECUTION = 32


def fit(
    model: AugmentedModel,
    plan: Plan,
    train_split: Dataset,
    validation_split: Dataset,
    checkpoint: Checkpoint,
    follower: "Follower",
) -> None:
    """Fits a model; what came of it is in the checkpoint.

    Args:
        model: With its first weights, built for the devices of the follower.
        plan: What is done in which step.
        train_split: Data set with the train split.
        validation_split: Data set with the validation split.
        checkpoint: Where training is saved, and from where it goes on.
        follower: Is told of every step and epoch.

    Raises:
        FlowersError: The loss is no longer a number.
        RetryError: The machine is being taken away; the checkpoint has all that was done.
    """
    feed = _Feed(plan, train_split, validation_split, follower.accelerator)
    # A training that goes on begins with the weights of its checkpoint.
    restores = checkpoint.state is not None
    for phase in plan.phases:
        if checkpoint.position.epoch < phase.end and not follower.stopped:
            with follower.accelerator.building():
                _prepare(model, plan, phase, checkpoint if restores else None, feed)
            restores = False
        while checkpoint.position.epoch < phase.end and not follower.stopped:
            _fit_on(model, plan, phase, feed, checkpoint.position, follower)


class _Feed:
    """Batches as the devices take them."""

    def __init__(
        self, plan: Plan, train_split: Dataset, validation_split: Dataset, accelerator: Accelerator
    ) -> None:
        self._plan = plan
        self._train = train_split
        self._validation = validation_split
        self._accelerator = accelerator
        # Read once, for every phase.
        self._whole = eval_batches(validation_split, "validation", _EVAL_BATCH)

    def spec(self) -> Any:
        """Shapes and types of a train batch, as one replica or one step over all takes it."""
        return self._one_device(self._train_batches(self._plan.phases[0], 0)).element_spec

    def train(self, phase: Phase, first_step: int) -> Any:
        """Endless train batches of a phase, from a step of the training on."""
        return self._split(self._train_batches(phase, first_step))

    def validation(self, steps_per_execution: int) -> tuple[Any, int | None]:
        """The validation split, and its steps where the batches have no end."""
        accelerator = self._accelerator
        if accelerator.replicas == 1:
            return self._whole, None
        weighted = weighted_batches(
            self._validation,
            "validation",
            max(_EVAL_BATCH, accelerator.replicas),
            replicas=accelerator.replicas,
            hosts=accelerator.hosts,
            steps_multiple=steps_per_execution,
        )
        return self._split(weighted.batches), weighted.steps

    def _train_batches(self, phase: Phase, first_step: int) -> tf.data.Dataset:
        return train_batches(
            self._train,
            phase.config,
            first_step,
            begin=phase.first * self._plan.steps_per_epoch,
            replicas=self._accelerator.replicas,
            hosts=self._accelerator.hosts,
        )

    def _one_device(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Batches of this host in the order of its replicas, each its own."""
        if not self._accelerator.is_split:
            return batches
        whole = tree.flatten(batches.element_spec)[0].shape[0]
        here = self._accelerator.replicas // self._accelerator.hosts.count
        return batches.rebatch(whole // here, drop_remainder=True)

    def _split(self, batches: tf.data.Dataset) -> Any:
        """A data set for Keras; a strategy hands the batches to its replicas in their order."""
        if not self._accelerator.is_split:
            return batches
        return self._accelerator.strategy.distribute_datasets_from_function(
            lambda _: self._one_device(batches)
        )


def _prepare(
    model: AugmentedModel, plan: Plan, phase: Phase, checkpoint: Checkpoint | None, feed: _Feed
) -> None:
    """Compiles a model for a phase, with the weights and the optimizer of a checkpoint."""
    if checkpoint is None and phase.continues:
        model.set_config(phase.config)
        return
    within = checkpoint is not None and (
        phase.continues or checkpoint.position.epoch > phase.first or checkpoint.position.step > 0
    )
    if checkpoint is not None and not within:
        # A phase begins with an optimizer of its own.
        checkpoint.restore(model)
    compile_model(model, plan, phase)
    model.build_for(feed.spec())
    if checkpoint is not None and within:
        checkpoint.restore(model)


def _fit_on(
    model: AugmentedModel,
    plan: Plan,
    phase: Phase,
    feed: _Feed,
    position: Position,
    follower: "Follower",
) -> None:
    """Fits from a position to the end of the phase, or to the end of an epoch in its middle."""
    done = position.epoch * plan.steps_per_epoch + position.step
    ema = [keras.callbacks.SwapEMAWeights()] if plan.config.ema else []
    steps = plan.steps_per_execution(follower.most_steps, position.step)
    model.set_steps_per_execution(steps)
    validation, validation_steps = feed.validation(steps)
    with follower.accelerator.preemption.held():
        model.fit(
            feed.train(phase, done),
            steps_per_epoch=plan.steps_per_epoch - position.step,
            initial_epoch=position.epoch,
            # What is left of an epoch has fewer steps than Keras would do in all that follow.
            epochs=position.epoch + 1 if position.step else phase.end,
            validation_data=validation,
            validation_steps=validation_steps,
            validation_freq=plan.validated_epochs(),
            callbacks=[*ema, follower],
            shuffle=False,
            verbose=0,
        )
    if follower.broken_epoch:
        raise FlowersError(
            f"the loss became NaN in epoch {follower.broken_epoch}: expected a number; lower "
            f"{phase.section}.schedule.peak, now {phase.schedule.peak:g}{_say_what_stays(follower)}"
        )


def _say_what_stays(follower: "Follower") -> str:
    """What a checkpoint that lasts has of a training that failed."""
    state = follower.checkpoint.state
    if not (follower.lasts and state):
        return ""
    position, name = state.position, follower.checkpoint.name
    steps = f" and {position.step} steps" if position.step else ""
    # It is of a training with the higher rate, and would be refused.
    return (
        f", with another checkpoint folder; {name} stays, after epoch {position.epoch}{steps} of "
        "this training"
    )


def compile_model(model: AugmentedModel, plan: Plan, phase: Phase) -> None:
    """Compiles a model for a phase: images, the layers that learn, loss, and a new optimizer."""
    model.set_config(phase.config)
    choose_learning_layers(model.net, phase.head_only, plan.config.fine_tune_at)
    optimizer = make_optimizer(plan.config.optimizer, plan.schedule(phase), plan.config.ema)
    if model.net.dtype_policy.name == FLOAT16:
        # Keras looks at the policy of the model that it compiles, which is that around the net.
        optimizer = LossScaling(optimizer)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=plan.config.label_smoothing),
        # What only fills up a batch does not count.
        weighted_metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        # Slower on CPUs, refused under a distribution strategy; the JAX backend compiles anyway.
        jit_compile=keras.backend.backend() == "jax",
    )
    # A checkpoint holds the optimizer's variables, which Keras makes at the first step otherwise.
    model.optimizer.build(model.trainable_variables)


class Follower(keras.callbacks.Callback):
    """Keeps the history and the checkpoint, shows the progress, and ends what is hopeless.

    Args:
        plan: What is done in which step.
        checkpoint: Where training is saved.
        shown: Progress in epochs.
        logs: Is given every epoch.
        accelerator: What the training runs on.
        every_steps: Steps between two checkpoints within an epoch; 0 for none.
        lasts: The checkpoint is still there when the training has failed.
    """

    def __init__(
        self,
        plan: Plan,
        checkpoint: Checkpoint,
        shown: Progress,
        logs: "EventLogs",
        accelerator: Accelerator,
        every_steps: int = 0,
        lasts: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.lasts = lasts
        self._plan = plan
        self.stopped = self._is_hopeless(checkpoint.history)
        self.broken_epoch = 0
        self._last_entry = time.perf_counter()
        self._shown = shown
        self._logs = logs
        self._every_steps = every_steps
        self.accelerator = accelerator
        # To look at a figure is to wait for the device; a CPU has nothing else to do meanwhile.
        self.most_steps = plan.config.steps_per_execution or (
            1 if accelerator.kind == CPU else _STEPS_PER_EXECUTION
        )
        # The device comes back in time for a checkpoint.
        self.most_steps = min(self.most_steps, every_steps or self.most_steps)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Takes the time."""
        self._epoch = epoch
        self._before = self.checkpoint.position
        self._seen = self._before.step
        self._steps_began = self._steps_ended = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Ends a training that is hopeless or told to end; saves it every so many steps."""
        step = self._before.step + batch + 1
        saves = bool(self._every_steps) and self._passes(self._every_steps, step)
        if not (saves or self._passes(self.most_steps, step)) and self._is_within(step):
            return
        self._seen = step
        figures = logs or {}
        if not _is_finite(figures["loss"]):
            self._break_off()
            return
        # The end of the epoch is saved with its validation.
        if not self._is_within(step):
            return
        preempted = self.accelerator.any_preempted()
        if preempted or saves:
            # The loss is that of the weights before the step.
            if not self._weights_are_finite():
                self._break_off()
                return
            means = (self._mean(figures, name, step) for name in ("loss", "accuracy"))
            position = Position(self._epoch, step, *means)
            self.checkpoint.save(self.model, position, self.checkpoint.history)
        if preempted:
            self._give_way()

    def _break_off(self) -> None:
        """Ends a training whose weights are, or will be, no numbers."""
        self.broken_epoch = self._epoch + 1
        self.model.stop_training = True

    def _weights_are_finite(self) -> bool:
        weights = (keras.ops.convert_to_numpy(one) for one in self.model.net.weights)
        return all(np.isfinite(one).all() for one in weights)

    def _passes(self, every: int, step: int) -> bool:
        """Whether a multiple of so many steps lies between the step last looked at and this one."""
        return step // every > self._seen // every

    def _give_way(self) -> NoReturn:
        """Ends the training with what was saved."""
        if self.accelerator.link is not None:
            # Host 0 has written the checkpoint before any host leaves, and all leave by themselves.
            self.accelerator.link.gather(None)
            self.accelerator.link.leave()
        position = self.checkpoint.position
        done = f"told to end (SIGTERM) after {position.epoch} epochs and {position.step} steps"
        if not self.lasts:
            raise RetryError(f"{done}, which are lost: no --checkpoint; start again with one")
        raise RetryError(f"{done}, saved in {self.checkpoint.name}; start the same again to go on")

    def _is_within(self, step: int) -> bool:
        return step < self._plan.steps_per_epoch

    def _mean(self, figures: dict[str, float], name: str, steps: int) -> float:
        """A figure over all steps of the epoch, those before an interruption included."""
        earlier = self._before.step
        here = float(figures[name]) * (steps - earlier)
        before: float = getattr(self._before, name)
        return (before * earlier + here) / steps

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Takes the time."""
        self._steps_ended = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Adds to the history, saves the training, and stops it when it no longer gets better."""
        if self.broken_epoch:
            return
        figures = logs or {}
        if "val_loss" not in figures:
            self._steps_ended = time.perf_counter()
        entry = self._entry(epoch, figures)
        validation = entry.validation
        # The loss of the training is that of the weights before the last step.
        if not (_is_finite(validation.loss) if validation else self._weights_are_finite()):
            self._break_off()
            return
        history = (*self.checkpoint.history, entry)
        self._logs.write(entry)
        config = self._plan.config
        is_last = entry.epoch == config.total_epochs
        kept = None
        if is_last if config.keep == "last" else entry.beats(self.checkpoint.kept):
            with self._averaged():
                kept = entry, self.checkpoint.write(self.model.net, f"kept-{entry.epoch:05d}")
        self.checkpoint.save(self.model, Position(epoch + 1), history, kept)
        validated = f"validation {validation.accuracy:.1%}, " if validation else ""
        self._shown.advance(
            note=f"loss {entry.loss:.3f}, accuracy {entry.accuracy:.1%}, {validated}"
            f"{entry.images_per_second:.0f} images/s"
        )
        if self._is_hopeless(history):
            self.stopped = self.model.stop_training = True
        if self.accelerator.any_preempted():
            self._give_way()

    def _is_hopeless(self, history: tuple[Epoch, ...]) -> bool:
        patience = self._plan.config.patience
        if not patience or not history or history[-1].validation is None:
            return False
        # A head that no longer gets better is no reason to leave the other layers as they were, nor
        # are small crops that teach no more one to see no larger ones.
        main = next(phase for phase in self._plan.phases if phase.is_main)
        if len(history) - main.first < patience:
            return False
        best = functools.reduce(lambda best, one: one if one.beats(best) else best, history)
        return len(history) - best.epoch >= patience

    def _entry(self, epoch: int, figures: dict[str, float]) -> Epoch:
        steps = self._plan.steps_per_epoch
        images = (steps - self._before.step) * self._plan.batch_size
        # What it takes to save an epoch is known only when it is saved, and counts for the next.
        before, self._last_entry = self._last_entry, time.perf_counter()
        return Epoch(
            epoch=epoch + 1,
            loss=self._mean(figures, "loss", steps),
            accuracy=self._mean(figures, "accuracy", steps),
            val_loss=_figure(figures, "val_loss"),
            val_accuracy=_figure(figures, "val_accuracy"),
            learning_rate=self._plan.learning_rate_after(epoch),
            seconds=self._last_entry - before,
            images_per_second=images / (self._steps_ended - self._steps_began),
        )

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Puts the moving average in place of the weights, as validation has just seen it."""
        if not self._plan.config.ema:
            yield
            return
        swap = keras.callbacks.SwapEMAWeights()
        swap.set_model(self.model)
        swap.on_test_begin()
        try:
            yield
        finally:
            swap.on_test_end()


def _figure(figures: dict[str, float], name: str) -> float | None:
    return float(figures[name]) if name in figures else None


def _is_finite(value: float) -> bool:
    return bool(abs(float(value)) < float("inf"))


class EventLogs:
    """Figures of each epoch in the files that TensorBoard reads; needs no TensorBoard itself.

    Args:
        folder: Gets a folder for the train split and one for the validation split.
    """

    def __init__(self, folder: Path) -> None:
        self._train, self._validation = (
            tf.summary.create_file_writer(str(folder / name)) for name in ("train", "validation")
        )
        self._scalar = tf.compat.v1.SummaryMetadata()
        self._scalar.plugin_data.plugin_name = "scalars"
        self._scalar.data_class = 1

    def write(self, entry: Epoch) -> None:
        """Writes and flushes the figures of an epoch."""
        train = {
            "loss": entry.loss,
            "accuracy": entry.accuracy,
            "learning_rate": entry.learning_rate,
            "images_per_second": entry.images_per_second,
        }
        validation = entry.validation._asdict() if entry.validation else {}
        for writer, figures in ((self._train, train), (self._validation, validation)):
            with writer.as_default(step=entry.epoch):
                for name, value in figures.items():
                    tf.summary.write(name, tf.constant(value), metadata=self._scalar)
            writer.flush()

    def close(self) -> None:
        """Closes the files."""
        self._train.close()
        self._validation.close()
