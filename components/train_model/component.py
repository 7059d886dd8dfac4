"""The KFP interface of the step."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output

from components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def train_model(
    examples: Input[Dataset],
    augmented: Input[Dataset],
    model_config: dict,
    train_config: dict,
    checkpoint: str,
    checkpoint_steps: int,
    accelerator: dict,
    model: Output[Model],
    metrics: Output[Metrics],
    report: Output[HTML],
) -> None:
    """Trains a model and keeps the weights that the recipe says to keep.

    Args:
        examples: Data set with the validation split.
        augmented: Data set with the train split.
        model_config: Architecture; keys of `ModelConfig`.
        train_config: How to train; keys of `TrainConfig`.
        checkpoint: Folder, also a `gs://` one, where training is saved, and from where a training
            that was killed goes on; empty for one beside the model in Cloud Storage, and for none
            on this machine.
        checkpoint_steps: Steps between two checkpoints within an epoch; 0 for none.
        accelerator: What to train on; keys of `AcceleratorConfig`.
        model: `model.keras`, `model.json`, `history.json` and `tensorboard/`.
        metrics: Figures of the epoch kept.
        report: Curves.
    """
    from pathlib import Path

    from components.common.lineage import check_stamps, stamp
    from components.common.step import run_step

    with run_step("train-model"):
        from components.common import storage
        from components.common.config import build
        from components.train_model.accelerators import AcceleratorConfig, open_accelerator
        from components.train_model.architectures import ModelConfig
        from components.train_model.config import CheckpointConfig, TrainConfig
        from components.train_model.transfer import checkpoint_place

        architecture = build(ModelConfig, model_config, "model")
        training = build(TrainConfig, train_config, "train")
        devices = build(AcceleratorConfig, accelerator, "accelerator")
        check_stamps(examples=examples, augmented=augmented)
        saving = CheckpointConfig(checkpoint_place(checkpoint, model.uri), checkpoint_steps)
        with open_accelerator(devices, training=training) as opened:
            # Keras takes its backend when it is imported.
            from components.train_model.train import train

            result = train(
                Path(examples.path),
                Path(augmented.path),
                architecture,
                training,
                Path(model.path),
                Path(metrics.path),
                Path(report.path),
                saving,
                opened,
            )
        model.metadata["framework"] = "keras"
        stamp(model)
        for name, value in result.metrics().items():
            metrics.log_metric(name, value)
        if not checkpoint and saving.place:
            storage.remove_folder(saving.place)


@dsl.component(base_image=CPU, install_kfp_package=False)
def train_model_on_hosts(
    examples: Input[Dataset],
    augmented: Input[Dataset],
    model_config: dict,
    train_config: dict,
    checkpoint: str,
    checkpoint_steps: int,
    accelerator: dict,
    pods: dict,
    model: Output[Model],
    metrics: Output[Metrics],
    report: Output[HTML],
) -> None:
    """Trains a model on several hosts, in pods that it makes, follows and deletes.

    Args:
        examples: Data set with the validation split.
        augmented: Data set with the train split.
        model_config: Architecture; keys of `ModelConfig`.
        train_config: How to train; keys of `TrainConfig`.
        checkpoint: `gs://` folder where training is saved, and from where a training that was
            killed goes on; empty for one beside the outputs.
        checkpoint_steps: Steps between two checkpoints within an epoch; 0 for none.
        accelerator: What to train on; keys of `AcceleratorConfig`.
        pods: The pods of the hosts; keys of `PodsConfig`.
        model: `model.keras`, `model.json`, `history.json` and `tensorboard/`.
        metrics: Figures of the epoch kept.
        report: Curves.
    """
    from pathlib import Path

    from components.common.lineage import check_stamps, stamp
    from components.common.step import run_step

    with run_step("train-model"):
        from components.train_model.on_hosts import Places, train_on_hosts

        check_stamps(examples=examples, augmented=augmented)
        figures = train_on_hosts(
            Places(examples.uri, augmented.uri, model.uri, checkpoint),
            model_config,
            train_config,
            accelerator,
            checkpoint_steps,
            pods,
            Path(model.path),
            Path(metrics.path),
            Path(report.path),
        )
        model.metadata["framework"] = "keras"
        stamp(model)
        for name, value in figures.items():
            metrics.log_metric(name, value)
