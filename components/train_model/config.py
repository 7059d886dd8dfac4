"""How a model is trained, as frozen dataclasses that check themselves.

Needs no TensorFlow, so that a recipe is checked where it is written, not where it runs.
"""

import dataclasses
from collections.abc import Mapping

from components.common.config import Range, check, choose
from components.common.errors import ConfigError
from components.common.policy import CROP_AREAS, AugmentPolicy

PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
KEEPS = ("best", "last")
GLOBAL, PER_REPLICA, FROZEN = "global", "per_replica", "frozen"
BATCH_NORMS = (GLOBAL, PER_REPLICA, FROZEN)
CROP_SIZES = Range(0, 4096)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How gradients become steps.

    Attributes:
        name: Which optimizer.
        clip_norm: Largest norm of all gradients together; 0 for no limit.
    """

    name: str
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        check("clip_norm", self.clip_norm, Range(0.0))

    @staticmethod
    def kinds() -> Mapping[str, type["OptimizerConfig"]]:
        """The dataclass of each optimizer."""
        return _OPTIMIZERS


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamConfig(OptimizerConfig):
    """Adam."""

    name: str = "adam"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamwConfig(OptimizerConfig):
    """Adam with decoupled weight decay, and LAMB, which scales its steps layer by layer.

    Attributes:
        weight_decay: Decay of the kernels; biases and BatchNorm are left alone.
    """

    name: str = "adamw"
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check("weight_decay", self.weight_decay, Range(0.0, 1.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SgdConfig(OptimizerConfig):
    """Stochastic gradient descent.

    Attributes:
        momentum: Part of the last step that is taken again.
        nesterov: Look ahead by that part before the gradient is taken.
        weight_decay: Decay of the kernels, apart from the gradient and its momentum, as that of
            `adamw`; biases and BatchNorm are left alone.
    """

    name: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check("momentum", self.momentum, Range(0.0, 0.9999))
        check("weight_decay", self.weight_decay, Range(0.0, 1.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LarsConfig(OptimizerConfig):
    """LARS: momentum whose steps are scaled layer by layer, for batches of thousands.

    Attributes:
        momentum: Part of the last step that is taken again.
        weight_decay: Decay of the kernels; biases and BatchNorm are left alone.
        trust: Longest step as a part of the length of the weights.
    """

    name: str = "lars"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    trust: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check("momentum", self.momentum, Range(0.0, 0.9999))
        check("weight_decay", self.weight_decay, Range(0.0, 1.0))
        check("trust", self.trust, Range(1e-6, 1.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MuonConfig(OptimizerConfig):
    """Muon: momentum whose steps are made orthogonal, kernel by kernel.

    Attributes:
        momentum: Part of the last step that is taken again.
        weight_decay: Decay of the kernels; biases and BatchNorm are left alone.
        adam_ratio: Learning rate of what steps by AdamW, which is the head and all that is no
            matrix, as a multiple of the schedule's.
    """

    name: str = "muon"
    momentum: float = 0.95
    weight_decay: float = 0.0
    adam_ratio: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check("momentum", self.momentum, Range(0.0, 0.9999))
        check("weight_decay", self.weight_decay, Range(0.0, 1.0))
        check("adam_ratio", self.adam_ratio, Range(1e-3, 1e3))


_OPTIMIZERS: Mapping[str, type[OptimizerConfig]] = {
    "adam": AdamConfig,
    "adamw": AdamwConfig,
    "sgd": SgdConfig,
    "lars": LarsConfig,
    "lamb": AdamwConfig,
    "muon": MuonConfig,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over the steps of training.

    Attributes:
        name: Which schedule.
        peak: The highest learning rate.
        scaled_by_replicas: Multiply the peak by the number of replicas, as goes with
            `batch_per_replica`, by which the batch grows with them. Rates that are parts of the
            peak grow with it; where `ramp` starts and ends is as it is.
    """

    name: str
    peak: float
    scaled_by_replicas: bool = False

    def __post_init__(self) -> None:
        check("peak", self.peak, Range(1e-8, 100.0))

    @staticmethod
    def kinds() -> Mapping[str, type["ScheduleConfig"]]:
        """The dataclass of each schedule."""
        return _SCHEDULES


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstantConfig(ScheduleConfig):
    """The same rate at every step."""

    name: str = "constant"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmupConfig(ScheduleConfig):
    """Up along a line (`cosine`) or half a cosine (`one_cycle`), down along half a cosine.

    The climb of `cosine` begins at 0, that of `one_cycle` at `peak / 25`.

    Attributes:
        warmup: Share of all steps that the climb takes.
        final: Learning rate at the last step, as a part of `peak`.
    """

    name: str = "one_cycle"
    warmup: float = 0.25
    final: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        check("warmup", self.warmup, Range(0.0, 0.9))
        check("final", self.final, Range(0.0, 1.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RampConfig(ScheduleConfig):
    """Ramp-up along a line, sustain, exponential decay: the public lab's, for fine-tuning.

    Attributes:
        start: Learning rate at the first step.
        ramp_epochs: Epochs from `start` to `peak`.
        sustain_epochs: Epochs at `peak`.
        decay: Factor on what is above `floor`, per epoch after that.
        floor: Learning rate that the decay approaches.
    """

    name: str = "ramp"
    start: float = 1e-5
    ramp_epochs: float = 5.0
    sustain_epochs: float = 0.0
    decay: float = 0.8
    floor: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        check("start", self.start, Range(0.0, self.peak))
        check("ramp_epochs", self.ramp_epochs, Range(0.0))
        check("sustain_epochs", self.sustain_epochs, Range(0.0))
        check("decay", self.decay, Range(0.0, 1.0))
        check("floor", self.floor, Range(0.0, self.peak))


_SCHEDULES: Mapping[str, type[ScheduleConfig]] = {
    "constant": ConstantConfig,
    "one_cycle": WarmupConfig,
    "cosine": WarmupConfig,
    "ramp": RampConfig,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The first phase of fine-tuning, in which only the head learns.

    Attributes:
        epochs: Passes over the train split, before those in which more learns.
        schedule: The learning rate over the steps of this phase.
    """

    epochs: int
    schedule: ScheduleConfig

    def __post_init__(self) -> None:
        check("epochs", self.epochs, Range(1, 100_000))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """The last phase, in which a net sees images more like those that it will be asked about.

    Strong augmentation teaches a net most, and leaves it used to images that nobody will show it.
    Some epochs with milder crops, of the size at which it is asked, and with nothing mixed, make
    up for that.

    Attributes:
        epochs: Passes over the train split, after all others.
        schedule: The learning rate over the steps of this phase.
        crop_size: Side of the augmented images of this phase, in pixels, as that of `train` is
            before it; 0 for that of the examples.
        crop_area: Smallest part of an image that a crop of this phase keeps, in place of that of
            `train.policy`, whose colours, flips and rotations stay; 1 keeps all.

    Source: He et al., "Data Augmentation Revisited" (2019), and Touvron et al., "Fixing the
    Train-Test Resolution Discrepancy" (2019).
    """

    epochs: int
    schedule: ScheduleConfig
    crop_size: int = 0
    crop_area: float = 1.0

    def __post_init__(self) -> None:
        check("epochs", self.epochs, Range(1, 100_000))
        check("crop_size", self.crop_size, CROP_SIZES)
        check("crop_area", self.crop_area, CROP_AREAS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgressiveResizingConfig:
    """Smaller crops in the first epochs, behind those of `head`, which take less time for it.

    Attributes:
        crop_size: Side of the augmented images of these epochs, in pixels.
        share: Share of the epochs of `train`, rounded down. Schedule and optimizer go on after it.

    Source: Howard, "Training Imagenet in 3 hours for USD 25" (2018), and Tan and Le,
    "EfficientNetV2" (2021).
    """

    crop_size: int
    share: float = 0.5

    def __post_init__(self) -> None:
        check("crop_size", self.crop_size, Range(1, CROP_SIZES.high))
        check("share", self.share, Range(0.0, 0.9))

    def epochs_of(self, epochs: int) -> int:
        """How many of the epochs of `train` have smaller crops."""
        # 0.29 * 100 is less than 29.
        return int(round(self.share * epochs, 6))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the model is trained.

    Attributes:
        epochs: Passes over the augmented train split, between `head` and `refine`.
        schedule: The learning rate over the steps of these epochs.
        global_batch_size: Examples per step over all replicas, which have to divide it; 0 where
            `batch_per_replica` is given.
        batch_per_replica: Examples per step on each replica, so that the batch grows with their
            number; 0 where `global_batch_size` is given.
        optimizer: How gradients become steps.
        head: A first phase in which only the head learns; left out for none.
        refine: A last phase with milder augmentation, and without MixUp and CutMix; left out for
            none. Its optimizer is a new one, as that after `head` is.
        fine_tune_at: Name of the first layer that learns, once more than the head does; those
            before it keep their weights and statistics, which saves their part of the backward
            pass. Empty for all. The net's layers are known where it is built, so that a name that
            is none of them is refused by the training step.
        label_smoothing: Share of the target spread evenly over all classes.
        policy: Augmentation applied anew in every epoch; left out for none.
        crop_size: Side of the augmented images that training sees, in pixels; 0 for that of the
            examples. Smaller crops train faster, and what fills a crop of a photo is larger than
            in the whole photo, so smaller crops also fit better to whole photos.
        progressive_resizing: Smaller crops at first; left out for none.
        mixup: Alpha of the Beta distribution from which MixUp draws; 0 for none.
        cutmix: Alpha of the Beta distribution from which CutMix draws; 0 for none. With both,
            each image gets one of the two.
        mix_probability: Share of the images that are mixed at all, where MixUp or CutMix is on.
        ema: Momentum per step of the moving average of the weights, which is then what is
            validated and kept; 0 for none, and with `refine`, which is too short for one.
        keep: `best` keeps the weights that did best on the validation split, `last` the last ones.
        patience: Epochs after `head` without a better validation accuracy, or an equal one with a
            lower loss, after which training stops; 0 to train all epochs. Goes with `keep: best`,
            and not with `refine`.
        validation_freq: Epochs from one validation to the next, which saves time where epochs are
            short; the last epoch is always validated. Only an epoch that is validated can be the
            one that `keep: best` keeps, or end a training by `patience`, which is no less.
        batch_norm: Over which examples BatchNorm takes its means in training: `global` for the
            whole batch, so that the number of replicas changes nothing, `per_replica` for the part
            of each, which saves a message between them. What is kept for later is the mean over
            all replicas either way. `frozen` for the means that the first weights came with, which
            stay, while its scales and shifts learn: for fine-tuning.
        ghost_batch_size: Examples over which BatchNorm takes its means, a divisor of the batch, in
            place of `global`; 0 for that. A batch that is no larger is one ghost batch. On a CPU
            each is computed by itself, at the same time, which is faster: 64 in two of 32 keep two
            cores busy; with `frozen` that is all it does. What is kept for later is the mean over
            all of them. Source: Hoffer et al., "Train longer, generalize better" (2017).
        steps_per_execution: Most steps that the device does before the host looks at them; the
            largest divisor of the steps per epoch up to that is taken. 0 for 1 on a CPU and 32
            elsewhere. It does not change what comes of a training.
        precision: `float32`, `mixed_bfloat16`, `mixed_float16`, or `auto` for what the device is
            good at. Softmax and loss are float32 in any case.
        seed: Of the weights, of the order and of the augmentation.
    """

    epochs: int
    schedule: ScheduleConfig
    global_batch_size: int = 0
    batch_per_replica: int = 0
    optimizer: OptimizerConfig = dataclasses.field(default_factory=AdamwConfig)
    head: HeadConfig | None = None
    refine: RefineConfig | None = None
    fine_tune_at: str = ""
    label_smoothing: float = 0.0
    policy: AugmentPolicy | None = None
    crop_size: int = 0
    progressive_resizing: ProgressiveResizingConfig | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    ema: float = 0.0
    keep: str = "best"
    patience: int = 0
    validation_freq: int = 1
    batch_norm: str = GLOBAL
    ghost_batch_size: int = 0
    steps_per_execution: int = 0
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        check("epochs", self.epochs, Range(1, 100_000))
        check("global_batch_size", self.global_batch_size, Range(0, 1 << 20))
        check("batch_per_replica", self.batch_per_replica, Range(0, 1 << 20))
        if (self.global_batch_size > 0) == (self.batch_per_replica > 0):
            raise ConfigError(
                "global_batch_size: expected either it or batch_per_replica, received "
                f"{self.global_batch_size} and {self.batch_per_replica}"
            )
        for key, schedule in self._schedules().items():
            if schedule.scaled_by_replicas and self.global_batch_size:
                raise ConfigError(
                    f"{key}.scaled_by_replicas: expected false with global_batch_size, which is "
                    "the same on any number of replicas, received true"
                )
        check("label_smoothing", self.label_smoothing, Range(0.0, 0.9))
        check("crop_size", self.crop_size, CROP_SIZES)
        if self.crop_size and self.policy is None:
            raise ConfigError(
                "crop_size: expected 0 without a policy, which is what crops, received "
                f"{self.crop_size}"
            )
        if self.progressive_resizing is not None:
            self._check_resizing(self.progressive_resizing)
        check("mixup", self.mixup, Range(0.0, 10.0))
        check("cutmix", self.cutmix, Range(0.0, 10.0))
        check("mix_probability", self.mix_probability, Range(0.0, 1.0))
        check("ema", self.ema, Range(0.0, 0.99999))
        choose("keep", self.keep, KEEPS)
        check("patience", self.patience, Range(0, 100_000))
        check("validation_freq", self.validation_freq, Range(1, 100_000))
        if self.patience:
            self._check_patience()
        if self.refine is not None:
            self._check(self.refine)
        choose("batch_norm", self.batch_norm, BATCH_NORMS)
        check("ghost_batch_size", self.ghost_batch_size, Range(0, 1 << 20))
        if self.ghost_batch_size and self.batch_norm == PER_REPLICA:
            raise ConfigError(
                f"ghost_batch_size: expected 0 with batch_norm {self.batch_norm}, which says "
                f"otherwise, received {self.ghost_batch_size}"
            )
        if self.mixes and self.ghost_batch_size % 2:
            raise ConfigError(
                "ghost_batch_size: expected an even number with MixUp or CutMix, which mix "
                f"neighbours, received {self.ghost_batch_size}"
            )
        check("steps_per_execution", self.steps_per_execution, Range(0, 100_000))
        choose("precision", self.precision, PRECISIONS)
        check("seed", self.seed, Range(0, 2**31 - 1))

    def _schedules(self) -> dict[str, ScheduleConfig]:
        """The schedule of every phase, by its key."""
        found = {"schedule": self.schedule}
        for key, phase in (("head", self.head), ("refine", self.refine)):
            if phase is not None:
                found[f"{key}.schedule"] = phase.schedule
        return found

    def _check(self, refine: RefineConfig) -> None:
        """Refuses a last phase that would not come, not count, or change a policy there is not."""
        if self.patience:
            raise ConfigError(
                "patience: expected 0 with refine, to which a training that stops would not come, "
                f"received {self.patience}; set it to 0, or refine to null"
            )
        if self.ema:
            raise ConfigError(
                "ema: expected 0 with refine, whose few steps a moving average would leave out, "
                f"received {self.ema:g}; set it to 0, or refine to null"
            )
        if self.policy is None and (refine.crop_size or refine.crop_area < 1.0):
            key, expected = ("crop_size", 0) if refine.crop_size else ("crop_area", 1)
            raise ConfigError(
                f"refine.{key}: expected {expected} without a policy, which is what crops, "
                f"received {getattr(refine, key)}"
            )

    def _check_patience(self) -> None:
        """Refuses to stop with weights that are not the best, or for want of any to compare."""
        if self.keep != "best":
            raise ConfigError(
                f"patience: expected 0 with keep {self.keep}, which would keep the weights that no "
                f"longer got better, received {self.patience}; set keep to best"
            )
        if self.patience < self.validation_freq:
            raise ConfigError(
                f"patience: expected 0 or at least validation_freq, which is {self.validation_freq}"
                f", so that two validations decide, received {self.patience}"
            )

    def _check_resizing(self, resizing: ProgressiveResizingConfig) -> None:
        """Refuses crops that nothing crops."""
        if self.policy is None:
            raise ConfigError(
                "progressive_resizing: expected none without a policy, which is what crops, "
                f"received a crop_size of {resizing.crop_size}"
            )

    def after_head(self) -> "dict[str, TrainConfig]":
        """The phases in which more than the head learns, each as a training of its own.

        Returns:
            In their order, by the key of a recipe that describes them.
        """
        alone = dataclasses.replace(self, head=None, progressive_resizing=None, refine=None)
        found = {"train": alone}
        resizing, refine = self.progressive_resizing, self.refine
        if resizing is not None and (epochs := resizing.epochs_of(self.epochs)):
            smaller = dataclasses.replace(alone, epochs=epochs, crop_size=resizing.crop_size)
            rest = dataclasses.replace(alone, epochs=self.epochs - epochs)
            found = {"train.progressive_resizing": smaller, "train": rest}
        if refine is not None:
            found["train.refine"] = dataclasses.replace(
                alone,
                epochs=refine.epochs,
                schedule=refine.schedule,
                policy=self.policy and dataclasses.replace(self.policy, crop_area=refine.crop_area),
                crop_size=refine.crop_size,
                mixup=0.0,
                cutmix=0.0,
            )
        return found

    def train_size(self, image_size: int) -> int:
        """Side of the images that training sees, in pixels, but where a phase has one of its own.

        Args:
            image_size: Side of the examples, in pixels.
        """
        return self.crop_size or image_size

    def batch_size(self, replicas: int) -> int:
        """Examples per step over all replicas.

        Args:
            replicas: Devices over which a batch is split.

        Raises:
            ConfigError: It cannot be split so.
        """
        size = self.global_batch_size or self.batch_per_replica * replicas
        if size % replicas:
            raise ConfigError(
                f"train.global_batch_size: expected a multiple of the {replicas} replicas, "
                f"received {size}"
            )
        if self.mixes and replicas > 1 and size // replicas % 2:
            raise ConfigError(
                f"{self.batch_key}: expected an even number of examples on each replica with MixUp "
                f"or CutMix, which mix neighbours, received {size // replicas}"
            )
        if size > self.ghost_batch_size > 0 and size % self.ghost_batch_size:
            raise ConfigError(
                f"train.ghost_batch_size: expected a divisor of the {size} examples of a batch, "
                f"received {self.ghost_batch_size}"
            )
        return size

    @property
    def batch_key(self) -> str:
        """The key of a recipe that gives the size of a batch."""
        return "train.global_batch_size" if self.global_batch_size else "train.batch_per_replica"

    def ghost_batches(self, replicas: int) -> int:
        """Parts of a batch over which BatchNorm takes its means; 1 for the whole batch.

        Args:
            replicas: Devices over which a batch is split.

        Raises:
            ConfigError: It cannot be divided so.
        """
        size = self.batch_size(replicas)
        if self.batch_norm == PER_REPLICA:
            return replicas
        return max(1, size // self.ghost_batch_size) if self.ghost_batch_size else 1

    @property
    def mixes(self) -> bool:
        """Images are mixed with one another."""
        return (self.mixup > 0.0 or self.cutmix > 0.0) and self.mix_probability > 0.0

    @property
    def total_epochs(self) -> int:
        """Epochs of all phases."""
        others = (self.head, self.refine)
        return self.epochs + sum(phase.epochs for phase in others if phase)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Where and how often training is saved; it does not change what comes of it.

    Attributes:
        place: A training that was killed goes on from what is there: a folder of this machine, or
            a `gs://` one; empty to keep nothing.
        steps: Steps between two checkpoints within an epoch; 0 for one at the end of each.
    """

    place: str = ""
    steps: int = 0

    def __post_init__(self) -> None:
        check("checkpoint_steps", self.steps, Range(0))
        if self.steps and not self.place:
            raise ConfigError(
                f"checkpoint_steps: expected 0 without a checkpoint folder, received {self.steps}; "
                "name one"
            )
