"""Sizes of the CPU image, and how long it takes to build it cold and after a change of the code.

python -m benchmarks.images
"""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import docker

_ROOT = "tensorflow-cpu"
# Runs in the image: bytes of each installed distribution, and which of them TensorFlow needs.
_MEASURE = """
import json, pathlib, re
from importlib.metadata import distributions

def key(name):
    return re.sub(r"[-_.]+", "-", name).lower()

sizes, needs = {}, {}
for one in distributions():
    name = key(one.metadata["Name"])
    files = {path.locate().resolve() for path in one.files or ()}
    sizes[name] = sum(path.stat().st_size for path in files if path.is_file())
    requires = [text for text in one.requires or () if "extra ==" not in text]
    needs[name] = {key(re.match(r"[\\\\w.-]+", text)[0]) for text in requires}
code = sum(path.stat().st_size for path in pathlib.Path("/app").rglob("*") if path.is_file())
print(json.dumps({"sizes": sizes, "needs": {k: sorted(v) for k, v in needs.items()}, "code": code}))
"""


def measure(engine: "docker.DockerClient", image: str) -> dict[str, int]:
    """Bytes of TensorFlow with all that it needs, and of what we put beside it.

    Args:
        engine: Client of the engine.
        image: Name or id of an image.
    """
    command = ["python", "-c", _MEASURE.replace("\\\\", "\\")]
    found = json.loads(engine.containers.run(image, command, remove=True, network_mode="none"))
    sizes: dict[str, int] = found["sizes"]
    needed, waiting = set(), [_ROOT]
    while waiting:
        name = waiting.pop()
        if name in sizes and name not in needed:
            needed.add(name)
            waiting += found["needs"][name]
    theirs = sum(sizes[name] for name in needed)
    return {
        "TensorFlow and what it needs": theirs,
        "ours": sum(sizes.values()) - theirs + int(found["code"]),
    }
