"""`flowers images`: the container images of the steps."""

from pathlib import Path

import click

from components.common.cli import PATH
from components.images import IMAGES
from pipelines.image_lock import LOCK_FILE


@click.group()
def images() -> None:
    """Builds the container images that the steps run in."""


@images.command()
@click.argument("targets", nargs=-1, metavar=f"[{'|'.join(IMAGES)}]...")
@click.option("--push", is_flag=True, help="Push to --registry; the lock file has the digests.")
@click.option(
    "--registry",
    metavar="HOST/PROJECT/REPOSITORY",
    help="Where to push, e.g. europe-west4-docker.pkg.dev/my-project/flowers.",
)
@click.option("--commit", metavar="SHA", help="Commit of the code.  [that of the git checkout]")
@click.option("--base", metavar="IMAGE", help="Base image.  [that of containers/Dockerfile]")
@click.option(
    "--cache-from-registry", is_flag=True, help="Take unchanged layers from the last image pushed."
)
@click.option(
    "--image-lock", type=PATH, default=LOCK_FILE, show_default=True, help="File to write."
)
@click.option(
    "--docker",
    metavar="PROGRAM",
    default="docker",
    envvar="DOCKER",
    show_default=True,
    help="Docker's client; or set DOCKER.",
)
def build(
    targets: tuple[str, ...],
    push: bool,
    registry: str | None,
    commit: str | None,
    base: str | None,
    cache_from_registry: bool,
    image_lock: Path,
    docker: str,
) -> None:
    """Builds images from the checkout in the current folder; without a name, the one for CPUs.

    Each is tagged with the commit and as the latest. The lock file is what `flowers compile` and
    `flowers run --runner docker` take with --image-lock.
    """
    from pipelines.image_build import BuildConfig, build_images

    config = BuildConfig(
        targets=targets or ("cpu",),
        registry=registry or "",
        push=push,
        commit=commit or "",
        base=base or "",
        cache_from_registry=cache_from_registry,
        docker=docker,
    )
    lock = build_images(config, Path(), image_lock)
    for target in config.targets:
        click.echo(f"{target}  {lock.images[target]}")
    click.echo(f"images of commit {lock.commit} are in {image_lock}")
