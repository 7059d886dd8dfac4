"""The build configuration names only what exists."""

import re
import string
import subprocess

import pytest
import yaml

# Substitutions that Cloud Build itself gives.
BUILT_IN = {"PROJECT_ID", "COMMIT_SHA", "BUILD_ID"}


@pytest.fixture(scope="module")
def build(repository):
    return yaml.safe_load((repository / "cloudbuild.yaml").read_text())


def texts(value):
    """All text in plain data."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


def substitutions(build):
    """Names of `$NAME` and `${NAME}`; `$$` is a dollar sign for the shell."""
    for text in texts(build):
        for found in string.Template.pattern.finditer(text):
            assert found["invalid"] is None, text
            if name := found["named"] or found["braced"]:
                yield name


def test_every_substitution_is_declared_and_every_declared_one_is_used(build):
    used = set(substitutions(build))
    assert {name for name in used if name.startswith("_")} == build["substitutions"].keys()
    assert {name for name in used if not name.startswith("_")} <= BUILT_IN


def test_steps_call_make_targets_that_exist(build, repository):
    makefile = (repository / "Makefile").read_text()
    called = []
    for step in build["steps"]:
        if step["entrypoint"] == "make":
            called.append(step["args"][0])
        else:
            called += re.findall(r"^ *make ([\w-]+)", step["args"][-1], re.MULTILINE)
    assert called == ["test", "audit", "image", "compile", "smoke", "submit"]
    for target in called:
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE)


def test_every_image_is_audited(build, repository):
    """A lock file that nobody looks at would keep what everybody knows to be broken."""
    from components.images import IMAGES

    makefile = (repository / "Makefile").read_text()
    (audited,) = re.findall(r"^IMAGES := (.*)$", makefile, re.MULTILINE)
    assert set(audited.split()) == set(IMAGES)
    assert "pip-audit --strict" in makefile
    ids = [step["id"] for step in build["steps"]]
    assert ids.index("audit") < ids.index("build")
    assert "build/sbom/*.cdx.json" in build["artifacts"]["objects"]["paths"]


def test_every_package_is_pinned_by_version_and_hash(repository):
    for path in (repository / "containers" / "requirements").glob("*.txt"):
        entries = re.split(r"\n(?=\S)", path.read_text())
        packages = [entry for entry in entries if not entry.startswith("#")]
        assert packages, path
        for entry in packages:
            assert re.match(r"[\w.\[\],-]+==\S+", entry), f"{path}: {entry[:60]}"
            assert "--hash=sha256:" in entry, f"{path}: {entry[:60]}"


def test_what_is_compiled_and_tried_is_what_was_pushed(build):
    """Each step after the build takes the lock file that the build writes."""
    from pipelines.image_lock import LOCK_FILE

    steps = {step["id"]: " ".join(step["args"]) for step in build["steps"]}
    assert "--push" in steps["build"]
    for name in ("compile", "smoke", "submit"):
        assert f"--image-lock={LOCK_FILE}" in steps[name]
    assert str(LOCK_FILE) in build["artifacts"]["objects"]["paths"]


def test_nothing_is_submitted_without_a_release(build):
    script = next(step["args"][-1] for step in build["steps"] if step["id"] == "submit")
    assert build["substitutions"]["_RELEASE"] == "false"
    assert script.index("exit 0") < script.index("make submit")


@pytest.mark.parametrize("config", ["", "vertex.yaml"])
def test_release_is_submitted_with_its_target_file_if_it_has_one(build, tmp_path, config):
    """What Cloud Build's shell would call, by a `make` that tells it."""
    script = next(step["args"][-1] for step in build["steps"] if step["id"] == "submit")
    release = {
        **{"PROJECT_ID": "leaf", "_RELEASE": "true", "_CONFIG": config},
        **{"_PIPELINE_ROOT": "gs://leaf/root", "_SERVICE_ACCOUNT": "p@leaf"},
    }
    text = string.Template(script).substitute({**build["substitutions"], **release})
    make = tmp_path / "make"
    make.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    make.chmod(0o755)
    told = subprocess.run(
        ["bash", "-euc", text],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    target, arguments = told.stdout.strip().split("\n")
    words = arguments.removeprefix("ARGS=").split()
    assert (target, words[0]) == ("submit", "--target=vertex")
    assert [word for word in words if word.startswith("--config")] == (
        [f"--config={config}"] if config else []
    )
    assert {"--project=leaf", "--pipeline-root=gs://leaf/root", "--service-account=p@leaf"} <= {
        *words
    }
