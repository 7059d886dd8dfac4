"""A process that trains the same on one and on eight devices of a runtime; see test_replicas.py.

python -m tests.components.train_model.replicas RUNTIME EXAMPLES OUTPUT
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from components.train_model.accelerators import AcceleratorConfig, open_accelerator

REPLICAS = 8
DENSE = {"name": "dense", "units": [8]}
CONVOLUTIONS = {
    "name": "squeezenet",
    "stem_filters": 8,
    "stem_stride": 2,
    "stem_init": "whitening",
    "stages": [[[4, 8]], [[4, 16]]],
    "se_reduction": 2,
}
SGD = {
    "epochs": 2,
    "global_batch_size": 16,
    "optimizer": {"name": "sgd"},
    "schedule": {"name": "constant", "peak": 0.01},
    "precision": "float32",
    "keep": "last",
}
EVERYTHING = {
    "policy": {"crop_area": 0.5},
    "mixup": 0.2,
    "cutmix": 1.0,
    "ema": 0.9,
    "label_smoothing": 0.1,
    "head": {"epochs": 1, "schedule": {"name": "constant", "peak": 0.001}},
}
REFINED = {
    "epochs": 1,
    "policy": {"crop_area": 0.5},
    "mixup": 0.2,
    # Of the same shapes as the phase before.
    "refine": {"epochs": 1, "schedule": {"name": "constant", "peak": 0.01}, "crop_area": 0.9},
}
RESIZED = {
    "policy": {"crop_area": 0.5},
    "cutmix": 1.0,
    "progressive_resizing": {"crop_size": 16, "share": 0.5},
}
# What is trained, and how: twenty steps.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": (DENSE, SGD),
    "global": (CONVOLUTIONS, SGD),
    "per_replica": (CONVOLUTIONS, SGD | {"batch_norm": "per_replica"}),
    # One image would not do: maps of one pixel have no spread.
    "ghosts": (CONVOLUTIONS, SGD | {"global_batch_size": 32, "epochs": 4, "ghost_batch_size": 2}),
    "clipped": (DENSE, SGD | {"optimizer": {"name": "sgd", "clip_norm": 0.05}}),
    "lars": (DENSE, SGD | {"optimizer": {"name": "lars"}}),
    "lamb": (DENSE, SGD | {"optimizer": {"name": "lamb", "weight_decay": 0.01}}),
    "muon": (DENSE, SGD | {"optimizer": {"name": "muon", "weight_decay": 0.01}}),
    "everything": (DENSE, SGD | EVERYTHING | {"optimizer": {"name": "adamw"}}),
    "refined": (CONVOLUTIONS, SGD | REFINED),
    "resized": (CONVOLUTIONS, SGD | RESIZED),
    "executions": (DENSE, SGD | {"steps_per_execution": 5}),
}


def main(runtime: str, examples: Path, output: Path, *cases: str) -> None:
    """Trains every case on eight devices, and on one."""
    with open_accelerator(AcceleratorConfig("cpu", runtime, REPLICAS)) as eight:
        from components.common.config import build
        from components.train_model.architectures import ModelConfig
        from components.train_model.config import TrainConfig
        from components.train_model.train import train

        one = dataclasses.replace(eight, replicas=1, strategy=None)
        for name in cases or CASES:
            model, config = CASES[name]
            alone = config
            if config.get("batch_norm") == "per_replica":
                # What the parts of the replicas are where there are no replicas.
                part = config["global_batch_size"] // REPLICAS
                alone = config | {"batch_norm": "global", "ghost_batch_size": part}
            for devices, training in ((one, alone), (eight, config)):
                folder = output / f"{name}-{devices.replicas}"
                train(
                    examples,
                    examples,
                    build(ModelConfig, model),
                    build(TrainConfig, training),
                    folder / "model",
                    folder / "metrics.json",
                    folder / "report.html",
                    accelerator=devices,
                )


if __name__ == "__main__":
    kind, examples_path, output_path, *names = sys.argv[1:]
    main(kind, Path(examples_path), Path(output_path), *names)
