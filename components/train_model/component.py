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
        model: `model.keras`, `model.json` and `history.json`.
        metrics: Figures of the best epoch.
        report: Curves.
    """
    from pathlib import Path

    from components.common.step import import_tensorflow_quietly, run_step

    with run_step("train-model"):
        from components.common.config import build
        from components.train_model.config import ModelConfig, TrainConfig

        architecture = build(ModelConfig, model_config, "model")
        training = build(TrainConfig, train_config, "train")
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
        )
        model.metadata["framework"] = "keras"
        for name, value in result.metrics().items():
            metrics.log_metric(name, value)
