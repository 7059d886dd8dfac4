"""Submit, wait, schedules and the trigger, through the real client, against a stateful fake."""

import base64
import datetime
import json
import types
from typing import Any

import pytest
import yaml
from google.cloud import aiplatform_v1 as v1
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from components.common import vertex as connection
from components.common.errors import ConfigError
from components.common.patience import Patience
from pipelines import triggers
from pipelines.targets import vertex as runs
from pipelines.targets.vertex_config import VertexTarget
from tests.commands import DIGEST, lock_images, run
from tests.fakes.vertex import FAULTS, PARENT, PROJECT, REGION, serve_vertex
from tests.planted import PLANTED, SECRET

PHOTOS = ["--images", "gs://bucket/photos"]
State = v1.PipelineTaskDetail.State


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    patience = Patience(request=10.0, first_wait=0.0, tries=4, operation=5.0, poll=0.0, settle=0.05)
    monkeypatch.setattr(connection.Vertex.__init__, "__defaults__", (patience,))


@pytest.fixture
def fake(monkeypatch):
    with serve_vertex() as (state, address):
        monkeypatch.setenv(connection.ENDPOINT_VARIABLE, address)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        state.host = address.removeprefix("http://")
        yield state


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_target(tmp_path)
    return tmp_path


def write_target(folder, **changes):
    content = {"project": PROJECT, "region": REGION, "pipeline_root": "gs://bucket/root"} | changes
    (folder / "vertex.yaml").write_text(yaml.safe_dump(content))


SUBMIT = ["submit", *PHOTOS, "--config", "vertex.yaml", "--image-lock", "lock.json"]


class TestSubmit:
    def test_makes_one_run(self, fake, here, capsys):
        lock_images(here, fake)
        code, out, err = run(capsys, *SUBMIT)
        assert (code, err) == (0, ""), err
        ((name, job),) = fake.jobs.items()
        assert f"{PARENT}/pipelineJobs/{name}" in out
        assert f"/locations/{REGION}/pipelines/runs/{name}?project={PROJECT}" in out
        assert job.runtime_config.gcs_output_directory == "gs://bucket/root"
        assert job.labels["flowers"] == "run"

    def test_images_are_those_of_the_lock(self, fake, here, capsys):
        lock_images(here, fake)
        run(capsys, *SUBMIT)
        (job,) = fake.jobs.values()
        spec = json_format.MessageToDict(job.pipeline_spec)
        executors = spec["deploymentSpec"]["executors"].values()
        assert all(one["container"]["image"].endswith(f"@{DIGEST}") for one in executors)

    def test_flags_go_before_the_file(self, fake, here, capsys):
        lock_images(here, fake)
        account = "trainer@my-project.iam.gserviceaccount.com"
        run(capsys, *SUBMIT, "--service-account", account, "--pipeline-root", "gs://bucket/other")
        (job,) = fake.jobs.values()
        assert job.service_account == account
        assert job.runtime_config.gcs_output_directory == "gs://bucket/other"

    def test_run_joins_its_experiment(self, fake, here, capsys):
        lock_images(here, fake)
        assert run(capsys, *SUBMIT, "--experiment", "petals")[0] == 0
        (name,) = fake.jobs
        assert list(fake.contexts[name].parent_contexts) == [fake.contexts["petals"].name]
        assert fake.contexts["petals"].schema_title == "system.Experiment"

    def test_run_that_cannot_join_its_experiment_goes_on(self, fake, here, capsys, monkeypatch):
        def refuse(*_):
            raise ConfigError("no such name")

        lock_images(here, fake)
        monkeypatch.setattr(runs, "add_to_experiment", refuse)
        code, out, _ = run(capsys, *SUBMIT, "--experiment", "My Petals")
        assert code == 0
        assert "warning: the run is not in experiment My Petals: no such name" in out
        assert len(fake.jobs) == 1

    def test_dry_run_prints_the_request_and_sends_none(self, fake, here, capsys):
        lock_images(here, fake)
        code, out, _ = run(capsys, *SUBMIT, "--dry-run")
        assert code == 0
        method, _, body = out.partition("\n")
        assert method.startswith(f"POST /v1/{PARENT}/pipelineJobs?pipelineJobId=flowers-")
        assert json_format.ParseDict(json.loads(body), v1.PipelineJob.pb(v1.PipelineJob()))
        assert fake.requests == []

    @pytest.mark.parametrize("kind", FAULTS)
    def test_every_request_may_fail_once(self, fake, here, capsys, monkeypatch, kind):
        spec = {"pipelineInfo": {"name": "flowers"}, "root": {}}
        vertex = connection.Vertex(PROJECT, REGION)
        target = VertexTarget(PROJECT, REGION, "gs://bucket/root")
        for number in range(8):
            fake.faults = {len(fake.requests) + number: kind}
            request = runs.create_request(vertex, spec, {}, target, f"flowers-{kind}-{number}")
            runs.submit(vertex, request)
            runs.add_to_experiment(vertex, request["pipelineJobId"], "petals")
            assert f"flowers-{kind}-{number}" in fake.jobs
        assert len(fake.jobs) == 8
        for name in fake.jobs:
            assert set(fake.contexts[name].parent_contexts) == {fake.contexts["petals"].name}


class TestChecks:
    def test_all_that_is_missing_is_named_at_once(self, fake, here, capsys):
        lock_images(here, fake, pushed=("cpu",))
        fake.buckets.clear()
        code, out, err = run(capsys, *SUBMIT)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1
        for words in ("2 things are missing", "no bucket bucket", "flowers-deploy@sha256:aaa"):
            assert words in err
        assert fake.jobs == {}

    def test_bucket_that_cannot_be_written(self, fake, here, capsys):
        lock_images(here, fake)
        fake.buckets["bucket"].remove("storage.objects.create")
        code, _, err = run(capsys, *SUBMIT)
        assert code == 2
        assert "you lack storage.objects.create" in err
        assert fake.jobs == {}

    def test_token_that_has_expired(self, fake, here, capsys):
        lock_images(here, fake)
        fake.token_is_expired = True
        code, _, err = run(capsys, *SUBMIT)
        assert code == 2
        assert "gcloud auth application-default login" in err
        assert len(err.splitlines()) == 1

    def test_no_credentials(self, here, capsys, monkeypatch):
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        monkeypatch.setenv("HOME", str(here))
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(here))
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        monkeypatch.delenv(connection.ENDPOINT_VARIABLE, raising=False)
        images = {name: f"127.0.0.1:1/r/{name}@{DIGEST}" for name in ("cpu", "deploy")}
        (here / "lock.json").write_text(json.dumps({"commit": "a" * 40, "images": images}))
        code, _, err = run(capsys, *SUBMIT)
        assert code == 2
        assert "no Google credential is set up" in err
        assert len(err.splitlines()) == 1

    def test_images_without_a_digest_are_refused(self, fake, here, capsys):
        lock_images(here, fake)
        content = {"cpu": f"sha256:{'b' * 64}", "deploy": f"{fake.host}/r/deploy@{DIGEST}"}
        (here / "lock.json").write_text(json.dumps({"commit": "a" * 40, "images": content}))
        code, _, err = run(capsys, *SUBMIT)
        assert code == 2
        assert "image cpu was built and not pushed" in err

    def test_what_the_cloud_cannot_read_is_refused(self, fake, here, capsys):
        lock_images(here, fake)
        (here / "here.csv").touch()
        arguments = ["--images", "photos", "--manifest", "here.csv", "--group-column", "author"]
        arguments += ["--previous", "data/examples", "--set", "model.weights=weights.h5"]
        code, _, err = run(capsys, *SUBMIT, *arguments)
        assert code == 2
        assert len(err.splitlines()) == 1
        for name, place in (
            ("--images", "photos"),
            ("--manifest", "here.csv"),
            ("--previous", "data/examples"),
            ("model.weights", "weights.h5"),
        ):
            assert f"{name}: expected a place in gs://, which the backend can read" in err
            assert f"received '{place}'" in err
        assert fake.requests == []

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--images", "synthetic://flowers?per_class=60"],
            ["--images", "gs://bucket/photos", "--manifest", "M.csv", "--group-column", "author"],
            ["--set", "model.weights=gs://bucket/model"],
        ],
    )
    def test_what_the_cloud_can_read_is_taken(self, fake, here, capsys, arguments):
        lock_images(here, fake)
        code, _, err = run(capsys, *SUBMIT, *arguments)
        assert (code, err) == (0, ""), err

    def test_mistakes_in_all_files_are_one_list(self, fake, here, capsys):
        arguments = ["submit", "--images", "", "--config", "vertex.yaml", "--region", "mars-west1"]
        code, _, err = run(
            capsys, *arguments, "--image-lock", "none.json", "--set", "train.epochs=0"
        )
        assert code == 2
        assert len(err.splitlines()) == 1
        for words in ("--images", "mars-west1", "none.json", "train.epochs"):
            assert words in err
        assert fake.requests == []

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"region": "europe-west44"}, ["region", "europe-west", "'europe-west44'"]),
            ({"pipeline_root": "bucket/root"}, ["pipeline_root", "gs://BUCKET/FOLDER"]),
            ({"project": "My Project"}, ["project", "'My Project'"]),
            ({"train": {"machine_type": "n9-mega-1"}}, ["train.machine_type", "n1-standard-N"]),
            ({"train": {"machine_type": "e2-standard-5"}}, ["e2-standard-4", "e2-standard-5"]),
            (
                {"train": {"machine_type": "e2-standard-4", "accelerator": "NVIDIA_TESLA_T4"}},
                ["NVIDIA_TESLA_T4 goes with n1-standard-N", "e2-standard-4"],
            ),
            (
                {
                    "train": {
                        "machine_type": "n1-standard-8",
                        "accelerator": "NVIDIA_TESLA_T4",
                        "accelerator_count": 3,
                    }
                },
                ["accelerator_count", "1 or 2 or 4", "3"],
            ),
            (
                {
                    "train": {
                        "machine_type": "ct5lp-hightpu-4t",
                        "accelerator": "TPU",
                        "tpu_topology": "4x4",
                    }
                },
                ["tpu_topology", "ct5lp-hightpu-4t has 2x2", "'4x4'"],
            ),
            ({"train": {"spot": True}}, ["train.spot", "accelerator"]),
            ({"serving": {"machine_type": "big"}}, ["serving.machine_type", "n1-standard-2"]),
            ({"tasks": {"train": {}}}, ["tasks", "ingest-examples", "'train'"]),
            ({"labels": {"Team": "A"}}, ["labels.Team"]),
            ({"notify": ["nobody"]}, ["notify", "'nobody'"]),
            ({"colour": "red"}, ["colour", "unknown key"]),
        ],
    )
    def test_wrong_target_is_one_line(self, fake, here, capsys, changes, words):
        write_target(here, **changes)
        lock_images(here, fake)
        code, _, err = run(capsys, *SUBMIT)
        assert code == 2
        assert len(err.splitlines()) == 1
        assert all(word in err for word in words), err
        assert fake.requests == []


def play(fake, steps, state, error=""):
    """Makes a job go through `steps`, a list of task -> state, one for each look at it."""
    left = list(steps)

    def advance(job):
        if left:
            for name, (task_state, message) in left.pop(0).items():
                task = v1.PipelineTaskDetail(task_name=name, state=task_state)
                task.error.message = message
                details = job.job_detail.task_details
                old = [one for one in details if one.task_name == name]
                for one in old:
                    details.remove(one)
                details.append(v1.PipelineTaskDetail.pb(task))
        else:
            job.state = state
            job.error.message = error

    fake.advance = advance


class TestWait:
    def test_shows_every_change_once_and_ends_with_0(self, fake, here, capsys):
        lock_images(here, fake)
        play(
            fake,
            [
                {"ingest-examples": (State.RUNNING, "")},
                {"ingest-examples": (State.RUNNING, "")},
                {"ingest-examples": (State.SUCCEEDED, ""), "train-model": (State.SKIPPED, "")},
            ],
            v1.PipelineState.PIPELINE_STATE_SUCCEEDED,
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
            ("train-model", "The replica workerpool0-0 exited with a non-zero status of 1.", 1),
            ("ingest-examples", "The replica exited with a non-zero status of 2.", 2),
            ("deploy-model", "The replica exited with a non-zero status of 3.", 3),
            ("train-model", "The replica exited with a non-zero status of 75.", 75),
            ("train-model", "out of quota", 1),
        ],
    )
    def test_failure_has_the_code_and_the_error_of_its_task(
        self, fake, here, capsys, task, message, code
    ):
        lock_images(here, fake)
        steps = [{"exit-handler-1": (State.FAILED, "x"), task: (State.FAILED, message)}]
        play(fake, steps, v1.PipelineState.PIPELINE_STATE_FAILED)
        found, _, err = run(capsys, *SUBMIT, "--wait")
        assert found == code
        assert err.splitlines() == [f"flowers submit: step {task} failed: {message}"]

    def test_closed_gate_is_3(self, fake, here, capsys):
        lock_images(here, fake)
        steps = [{"refuse-model": (State.FAILED, "exited with a non-zero status of 3")}]
        play(fake, steps, v1.PipelineState.PIPELINE_STATE_FAILED)
        code, _, err = run(capsys, *SUBMIT, "--wait")
        assert (code, err) == (3, "flowers submit: gate closed\n")

    def test_question_that_is_refused_is_no_end_of_the_run(self, fake, here, capsys):
        lock_images(here, fake)
        fake.advance = lambda _job: setattr(fake, "token_is_expired", True)
        code, out, err = run(capsys, *SUBMIT, "--wait")
        assert code == 1
        assert "submitted" in out
        assert err.startswith("flowers: stopped waiting (no valid Google credential (")
        assert err.endswith("; the run goes on\n")

    def test_cancelled_is_130(self, fake, here, capsys):
        lock_images(here, fake)
        play(fake, [], v1.PipelineState.PIPELINE_STATE_CANCELLED)
        assert run(capsys, *SUBMIT, "--wait")[0] == 130


CREATE = [
    *("schedule", "create", "--name", "weekly", *PHOTOS),
    *("--config", "vertex.yaml", "--image-lock", "lock.json"),
]
PLACE = ["--config", "vertex.yaml"]


class TestSchedule:
    def create(self, fake, here, capsys, *more):
        lock_images(here, fake)
        return run(capsys, *CREATE, "--cron", "0 3 * * 1", *more)

    def test_create_shows_the_next_three_runs(self, fake, here, capsys):
        code, out, err = self.create(fake, here, capsys, "--time-zone", "Europe/Zurich")
        assert (code, err) == (0, "")
        (made,) = fake.schedules.values()
        assert made.cron == "TZ=Europe/Zurich 0 3 * * 1"
        assert made.max_concurrent_run_count == 1
        moments = [line.split()[2] for line in out.splitlines() if line.startswith("next run")]
        assert len(moments) == 3
        for moment in map(datetime.datetime.fromisoformat, moments):
            assert (moment.weekday(), moment.hour, moment.minute) == (0, 3, 0)
            assert moment > datetime.datetime.now(datetime.UTC)

    def test_create_twice_is_one_schedule(self, fake, here, capsys):
        self.create(fake, here, capsys)
        code, out, _ = self.create(fake, here, capsys, "--time-zone", "Europe/Zurich")
        assert code == 0
        assert "exists already" in out
        # What stays is shown, and no run that is in no schedule.
        assert "it is active, 0 3 * * 1  UTC" in out
        assert "next run" not in out
        assert len(fake.schedules) == 1

    @pytest.mark.parametrize("kind", FAULTS)
    def test_every_request_may_fail_once(self, fake, here, capsys, kind):
        self.create(fake, here, capsys)
        count = len(fake.requests)
        for number in range(count):
            fake.schedules.clear()
            fake.faults = {len(fake.requests) + number: kind}
            self.create(fake, here, capsys)
            assert len(fake.schedules) <= 1
        # Of the checks before it some end the command, and then nothing is made; no creation fails.
        fake.schedules.clear()
        fake.faults = {len(fake.requests) + count - 2: kind}
        assert self.create(fake, here, capsys)[0] == 0
        assert len(fake.schedules) == 1

    def test_show_keeps_start_and_end(self, fake, here, capsys):
        between = ("--start", "2998-01-01T00:00", "--end", "2998-01-10T00:00")
        self.create(fake, here, capsys, *between)
        shown = run(capsys, "schedule", "show", "--name", "weekly", *PLACE)[1]
        moments = [line.split()[2] for line in shown.splitlines() if line.startswith("next run")]
        # The Mondays between them.
        assert moments == ["2998-01-01T03:00:00+00:00", "2998-01-08T03:00:00+00:00"]

    def test_update_shows_the_runs_that_will_be(self, fake, here, capsys):
        self.create(fake, here, capsys, "--start", "2998-01-01T00:00")
        change = ["schedule", "update", "--name", "weekly", *PLACE, "--cron"]
        out = run(capsys, *change, "30 4 * * *")[1]
        moments = [line.split()[2] for line in out.splitlines() if line.startswith("next run")]
        assert moments == [f"2998-01-0{day}T04:30:00+00:00" for day in (1, 2, 3)]
        out = run(capsys, *change[:-1], "--max-runs", "1")[1]
        assert out.splitlines()[1:] == ["next run     2998-01-01T04:30:00+00:00"]
        run(capsys, "schedule", "pause", "--name", "weekly", *PLACE)
        assert run(capsys, *change, "30 5 * * *")[1] == "updated weekly\n"

    def test_runs_are_said_to_be_in_no_experiment(self, fake, here, capsys):
        out = self.create(fake, here, capsys, "--experiment", "petals")[1]
        assert out.endswith("its runs are in no experiment, and so not in petals\n")

    def test_photos_are_a_parameter_and_ingestion_is_never_cached(self, fake, here, capsys):
        self.create(fake, here, capsys)
        (made,) = fake.schedules.values()
        spec = json_format.MessageToDict(
            made.create_pipeline_job_request.pipeline_job.pipeline_spec
        )
        assert spec["root"]["inputDefinitions"]["parameters"]["images"]["defaultValue"] == PHOTOS[1]
        tasks = [
            one
            for component in spec["components"].values()
            for name, one in component.get("dag", {}).get("tasks", {}).items()
            if name == "ingest-examples"
        ]
        assert [one["cachingOptions"] for one in tasks] == [{}]

    def test_list_show_pause_resume_update_delete(self, fake, here, capsys):
        self.create(fake, here, capsys, "--max-runs", "7", "--end", "2999-01-01T00:00")
        name = ["--name", "weekly", *PLACE]
        assert run(capsys, "schedule", "list", *PLACE)[1] == "weekly  active  0 3 * * 1  UTC\n"
        shown = run(capsys, "schedule", "show", *name)[1]
        assert "runs         0 of 7" in shown
        assert shown.count("next run") == 3
        assert "start        now\nend          2999-01-01 00:00:00" in shown
        (made,) = fake.schedules.values()
        assert run(capsys, "schedule", "pause", *name)[0] == 0
        assert made.state == v1.Schedule.State.PAUSED
        assert run(capsys, "schedule", "resume", *name)[0] == 0
        assert made.state == v1.Schedule.State.ACTIVE
        assert run(capsys, "schedule", "update", *name, "--cron", "30 4 * * *")[0] == 0
        assert made.cron == "TZ=UTC 30 4 * * *"
        assert made.max_run_count == 7
        assert made.create_pipeline_job_request.pipeline_job.pipeline_spec.fields
        assert run(capsys, "schedule", "delete", *name)[0] == 0
        assert fake.schedules == {}
        code, _, err = run(capsys, "schedule", "show", *name)
        assert code == 2
        assert "there is no such schedule; there are: none" in err

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (["--cron", "0 3 * *"], ["five fields", "4"]),
            (["--cron", "0 0 3 * * 1"], ["five fields", "6"]),
            (["--cron", "0 25 * * 1"], ["hour"]),
            (["--cron", "0 3 * * 1", "--time-zone", "Mars/Base"], ["--time-zone", "Mars/Base"]),
            (["--cron", "0 3 * * 1", "--start", "2020-01-01T00:00"], ["--start", "in the past"]),
            (["--cron", "0 3 * * 1", "--end", "yesterday"], ["--end", "'yesterday'"]),
            (
                ["--cron", "0 3 * * 1", "--start", "2998-01-01", "--end", "2997-01-01"],
                ["--end", "after --start"],
            ),
            (["--cron", "0 3 * * 1", "--concurrency", "0"], ["--concurrency", "1 to 100"]),
        ],
    )
    def test_wrong_time_is_one_line(self, fake, here, capsys, flags, words):
        lock_images(here, fake)
        code, _, err = run(capsys, *CREATE, *flags)
        assert code == 2
        assert len(err.splitlines()) == 1
        assert all(word in err for word in words), err
        assert fake.requests == []


class TestTrigger:
    @pytest.fixture
    def settings(self, here, monkeypatch, capsys):
        run(capsys, "compile", "--target", "vertex", *PHOTOS, *PLACE, "--output", "p.yaml")
        monkeypatch.setenv("FLOWERS_PIPELINE", str(here / "p.yaml"))
        monkeypatch.setenv("FLOWERS_CONFIG", str(here / "vertex.yaml"))

    @staticmethod
    def event(name, kind="OBJECT_FINALIZE", generation="1"):
        attributes = {
            "eventType": kind,
            "bucketId": "bucket",
            "objectId": name,
            "objectGeneration": generation,
        }
        data = base64.b64encode(json.dumps({"name": name}).encode()).decode()
        return types.SimpleNamespace(data={"message": {"attributes": attributes, "data": data}})

    def test_marker_starts_a_run_on_its_folder(self, fake, settings):
        triggers.submit_on_new_data(self.event("photos/2026-11/_READY"))
        (job,) = fake.jobs.values()
        assert (
            job.runtime_config.parameter_values["images"].string_value
            == "gs://bucket/photos/2026-11"
        )

    def test_run_joins_its_experiment(self, fake, here, settings):
        path = here / "vertex.yaml"
        path.write_text(f"{path.read_text()}\nexperiment: petals\n")
        triggers.submit_on_new_data(self.event("photos/_READY"))
        (name,) = fake.jobs
        assert list(fake.contexts[name].parent_contexts) == [fake.contexts["petals"].name]

    def test_delivered_twice_is_one_run(self, fake, settings):
        event = self.event("photos/_READY")
        assert triggers.submit_on_new_data(event) == triggers.submit_on_new_data(event)
        assert len(fake.jobs) == 1

    def test_marker_that_is_written_again_is_another_run(self, fake, settings):
        triggers.submit_on_new_data(self.event("photos/_READY"))
        triggers.submit_on_new_data(self.event("photos/_READY", generation="2"))
        assert len(fake.jobs) == 2

    @pytest.mark.parametrize(
        ("name", "kind"), [("photos/a.jpg", "OBJECT_FINALIZE"), ("photos/_READY", "OBJECT_DELETE")]
    )
    def test_other_events_start_nothing(self, fake, settings, name, kind):
        assert triggers.submit_on_new_data(self.event(name, kind)) is None
        assert fake.jobs == {}

    def test_foreign_message_is_refused(self, fake):
        with pytest.raises(ConfigError, match="expected a bucket's Pub/Sub message"):
            triggers.submit_on_new_data(types.SimpleNamespace(data={"message": {}}))


TARGETS: dict[str, dict[str, Any]] = {
    "cpu": {},
    "gpu": {
        "train": {
            "machine_type": "n1-standard-8",
            "accelerator": "NVIDIA_TESLA_T4",
            "spot": True,
            "retries": 3,
            "checkpoint_steps": 500,
        },
        "notify": ["team@example.com"],
        "tasks": {"ingest-examples": {"machine_type": "e2-standard-8", "retries": 2}},
    },
    "tpu": {
        "train": {
            "machine_type": "ct5lp-hightpu-4t",
            "accelerator": "TPU",
            "tpu_topology": "2x2",
        },
        "caching": False,
    },
}


class TestCompile:
    @pytest.fixture(params=TARGETS)
    def compiled(self, request, here, capsys, monkeypatch):
        write_target(here, **TARGETS[request.param])
        arguments = ["compile", "--target", "vertex", *PHOTOS, *PLACE, "--output", "p.yaml"]
        for variable, secret in PLANTED.items():
            monkeypatch.setenv(variable, secret)
        assert run(capsys, *arguments)[0] == 0
        assert SECRET not in (here / "p.yaml").read_text()
        return request.param, yaml.safe_load((here / "p.yaml").read_text())

    def test_equals_the_golden_file(self, compiled, repository):
        """After a wanted change: copy the file that this test compiles over the golden one."""
        name, spec = compiled
        golden = repository / "tests" / "golden" / f"vertex-{name}.yaml"
        expected = yaml.safe_load(golden.read_text())
        for one in (spec, expected):
            del one["sdkVersion"]
        assert spec == expected

    def test_is_a_pipeline_spec_and_a_pipeline_job(self, compiled):
        _, spec = compiled
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        job = {"pipelineSpec": spec, "runtimeConfig": {"gcsOutputDirectory": "gs://bucket/root"}}
        json_format.ParseDict(job, v1.PipelineJob.pb(v1.PipelineJob()))

    def test_exit_task_runs_whatever_happens(self, compiled):
        _, spec = compiled
        graphs = [spec["root"], *spec["components"].values()]
        tasks = {
            name: one
            for graph in graphs
            for name, one in graph.get("dag", {}).get("tasks", {}).items()
        }
        assert tasks["summarize-run"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"

    def test_machines_are_those_of_the_target(self, compiled):
        name, spec = compiled
        pools = [
            pool
            for component in spec["components"].values()
            for pool in component.get("inputDefinitions", {})
            .get("parameters", {})
            .get("worker_pool_specs", {})
            .get("defaultValue", [])
        ]
        if name == "cpu":
            assert not pools
            container = spec["deploymentSpec"]["executors"]["exec-train-model"]["container"]
            assert container["resources"]["resourceCpuLimit"] == "8"
            assert container["resources"]["resourceMemoryLimit"] == "32G"
        elif name == "gpu":
            (pool,) = pools
            assert pool["machine_spec"] == {
                "machine_type": "n1-standard-8",
                "accelerator_type": "NVIDIA_TESLA_T4",
                "accelerator_count": 1,
            }
        else:
            (pool,) = pools
            assert pool["machine_spec"] == {
                "machine_type": "ct5lp-hightpu-4t",
                "tpu_topology": "2x2",
            }
