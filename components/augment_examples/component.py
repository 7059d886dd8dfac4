"""The KFP interface of the step."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Output

from components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def augment_examples(
    examples: Input[Dataset],
    copies: int,
    seed: int,
    policy: dict,
    augmented: Output[Dataset],
    report: Output[HTML],
) -> None:
    """Augmented copies of the train split, and of no other.

    Args:
        examples: Data set of `ingest_examples`.
        copies: Augmented versions of each example, beside the example itself.
        seed: The same seed gives the same bytes.
        policy: What may be done to an image; keys of `AugmentPolicy`.
        augmented: Data set with a train split only.
        report: Page of pictures before and after.
    """
    from pathlib import Path

    from components.common.lineage import check_stamps, stamp
    from components.common.step import import_tensorflow_quietly, run_step

    with run_step("augment-examples"):
        from components.augment_examples.config import AugmentConfig
        from components.common.config import build

        config = build(AugmentConfig, {"copies": copies, "seed": seed, "policy": policy})
        check_stamps(examples=examples)
        import_tensorflow_quietly()
        from components.augment_examples.augment import augment

        dataset = augment(Path(examples.path), config, Path(augmented.path), Path(report.path))
        stamp(augmented)
        augmented.metadata["fingerprint"] = dataset.fingerprint
        augmented.metadata["counts"] = dict(dataset.counts)
