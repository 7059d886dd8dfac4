"""The story of a champion, locally and on Vertex AI, and with every request failing once."""

import dataclasses

import pytest

from components.common.errors import FlowersError
from components.common.patience import Patience
from components.common.vertex import ENDPOINT_VARIABLE, Vertex
from components.deploy_model.config import DeployConfig, ServingConfig
from components.deploy_model.deploy import decide_and_roll_out
from components.deploy_model.local_registry import LocalRegistry
from components.deploy_model.registry import RolledBackError, roll_out
from components.deploy_model.vertex_registry import VertexRegistry
from tests.fakes import story
from tests.fakes.vertex import FAULTS, PROJECT, REGION, serve_vertex

HASTY = Patience(request=10.0, first_wait=0.0, tries=4, operation=5.0, poll=0.0, settle=0.05)
CONFIG = DeployConfig(probes=2, canary_percent=50)


@pytest.fixture
def vertex(monkeypatch, tmp_path):
    with serve_vertex() as (fake, address):
        monkeypatch.setenv(ENDPOINT_VARIABLE, address)
        fake.predictor = story.serve_table(tmp_path)
        yield fake


def open_vertex(folder):
    return VertexRegistry(Vertex(PROJECT, REGION, HASTY), "flowers", ServingConfig(), folder)


class Wrong:
    """A local registry whose newest model answers wrong."""

    def __init__(self, registry):
        self._registry = registry
        self.wrong = set()

    def __getattr__(self, name):
        return getattr(self._registry, name)

    def predict(self, version, photos):
        with self._registry.artifact(version) as path:
            answers = story.predict(path, photos)
        if version in self.wrong:
            return [
                one._replace(probabilities=dict.fromkeys(one.probabilities, 1 / 3))
                for one in answers
            ]
        return answers


@pytest.fixture(params=["local", "vertex"])
def place(request, tmp_path):
    """A registry, and what makes a version of it answer wrong."""
    if request.param == "local":
        registry = Wrong(LocalRegistry(tmp_path / "registry"))
        (tmp_path / "registry").mkdir()
        return registry, registry.wrong
    fake = request.getfixturevalue("vertex")
    return open_vertex(tmp_path), fake.wrong


def deploy(registry, candidate, config=CONFIG):
    return decide_and_roll_out(registry, candidate, story.PHOTOS, config, story.predict)


def aliases(registry):
    return {
        alias: version.id
        for version in registry.versions()
        for alias in version.aliases
        if alias != "default"
    }


class TestStory:
    def test_first_model_is_deployed(self, place, tmp_path):
        registry, _ = place
        result = deploy(registry, story.make_candidate(tmp_path, "a", 40))
        assert (result.deployed, result.version, result.champion) == (True, "1", "1")
        assert registry.traffic() == {"1": 100}
        assert aliases(registry) == {"champion": "1"}
        assert registry.unfinished_rollout() is None

    @pytest.mark.parametrize("correct", [30, 40])
    def test_worse_or_equal_model_is_registered_and_gets_no_traffic(self, place, tmp_path, correct):
        registry, _ = place
        deploy(registry, story.make_candidate(tmp_path, "a", 40))
        result = deploy(registry, story.make_candidate(tmp_path, "b", correct))
        assert (result.deployed, result.version, result.champion) == (False, "2", "1")
        assert "champion" in result.reason
        assert registry.traffic() == {"1": 100}
        assert len(registry.versions()) == 2

    def test_better_model_replaces_the_champion(self, place, tmp_path):
        registry, _ = place
        deploy(registry, story.make_candidate(tmp_path, "a", 40))
        result = deploy(registry, story.make_candidate(tmp_path, "b", 55))
        assert result.deployed
        assert (result.comparison.gained, result.comparison.lost) == (15, 0)
        assert registry.traffic() == {"2": 100}
        assert aliases(registry) == {"champion": "2", "previous": "1"}

    def test_canary_that_answers_wrong_is_rolled_back(self, place, tmp_path):
        registry, wrong = place
        deploy(registry, story.make_candidate(tmp_path, "a", 40))
        wrong.add("2")
        with pytest.raises(RolledBackError, match=r"probe 1 of 2 wrong: .*traffic is what it was"):
            deploy(registry, story.make_candidate(tmp_path, "b", 55))
        assert registry.traffic() == {"1": 100}
        assert aliases(registry) == {"champion": "1"}
        assert registry.unfinished_rollout() is None

    def test_fault_of_a_check_is_rolled_back_and_raised(self, place, tmp_path):
        registry, _ = place
        deploy(registry, story.make_candidate(tmp_path, "a", 40))
        second = registry.add(story.make_candidate(tmp_path, "b", 55))
        with pytest.raises(ZeroDivisionError):
            roll_out(registry, second, 10, lambda _: str(1 // 0))
        assert registry.traffic() == {"1": 100}
        assert registry.unfinished_rollout() is None

    def test_first_model_that_answers_wrong_leaves_nothing_up(self, place, tmp_path):
        registry, wrong = place
        wrong.add("1")
        with pytest.raises(RolledBackError):
            deploy(registry, story.make_candidate(tmp_path, "a", 40))
        assert registry.traffic() == {}

    def test_split_by_hand_is_restored_exactly(self, place, tmp_path):
        registry, wrong = place
        deploy(registry, story.make_candidate(tmp_path, "a", 40))
        second = registry.add(story.make_candidate(tmp_path, "b", 41))
        registry.deploy(second, {"1": 67, "2": 33})
        wrong.add("3")
        with pytest.raises(RolledBackError):
            deploy(registry, story.make_candidate(tmp_path, "c", 55))
        assert registry.traffic() == {"1": 67, "2": 33}

    def test_twice_adds_one_version(self, place, tmp_path):
        registry, _ = place
        candidate = story.make_candidate(tmp_path, "a", 40)
        deploy(registry, candidate)
        again = deploy(registry, candidate)
        assert again.deployed
        assert "already" in again.reason
        assert len(registry.versions()) == 1
        assert registry.traffic() == {"1": 100}

    def test_roll_out_that_was_cut_off_is_undone_first(self, place, tmp_path):
        registry, _ = place
        deploy(registry, story.make_candidate(tmp_path, "a", 40))
        second = registry.add(story.make_candidate(tmp_path, "b", 41))
        registry.begin_rollout({"1": 100})
        registry.deploy(second, {"1": 90, "2": 10})
        deploy(registry, story.make_candidate(tmp_path, "c", 20))
        assert registry.traffic() == {"1": 100}
        assert registry.unfinished_rollout() is None

    def test_roll_out_that_was_cut_off_at_its_end_is_finished(self, place, tmp_path):
        registry, _ = place
        deploy(registry, story.make_candidate(tmp_path, "a", 40))
        second = registry.add(story.make_candidate(tmp_path, "b", 55))
        registry.begin_rollout({"1": 100})
        registry.deploy(second, {"1": 0, "2": 100})
        registry.undeploy("1")
        deploy(registry, story.make_candidate(tmp_path, "c", 20))
        assert registry.traffic() == {"2": 100}
        assert aliases(registry)["champion"] == "2"

    def test_challenger_that_lost_a_class_is_refused(self, place, tmp_path):
        registry, _ = place
        deploy(registry, story.make_candidate(tmp_path, "a", 40))

        def narrow(path, photos):
            answers = story.predict(path, photos)
            if path.name != "b":
                return answers
            return [one._replace(probabilities={"circles": 1.0}) for one in answers]

        candidate = story.make_candidate(tmp_path, "b", 55)
        with pytest.raises(FlowersError, match="the champion knows squares, stripes"):
            decide_and_roll_out(registry, candidate, story.PHOTOS, CONFIG, narrow)
        assert registry.traffic() == {"1": 100}

    def test_evaluation_that_the_saved_model_contradicts_is_refused(self, place, tmp_path):
        registry, _ = place
        candidate = story.make_candidate(tmp_path, "a", 40)
        changed = dataclasses.replace(candidate, evaluation=candidate.evaluation | {"correct": 41})
        with pytest.raises(FlowersError, match="40 of 60 test photos right, and its evaluation"):
            deploy(registry, changed)
        assert registry.versions() == []


def tell(registry, folder):
    """A champion, a worse one, one that answers wrong, a better one; what went wrong on the way."""
    problems = []
    for name, correct in (("a", 30), ("b", 20), ("c", 55), ("d", 55)):
        try:
            deploy(registry, story.make_candidate(folder, name, correct))
        except RolledBackError as error:
            problems.append((name, str(error)))
    return problems


def check_end(fake):
    assert fake.versions() == ["1", "2", "3", "4"]
    assert fake.traffic() == {"4": 100}
    assert fake.aliases() == {"default": "4", "champion": "4", "previous": "1"}
    assert len(fake.endpoints) == 1
    assert all(len(found) == 1 for found in fake.evaluations.values())
    assert len(fake.evaluations) == 4
    assert not fake.endpoints["flowers"].labels


def test_whole_story_on_vertex(vertex, tmp_path):
    vertex.wrong = {"3"}
    problems = tell(open_vertex(tmp_path), tmp_path)
    assert [name for name, _ in problems] == ["c"]
    check_end(vertex)


def count_requests(folder):
    """How many requests the story takes when none fails."""
    with pytest.MonkeyPatch.context() as patch, serve_vertex() as (fake, address):
        patch.setenv(ENDPOINT_VARIABLE, address)
        fake.predictor, fake.wrong = story.serve_table(folder), {"3"}
        tell(open_vertex(folder), folder)
        return len(fake.requests)


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    return count_requests(tmp_path_factory.mktemp("count"))


def survive(folder, monkeypatch, kind, numbers):
    for number in numbers:
        with serve_vertex() as (fake, address):
            monkeypatch.setenv(ENDPOINT_VARIABLE, address)
            fake.predictor, fake.wrong = story.serve_table(folder), {"3"}
            fake.faults = {number: kind}
            tell(open_vertex(folder), folder)
            assert len(fake.requests) > number, "the request that was to fail was not sent"
            check_end(fake)


@pytest.mark.faults
@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("kind", FAULTS)
def test_every_request_may_fail_once(tmp_path, monkeypatch, requests, kind, part):
    assert requests > 100
    survive(tmp_path, monkeypatch, kind, range(part, requests, 4))


def test_answers_may_be_lost(tmp_path, monkeypatch, requests):
    """A sample, for every day; make test-faults has them all."""
    survive(tmp_path, monkeypatch, "lost", range(3, requests, 23))


@pytest.mark.parametrize("verb", ["upload", "createEndpoint", "deployModel"])
def test_operation_that_ends_in_an_error_leaves_the_champion(vertex, tmp_path, verb):
    registry = open_vertex(tmp_path)
    deploy(registry, story.make_candidate(tmp_path, "a", 40))
    vertex.failing_operations = {verb: "the region has no such machine left"}
    if verb == "createEndpoint":
        vertex.endpoints.clear()
        with pytest.raises(FlowersError, match="no such machine left"):
            deploy(registry, story.make_candidate(tmp_path, "b", 55))
        assert vertex.endpoints == {}
        return
    with pytest.raises(FlowersError, match="no such machine left"):
        deploy(registry, story.make_candidate(tmp_path, "b", 55))
    assert vertex.traffic() == {"1": 100}
    assert vertex.aliases()["champion"] == "1"


def test_old_version_that_cannot_be_taken_down_fails_nothing(vertex, tmp_path, capsys):
    registry = open_vertex(tmp_path)
    deploy(registry, story.make_candidate(tmp_path, "a", 40))
    vertex.failing_operations = {"undeployModel": "busy"}
    assert deploy(registry, story.make_candidate(tmp_path, "b", 55)).deployed
    assert vertex.traffic() == {"1": 0, "2": 100}
    assert "version 1 has no traffic and is still up" in capsys.readouterr().out
