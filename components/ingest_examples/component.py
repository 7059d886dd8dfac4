"""The KFP interface of the step."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Output

from components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def ingest_examples(
    images: str,
    manifest: str,
    group_column: str,
    previous: str,
    new_splits: bool,
    image_size: int,
    validation_fraction: float,
    test_fraction: float,
    max_reject_fraction: float,
    split_salt: str,
    resize: str,
    examples: Output[Dataset],
    report: Output[HTML],
) -> None:
    """Photos to TFRecord shards of three splits.

    Args:
        images: A folder or `gs://bucket/prefix` of class folders or TFRecord shards, an import file
            of Vertex AI, or `synthetic://flowers`.
        manifest: CSV with a column `path`; empty for none.
        group_column: Column of the manifest whose equal values stay in one split; empty for none.
        previous: Examples of an earlier run, none of whose photos may move; empty for none.
        new_splits: Move them all the same.
        image_size: Side of the stored square images, in pixels.
        validation_fraction: Share of the groups that goes to validation.
        test_fraction: Share of the groups that goes to test.
        max_reject_fraction: The step fails when more of the photos than this cannot be used.
        split_salt: Another salt gives another division into splits.
        resize: How a photo becomes a square, `crop` or `stretch`.
        examples: Shards, `dataset.json` and `photos.csv`.
        report: Page about the data.
    """
    from pathlib import Path

    from components.common.lineage import stamp
    from components.common.step import run_step

    with run_step("ingest-examples"):
        from components.ingest_examples.config import IngestConfig, PhotosConfig

        photos = PhotosConfig(images, manifest, group_column, previous, new_splits)
        config = IngestConfig(
            image_size=image_size,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            max_reject_fraction=max_reject_fraction,
            split_salt=split_salt,
            resize=resize,
        )
        from components.ingest_examples.ingest import ingest

        result = ingest(photos, config, Path(examples.path), Path(report.path))
        stamp(examples)
        examples.metadata["fingerprint"] = result.dataset.fingerprint
        examples.metadata["class_names"] = list(result.dataset.class_names)
        examples.metadata["counts"] = dict(result.dataset.counts)
