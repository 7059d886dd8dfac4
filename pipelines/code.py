"""Which code an image was built from."""

import hashlib
from pathlib import Path

# Set by `flowers images build`, read by `flowers run --runner docker`.
CODE_LABEL = "flowers.code"
_FOLDERS = ("components", "pipelines")
# What a wheel of the project holds; the rest of the folders is for people.
_SUFFIXES = {".css", ".html", ".jinja", ".js", ".py", ".yaml"}
_ROOT = Path(__file__).parents[1]


def code_digest(root: Path = _ROOT) -> str:
    """SHA-256 over the names and contents of all code that the images take from here."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in _FOLDERS for path in (root / folder).rglob("*")):
        if path.suffix in _SUFFIXES:
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
