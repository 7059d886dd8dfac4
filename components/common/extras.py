"""Packages of extras, and what to say where one is missing."""

import importlib.util

from components.common.errors import ConfigError


def how_to_install(*extras: str) -> str:
    """The command that installs extras; by the name alone pip would take a stranger's package.

    Args:
        *extras: Names of `project.optional-dependencies`.
    """
    return f"in a checkout of flowers, pip install --editable '.[{','.join(extras)}]'"


def require_onnx() -> None:
    """Refuses to go on where ONNX cannot be written.

    Raises:
        ConfigError: Says what to install.
    """
    names = ("onnx", "onnxruntime", "tf2onnx")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"export.onnx: needs {', '.join(missing)}: {how_to_install('onnx')}, or leave it out"
        )
