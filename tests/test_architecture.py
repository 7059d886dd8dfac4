"""Imports point one way, and interface, command line and image agree."""

import ast
import importlib
import inspect
import re
import sys

import pytest
from kfp import dsl

from components import images
from pipelines.cli import STEPS

HEAVY = {"tensorflow", "keras", "matplotlib", "PIL", "numpy", "jinja2"}
PACKAGES = list(STEPS.values())
# Steps that talk to Vertex AI.
CLOUD = {"components.deploy_model", "components.summarize_run"}
# How a run ended: the backend gives it to an exit task, and nobody on a command line.
BACKEND_STATUS = "PipelineTaskFinalStatus"


def imports(path):
    """Every module that a file names in an import, at whatever depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def top_level_imports(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def source_files(repository, folder):
    return sorted((repository / folder).rglob("*.py"))


def test_common_imports_no_step_and_no_kfp(repository):
    for path in source_files(repository, "components/common"):
        for name in imports(path):
            assert not name.startswith("kfp"), path
            assert not name.startswith("pipelines"), path
            assert not name.startswith("components.") or name.startswith("components.common"), path


@pytest.mark.parametrize("package", PACKAGES)
def test_step_imports_no_other_step(repository, package):
    allowed = (package, "components.common", "components.images")
    for path in source_files(repository, package.replace(".", "/")):
        for name in imports(path):
            assert not name.startswith("pipelines"), path
            assert not name.startswith("components") or name.startswith(allowed), path


def imported_for(repository, module):
    """Every module that is imported on behalf of one of ours, at whatever depth and whenever."""
    found, todo = set(), [module]
    while todo:
        name = todo.pop()
        path = repository.joinpath(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in found or not file.is_file():
            # A name that is imported from a module, or somebody else's module.
            found.add(name)
            continue
        found.add(name)
        tree = ast.parse(file.read_text())
        todo += imports(file)
        todo += [
            f"{node.module}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        ]
    return found


# Of other devices, or in the image by other ways than its lock file.
ELSEWHERE = {"jax", "kubernetes", "kfp"}
# By the module, where the distribution is called otherwise.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "docstring_parser": "docstring-parser",
    "google.cloud.storage": "google-cloud-storage",
    "google.auth": "google-auth",
    "google.api_core": "google-api-core",
    "google.protobuf": "protobuf",
    "google_crc32c": "google-crc32c",
    "yaml": "pyyaml",
}


@pytest.mark.parametrize("image", ["cpu", "gpu", "tpu", "tpu-tf"])
def test_image_holds_what_training_imports(repository, image):
    lock = (repository / "containers" / "requirements" / f"{image}.txt").read_text()
    locked = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    # TensorFlow has another name for each device.
    locked |= {"tensorflow" for name in locked if name.startswith("tensorflow-")}
    wanted = set()
    for name in imported_for(repository, "components.train_model.__main__"):
        top = name.split(".")[0]
        parts = [part for part in DISTRIBUTIONS if name == part or name.startswith(f"{part}.")]
        if parts:
            wanted.add(DISTRIBUTIONS[parts[0]])
        elif top not in {*sys.stdlib_module_names, *ELSEWHERE, "components", "google"}:
            wanted.add(top)
    assert {"keras", "google-crc32c", "google-cloud-storage"} <= wanted
    assert wanted <= locked


def test_nets_and_schedules_compute_by_keras_alone(repository):
    training = repository / "components" / "train_model"
    nets = source_files(repository, "components/train_model/models")
    assert len(nets) > 5
    for path in [*nets, training / "schedules.py", training / "optimizers.py"]:
        # What a backend has faster, these two import where that backend is the one in use.
        chosen = path.name in ("batch_norm.py", "optimizers.py")
        named = top_level_imports(path) if chosen else imports(path)
        assert not {"tensorflow", "jax", "torch"} & {name.split(".")[0] for name in named}, path


@pytest.mark.parametrize("package", PACKAGES)
def test_only_the_interface_imports_kfp(repository, package):
    for path in source_files(repository, package.replace(".", "/")):
        if path.name != "component.py":
            assert not any(name.startswith("kfp") for name in imports(path)), path


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("file", ["component.py", "__main__.py", "config.py", "__init__.py"])
def test_interfaces_import_nothing_heavy(repository, package, file):
    path = repository / package.replace(".", "/") / file
    if path.exists():
        assert not HEAVY & {name.split(".")[0] for name in top_level_imports(path)}


def test_serving_stands_beside_the_steps(repository):
    for path in source_files(repository, "pipelines/serving"):
        for name in imports(path):
            if not name.startswith("pipelines.serving"):
                assert not name.startswith(("kfp", "pipelines", "components.train_model")), path
    for path in source_files(repository, "components"):
        assert not any(name.startswith("pipelines") for name in imports(path)), path


def components_of(package):
    module = importlib.import_module(f"{package}.component")
    return [
        one for one in vars(module).values() if isinstance(one, dsl.base_component.BaseComponent)
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_kfp_parameter_has_a_flag(package):
    command = importlib.import_module(f"{package}.__main__").command
    flags = {parameter.name for parameter in command.params}
    step = components_of(package)[0]
    inputs = step.component_spec.inputs
    names = {name for name, one in inputs.items() if one.type != BACKEND_STATUS}
    assert inputs
    assert names <= flags


@pytest.mark.parametrize("package", PACKAGES)
def test_every_component_runs_in_an_image_of_ours(package):
    for step in components_of(package):
        container = step.component_spec.implementation.container
        assert container.image == (images.DEPLOY if package in CLOUD else images.CPU)


@pytest.mark.parametrize("package", PACKAGES)
def test_component_documents_every_argument(package):
    for step in components_of(package):
        text = inspect.getdoc(step.python_func) or ""
        for argument in inspect.signature(step.python_func).parameters:
            assert f"    {argument}: " in text


def test_no_file_but_images_names_an_image(repository):
    for name in (image.partition(":")[0] for image in images.IMAGES.values()):
        for folder in ("components", "pipelines"):
            for path in source_files(repository, folder):
                if path.name != "images.py":
                    assert name not in path.read_text(), path


def test_dockerfile_has_a_target_for_every_image(repository):
    dockerfile = (repository / "containers" / "Dockerfile").read_text()
    stages = re.findall(r"^FROM \S+ AS ([\w-]+)$", dockerfile, re.MULTILINE)
    assert set(stages) - {"base", "code", "tools"} == set(images.IMAGES)
    for target, name in images.IMAGES.items():
        assert f'title="{name.removesuffix(":latest")}"' in dockerfile
        assert (repository / "containers" / "requirements" / f"{target}.txt").is_file()


def test_no_image_has_an_entrypoint(repository):
    dockerfile = (repository / "containers" / "Dockerfile").read_text()
    assert not re.search(r"^\s*ENTRYPOINT", dockerfile, re.MULTILINE)
