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
    model: Output[Model],
    metrics: Output[Metrics],
    report: Output[HTML],
) -> None:
    """Trains a model and keeps the weights that did best on the validation split.

    Args:
        examples: Data set with the validation split.
        augmented: Data set with the train split.
        model_config: Architecture; keys of `ModelConfig`.
        train_config: How to train; keys of `TrainConfig`.
        checkpoint: Folder where training is saved, and from where a training that was killed goes
            on; empty to keep nothing.
        checkpoint_steps: Steps between two checkpoints within an epoch; 0 for none.
        model: `model.keras`, `model.json`, `history.json` and `tensorboard/`.
        metrics: Figures of the epoch kept.
        report: Curves.
    """
    from pathlib import Path

    from components.common.lineage import check_stamps, stamp
    from components.common.step import import_tensorflow_quietly, run_step

    with run_step("train-model"):
        from components.common.config import build
        from components.train_model.architectures import ModelConfig
        from components.train_model.config import CheckpointConfig, TrainConfig

        architecture = build(ModelConfig, model_config, "model")
        training = build(TrainConfig, train_config, "train")
        saving = CheckpointConfig(Path(checkpoint) if checkpoint else None, checkpoint_steps)
        check_stamps(examples=examples, augmented=augmented)
        import_tensorflow_quietly()
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
        )
        model.metadata["framework"] = "keras"
        stamp(model)
        for name, value in result.metrics().items():
            metrics.log_metric(name, value)
