"""The story of a champion, locally and on Vertex AI, and with every request failing once."""

import dataclasses
import threading
from typing import Any

import pytest

from components.common.errors import ConfigError, FlowersError
from components.common.patience import Patience
from components.common.vertex import ENDPOINT_VARIABLE, Vertex
from components.deploy_model.config import DeployConfig, ServingConfig
from components.deploy_model.deploy import decide_and_roll_out
from components.deploy_model.local_registry import LocalRegistry
from components.deploy_model.registries import promote, roll_back
from components.deploy_model.registry import (
    RolledBackError,
    Rollout,
    TakenOverError,
    recover,
    roll_out,
)
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


def promote_to(registry, version):
    return promote(registry, version, [], "by-hand")


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
        assert registry.noted_rollout() is None

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
        assert registry.noted_rollout() is None

    def test_fault_of_a_check_is_rolled_back_and_raised(self, place, tmp_path):
        registry, _ = place
        deploy(registry, story.make_candidate(tmp_path, "a", 40))
        second = registry.add(story.make_candidate(tmp_path, "b", 55))
        with pytest.raises(ZeroDivisionError):
            roll_out(registry, second, 10, lambda _: str(1 // 0))
        assert registry.traffic() == {"1": 100}
        assert registry.noted_rollout() is None

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
        registry.note_rollout(Rollout("2", {"1": 100}))
        registry.deploy(second, {"1": 90, "2": 10})
        deploy(registry, story.make_candidate(tmp_path, "c", 20))
        assert registry.traffic() == {"1": 100}
        assert registry.noted_rollout() is None

    def test_roll_out_that_was_cut_off_at_its_end_is_finished(self, place, tmp_path):
        registry, _ = place
        deploy(registry, story.make_candidate(tmp_path, "a", 40))
        second = registry.add(story.make_candidate(tmp_path, "b", 55))
        registry.note_rollout(Rollout("2", {"1": 100}))
        registry.deploy(second, {"1": 0, "2": 100})
        registry.undeploy("1")
        deploy(registry, story.make_candidate(tmp_path, "c", 20))
        assert registry.traffic() == {"2": 100}
        assert aliases(registry)["champion"] == "2"

    def test_first_version_that_was_checked_stays(self, place, tmp_path):
        registry, _ = place
        first = registry.add(story.make_candidate(tmp_path, "a", 40))
        with registry.claim("cut off"):
            registry.deploy(first, {first: 100})
            registry.note_rollout(Rollout(first, {}, checked=True))
        with registry.claim("next"):
            assert recover(registry) is None
        assert registry.traffic() == {"1": 100}
        assert aliases(registry) == {"champion": "1"}
        assert registry.noted_rollout() is None

    def test_version_that_was_checked_stays_beside_the_former(self, place, tmp_path):
        registry, _ = place
        deploy(registry, story.make_candidate(tmp_path, "a", 40))
        second = registry.add(story.make_candidate(tmp_path, "b", 55))
        registry.deploy(second, {"1": 0, "2": 100})
        registry.note_rollout(Rollout(second, {"1": 100}, checked=True))
        deploy(registry, story.make_candidate(tmp_path, "c", 20))
        assert registry.traffic() == {"2": 100}
        assert aliases(registry) == {"champion": "2", "previous": "1"}

    def test_first_version_that_was_not_checked_is_taken_down(self, place, tmp_path):
        registry, _ = place
        first = registry.add(story.make_candidate(tmp_path, "a", 40))
        with registry.claim("cut off"):
            registry.deploy(first, {first: 100})
            registry.note_rollout(Rollout(first, {}))
            assert recover(registry) == Rollout(first, {})
        assert registry.traffic() == {}

    def test_fault_behind_the_checks_takes_nothing_down(self, place, tmp_path, monkeypatch):
        registry, _ = place
        kind = LocalRegistry if isinstance(registry, Wrong) else VertexRegistry
        candidate = story.make_candidate(tmp_path, "a", 40)
        with monkeypatch.context() as patch:
            patch.setattr(kind, "set_aliases", lambda *_: (_ for _ in ()).throw(OSError("gone")))
            with pytest.raises(OSError, match="gone"):
                deploy(registry, candidate)
        assert registry.traffic() == {"1": 100}
        assert "already" in deploy(registry, candidate).reason
        assert aliases(registry) == {"champion": "1"}
        assert registry.noted_rollout() is None

    def test_nothing_is_left_of_what_served_before(self, place, tmp_path):
        registry, _ = place
        deploy(registry, story.make_candidate(tmp_path, "a", 40))
        registry.note_rollout(Rollout("2", {"1": 100}))
        registry.undeploy("1")
        assert deploy(registry, story.make_candidate(tmp_path, "b", 20)).deployed
        assert registry.traffic() == {"2": 100}

    def test_rollback_of_a_roll_out_that_was_cut_off_is_its_end(self, place, tmp_path):
        registry, _ = place
        deploy(registry, story.make_candidate(tmp_path, "a", 30))
        deploy(registry, story.make_candidate(tmp_path, "b", 45))
        third = registry.add(story.make_candidate(tmp_path, "c", 55))
        registry.note_rollout(Rollout(third, {"2": 100}))
        registry.deploy(third, {"2": 90, "3": 10})
        assert roll_back(registry, [], "by-hand") == "2"
        assert registry.traffic() == {"2": 100}
        assert aliases(registry) == {"champion": "2", "previous": "1"}
        assert roll_back(registry, [], "by-hand") == "1"

    def test_rollback_goes_on_where_what_was_cut_off_had_no_traffic(self, place, tmp_path):
        registry, _ = place
        deploy(registry, story.make_candidate(tmp_path, "a", 30))
        deploy(registry, story.make_candidate(tmp_path, "b", 45))
        third = registry.add(story.make_candidate(tmp_path, "c", 55))
        registry.note_rollout(Rollout(third, {"2": 100}))
        assert roll_back(registry, [], "by-hand") == "1"
        assert registry.traffic() == {"1": 100}

    def test_rollback_that_was_cut_off_is_done_again(self, place, tmp_path):
        registry, _ = place
        deploy(registry, story.make_candidate(tmp_path, "a", 30))
        deploy(registry, story.make_candidate(tmp_path, "b", 45))
        registry.note_rollout(Rollout("1", {"2": 100}))
        registry.deploy("1", {"2": 90, "1": 10})
        assert roll_back(registry, [], "by-hand") == "1"
        assert registry.traffic() == {"1": 100}
        assert aliases(registry) == {"champion": "1", "previous": "2"}

    def test_version_without_traffic_that_is_gone_bars_no_way_back(self, place, tmp_path):
        registry, _ = place
        deploy(registry, story.make_candidate(tmp_path, "a", 30))
        third = registry.add(story.make_candidate(tmp_path, "c", 55))
        registry.note_rollout(Rollout(third, {"1": 100, "7": 0}))
        registry.deploy(third, {"1": 0, third: 100})
        with registry.claim("next"):
            undone = recover(registry)
        assert undone is not None
        assert undone.version == third
        assert registry.traffic() == {"1": 100}

    def test_canary_beside_versions_without_traffic_is_taken_down(self, place, tmp_path):
        registry, wrong = place
        deploy(registry, story.make_candidate(tmp_path, "a", 30))
        registry.set_traffic({"1": 0})
        wrong.add("2")
        with pytest.raises(RolledBackError, match="probe 1 of 2 wrong"):
            deploy(registry, story.make_candidate(tmp_path, "b", 45))
        assert registry.traffic() == {"1": 0}
        assert registry.noted_rollout() is None

    def test_promotion_of_what_serves_mends_the_aliases(self, place, tmp_path):
        registry, _ = place
        deploy(registry, story.make_candidate(tmp_path, "a", 30))
        second = registry.add(story.make_candidate(tmp_path, "b", 45))
        registry.deploy(second, {"1": 0, "2": 100})
        registry.undeploy("1")
        assert aliases(registry) == {"champion": "1"}
        assert promote_to(registry, "2") == "2"
        assert aliases(registry) == {"champion": "2", "previous": "1"}

    def test_champion_that_was_taken_down_by_hand_is_the_previous_one(self, place, tmp_path):
        registry, _ = place
        deploy(registry, story.make_candidate(tmp_path, "a", 30))
        deploy(registry, story.make_candidate(tmp_path, "b", 45))
        registry.undeploy("2")
        assert deploy(registry, story.make_candidate(tmp_path, "c", 20)).deployed
        assert aliases(registry) == {"champion": "3", "previous": "2"}

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


class TestClaim:
    def test_second_deployment_waits_for_the_first(self, vertex, tmp_path, capsys):
        first, second = open_vertex(tmp_path), open_vertex(tmp_path)
        deploy(first, story.make_candidate(tmp_path, "a", 40))
        done = []
        with first.claim("run-a"):
            other = threading.Thread(
                target=lambda: done.append(deploy(second, story.make_candidate(tmp_path, "b", 55)))
            )
            other.start()
            other.join(0.5)
            assert done == []
            assert vertex.traffic() == {"1": 100}
        other.join(30)
        assert [one.deployed for one in done] == [True]
        assert "waits for the deployment of run-a; if that one is dead" in capsys.readouterr().out

    def test_same_run_goes_on_where_it_was_cut_off(self, vertex, tmp_path):
        candidate = story.make_candidate(tmp_path, "a", 40)
        cut_off = open_vertex(tmp_path).claim(f"run-a-{candidate.digest[:8]}")
        cut_off.__enter__()
        assert vertex.endpoints["flowers"].labels["flowers-owner"] == "run-a-aaaaaaaa"
        assert deploy(open_vertex(tmp_path), candidate).deployed
        assert not vertex.endpoints["flowers"].labels

    def test_claim_of_a_dead_deployment_is_void_in_a_while(self, vertex, tmp_path):
        dead = open_vertex(tmp_path).claim("dead")
        dead.__enter__()
        labels = vertex.endpoints["flowers"].labels
        labels["flowers-since"] = str(int(labels["flowers-since"]) - 11)
        assert deploy(open_vertex(tmp_path), story.make_candidate(tmp_path, "a", 40)).deployed

    def test_claim_that_was_taken_over_changes_nothing_more(self, vertex, tmp_path):
        first, second = open_vertex(tmp_path), open_vertex(tmp_path)
        deploy(first, story.make_candidate(tmp_path, "a", 40))
        second_version = first.add(story.make_candidate(tmp_path, "b", 55))
        with first.claim("slow"), second.claim("by-hand", take_over=True):
            with pytest.raises(FlowersError, match="endpoint flowers was taken over by by-hand"):
                roll_out(first, second_version, 10, lambda _: "")
            assert vertex.traffic() == {"1": 100}
            assert vertex.endpoints["flowers"].labels["flowers-owner"] == "by-hand"

    def test_claim_that_was_taken_over_while_it_checks_restores_nothing(self, vertex, tmp_path):
        first, second = open_vertex(tmp_path), open_vertex(tmp_path)
        deploy(first, story.make_candidate(tmp_path, "a", 40))
        versions = [first.add(story.make_candidate(tmp_path, name, 55)) for name in "bc"]
        others: list[Any] = []

        def check(_):
            others.append(second.claim("by-hand", take_over=True))
            others[0].__enter__()
            recover(second)
            second.deploy(versions[1], {"1": 0, versions[1]: 100})
            return "answers wrong"

        with (
            first.claim("slow"),
            pytest.raises(TakenOverError, match="endpoint flowers was taken over by by-hand"),
        ):
            roll_out(first, versions[0], 10, check)
        assert vertex.traffic() == {"1": 0, "3": 100}
        assert vertex.endpoints["flowers"].labels["flowers-owner"] == "by-hand"

    def test_two_at_once_are_told_apart_by_the_etag(self, vertex, tmp_path, monkeypatch):
        """The other one claims between this one's look and its change."""
        first, second = open_vertex(tmp_path), open_vertex(tmp_path)
        deploy(first, story.make_candidate(tmp_path, "a", 40))
        update = second._endpoints.update_endpoint
        others: list[Any] = []
        released = threading.Event()

        def release():
            released.set()
            others[0].__exit__(None, None, None)

        def late(**request):
            if not others:
                others.append(first.claim("first"))
                others[0].__enter__()
                threading.Timer(0.3, release).start()
            return update(**request)

        monkeypatch.setattr(second._endpoints, "update_endpoint", late)
        with second.claim("second"):
            assert released.is_set()
            assert vertex.endpoints["flowers"].labels["flowers-owner"] == "second"


def test_version_that_comes_up_late_gets_no_traffic(vertex, tmp_path):
    registry = open_vertex(tmp_path)
    deploy(registry, story.make_candidate(tmp_path, "a", 40))
    hasty = dataclasses.replace(HASTY, operation=0.1)
    late = VertexRegistry(Vertex(PROJECT, REGION, hasty), "flowers", ServingConfig(), tmp_path)
    vertex.held_operations = {"deployModel"}
    with pytest.raises(RolledBackError, match=r"not done after 0 s; .*traffic is what it was"):
        deploy(late, story.make_candidate(tmp_path, "b", 55))
    assert vertex.traffic() == {"1": 100}
    vertex.held_operations = set()
    vertex.finish(max(vertex.operations))
    assert vertex.traffic() == {"1": 100, "2": 0}
    assert deploy(registry, story.make_candidate(tmp_path, "c", 58)).deployed
    assert vertex.traffic() == {"3": 100}


def test_first_version_that_comes_up_late_is_not_taken_for_the_champion(vertex, tmp_path):
    candidate = story.make_candidate(tmp_path, "a", 40)
    hasty = dataclasses.replace(HASTY, operation=0.1)
    late = VertexRegistry(Vertex(PROJECT, REGION, hasty), "flowers", ServingConfig(), tmp_path)
    vertex.held_operations, vertex.wrong = {"deployModel"}, {"1"}
    with pytest.raises(RolledBackError, match="not done after 0 s"):
        deploy(late, candidate)
    vertex.held_operations = set()
    vertex.finish(max(vertex.operations))
    assert vertex.traffic() == {"1": 100}
    registry = open_vertex(tmp_path)
    with pytest.raises(RolledBackError, match="probe 1 of 2 wrong"):
        deploy(registry, candidate)
    assert vertex.traffic() == {}
    vertex.wrong = set()
    assert "the first version" in deploy(registry, candidate).reason


@pytest.mark.parametrize(("share", "tries"), [(100, 1), (50, 20)])
def test_change_of_the_traffic_may_take_a_while_to_be_everywhere(vertex, tmp_path, share, tries):
    registry = open_vertex(tmp_path)
    deploy(registry, story.make_candidate(tmp_path, "a", 40))
    second = registry.add(story.make_candidate(tmp_path, "b", 55))
    registry.deploy(second, {"1": 100 - share, "2": share})
    vertex.lagging = 2 * tries
    assert len(registry.predict("2", [b"photo 1"])) == 1
    vertex.lagging = HASTY.tries * tries
    words = f"{share} % of the traffic and answered none of 4 times {tries} requests"
    with pytest.raises(FlowersError, match=words):
        registry.predict("2", [b"photo 1"])


def test_version_that_somebody_took_down_is_named(vertex, tmp_path):
    registry = open_vertex(tmp_path)
    deploy(registry, story.make_candidate(tmp_path, "a", 40))
    with pytest.raises(FlowersError, match="endpoint flowers: version 7 is no longer up"):
        registry.set_traffic({"1": 50, "7": 50})


def test_promotion_of_an_unknown_model_makes_no_endpoint(vertex, tmp_path):
    with pytest.raises(ConfigError, match="--version 1: expected one of none"):
        promote_to(open_vertex(tmp_path), "1")
    assert vertex.endpoints == {}
