"""The pipeline as KFP's YAML, for a backend to run."""

import tempfile
from pathlib import Path
from typing import Any

from components.common.errors import ConfigError
from components.common.outputs import write_text
from pipelines.image_lock import ImageLock, pin_images


def compile_pipeline(
    parameters: dict[str, Any], output: Path, lock: ImageLock | None = None
) -> None:
    """Compiles the pipeline.

    Args:
        parameters: Defaults of the pipeline's parameters.
        output: File to make or to replace, in one step.
        lock: Images to take by digest; without it they are taken by name.

    Raises:
        ConfigError: The name does not end in .yaml, the file cannot be written, or the lock has
            not all images.
    """
    check_output(output)
    from pipelines.flowers import flowers_pipeline

    text = compile_to_text(flowers_pipeline, parameters)
    write_compiled(_pinned(text, lock) if lock else text, output)


def check_output(output: Path) -> None:
    """Refuses a file that no compiled pipeline goes into.

    Raises:
        ConfigError: The name does not end in .yaml.
    """
    if output.suffix != ".yaml":
        raise ConfigError(f"--output {output}: expected a name that ends in .yaml")


def compile_to_text(pipeline: Any, parameters: dict[str, Any]) -> str:
    """The YAML of a pipeline, with defaults of its parameters."""
    from kfp import compiler

    with tempfile.TemporaryDirectory() as folder:
        # KFP writes in place, which could leave half a file.
        compiled = Path(folder, "pipeline.yaml")
        compiler.Compiler().compile(
            pipeline, package_path=str(compiled), pipeline_parameters=parameters
        )
        return compiled.read_text(encoding="utf-8")


def write_compiled(text: str, output: Path) -> None:
    """Writes a compiled pipeline in one step.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        write_text(output, text)
    except OSError as error:
        raise ConfigError(
            f"--output {output}: cannot be written ({error.strerror}); name another file"
        ) from error


def _pinned(text: str, lock: ImageLock) -> str:
    import yaml

    # The comments at the top describe the pipeline to people, and a YAML reader drops them.
    heading = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    return heading + yaml.safe_dump(pin_images(yaml.safe_load(text), lock))
