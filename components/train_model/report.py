"""The page about training: curves, the learning rate, and the figures of the epoch kept."""

from pathlib import Path

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from components.common import html
from components.train_model.history import TrainResult


def write_report(result: TrainResult, path: Path) -> None:
    """Writes the page as one HTML file."""
    sections = [
        html.Section("Training", _figures(result) + _curves(result)),
        html.Section("Learning rate", _learning_rate(result)),
        html.Section("Throughput", _throughput(result)),
    ]
    html.write_page(path, "Training report", sections)


def _figures(result: TrainResult) -> Markup:
    kept = result.kept
    seconds = sum(epoch.seconds for epoch in result.history)
    images = sum(epoch.images_per_second for epoch in result.history) / len(result.history)
    return html.figures(
        {
            "Validation accuracy kept": f"{result.validation.accuracy:.1%}",
            "In epoch": f"{kept.epoch} of {len(result.history)}",
            "Weights": f"{result.parameters:,}",
            "Steps per epoch": f"{result.steps_per_epoch} of {result.batch_size} images",
            "Devices": result.devices,
            "Time": f"{seconds:.0f} s",
            "Throughput": f"{images:.0f} images/s",
            "Precision": result.precision,
            "First weights": "random" if result.weights == "none" else result.weights,
        }
    )


def _curves(result: TrainResult) -> Markup:
    epochs = [epoch.epoch for epoch in result.history]
    drawn = html.new_figure()
    left, right = drawn.subplots(1, 2)
    validated = [epoch for epoch in result.history if epoch.validation is not None]
    for axes, name in ((left, "loss"), (right, "accuracy")):
        train = [getattr(epoch, name) for epoch in result.history]
        validation = [getattr(epoch.validation, name) for epoch in validated]
        axes.plot(epochs, train, label="train, augmented", marker=".")
        axes.plot([epoch.epoch for epoch in validated], validation, label="validation", marker=".")
        _label_epochs(axes)
        axes.set_ylabel(name)
    right.axvline(result.kept.epoch, linestyle=":", color=html.COLOURS[2], label="kept")
    right.legend(frameon=False)
    return html.figure(
        drawn,
        f"Loss and accuracy over {len(epochs)} epochs; the weights of epoch {result.kept.epoch} "
        f"are kept, with a validation accuracy of {result.validation.accuracy:.1%}",
    )


def _label_epochs(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _learning_rate(result: TrainResult) -> Markup:
    drawn = html.new_figure(height=2.2)
    axes = drawn.subplots()
    epochs, rates = zip(*result.learning_rates, strict=True)
    axes.plot(epochs, rates)
    _label_epochs(axes)
    axes.set_ylabel("learning rate")
    return html.figure(drawn, f"Learning rate at every step, at most {max(rates):.2g}")


def _throughput(result: TrainResult) -> Markup:
    drawn = html.new_figure(height=2.2)
    axes = drawn.subplots()
    speeds = [epoch.images_per_second for epoch in result.history]
    axes.plot([epoch.epoch for epoch in result.history], speeds, marker=".")
    _label_epochs(axes)
    axes.set_ylabel("images/s")
    axes.set_ylim(bottom=0)
    return html.figure(
        drawn, f"Train images per second in each epoch, {min(speeds):.0f} to {max(speeds):.0f}"
    )
