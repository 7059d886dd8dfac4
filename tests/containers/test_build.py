"""`flowers images build`: layers, tags, the lock file, and a push to a registry on the loopback.

These builds take the name of the image away from the one under test, which the others know by id.
"""

import shutil
import subprocess
import sys

import pytest

from components.images import CPU
from pipelines.image_lock import load_image_lock, pin_images
from tests.fakes.registry import digest_of, local_registry
from tests.planted import PLANTED, SECRET

pytestmark = pytest.mark.docker

# As little as an image can be; nothing of the machine is in it, so it may be pushed.
DOCKERFILE = """\
FROM scratch AS cpu
COPY components /app/components
ARG COMMIT
LABEL org.opencontainers.image.revision="${COMMIT}"
"""


def build(checkout, lock, *arguments):
    command = [sys.executable, "-m", "pipelines", "images", "build", "--image-lock", lock]
    return subprocess.run(
        [*command, *arguments],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )


def git(checkout, *arguments):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost", *arguments]
    finished = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True)
    return finished.stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def engine_is_left_as_it_was(engine, image):
    before = {one.id for one in engine.images.list()}
    yield
    engine.images.get(image).tag(CPU)
    for one in engine.images.list():
        # The images of one file, which no other test makes.
        if one.id not in before and one.attrs["Size"] < 1000:
            engine.images.remove(one.id, force=True)


@pytest.fixture
def copy_of_the_project(repository, tmp_path):
    checkout = tmp_path / "copy"
    for folder in ("components", "pipelines", "containers"):
        shutil.copytree(
            repository / folder,
            checkout / folder,
            ignore=shutil.ignore_patterns("__pycache__", "*.lock.json"),
        )
    shutil.copy(repository / ".dockerignore", checkout)
    return checkout


@pytest.fixture
def checkout(tmp_path):
    """A repository with one commit, whose image has one file."""
    root = tmp_path / "checkout"
    (root / "containers").mkdir(parents=True)
    (root / "components").mkdir()
    (root / "pipelines").mkdir()
    (root / "containers" / "Dockerfile").write_text(DOCKERFILE)
    (root / "components" / "module.py").write_text(f"name = {str(tmp_path)!r}\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "first")
    return root


@pytest.fixture
def registry():
    with local_registry() as server:
        yield server


def test_change_of_the_code_makes_one_layer(engine, image, copy_of_the_project, tmp_path):
    """The whole project, changed in a copy."""
    checkout = copy_of_the_project
    with (checkout / "components" / "train_model" / "train.py").open("a") as file:
        file.write("# changed\n")
    finished = build(checkout, tmp_path / "lock.json", "--commit", "1" * 40)
    assert finished.returncode == 0, finished.stderr
    changed = engine.images.get(load_image_lock(tmp_path / "lock.json").images["cpu"])
    before, after = (one.attrs["RootFS"]["Layers"] for one in (engine.images.get(image), changed))
    assert len(before) == len(after) > 2
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]
    assert changed.labels["org.opencontainers.image.revision"] == "1" * 40


@pytest.mark.parametrize("target", ["cpu", "serve"])
def test_no_layer_has_a_secret(engine, copy_of_the_project, target, tmp_path, monkeypatch):
    """Of the environment of the build, and of files that lie beside the code and among it."""
    for folder in ("", "components", "pipelines/recipes", "containers"):
        for name in (".env", ".netrc", "credentials.json", "key.pem"):
            (copy_of_the_project / folder / name).write_text(SECRET)
    for variable, secret in PLANTED.items():
        monkeypatch.setenv(variable, secret)
    commit = "2" * 40
    finished = build(copy_of_the_project, tmp_path / "lock.json", "--commit", commit, target)
    assert finished.returncode == 0, finished.stderr
    built = engine.images.get(load_image_lock(tmp_path / "lock.json").images[target])
    found = {SECRET: False, commit: False}
    end = b""
    for part in built.save():
        found = {word: was or word.encode() in end + part for word, was in found.items()}
        end = part[-64:]
    # That the commit is found shows that the search finds.
    assert found == {SECRET: False, commit: True}


def test_image_is_tagged_with_its_commit(engine, checkout, tmp_path):
    finished = build(checkout, tmp_path / "lock.json")
    assert finished.returncode == 0, finished.stderr
    commit = git(checkout, "rev-parse", "HEAD")
    lock = load_image_lock(tmp_path / "lock.json")
    built = engine.images.get(lock.images["cpu"])
    assert lock.commit == built.labels["org.opencontainers.image.revision"] == commit
    assert {CPU, f"{CPU.partition(':')[0]}:{commit[:12]}"} <= set(built.tags)
    assert finished.stdout.splitlines() == [
        f"cpu  {built.id}",
        f"images of commit {commit} are in {tmp_path / 'lock.json'}",
    ]


def test_changed_tree_is_not_named_after_its_commit(engine, checkout, tmp_path):
    (checkout / "components" / "module.py").write_text("changed = True\n")
    assert build(checkout, tmp_path / "lock.json").returncode == 0
    commit = git(checkout, "rev-parse", "HEAD")
    lock = load_image_lock(tmp_path / "lock.json")
    assert lock.commit == f"{commit}-changed"
    tags = engine.images.get(lock.images["cpu"]).tags
    assert f"{CPU.partition(':')[0]}:{commit[:12]}-changed" in tags


def test_pushed_image_can_be_pulled_by_what_the_lock_says(engine, checkout, registry, tmp_path):
    repository = f"{registry.host}/project/flowers"
    finished = build(checkout, tmp_path / "lock.json", "--push", "--registry", repository)
    assert finished.returncode == 0, finished.stderr
    reference = load_image_lock(tmp_path / "lock.json").images["cpu"]
    name, _, digest = reference.partition("@")
    assert name == f"{repository}/{CPU.partition(':')[0]}"
    pinned = pin_images({"image": CPU}, load_image_lock(tmp_path / "lock.json"))
    assert pinned == {"image": reference}
    path = name.partition("/")[2]
    commit = git(checkout, "rev-parse", "HEAD")
    for tag in (commit[:12], "latest"):
        assert digest_of(registry.manifests[path, tag][0]) == digest
    built = engine.images.get(reference)
    engine.images.remove(built.id, force=True)
    assert engine.images.pull(reference).id == built.id


def test_second_push_is_the_same_digest(checkout, registry, tmp_path):
    arguments = ["--push", "--registry", f"{registry.host}/project/flowers"]
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert build(checkout, first, *arguments).returncode == 0
    assert build(checkout, second, *arguments, "--cache-from-registry").returncode == 0
    assert load_image_lock(first) == load_image_lock(second)


def refused(checkout, lock, *arguments):
    """The last line of a build that must not have made a lock file."""
    finished = build(checkout, lock, *arguments)
    assert finished.returncode == 2, finished.stderr
    assert not lock.exists()
    return finished.stderr.splitlines()[-1]


def test_stand_in_is_not_pushed(checkout, registry, tmp_path):
    dockerfile = DOCKERFILE + 'LABEL stand-in="python"\n'
    (checkout / "containers" / "Dockerfile").write_text(dockerfile)
    git(checkout, "commit", "--quiet", "--all", "--message", "second")
    arguments = ("--push", "--registry", f"{registry.host}/project/flowers")
    line = refused(checkout, tmp_path / "lock.json", *arguments)
    assert "stand-in for python" in line
    assert not registry.blobs
    assert not registry.manifests


def test_image_under_test_is_pushed_only_from_the_real_base(engine, image):
    """What the label is for: a stand-in for the base image hands it on."""
    base = engine.images.get("python:3.11-slim-bookworm")
    stand_in = base.labels.get("stand-in")
    assert engine.images.get(image).labels.get("stand-in") == stand_in


def test_changed_tree_is_not_pushed(checkout, registry, tmp_path):
    (checkout / "components" / "module.py").write_text("changed = True\n")
    arguments = ("--push", "--registry", f"{registry.host}/project/flowers")
    assert "commit first" in refused(checkout, tmp_path / "lock.json", *arguments)
    assert not registry.manifests


def test_registry_that_does_not_answer(checkout, tmp_path):
    arguments = ("--push", "--registry", "127.0.0.1:1/project/flowers")
    line = refused(checkout, tmp_path / "lock.json", *arguments)
    assert "docker push 127.0.0.1:1/project/flowers" in line
    assert "gcloud auth configure-docker 127.0.0.1:1" in line


def test_build_that_fails_leaves_the_lock_as_it_was(checkout, tmp_path):
    lock = tmp_path / "lock.json"
    assert build(checkout, lock).returncode == 0
    before = lock.read_text()
    (checkout / "containers" / "Dockerfile").write_text("FROM scratch AS cpu\nCOPY none /\n")
    finished = build(checkout, lock)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].endswith("what it printed says why")
    assert lock.read_text() == before


def test_targets_of_one_commit_stand_in_one_lock_file(checkout, tmp_path):
    dockerfile = DOCKERFILE + "FROM cpu AS gpu\nLABEL more=1\n"
    (checkout / "containers" / "Dockerfile").write_text(dockerfile)
    git(checkout, "commit", "--quiet", "--all", "--message", "second")
    lock = tmp_path / "lock.json"
    assert build(checkout, lock).returncode == 0
    assert build(checkout, lock, "gpu").returncode == 0
    assert load_image_lock(lock).images.keys() == {"cpu", "gpu"}
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "third")
    assert build(checkout, lock, "gpu").returncode == 0
    assert load_image_lock(lock).images.keys() == {"gpu"}
