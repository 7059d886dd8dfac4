"""Training on several hosts: the JobSet or TrainJob, what becomes of it, and what its pods do."""

import gc
import json
import os
import signal
import threading
import time
from typing import Any

import pytest
import yaml
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from components.common import storage as places
from components.common.config import build
from components.common.errors import ConfigError, FlowersError, UserError
from components.common.patience import Patience
from components.train_model import on_hosts
from components.train_model.checkpoint_files import weight_files
from components.train_model.jobset import PodsConfig, make_jobset, pod_command
from components.train_model.launch import Kubernetes, own_namespace, run_hosts
from components.train_model.on_hosts import Places, train_on_hosts
from components.train_model.pod import command as pod
from components.train_model.trainjob import make_trainjob
from components.train_model.transfer import CheckpointMirror, checkpoint_place, download, upload
from tests.buckets import emulator
from tests.builders import TINY_MODEL, TINY_TRAIN
from tests.fakes.jobsets import serve_cluster, validate_jobset, validate_trainjob

PODS: dict[str, Any] = {
    "image": "registry/flowers-tpu@sha256:" + "0" * 64,
    "hosts": 4,
    "chips": 4,
    "node_selector": {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
    },
    "tolerations": [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}],
    "cpu": "24",
    "memory": "40Gi",
    "service_account": "trainer",
    "image_pull_secrets": ["registry"],
    "queue": "tpu-queue",
    "restarts": 3,
    "timeout_hours": 6.0,
    "labels": {"app.kubernetes.io/part-of": "flowers"},
}
COMMAND = pod_command(
    examples="gs://bucket/examples",
    augmented="gs://bucket/augmented",
    output="gs://bucket/model-of-hosts",
    model_config=TINY_MODEL,
    train_config=TINY_TRAIN,
    accelerator={"kind": "tpu"},
    checkpoint="gs://bucket/model-checkpoint",
    checkpoint_steps=100,
)


def config(**changes):
    return build(PodsConfig, PODS | changes, "pods")


@pytest.fixture(params=["jobset", "trainjob"])
def manifests(request, cluster):
    cluster.trainer = request.param == "trainjob"
    return make_trainjob(jobset()) if cluster.trainer else [jobset()]


def jobset(**changes):
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "maker", "uid": "1-2"}
    return make_jobset(config(**changes), "flowers-1a2b3c4d", "plants", COMMAND, owner)


@pytest.fixture
def cluster(monkeypatch):
    from kubernetes.client import ApiClient, Configuration

    with serve_cluster() as (fake, address):
        settings = Configuration(host=address)
        # The client would try again by itself, and count for nothing here.
        settings.retries = False
        patience = Patience(
            request=10.0, first_wait=0.0, tries=4, operation=5.0, poll=0.0, settle=0.05
        )
        with ApiClient(settings) as client:
            fake.kubernetes = Kubernetes(client, patience)
            yield fake


class TestManifest:
    def test_equals_the_golden_file(self, repository):
        golden = repository / "tests" / "golden" / "jobset.yaml"
        assert jobset() == yaml.safe_load(golden.read_text())

    @pytest.mark.parametrize(
        "changes", [{}, {"queue": "", "timeout_hours": 0.0, "cpu": "", "service_account": ""}]
    )
    def test_is_one_of_the_cluster(self, changes):
        validate_jobset(jobset(**changes))

    @pytest.mark.parametrize("field", ["apiVersion", "spec", "metadata"])
    def test_schema_refuses_what_lacks_a_field(self, field):
        broken = jobset()
        del broken[field]
        with pytest.raises(Exception, match=field):
            validate_jobset(broken)

    def test_every_host_knows_its_place(self):
        made = jobset()
        (one,) = made["spec"]["replicatedJobs"]
        job = one["template"]["spec"]
        (container,) = job["template"]["spec"]["containers"]
        environment = {one["name"]: one for one in container["env"]}
        assert environment["FLOWERS_HOSTS"]["value"] == "4"
        assert environment["FLOWERS_COORDINATOR"]["value"] == (
            "flowers-1a2b3c4d-hosts-0-0.flowers-1a2b3c4d:8476"
        )
        field = environment["FLOWERS_HOST"]["valueFrom"]["fieldRef"]["fieldPath"]
        assert field == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
        assert (job["completions"], job["parallelism"], job["backoffLimit"]) == (4, 4, 0)

    def test_pod_can_do_no_more_than_it_must(self):
        spec = jobset()["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }

    @pytest.mark.parametrize(
        "changes", [{"hosts": 1}, {"chips": 0}, {"user": 0}, {"launcher": "mpijob"}]
    )
    def test_what_cannot_be_is_refused(self, changes):
        with pytest.raises(ConfigError):
            config(**changes)


class TestTrainJob:
    def test_equals_the_golden_file(self, repository):
        golden = repository / "tests" / "golden" / "trainjob.yaml"
        assert make_trainjob(jobset()) == list(yaml.safe_load_all(golden.read_text()))

    def test_makes_the_pods_of_the_jobset(self):
        made, plain = validate_trainjob(*make_trainjob(jobset())), jobset()
        jobs = [
            one["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
            for one in (made, plain)
        ]
        assert jobs[0]["containers"][0].pop("name") == "node"
        assert jobs[1]["containers"][0].pop("name") == "main"
        assert jobs[0] == jobs[1]
        assert made["metadata"]["name"] == plain["metadata"]["name"]
        assert made["metadata"]["annotations"] == plain["metadata"]["annotations"]

    def test_trainjob_waits_in_the_queue_and_its_jobset_does_not(self):
        runtime, trainjob = make_trainjob(jobset())
        assert trainjob["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "tpu-queue"
        assert "queue" not in json.dumps(runtime)

    @pytest.mark.parametrize("number", [0, 1])
    def test_schema_refuses_what_lacks_a_field(self, number):
        broken = make_trainjob(jobset())
        del broken[number]["spec"][["template", "runtimeRef"][number]]
        with pytest.raises(Exception, match="required property"):
            validate_trainjob(*broken)


class TestRun:
    def test_shows_each_line_once_and_deletes_at_the_end(self, cluster, manifests, capsys):
        def play(one):
            if cluster.looks == 1:
                cluster.start(one)
                cluster.say(one, 0, "[train-model] 1/2 epochs")
            elif cluster.looks == 2:
                cluster.say(one, 1, "a warning")
            elif cluster.looks == 3:
                cluster.say(one, 0, "[train-model] 2/2 epochs")
                cluster.complete(one)

        cluster.play = play
        run_hosts(cluster.kubernetes, manifests)
        out = capsys.readouterr().out
        assert out.count("1/2 epochs") == out.count("2/2 epochs") == 1
        assert "[host 1] a warning" in out
        assert cluster.made == manifests
        assert nothing_is_left(cluster)

    def test_lost_host_ends_it_with_its_name(self, cluster, manifests):
        def play(one):
            if cluster.looks == 1:
                cluster.start(one)
            else:
                cluster.lose_pod(one, 2)
                cluster.condition(one, "Failed", "jobset failed due to one or more job failures")

        cluster.play = play
        with pytest.raises(FlowersError, match=r"host 2 was lost \(NodeLost\)"):
            run_hosts(cluster.kubernetes, manifests)
        assert nothing_is_left(cluster)

    def test_first_host_that_failed_is_the_reason(self, cluster, manifests):
        def play(one):
            if cluster.looks == 1:
                cluster.start(one)
                return
            cluster.say(one, 3, "train-model: exit 2: examples: expected two classes, received one")
            cluster.end_pod(one, 0, 143, "Error")
            cluster.end_pod(one, 3, 2, "Error")
            cluster.condition(one, "Failed", "jobset failed")

        cluster.play = play
        with pytest.raises(UserError, match="host 3: examples: expected two classes"):
            run_hosts(cluster.kubernetes, manifests)

    def test_restart_is_told(self, cluster, manifests, capsys):
        def play(one):
            if cluster.looks == 1:
                cluster.start(one)
            elif cluster.looks == 2:
                one["status"] = {"restarts": 1}
                cluster.start(one)
            elif cluster.looks == 3:
                cluster.complete(one)

        cluster.play = play
        run_hosts(cluster.kubernetes, manifests)
        assert "start anew from the last checkpoint (1)" in capsys.readouterr().out

    @pytest.mark.parametrize("status", [400, 404, 500])
    def test_log_that_cannot_be_read_ends_nothing(self, cluster, manifests, capsys, status):
        def play(one):
            if cluster.looks == 1:
                cluster.start(one)
                lost = cluster.pods[one["metadata"]["name"]][2]["metadata"]["name"]
                cluster.unreadable = {lost: status}
                cluster.say(one, 2, "what nobody can read now")
                cluster.say(one, 3, "still here")
            elif cluster.looks == 3:
                cluster.unreadable = {}
                cluster.complete(one)

        cluster.play = play
        run_hosts(cluster.kubernetes, manifests)
        shown = capsys.readouterr().out
        assert shown.count("[host 3] still here") == 1
        assert shown.count("[host 2] what nobody can read now") == 1

    def test_account_that_may_read_no_logs_is_told(self, cluster, manifests):
        def play(one):
            cluster.start(one)
            cluster.unreadable = {
                pod["metadata"]["name"]: 403 for pod in cluster.pods[one["metadata"]["name"]]
            }

        cluster.play = play
        with pytest.raises(ConfigError, match="the role of docs"):
            run_hosts(cluster.kubernetes, manifests)
        assert nothing_is_left(cluster)

    # The signal may come within a request, whose connection nobody closes then.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_sigterm_deletes_it(self, cluster, manifests):
        cluster.play = lambda one: cluster.start(one) if cluster.looks == 1 else None

        def end():
            while cluster.looks < 3:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)

        former = signal.getsignal(signal.SIGTERM)
        thread = threading.Thread(target=end)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            run_hosts(cluster.kubernetes, manifests)
        thread.join()
        # Here, where the warning is expected, and not in some later test.
        gc.collect()
        assert nothing_is_left(cluster)
        assert cluster.made == manifests
        assert signal.getsignal(signal.SIGTERM) == former

    def test_what_somebody_else_deleted_is_said(self, cluster, manifests):
        def play(one):
            if cluster.looks == 1:
                cluster.start(one)
            else:
                name = one["metadata"]["name"]
                cluster.delete(name, cluster.trainjobs if cluster.trainer else cluster.jobsets)

        cluster.play = play
        with pytest.raises(FlowersError, match="somebody deleted it"):
            run_hosts(cluster.kubernetes, manifests)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            (("installed", "trainer"), "there are no JobSets or TrainJobs in this cluster"),
            (("allowed",), "the role of docs"),
        ],
    )
    def test_cluster_that_is_not_ready(self, cluster, manifests, changes, reason):
        for change in changes:
            setattr(cluster, change, False)
        with pytest.raises(ConfigError, match=reason):
            run_hosts(cluster.kubernetes, manifests)
        assert cluster.made == []

    @pytest.mark.parametrize("fault", ["500", "503", "lost"])
    def test_any_request_may_fail_once(self, cluster, manifests, fault):
        run_hosts(cluster.kubernetes, manifests)
        count = len(cluster.requests)
        assert count > 6
        for number in range(count):
            cluster.requests.clear()
            cluster.made.clear()
            cluster.looks = 0
            cluster.faults = {number: fault}
            run_hosts(cluster.kubernetes, manifests)
            assert cluster.made == manifests, number
            assert nothing_is_left(cluster), number

    def test_trainjob_that_fails_without_pods_says_why(self, cluster):
        """Trainer cannot make a JobSet of the runtime."""
        cluster.trainer = True

        def play(one):
            cluster.condition(one, "Failed", "the runtime is not supported")

        cluster.play = play
        with pytest.raises(FlowersError, match="the TrainJob failed: the runtime is not supported"):
            run_hosts(cluster.kubernetes, make_trainjob(jobset()))
        assert nothing_is_left(cluster)


def nothing_is_left(cluster):
    return not (cluster.jobsets or cluster.trainjobs or cluster.runtimes)


@pytest.fixture
def bucket(monkeypatch):
    with emulator() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        client = storage.Client(project="test", credentials=AnonymousCredentials())
        client.create_bucket("bucket")
        yield "gs://bucket"


class TestTrainOnHosts:
    @pytest.mark.parametrize(
        ("trainer", "launcher", "kinds"),
        [
            (False, "auto", ["JobSet"]),
            (True, "auto", ["TrainingRuntime", "TrainJob"]),
            (True, "jobset", ["JobSet"]),
        ],
    )
    def test_trains_and_passes_on_what_came_of_it(
        self, cluster, bucket, tmp_path, dataset_folder, trainer, launcher, kinds
    ):
        """The pod of host 0 really trains, when the cluster starts it."""
        cluster.trainer = trainer
        upload(dataset_folder, f"{bucket}/examples")
        places = Places(f"{bucket}/examples", f"{bucket}/examples", f"{bucket}/run/model")

        def play(one):
            if cluster.looks == 1:
                cluster.start(one)
                job = one["spec"]["replicatedJobs"][0]["template"]["spec"]
                (container,) = job["template"]["spec"]["containers"]
                arguments = container["command"][3:]
                cut = arguments.index("--accelerator")
                pod.main([*arguments[:cut], "--accelerator", "{}"], standalone_mode=False)
                cluster.complete(one)

        cluster.play = play
        outputs = [tmp_path / name for name in ("model", "metrics", "report")]
        figures = train_on_hosts(
            places,
            TINY_MODEL,
            TINY_TRAIN,
            {"kind": "tpu"},
            0,
            PODS | {"launcher": launcher},
            outputs[0],
            outputs[1],
            outputs[2],
            cluster.kubernetes,
            "plants",
        )
        assert [one["kind"] for one in cluster.made] == kinds
        assert (outputs[0] / "model.keras").is_file()
        assert json.loads(outputs[1].read_text()) == figures
        assert 0.0 <= figures["val_accuracy"] <= 1.0
        assert outputs[2].read_text().startswith("<!doctype html>")
        # Nothing is left beside the outputs.
        left = tmp_path / "left"
        download(f"{bucket}/run", left)
        assert not list(left.iterdir())

    def test_mistake_makes_nothing(self, cluster, tmp_path):
        places = Places("gs://b/e", "gs://b/a", "gs://b/m")
        with pytest.raises(ConfigError, match=r"train\.epochs"):
            train_on_hosts(
                places, TINY_MODEL, TINY_TRAIN | {"epochs": 0}, {}, 0, PODS,
                tmp_path / "model", tmp_path / "metrics", tmp_path / "report",
                cluster.kubernetes, "plants",
            )  # fmt: skip
        assert cluster.requests == []

    def test_places_must_be_shared(self):
        with pytest.raises(ConfigError, match="several hosts share gs:// folders"):
            Places("/gcs/examples", "gs://b/a", "gs://b/m")

    def test_owner_is_the_pod_that_makes_it(self, monkeypatch):
        assert on_hosts._owner() is None
        monkeypatch.setenv("FLOWERS_POD_NAME", "maker")
        monkeypatch.setenv("FLOWERS_POD_UID", "1-2")
        assert on_hosts._owner() == {
            "apiVersion": "v1", "kind": "Pod", "name": "maker", "uid": "1-2",
        }  # fmt: skip

    def test_outside_a_cluster_it_says_so(self, tmp_path, monkeypatch):
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        with pytest.raises(ConfigError, match="expected to run in a pod"):
            own_namespace(tmp_path)
        with pytest.raises(ConfigError, match="expected to run in a pod"):
            Kubernetes()


class TestCheckpointMirror:
    def save(self, folder, epoch):
        """Replaces a checkpoint as training does: what a state no longer names goes after it."""
        (folder / "tensorboard").mkdir(parents=True, exist_ok=True)
        (folder / "tensorboard" / "events").write_bytes(b"e" * epoch)
        (folder / "partial-1.weights.h5").write_bytes(b"half")
        (folder / f"{epoch}.weights.h5").write_bytes(b"w" * epoch)
        named = {"weights": {"file": f"{epoch}.weights.h5"}}
        if epoch > 1:
            named["kept_weights"] = {"file": "kept-2.weights.h5"}
            (folder / "kept-2.weights.h5").write_bytes(b"k")
        (folder / "state.json").write_text(json.dumps(named))
        (folder / f"{epoch - 1}.weights.h5").unlink(missing_ok=True)

    def epoch_in(self, place, back):
        """The epoch of the checkpoint in the bucket, which must be whole and alone."""
        download(place, back)
        state = (back / "state.json").read_bytes()
        names = {"state.json", "tensorboard", *weight_files(state)}
        assert {one.name for one in back.iterdir()} == names
        file = weight_files(state)[0]
        epoch = int(file.partition(".")[0])
        assert (back / file).read_bytes() == b"w" * epoch
        return epoch

    def test_bucket_has_a_whole_checkpoint_after_every_copy(self, bucket, tmp_path):
        folder, place = tmp_path / "checkpoint", f"{bucket}/checkpoint"
        folder.mkdir()
        mirror = CheckpointMirror(folder, place)
        mirror.copy()
        for epoch in (1, 2, 3):
            self.save(folder, epoch)
            mirror.copy()
            assert self.epoch_in(place, tmp_path / f"back-{epoch}") == epoch
        assert {one.name for one in tmp_path.iterdir() if one.is_dir()} == {
            "checkpoint", "back-1", "back-2", "back-3"
        }  # fmt: skip

    def test_training_may_save_anew_while_files_go_over(self, bucket, tmp_path, monkeypatch):
        folder, place = tmp_path / "checkpoint", f"{bucket}/checkpoint"
        folder.mkdir()
        mirror = CheckpointMirror(folder, place)
        self.save(folder, 1)
        write, epochs = places.write, iter([2, 3])

        def write_slowly(target, content):
            if epoch := next(epochs, 0):
                self.save(folder, epoch)
            write(target, content)

        monkeypatch.setattr(places, "write", write_slowly)
        mirror.copy()
        assert self.epoch_in(place, tmp_path / "first") == 1
        mirror.copy()
        assert self.epoch_in(place, tmp_path / "second") == 3

    def test_state_without_its_weights_is_not_copied(self, bucket, tmp_path):
        folder, place = tmp_path / "checkpoint", f"{bucket}/checkpoint"
        folder.mkdir()
        mirror = CheckpointMirror(folder, place)
        self.save(folder, 1)
        (folder / "1.weights.h5").unlink()
        mirror.copy()
        download(place, tmp_path / "back")
        assert not any((tmp_path / "back").iterdir())


def test_checkpoint_is_beside_a_model_in_the_bucket():
    assert checkpoint_place("", "gs://bucket/run/model") == "gs://bucket/run/model-checkpoint"
    assert checkpoint_place("gs://other/place", "gs://bucket/run/model") == "gs://other/place"
    assert checkpoint_place("", "/runs/model") == ""
