"""Rooflines, the search for the largest batch, prices, and what stops a submission."""

import dataclasses
import json
import math
import subprocess
import sys
import tempfile

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.common.errors import ConfigError, FlowersError, TrainStepError
from components.common.recipes import recipe_names
from pipelines.recipe import load_recipe
from pipelines.targets.tpu_chips import CHIPS, TpuSlice, parse_slice, slice_of
from pipelines.targets.tpus import GENERATIONS
from pipelines.tpu_check import compiler, preflight
from pipelines.tpu_check.check import Report, batch_of, batch_step, largest_batch, require, roofline
from pipelines.tpu_check.compiler import Compiler
from pipelines.tpu_check.hlo import Operation
from pipelines.tpu_check.messages import Compiled, Refused
from pipelines.tpu_check.prices import DEFAULT_PRICES, load_prices
from pipelines.tpu_check.report import as_data, as_text
from tests.commands import run

V5E = parse_slice("v5e:2x4")
GIB = 2**30


def compiled(batch=16, **changes):
    return dataclasses.replace(
        Compiled(
            batch_per_core=batch,
            flops=197e9,
            bytes_accessed=9e9,
            hbm_bytes=8.19e9,
            peak_bytes=GIB,
            all_reduce_bytes=1e6,
            heaviest=(Operation("fire2_expand", 4.1e9),),
            seconds=20.0,
            precision="mixed_bfloat16",
            parameters=1000,
            compiler="0.0.1",
        ),
        **changes,
    )


class TestSlices:
    @pytest.mark.parametrize(
        ("text", "chips", "cores", "hosts"),
        [
            ("v2:2x2", 4, 8, 1),
            ("v3:4x4", 16, 32, 4),
            ("v4:2x2x1", 4, 4, 1),
            ("v5e:1x1", 1, 1, 1),
            ("v5e:2x4", 8, 8, 1),
            ("v5e:4x4", 16, 16, 4),
            ("v5p:4x4x8", 128, 128, 32),
            ("v6e:2x4", 8, 8, 1),
        ],
    )
    def test_counts(self, text, chips, cores, hosts):
        where = parse_slice(text)
        assert str(where) == text
        assert (where.chips, where.cores, where.hosts) == (chips, cores, hosts)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("v9:2x2", "expected GENERATION:TOPOLOGY"),
            ("2x2", "expected GENERATION:TOPOLOGY"),
            ("v5e", "v5e has 1x1, 2x2, 2x4"),
            ("v5e:3x3", "received '3x3'"),
            ("v2:2x4", "v2 has 2x2, 4x4"),
        ],
    )
    def test_what_there_is_not_is_refused(self, text, reason):
        with pytest.raises(ConfigError, match=reason):
            parse_slice(text)

    def test_every_generation_has_a_chip(self):
        assert set(CHIPS) == set(GENERATIONS)

    def test_slice_of_machines(self):
        assert slice_of("ct6e-standard-4t", "2x2") == TpuSlice("v6e", "2x2")


class TestRoofline:
    def test_is_the_longest_of_three_times(self):
        bounds = roofline(compiled(), V5E)
        assert bounds.compute_seconds == pytest.approx(1e-3)
        assert bounds.memory_seconds == pytest.approx(1e-2)
        assert bounds.network_seconds == pytest.approx(2 * 7 / 8 * 1e6 / 200e9)
        assert (bounds.step_seconds, bounds.bound) == (bounds.memory_seconds, "memory")
        assert bounds.of_peak == pytest.approx(0.1)

    def test_core_of_a_chip_of_two_has_half_of_it(self):
        one, both = roofline(compiled(), parse_slice("v3:2x2")), CHIPS["v3"]
        assert one.compute_seconds == pytest.approx(197e9 / (both.flops / 2))
        assert one.memory_seconds == pytest.approx(8.19e9 / (both.hbm_bandwidth / 2))

    def test_epoch_and_price(self):
        report = Report("squeezenet", V5E, compiled(), 64, True, 5000.0, 3200, 1.2)
        assert report.images_per_second == pytest.approx(1600)
        assert report.host_rate == pytest.approx(8 * 1600)
        assert report.epoch_seconds == pytest.approx(0.25)
        assert report.epoch_price == pytest.approx(0.25 / 3600 * 8 * 1.2)
        text = as_text(report)
        assert "at most 10% of the peak" in text
        assert "3 CPUs; the host has 224, enough" in text
        assert "64 images a core; an eighth more does not fit" in text
        assert "fire2_expand" in text
        data = json.loads(json.dumps(as_data(report)))
        assert data["step_seconds"] == pytest.approx(0.01)
        assert data["largest_batch_per_core"] == 64

    def test_host_that_is_too_slow_is_said(self):
        report = Report("squeezenet", V5E, compiled(), 0, False, 10.0, 3200, None)
        assert "too few: the host, not the TPU, sets the pace" in as_text(report)
        assert "no price of v5e in the table" in as_text(report)


class TestRequire:
    def test_batch_over_the_memory_is_refused(self):
        with pytest.raises(TrainStepError, match=r"16 images a core on v5e:2x4 take 17.00 GiB"):
            require(compiled(peak_bytes=17 * GIB), V5E)

    def test_operation_is_named(self):
        with pytest.raises(TrainStepError, match=r"^the operation eig does not compile for v5e"):
            require(Refused(16, "eig", "not found for platform tpu", False), V5E)

    def test_error_ends_a_command_with_3(self):
        assert TrainStepError.exit_code == 3


class TestLargestBatch:
    @given(
        st.floats(0, 4 * GIB),
        st.floats(GIB / 4096, GIB / 2),
        st.integers(1, 64),
        st.booleans(),
        st.sampled_from([1, 2, 3, 32, 48]),
    )
    def test_fits_and_an_eighth_more_does_not(self, base, each, first, raises, step):
        first *= step

        def compile_(batch):
            peak = base + each * batch
            if peak > V5E.core_memory and raises:
                return Refused(batch, "", "RESOURCE_EXHAUSTED", True)
            return compiled(batch, peak_bytes=peak)

        asked = []

        def counted(batch):
            asked.append(batch)
            return compile_(batch)

        if base + each * first > V5E.core_memory:
            return
        found, is_limit = largest_batch(compile_(first), V5E, counted, step)
        assert base + each * found <= V5E.core_memory
        most = (V5E.core_memory - base) / each
        if is_limit:
            assert max(found * 1.125, found + step) >= math.floor(most)
        else:
            assert 16384 - step < found <= 16384
        assert found == first or found in asked
        assert all(batch % step == 0 for batch in asked)
        assert len(asked) <= 14


@pytest.mark.parametrize("topology", ["v5e:1x1", "v5e:2x4", "v2:2x2", "v5e:4x4"])
@pytest.mark.parametrize("name", recipe_names())
def test_batches_that_are_tried_are_those_that_a_recipe_takes(name, topology):
    recipe, where = load_recipe(name), parse_slice(topology)
    step = batch_step(recipe, where)
    for batch in range(1, 4 * step + 1):
        train = dataclasses.replace(recipe.train, global_batch_size=0, batch_per_replica=batch)
        if batch % step == 0:
            assert train.batch_size(where.cores) == batch * where.cores
        elif batch * where.cores > train.ghost_batch_size:
            with pytest.raises(ConfigError):
                train.batch_size(where.cores)


def test_input_of_ghost_batches_larger_than_what_is_measured_has_a_rate():
    from pipelines.tpu_check.input_rate import measure_input_rate

    train = load_recipe("squeezenet", ("train.global_batch_size=384",)).train
    assert measure_input_rate(dataclasses.replace(train, ghost_batch_size=192), 32) > 0


class TestPrices:
    def test_package_has_a_price_of_every_generation(self):
        assert set(load_prices()) == set(CHIPS)

    def test_table_of_the_user_replaces_it(self, tmp_path):
        file = tmp_path / "prices.yaml"
        file.write_text("v5e: 0.5\n")
        assert load_prices(file) == {"v5e": 0.5}

    @pytest.mark.parametrize("content", ["v5e: much", "v5e: -1", "v9: 1", "v5e: true"])
    def test_table_that_is_none_is_refused(self, tmp_path, content):
        file = tmp_path / "prices.yaml"
        file.write_text(content)
        with pytest.raises(ConfigError, match="--prices"):
            load_prices(file)

    def test_command_prints_the_table(self, capsys):
        code, out, _ = run(capsys, "tpu", "prices")
        assert code == 0
        assert yaml.safe_load(out) == yaml.safe_load(DEFAULT_PRICES.read_text())


class TestCommand:
    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["--topology", "v5e:3x3"], "v5e has"),
            (["--topology", "v5e:2x4", "--set", "train.global_batch_size=30"], "multiple of the 8"),
            (["--topology", "v5e:2x4", "--prices", "absent.yaml"], "no such file"),
            (["--topology", "v5e:2x4", "--recipe", "absent"], "absent"),
        ],
    )
    def test_mistake_is_one_line(self, capsys, monkeypatch, arguments, reason):
        monkeypatch.setattr(compiler, "is_installed", lambda: pytest.fail("asked too late"))
        code, out, err = run(capsys, "tpu", "check", *arguments)
        assert (code, out) == (2, "")
        assert reason in err
        assert len(err.splitlines()) == 1

    def test_says_how_to_get_the_compiler(self, capsys, monkeypatch):
        monkeypatch.setattr(compiler, "is_installed", lambda: False)
        code, _, err = run(capsys, "tpu", "check", "--topology", "v5e:2x4")
        assert code == 2
        assert "pip install --editable '.[local,tpu-check]'" in err

    def test_help_imports_nothing_heavy(self):
        code = (
            "import sys\nfrom pipelines.cli import flowers\n"
            "flowers(['tpu', 'check', '--help'], standalone_mode=False)\n"
            "heavy = {'jax', 'libtpu', 'keras', 'tensorflow', 'kfp'} & set(sys.modules)\n"
            "assert not heavy, heavy"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def target_on(topology, machine="ct5lp-hightpu-8t", accelerator="TPU"):
    train = type("Train", (), {})()
    train.machine_type, train.tpu_topology, train.accelerator = machine, topology, accelerator
    return type("Target", (), {"train": train})()


class TestPreflight:
    def test_batch_that_cannot_be_divided_is_refused(self):
        recipe = load_recipe("quick", ["train.global_batch_size=30"])
        with pytest.raises(ConfigError, match=r"multiple of the 8 cores of v5e:2x4, received 30"):
            preflight.check_batch(target_on("2x4"), recipe)
        with pytest.raises(ConfigError, match="multiple of the 8"):
            batch_of(load_recipe("quick", ["train.global_batch_size=4"]), V5E)
        preflight.check_batch(target_on("", "", ""), recipe)

    def test_without_the_compiler_it_says_so_and_goes_on(self, monkeypatch):
        monkeypatch.setattr(preflight, "is_installed", lambda: False)
        told: list[str] = []
        preflight.check_train_step(target_on("2x4"), load_recipe("quick"), told.append)
        assert told == ["no TPU check: " + compiler.NOT_INSTALLED]

    def test_train_step_that_is_refused_stops(self, monkeypatch):
        class Refusing:
            def __enter__(self):
                return self

            def __exit__(self, *_error):
                return None

            def compile(self, batch):
                return Refused(batch, "eig", "no rule", False)

        monkeypatch.setattr(preflight, "is_installed", lambda: True)
        monkeypatch.setattr(preflight, "open_compiler", lambda _task: Refusing())
        with pytest.raises(TrainStepError, match="the operation eig"):
            preflight.check_train_step(target_on("2x4"), load_recipe("quick"), lambda _line: None)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "exit code -11; bad day; try another batch"),
        ("sys.exit(5)", "exit code 5; bad day$"),
    ],
)
def test_compiler_that_dies_says_how(end, words):
    program = f"import os, signal, sys; print('bad day', file=sys.stderr, flush=True); {end}"
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        with process, pytest.raises(FlowersError, match=words):
            Compiler(process, errors).compile(16)
