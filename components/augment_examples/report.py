"""The page about the copies: pictures before and after, and what the policy allows."""

import dataclasses
from collections import defaultdict
from pathlib import Path

from components.augment_examples.config import AugmentConfig
from components.common import html
from components.common.dataset import Dataset
from components.common.example_proto import IMAGE, Features

_EXAMPLES_PER_CLASS = 2
_COPIES_SHOWN = 5
_CLASSES_SHOWN = 20


class Samples:
    """Keeps a few examples of each class, with some of their copies."""

    def __init__(self) -> None:
        self.by_class: dict[str, list[list[bytes]]] = defaultdict(list)

    def look_at(self, class_name: str, features: Features, copies: list[bytes]) -> None:
        """Keeps an example if its class has too few."""
        kept = self.by_class[class_name]
        if copies and len(kept) < _EXAMPLES_PER_CLASS:
            kept.append([features.bytes(IMAGE), *copies[:_COPIES_SHOWN]])


def write_report(samples: Samples, config: AugmentConfig, dataset: Dataset, path: Path) -> None:
    """Writes the page as one HTML file."""
    rows = {
        f"{name}, example {number}: as it is, then its copies": pictures
        for name in dataset.class_names[:_CLASSES_SHOWN]
        for number, pictures in enumerate(samples.by_class[name], start=1)
    }
    pictures = html.contact_sheet(rows) if rows else html.paragraph("No copies were made.")
    policy = [(key, str(value)) for key, value in dataclasses.asdict(config.policy).items()]
    text = f"{config.copies} copies of each example of the train split, seed {config.seed}."
    sections = [
        html.Section("Augmentation, before and after", html.paragraph(text) + pictures),
        html.Section("Augmentation policy", html.table(["Operation", "Value"], policy, "Policy")),
    ]
    html.write_page(path, "Augmentation report", sections)
