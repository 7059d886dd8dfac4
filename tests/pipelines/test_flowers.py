"""The graph, as it is compiled."""

import difflib
import re
import subprocess
import sys

import pytest
import yaml

GOLDEN = "flowers.yaml"
# A stand-in for the heavy libraries: importing one of them would fail.
COMPILE = """
import sys
for name in ("tensorflow", "keras", "matplotlib", "PIL", "numpy"):
    sys.modules[name] = None
from pipelines.cli import flowers
flowers(["compile", "--images", "gs://bucket/photos", "--output", sys.argv[1]])
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, repository):
    path = tmp_path_factory.mktemp("compiled") / GOLDEN
    command = [sys.executable, "-c", COMPILE, str(path)]
    subprocess.run(command, check=True, cwd=repository)
    return path.read_text()


def graph(text):
    """The graph as data, without the version of the SDK, as lines that can be compared."""
    spec = yaml.safe_load(text)
    del spec["sdkVersion"]
    return yaml.safe_dump(spec).splitlines()


def test_compiles_without_the_heavy_libraries(compiled):
    assert yaml.safe_load(compiled)["pipelineInfo"]["name"] == "flowers"


def test_equals_the_golden_file(compiled, repository):
    """After a wanted change: flowers compile --images gs://bucket/photos --output <golden>."""
    golden = (repository / "tests" / "golden" / GOLDEN).read_text()
    difference = list(difflib.unified_diff(graph(golden), graph(compiled), lineterm=""))
    assert not difference, "\n".join(difference)


def test_export_stands_behind_the_gate_and_nowhere_else(compiled):
    spec = yaml.safe_load(compiled)
    holders = {
        name
        for name, component in spec["components"].items()
        for task in component.get("dag", {}).get("tasks", {}).values()
        if task["componentRef"]["name"] == "comp-export-model"
    }
    assert holders == {"comp-condition-3"}
    assert "export-model" not in spec["root"]["dag"]["tasks"]
    branches = spec["components"]["comp-condition-branches-1"]["dag"]["tasks"]
    condition = branches["condition-3"]["triggerPolicy"]["condition"]
    assert condition.endswith("== true")
    assert branches["condition-4"]["triggerPolicy"]["condition"] == f"!({condition})"


def test_deployment_stands_behind_the_gate_and_a_registry(compiled):
    components = yaml.safe_load(compiled)["components"]
    holders = [
        name
        for name, component in components.items()
        if "deploy-model" in component.get("dag", {}).get("tasks", {})
    ]
    assert holders == ["comp-condition-2"]
    inner = components["comp-condition-3"]["dag"]["tasks"]["condition-2"]
    assert inner["triggerPolicy"]["condition"].endswith("registry'] != ''")
    assert inner["dependentTasks"] == ["export-model"]
    deploy = components["comp-condition-2"]["dag"]["tasks"]["deploy-model"]
    assert deploy["cachingOptions"] == {}


def test_test_split_does_not_reach_augmentation_or_the_gate(compiled):
    tasks = yaml.safe_load(compiled)["root"]["dag"]["tasks"]
    assert set(tasks["gate-model"]["dependentTasks"]) == {"evaluate-model", "train-model"}
    assert set(tasks["augment-examples"]["dependentTasks"]) == {"ingest-examples"}


def test_recipe_gives_the_default_parameters(compiled):
    inputs = yaml.safe_load(compiled)["root"]["inputDefinitions"]["parameters"]
    assert inputs["gate_threshold"]["defaultValue"] == 0.8
    assert inputs["images"]["defaultValue"] == "gs://bucket/photos"
    assert all("defaultValue" in parameter for parameter in inputs.values())


def test_readme_draws_every_task(compiled, repository):
    drawing = (
        (repository / "README.md").read_text().partition("```mermaid\n")[2].partition("```")[0]
    )
    executors = yaml.safe_load(compiled)["deploymentSpec"]["executors"]
    drawn = set(re.findall(r"[a-z]+-[a-z]+", drawing))
    assert drawn == {executor.removeprefix("exec-") for executor in executors}
