"""Compile, submit, wait and schedules on Kubeflow Pipelines: KFP's own client, a stateful fake."""

import datetime
import json
import re
import shlex
import sys
from types import SimpleNamespace
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from components.common import vertex as connection
from components.common.config import build
from components.common.errors import ConfigError
from components.common.patience import Patience
from components.train_model.jobset import POD_NAME, POD_UID, PodsConfig, make_jobset
from components.train_model.trainjob import make_trainjob
from pipelines.cli import flowers
from pipelines.targets import kubeflow as runs
from pipelines.targets import preflight
from pipelines.targets.kubeflow_config import TOKEN_VARIABLE, KubeflowTarget
from pipelines.targets.kubeflow_schedules import (
    KubeflowSchedules,
    recurring_run,
    to_five_fields,
    to_six_fields,
)
from pipelines.targets.schedules import ScheduleConfig
from tests.commands import DIGEST, lock_images, run
from tests.fakes.jobsets import validate_jobset, validate_trainjob
from tests.fakes.kubeflow import FAULTS, RefusedError, check_cron, serve_kubeflow
from tests.fakes.pods import make_pod
from tests.fakes.vertex import serve_vertex
from tests.planted import PLANTED, SECRET

PHOTOS = ["--images", "gs://bucket/photos"]
PLACE = ["--target", "kubeflow", "--config", "kubeflow.yaml"]
SUBMIT = ["submit", *PHOTOS, *PLACE, "--image-lock", "lock.json"]
CREATE = [
    *("schedule", "create", "--name", "weekly", "--cron", "0 3 * * 1", *PHOTOS),
    *(*PLACE, "--image-lock", "lock.json"),
]
# Nobody listens there.
NOWHERE = "http://127.0.0.1:1"
TPU = {"machine_type": "ct5lp-hightpu-4t", "accelerator": "TPU", "tpu_topology": "2x2"}
LABELS = {"app.kubernetes.io/part-of": "flowers"}
# A release of Kubernetes that GKE has.
KUBERNETES = "1.33"


@pytest.fixture(autouse=True)
def hasty(monkeypatch, tmp_path):
    patience = Patience(request=10.0, first_wait=0.0, tries=4, operation=5.0, poll=0.0, settle=0.05)
    monkeypatch.setattr(runs.Kubeflow.__init__, "__defaults__", (patience,))
    monkeypatch.setattr(connection.Vertex.__init__, "__defaults__", (patience,))
    # KFP's client keeps a namespace there.
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def google(monkeypatch):
    """The bucket and the registry, which the fake of Vertex AI has."""
    with serve_vertex() as (state, address):
        monkeypatch.setenv(connection.ENDPOINT_VARIABLE, address)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        state.host = address.removeprefix("http://")
        yield state


@pytest.fixture
def fake():
    with serve_kubeflow() as (state, address):
        state.address = address
        yield state


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ready(fake, google, here):
    """The fake, with a target file and images that fit it."""
    write_target(here, host=fake.address, pipeline_root="gs://bucket/root")
    lock_images(here, google)
    return fake


def write_target(folder, **changes):
    (folder / "kubeflow.yaml").write_text(yaml.safe_dump({"host": NOWHERE} | changes))


class TestSubmit:
    def test_makes_one_run(self, ready, capsys):
        code, out, err = run(capsys, *SUBMIT, "--service-account", "trainer")
        assert (code, err) == (0, ""), err
        ((run_id, made),) = ready.runs.items()
        assert f"submitted {made['display_name']} ({run_id})" in out
        assert f"{ready.address}/#/runs/details/{run_id}" in out
        assert made["runtime_config"] == {"pipeline_root": "gs://bucket/root", "parameters": {}}
        assert made["service_account"] == "trainer"
        (experiment,) = ready.experiments.values()
        assert experiment["display_name"] == "flowers"
        assert made["experiment_id"] == experiment["experiment_id"]

    def test_existing_experiment_is_used(self, ready, capsys):
        assert run(capsys, *SUBMIT)[0] == 0
        assert run(capsys, *SUBMIT)[0] == 0
        assert len(ready.experiments) == 1
        assert len(ready.runs) == 2

    def test_images_are_those_of_the_lock(self, ready, capsys):
        run(capsys, *SUBMIT)
        (made,) = ready.runs.values()
        executors = made["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"]
        images = {one["container"]["image"] for one in executors.values()}
        assert len(images) == 2
        assert all(image.endswith(f"@{DIGEST}") for image in images)

    def test_dry_run_prints_what_would_be_sent_and_sends_nothing(self, ready, capsys):
        code, out, _ = run(capsys, *SUBMIT, "--dry-run")
        assert (code, ready.requests) == (0, [])
        method, _, body = out.partition("\n")
        assert method == "POST /apis/v2beta1/runs"
        run(capsys, *SUBMIT)
        sent = next(one for one in ready.bodies if "pipeline_spec" in one)
        shown = json.loads(body)
        assert shown["runtime_config"] == sent["runtime_config"]
        assert shown["pipeline_spec"]["platform_spec"] == sent["pipeline_spec"]["platform_spec"]
        # KFP's client reads numbers as its messages have them, 1 as 1.0.
        assert set(shown["pipeline_spec"]["pipeline_spec"]) == set(
            sent["pipeline_spec"]["pipeline_spec"]
        )

    def test_token_is_shown(self, ready, here, capsys, monkeypatch):
        write_target(here, host=ready.address, auth="token", pipeline_root="gs://bucket/root")
        ready.token = "secret"
        monkeypatch.setenv(TOKEN_VARIABLE, "secret")
        assert run(capsys, *SUBMIT)[0] == 0
        monkeypatch.setenv(TOKEN_VARIABLE, "other")
        code, _, err = run(capsys, *SUBMIT)
        assert code == 2
        assert "refuses you (the token is not valid)" in err
        monkeypatch.delenv(TOKEN_VARIABLE)
        code, _, err = run(capsys, *SUBMIT)
        assert code == 2
        assert f"{TOKEN_VARIABLE} holds none" in err
        assert len(ready.runs) == 1

    def test_application_default_credentials_are_shown_and_renewed(self, fake, monkeypatch):
        class Credentials:
            valid, token, refreshed = False, "", 0

            def refresh(self, _request):
                self.valid, self.refreshed, self.token = True, self.refreshed + 1, "of-google"

        held = Credentials()
        monkeypatch.setattr(runs, "credentials", lambda _endpoint: held)
        fake.token = "of-google"
        client = runs.Kubeflow(KubeflowTarget(fake.address, auth="adc")).client
        client.list_runs()
        held.valid = False
        client.list_runs()
        assert held.refreshed == 2

    def test_namespace_is_named_in_a_multi_user_installation(self, ready, here, capsys):
        ready.multi_user = True
        code, _, err = run(capsys, *SUBMIT)
        assert code == 2
        assert "a namespace is required" in err
        assert run(capsys, *SUBMIT, "--namespace", "team")[0] == 0

    def test_every_request_may_fail_once(self, fake, documents):
        """Each of a submission's requests, each way; make test-faults does so with the rest."""
        survive_submission(fake, documents, "lost")


class TestChecks:
    def test_host_that_does_not_answer_is_one_line(self, google, here, capsys, caplog):
        write_target(here)
        lock_images(here, google)
        code, out, err = run(capsys, *SUBMIT)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1, err
        assert f"--host {NOWHERE}: Kubeflow Pipelines does not answer (" in err
        assert "Connection refused" in err
        assert "object at" not in err
        # Python prints what a library logs where nobody takes it.
        assert caplog.records == []

    def test_host_that_is_something_else(self, google, here, capsys):
        write_target(here, host=f"http://{google.host}")
        lock_images(here, google)
        code, _, err = run(capsys, *SUBMIT)
        assert code == 2
        assert len(err.splitlines()) == 1
        assert "knows of no such thing" in err

    def test_page_to_log_in_on_is_not_taken_for_an_answer(self, ready, capsys):
        ready.page = "<html>Sign in</html>"
        code, _, err = run(capsys, *SUBMIT)
        assert code == 2
        assert len(err.splitlines()) == 1
        assert "what answers is not Kubeflow Pipelines" in err
        assert ready.runs == ready.experiments == {}

    def test_all_that_is_missing_is_named_at_once(self, ready, google, here, capsys):
        google.buckets.clear()
        lock_images(here, google, pushed=())
        google.images.clear()
        code, _, err = run(capsys, *SUBMIT)
        assert code == 2
        assert len(err.splitlines()) == 1
        for words in ("3 things are missing", "no bucket bucket", "flowers-cpu@sha256:aaa"):
            assert words in err
        assert ready.runs == ready.experiments == {}

    def test_without_a_bucket_of_google_no_credential_is_asked_for(
        self, fake, here, capsys, monkeypatch
    ):
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(here))
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        write_target(here, host=fake.address, pipeline_root="minio://mlpipeline/runs")
        images = {name: f"registry.example.com/{name}@{DIGEST}" for name in ("cpu", "deploy")}
        (here / "lock.json").write_text(json.dumps({"commit": "a" * 40, "images": images}))
        assert run(capsys, *SUBMIT)[0] == 0
        assert len(fake.runs) == 1

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"host": "kubeflow"}, ["host", "http://127.0.0.1:8080", "'kubeflow'"]),
            ({"host": "http://example.com", "auth": "adc"}, ["host", "https only"]),
            ({"auth": "password"}, ["auth", "none, token, adc"]),
            ({"kueue": True}, ["queue", "missing", "kubectl get localqueues"]),
            ({"queue": "Big Queue"}, ["queue", "Kubernetes name", "'Big Queue'"]),
            ({"user": 0}, ["user", "1 to"]),
            ({"pipeline_root": "bucket/x"}, ["pipeline_root", "gs://BUCKET/FOLDER"]),
            ({"registry": "models"}, ["registry", "vertex://PROJECT/REGION"]),
            ({"tasks": {"train-model": {}}}, ["tasks", "ingest-examples"]),
            ({"tasks": {"gate-model": {"memory": "lots"}}}, ["tasks.gate-model.memory", "16Gi"]),
            ({"train": TPU | {"tpu_topology": "3x3"}}, ["tpu_topology", "no TPU has", "2x2"]),
            (
                {"train": TPU | {"tpu_topology": "2x2x1"}},
                ["tpu_topology", "which goes with ct4p-hightpu-4t, ct5p-hightpu-4t"],
            ),
            (
                {"train": TPU | {"machine_type": "ct5lp-hightpu-8t"}},
                ["tpu_topology: ct5lp-hightpu-8t has 2x4, received '2x2'"],
            ),
            ({"train": TPU | {"accelerator_count": 8}}, ["accelerator_count", "4 chips", "8"]),
            (
                {"train": TPU | {"tpu_topology": "4x4"}},
                ["pipeline_root", "4 hosts of 4x4", "slice of one host"],
            ),
            ({"train": TPU | {"machine_type": "n1-standard-8"}}, ["machine_type", "ct6e"]),
            ({"train": {"tpu_topology": "2x2"}}, ["tpu_topology", "accelerator: TPU"]),
            ({"train": {"accelerator": "T4"}}, ["accelerator", "nvidia-tesla-t4"]),
            ({"train": {"accelerator_count": 2}}, ["accelerator_count"]),
            ({"train": {"checkpoint_steps": 9}}, ["train.checkpoint_steps", "gs://", "received 9"]),
            ({"colour": "red"}, ["colour", "unknown key"]),
        ],
    )
    def test_wrong_target_is_one_line(self, fake, google, here, capsys, changes, words):
        write_target(here, **({"host": fake.address} | changes))
        lock_images(here, google)
        code, _, err = run(capsys, *SUBMIT)
        assert code == 2
        assert len(err.splitlines()) == 1
        assert all(word in err for word in words), err
        assert fake.requests == []

    @pytest.mark.parametrize(
        ("host", "asked"),
        [
            ("europe-docker.pkg.dev", True),
            ("gcr.io", True),
            ("eu.gcr.io", True),
            ("notgcr.io", False),
            ("pkg.dev.example.com", False),
            ("docker.io", False),
        ],
    )
    def test_credential_of_google_goes_to_google_only(self, host, asked, monkeypatch):
        shown = []
        monkeypatch.setattr(preflight, "_token", lambda: "secret")
        monkeypatch.setattr(preflight, "_check_image", lambda *given: shown.append(given))
        image = f"{host}/repo/cpu@{DIGEST}"
        spec = {"deploymentSpec": {"executors": {"a": {"container": {"image": image}}}}}
        spec |= {"root": {}, "components": {}}
        assert preflight.find_problems(spec, "", lambda: None) == []
        assert shown == ([(image, "secret")] if asked else [])

    def test_registry_of_this_machine_needs_no_credential_and_gets_none(self, monkeypatch):
        asked = []

        def head(url, headers, **_):
            asked.append((url, headers))
            return SimpleNamespace(status_code=200)

        monkeypatch.setattr("requests.head", head)
        images = {"a": f"127.0.0.1:5000/repo/cpu@{DIGEST}"}
        for token in (None, "secret"):
            monkeypatch.setattr(preflight, "_token", lambda token=token: {"secret": token}[token])
            executors = {name: {"container": {"image": image}} for name, image in images.items()}
            spec = {"deploymentSpec": {"executors": executors}, "root": {}, "components": {}}
            assert preflight.find_problems(spec, "", lambda: None) == []
            images["b"] = f"gcr.io/repo/cpu@{DIGEST}"
        tokens = {url.split("/v2/")[0]: "Authorization" in headers for url, headers in asked}
        assert tokens == {"http://127.0.0.1:5000": False, "https://gcr.io": True}

    @pytest.mark.parametrize("flag", ["--project", "--region"])
    def test_flag_of_another_target_is_refused(self, ready, capsys, flag):
        code, _, err = run(capsys, *SUBMIT, flag, "x")
        assert code == 2
        assert f"{flag}: goes with --target vertex" in err


def play(fake, looks, state, error=""):
    """Makes a run go through `looks`, each a task -> (state, message)."""
    left = list(looks)

    def advance(made):
        if not left:
            made["state"] = state
            made["error"] = {"code": 13, "message": error}
            return
        details = {
            one["display_name"]: one for one in made.get("run_details", {}).get("task_details", [])
        }
        details |= {
            name: {"display_name": name, "state": word, "error": {"message": message}}
            for name, (word, message) in left.pop(0).items()
        }
        made["run_details"] = {"task_details": list(details.values())}

    fake.advance = advance


class TestWait:
    def test_shows_every_change_once_and_ends_with_0(self, ready, capsys):
        play(
            ready,
            [
                {"root-driver": ("SUCCEEDED", ""), "ingest-examples": ("RUNNING", "")},
                {"ingest-examples": ("RUNNING", ""), "condition-2": ("RUNNING", "")},
                {"ingest-examples": ("SUCCEEDED", ""), "train-model": ("SKIPPED", "")},
            ],
            "SUCCEEDED",
        )
        code, out, err = run(capsys, *SUBMIT, "--wait")
        assert (code, err) == (0, "")
        assert out.splitlines()[2:] == [
            "[ingest-examples] running",
            "[ingest-examples] succeeded",
            "[train-model] skipped",
            "succeeded",
        ]

    @pytest.mark.parametrize(
        ("task", "message", "code"),
        [
            ("train-model", "failed to execute component: exit status 1", 1),
            ("ingest-examples", "Error (exit code 2)", 2),
            ("deploy-model", "failed to execute component: exit status 3", 3),
            ("train-model", "Error (exit code 75)", 75),
            ("train-model", "The node was preempted", 1),
        ],
    )
    def test_failure_has_the_code_and_the_error_of_its_task(
        self, ready, capsys, task, message, code
    ):
        play(ready, [{task: ("FAILED", message)}], "FAILED")
        found, _, err = run(capsys, *SUBMIT, "--wait")
        assert found == code
        assert err.splitlines() == [f"flowers submit: step {task} failed: {message}"]

    def test_closed_gate_is_3(self, ready, capsys):
        play(ready, [{"refuse-model": ("FAILED", "exit status 3")}], "FAILED")
        code, _, err = run(capsys, *SUBMIT, "--wait")
        assert (code, err) == (3, "flowers submit: gate closed\n")

    def test_cancelled_is_130(self, ready, capsys):
        play(ready, [], "CANCELED")
        assert run(capsys, *SUBMIT, "--wait")[0] == 130

    def test_failure_without_a_step_says_what_the_run_says(self, ready, capsys):
        play(ready, [], "FAILED", "the namespace has no quota left")
        code, _, err = run(capsys, *SUBMIT, "--wait")
        assert (code, err) == (1, "flowers submit: failed: the namespace has no quota left\n")


class TestSchedule:
    def test_create_converts_the_cron_and_shows_the_next_runs(self, ready, capsys):
        code, out, err = run(capsys, *CREATE, "--time-zone", "Europe/Zurich", "--concurrency", "2")
        assert (code, err) == (0, "")
        (made,) = ready.recurring.values()
        schedule = made["trigger"]["cron_schedule"]
        assert schedule["cron"] == "TZ=Europe/Zurich 0 0 3 * * 1"
        assert (int(made["max_concurrency"]), made["no_catchup"]) == (2, True)
        assert out.startswith(f"created weekly ({made['recurring_run_id']})")
        moments = [line.split()[2] for line in out.splitlines() if line.startswith("next run")]
        assert len(moments) == 3
        assert all(datetime.datetime.fromisoformat(one).weekday() == 0 for one in moments)

    def test_create_twice_is_one_schedule(self, ready, capsys):
        run(capsys, *CREATE)
        code, out, _ = run(capsys, *CREATE)
        assert code == 0
        assert "exists already" in out
        assert "flowers schedule delete" in out
        assert len(ready.recurring) == 1

    def test_list_show_pause_resume_delete(self, ready, capsys):
        run(capsys, *CREATE, "--end", "2999-01-01T00:00")
        name = ["--name", "weekly", *PLACE]
        (made,) = ready.recurring.values()
        listed = "weekly  active  0 3 * * 1  UTC\n"
        assert run(capsys, "schedule", "list", *PLACE) == (0, listed, "")
        shown = run(capsys, "schedule", "show", *name)[1]
        assert "end          2999-01-01 00:00:00+00:00" in shown
        assert shown.count("next run") == 3
        assert run(capsys, "schedule", "pause", *name)[0] == 0
        assert made["status"] == "DISABLED"
        assert "paused" in run(capsys, "schedule", "show", *name)[1]
        assert run(capsys, "schedule", "resume", *name)[0] == 0
        assert made["status"] == "ENABLED"
        code, _, err = run(capsys, "schedule", "update", *name, "--cron", "30 4 * * *")
        assert (code, "flowers schedule delete, then create" in err) == (2, True)
        assert run(capsys, "schedule", "delete", *name)[0] == 0
        assert ready.recurring == {}
        code, _, err = run(capsys, "schedule", "pause", *name)
        assert code == 2
        assert "there is no such schedule; there are: none" in err

    @pytest.mark.parametrize(
        ("trigger", "shown"),
        [
            ({"periodic_schedule": {"interval_second": "3600"}}, "not known: the cron is none"),
            ({"cron_schedule": {"cron": "0 0 3 ? * 1"}}, "T03:00:00+00:00"),
        ],
    )
    def test_schedule_that_was_made_by_hand_is_shown(self, ready, capsys, trigger, shown):
        run(capsys, *CREATE)
        (made,) = ready.recurring.values()
        made |= {"trigger": trigger, "display_name": "team/nightly (eu)"}
        code, out, err = run(capsys, "schedule", "show", "--name", made["display_name"], *PLACE)
        assert (code, err) == (0, "")
        assert shown in out.splitlines()[-1]

    def test_all_pages_are_read(self, fake, documents):
        kubeflow = runs.Kubeflow(KubeflowTarget(fake.address))
        kubeflow.experiment()
        (experiment,) = fake.experiments
        names = [f"schedule-{number:03}" for number in range(205)]
        for name in names:
            body = {"display_name": name, "experiment_id": experiment, "status": "ENABLED"}
            fake.add(fake.recurring, "recurring_run_id", body)
        schedules = KubeflowSchedules(kubeflow)
        assert [one.display_name for one in schedules.all()] == names
        assert schedules.view(schedules.find("schedule-204")).cron == "none"

    def test_dry_run_sends_nothing(self, ready, capsys):
        code, out, _ = run(capsys, *CREATE, "--dry-run")
        assert (code, ready.requests) == (0, [])
        method, _, body = out.partition("\n")
        assert method == "POST /apis/v2beta1/recurringruns"
        assert json.loads(body)["trigger"] == {"cron_schedule": {"cron": "TZ=UTC 0 0 3 * * 1"}}

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (["--cron", "0 3 * *"], ["five fields", "4"]),
            (["--cron", "0 3 L * *"], ["no last days", "name days"]),
            (["--cron", "0 3 * * 1#2"], ["no n-th weekdays"]),
            (["--max-runs", "3"], ["--max-runs", "--end"]),
            (["--concurrency", "11"], ["--concurrency", "1 to 10", "11"]),
        ],
    )
    def test_wrong_time_is_one_line(self, ready, capsys, flags, words):
        code, _, err = run(capsys, *CREATE, *flags)
        assert code == 2
        assert len(err.splitlines()) == 1
        assert all(word in err for word in words), err
        assert ready.requests == []


def numbers(low, high):
    one = st.integers(low, high).map(str)
    span = st.tuples(st.integers(low, high), st.integers(low, high)).map(
        lambda pair: f"{min(pair)}-{max(pair)}"
    )
    step = st.tuples(st.one_of(st.just("*"), span), st.integers(1, 5)).map(
        lambda pair: f"{pair[0]}/{pair[1]}"
    )
    term = st.one_of(one, span, step)
    return st.one_of(st.just("*"), st.lists(term, min_size=1, max_size=3).map(",".join))


class TestCron:
    @given(
        st.tuples(
            numbers(0, 59), numbers(0, 23), numbers(1, 28), numbers(1, 12), numbers(0, 7)
        ).map(" ".join)
    )
    def test_six_fields_are_legal_and_name_the_same_moments(self, cron):
        converted = to_six_fields(cron, "UTC")
        check_cron(converted)
        after = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)
        back, zone = to_five_fields(converted)
        assert zone == "UTC"
        ours, theirs = CronSim(cron, after), CronSim(back, after)
        assert [next(ours) for _ in range(3)] == [next(theirs) for _ in range(3)]

    def test_sunday_as_seven_becomes_zero(self):
        assert to_six_fields("0 3 * * 5-7", "UTC") == "TZ=UTC 0 0 3 * * 0,5,6"

    @pytest.mark.parametrize(
        "cron", ["0 3 * * 1", "0 0 3 * * 7", "0 0 24 * * *", "TZ=X 0 0 3 * * 1"]
    )
    def test_fake_refuses_what_is_not_of_that_form(self, cron):
        with pytest.raises(RefusedError):
            check_cron(cron)


@pytest.fixture(scope="module")
def documents():
    """A package that is small, and that the fake accepts."""
    spec = {
        "pipelineInfo": {"name": "flowers"},
        "schemaVersion": "2.1.0",
        "deploymentSpec": {"executors": {"exec-a": {"container": {"image": f"r/a@{DIGEST}"}}}},
        "root": {"dag": {"tasks": {}}},
    }
    return [spec]


def survive_submission(fake, documents, kind):
    kubeflow = runs.Kubeflow(KubeflowTarget(fake.address))
    assert kubeflow.client
    for number in range(8):
        fake.experiments.clear()
        fake.runs.clear()
        fake.faults = {len(fake.requests) + number: kind}
        key = runs.submit(kubeflow, documents, f"flowers-{kind}-{number}")
        assert list(fake.runs) == [key]
        assert len(fake.experiments) == 1


def tell(fake, documents):
    """A schedule's whole life."""
    kubeflow = runs.Kubeflow(KubeflowTarget(fake.address))
    schedules = KubeflowSchedules(kubeflow)
    config = ScheduleConfig("weekly", "0 3 * * 1")
    made, new = schedules.create(
        documents, config, recurring_run(documents, kubeflow.target, config)
    )
    assert new
    assert list(fake.recurring) == [made.recurring_run_id]
    schedules.pause("weekly")
    assert fake.recurring[made.recurring_run_id]["status"] == "DISABLED"
    schedules.resume("weekly")
    assert fake.recurring[made.recurring_run_id]["status"] == "ENABLED"
    schedules.delete("weekly")
    assert fake.recurring == {}


@pytest.mark.faults
@pytest.mark.parametrize("kind", FAULTS)
def test_every_request_of_a_submission_may_fail_once(fake, documents, kind):
    survive_submission(fake, documents, kind)


@pytest.mark.faults
@pytest.mark.parametrize("kind", FAULTS)
def test_every_request_of_a_schedule_may_fail_once(documents, kind):
    with serve_kubeflow() as (fake, address):
        fake.address = address
        tell(fake, documents)
        count = len(fake.requests)
    assert count > 12
    # The first asks whether the host is there, and its failure ends the command.
    for number in range(1, count):
        with serve_kubeflow() as (fake, address):
            fake.address = address
            fake.faults = {number: kind}
            tell(fake, documents)
            assert len(fake.requests) > number


def test_host_that_is_ill_is_refused_before_anything_is_made(fake, documents):
    fake.faults = {0: "503"}
    with pytest.raises(ConfigError, match="status 503: told to fail"):
        runs.submit(runs.Kubeflow(KubeflowTarget(fake.address)), documents, "flowers-1")
    assert fake.runs == fake.experiments == {}


def training_of(documents):
    """Name of the task that trains."""
    names = documents[0]["root"]["dag"]["tasks"]
    return next(name for name in names if name.startswith("train-model"))


TARGETS: dict[str, dict[str, Any]] = {
    "cpu": {},
    "tpu": {
        "train": TPU
        | {"spot": True, "cpu": "24", "memory": "40Gi", "retries": 3}
        | {"timeout_hours": 6},
        "tasks": {"ingest-examples": {"cpu": "4", "memory": "16Gi", "retries": 2}},
        "image_pull_secrets": ["registry"],
        "queue": "tpu-queue",
        "kueue": True,
        "caching": False,
    },
    "tpu-hosts": {
        "pipeline_root": "gs://bucket/root",
        "train": TPU
        | {"tpu_topology": "4x4", "spot": True, "cpu": "24", "memory": "40Gi", "retries": 3}
        | {"checkpoint_steps": 500},
        "service_account": "trainer",
        "queue": "tpu-queue",
        "kueue": True,
    },
}


class TestCompile:
    @pytest.fixture(params=TARGETS)
    def compiled(self, request, here, capsys, monkeypatch):
        write_target(here, **TARGETS[request.param])
        for variable, secret in PLANTED.items():
            monkeypatch.setenv(variable, secret)
        assert run(capsys, "compile", *PHOTOS, *PLACE, "--output", "p.yaml")[0] == 0
        assert SECRET not in (here / "p.yaml").read_text()
        return request.param, list(yaml.safe_load_all((here / "p.yaml").read_text()))

    def test_equals_the_golden_file(self, compiled, repository):
        """After a wanted change: copy the file that this test compiles over the golden one."""
        name, documents = compiled
        golden = repository / "tests" / "golden" / f"kubeflow-{name}.yaml"
        expected = list(yaml.safe_load_all(golden.read_text()))
        for one in (documents[0], expected[0]):
            del one["sdkVersion"]
        assert documents == expected

    def test_every_pod_is_one_of_kubernetes(self, compiled):
        _, documents = compiled
        executors = documents[0]["deploymentSpec"]["executors"]
        assert len(executors) == 9
        for name in executors:
            pod = make_pod(documents, name.removeprefix("exec-"))
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)

    def test_no_pod_is_root_and_each_has_a_place_to_write(self, compiled):
        _, documents = compiled
        for name in documents[0]["deploymentSpec"]["executors"]:
            (container,) = make_pod(documents, name.removeprefix("exec-"))["spec"]["containers"]
            assert container["securityContext"]["runAsNonRoot"] is True
            assert container["securityContext"]["runAsUser"] == 10001
            assert "/tmp" in {one["mountPath"] for one in container["volumeMounts"]}

    def test_training_asks_for_its_chips_and_its_node(self, compiled):
        name, documents = compiled
        pod = make_pod(documents, training_of(documents))
        (container,) = pod["spec"]["containers"]
        if name == "cpu":
            assert "nodeSelector" not in pod["spec"]
            assert container["resources"]["limits"] == {}
            return
        if name == "tpu-hosts":
            assert "nodeSelector" not in pod["spec"]
            assert container["resources"]["limits"] == {"cpu": "500m", "memory": "1Gi"}
            return
        assert container["resources"] == {
            "requests": {"cpu": "24", "memory": "40Gi"},
            "limits": {"cpu": "24", "memory": "40Gi", "google.com/tpu": "4"},
        }
        assert pod["spec"]["nodeSelector"] == {
            "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
            "cloud.google.com/gke-tpu-topology": "2x2",
            "cloud.google.com/gke-spot": "true",
        }
        assert {one["key"] for one in pod["spec"]["tolerations"]} == {
            "google.com/tpu",
            "cloud.google.com/gke-spot",
        }
        assert pod["metadata"]["labels"] == LABELS | {"kueue.x-k8s.io/queue-name": "tpu-queue"}
        assert pod["spec"]["activeDeadlineSeconds"] == 6 * 3600
        assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]

    def test_retries_and_caching_are_those_of_the_target(self, compiled):
        name, documents = compiled
        spec = documents[0]
        tasks = {
            task: one
            for graph in (spec["root"], *spec["components"].values())
            for task, one in graph.get("dag", {}).get("tasks", {}).items()
        }
        retries = {
            task: one["retryPolicy"]["maxRetryCount"]
            for task, one in tasks.items()
            if "retryPolicy" in one
        }
        cached = {
            task for task, one in tasks.items() if one.get("cachingOptions", {}).get("enableCache")
        }
        if name == "cpu":
            assert retries == {}
            assert "train-model" in cached
            assert not {"ingest-examples", "deploy-model"} & cached
        elif name == "tpu-hosts":
            # Its pods are tried again, and so their maker is not.
            assert retries == {}
        else:
            assert retries == {"train-model": 3, "ingest-examples": 2}
            assert {one for one in cached if not one.startswith("condition")} == set()

    def test_only_training_is_on_the_accelerator(self, compiled):
        _, documents = compiled
        executors = set(documents[0]["deploymentSpec"]["executors"])
        for name in executors - {f"exec-{training_of(documents)}"}:
            pod = make_pod(documents, name.removeprefix("exec-"))
            assert not {"nodeSelector", "tolerations"} & set(pod["spec"])
            assert pod["metadata"]["labels"] == LABELS


class TestHosts:
    @pytest.fixture
    def documents(self, here, google, capsys):
        write_target(here, **TARGETS["tpu-hosts"])
        lock_images(here, google)
        code, _, err = run(
            capsys, "compile", *PHOTOS, *PLACE, "--image-lock", "lock.json", "--output", "p.yaml"
        )
        assert code == 0, err
        return list(yaml.safe_load_all((here / "p.yaml").read_text()))

    def test_jobset_that_comes_of_the_package_is_one(self, documents):
        task = documents[0]["root"]["dag"]["tasks"]["train-model-on-hosts"]
        pods = task["inputs"]["parameters"]["pods"]["runtimeValue"]["constant"]
        config = build(PodsConfig, pods, "pods")
        assert config.image.endswith(f"@{DIGEST}")
        assert (config.hosts, config.chips, config.restarts) == (4, 4, 3)
        jobset = make_jobset(config, "flowers-1", "plants", ["python"])
        validate_jobset(jobset)
        assert jobset["metadata"]["labels"] == LABELS | {"kueue.x-k8s.io/queue-name": "tpu-queue"}
        validate_trainjob(*make_trainjob(jobset))
        pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
        assert pod["nodeSelector"] == {
            "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
            "cloud.google.com/gke-tpu-topology": "4x4",
            "cloud.google.com/gke-spot": "true",
        }
        assert {one["key"] for one in pod["tolerations"]} == {
            "google.com/tpu",
            "cloud.google.com/gke-spot",
        }
        assert pod["containers"][0]["resources"]["limits"] == {
            "cpu": "24",
            "memory": "40Gi",
            "google.com/tpu": "4",
        }

    def test_maker_knows_which_pod_it_is(self, documents):
        pod = make_pod(documents, "train-model-on-hosts")
        (container,) = pod["spec"]["containers"]
        fields = {
            one["name"]: one["valueFrom"]["fieldRef"]["fieldPath"] for one in container["env"]
        }
        assert fields == {POD_NAME: "metadata.name", POD_UID: "metadata.uid"}


def test_without_kfp_kubernetes_it_says_what_to_install(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "kfp.kubernetes", None)
    monkeypatch.delattr("kfp.kubernetes", raising=False)
    write_target(here)
    code, _, err = run(capsys, "compile", *PHOTOS, *PLACE, "--output", "p.yaml")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "pip install --editable '.[kubeflow]'" in err
    assert not (here / "p.yaml").exists()


def test_gpu_is_a_limit_with_its_node(here, capsys):
    train = {"accelerator": "nvidia-tesla-t4", "accelerator_count": 2}
    write_target(here, train=train)
    assert run(capsys, "compile", *PHOTOS, *PLACE, "--output", "p.yaml")[0] == 0
    documents = list(yaml.safe_load_all((here / "p.yaml").read_text()))
    pod = make_pod(documents, "train-model")
    (container,) = pod["spec"]["containers"]
    assert container["image"].startswith("flowers-gpu")
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert pod["spec"]["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


class TestDocs:
    @pytest.fixture
    def blocks(self, repository):
        text = (repository / "docs" / "gke-tpu.md").read_text()
        return re.findall(r"```(yaml|console)\n(.*?)```", text, re.DOTALL)

    def test_target_file_is_one(self, blocks):
        (content,) = [yaml.safe_load(text) for kind, text in blocks if text.startswith("host:")]
        assert build(KubeflowTarget, content).train.accelerator == "TPU"

    def test_manifests_are_of_kubernetes(self, blocks):
        manifests = [
            one
            for kind, text in blocks
            if kind == "yaml" and "apiVersion" in text
            for one in yaml.safe_load_all(text)
        ]
        checked = [one for one in manifests if "kueue" not in one["apiVersion"]]
        assert {one["kind"] for one in checked} == {
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyBinding",
            "Role",
            "RoleBinding",
        }
        for one in checked:
            kubernetes_validate.validate(one, "1.36", strict=True)
        (policy,) = (one for one in checked if one["kind"] == "MutatingAdmissionPolicy")
        assert LABELS["app.kubernetes.io/part-of"] in str(policy["spec"]["matchConditions"])

    def test_commands_are_there(self, blocks):
        commands = [
            shlex.split(line.removeprefix("$ flowers "))
            for kind, text in blocks
            if kind == "console"
            for line in text.replace("\\\n", " ").splitlines()
            if line.startswith("$ flowers ")
        ]
        assert len(commands) > 5
        for words in commands:
            command: click.Command = flowers
            while isinstance(command, click.Group):
                found = command.get_command(click.Context(command), words.pop(0))
                assert found, words
                command = found
            known = {flag for parameter in command.params for flag in parameter.opts}
            flags = {word for word in words if word.startswith("--")}
            assert flags <= known, flags - known
