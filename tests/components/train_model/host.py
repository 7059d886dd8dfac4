"""One of several hosts that train one model, and writes down what it has seen; see test_hosts.py.

python -m tests.components.train_model.host RUNTIME CASE EXAMPLES OUTPUT
"""

import hashlib
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from components.train_model.accelerators import AcceleratorConfig, open_accelerator

MODEL = {
    "name": "squeezenet",
    "stem_filters": 8,
    "stem_stride": 2,
    "stem_init": "whitening",
    "stages": [[[4, 8]], [[4, 16]]],
    "se_reduction": 2,
    "dropout": 0.1,
    "test_size": 24,
}
TRAIN = {
    "epochs": 2,
    "global_batch_size": 8,
    "schedule": {"name": "constant", "peak": 0.01},
    "optimizer": {"name": "adamw", "weight_decay": 0.01, "clip_norm": 1.0},
    "policy": {"crop_area": 0.5},
    "crop_size": 16,
    "mixup": 0.2,
    "head": {"epochs": 1, "schedule": {"name": "constant", "peak": 0.001}},
}
# What one training cannot have both of.
CASES: dict[str, dict[str, Any]] = {
    "averaged": {"ema": 0.9, "progressive_resizing": {"crop_size": 12}},
    "refined": {
        "refine": {"epochs": 1, "schedule": {"name": "constant", "peak": 0.001}, "crop_size": 24},
        "validation_freq": 3,
    },
}


def main(runtime: str, case: str, examples: Path, output: Path) -> None:
    """Trains, and writes weights and the digests of the examples of two epochs."""
    with open_accelerator(AcceleratorConfig("cpu", runtime)) as devices:
        from components.common.config import build
        from components.common.dataset import load_dataset
        from components.train_model import train as training
        from components.train_model.architectures import ModelConfig
        from components.train_model.config import TrainConfig
        from components.train_model.fitting import fit
        from components.train_model.input_pipeline import train_batches

        def fit_and_write(model, *arguments):
            fit(model, *arguments)
            np.savez(output / f"weights-{devices.hosts.index}.npz", *model.net.get_weights())

        config = build(TrainConfig, {**TRAIN, **CASES[case]})
        with mock.patch.object(training, "fit", fit_and_write):
            training.train(
                examples,
                examples,
                build(ModelConfig, MODEL),
                config,
                output / "model",
                output / "metrics.json",
                output / "report.html",
                accelerator=devices,
            )
        batches = train_batches(
            load_dataset(examples), config, replicas=devices.replicas, hosts=devices.hosts
        )
        seen = [
            [hashlib.sha256(image.tobytes()).hexdigest() for image in images.numpy()]
            for (images, _), _ in batches.take(2 * 6)
        ]
        (output / f"seen-{devices.hosts.index}.txt").write_text("\n".join(map(" ".join, seen)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
