import keras
import pytest

from components.train_model import precision
from components.train_model.precision import choose_precision, computing_in, cpu_flags


@pytest.mark.parametrize(
    ("named", "device", "pays", "flags", "chosen"),
    [
        ("auto", "tpu", False, set(), "mixed_bfloat16"),
        ("auto", "gpu", False, set(), "mixed_float16"),
        ("auto", "cpu", True, {"avx512_bf16"}, "mixed_bfloat16"),
        ("auto", "cpu", True, {"avx2"}, "float32"),
        ("auto", "cpu", False, {"avx512_bf16"}, "float32"),
        ("float32", "tpu", True, {"avx512_bf16"}, "float32"),
        ("mixed_bfloat16", "cpu", False, set(), "mixed_bfloat16"),
    ],
)
def test_device_decides_unless_the_recipe_does(monkeypatch, named, device, pays, flags, chosen):
    monkeypatch.setattr(precision, "cpu_flags", lambda: flags)
    assert choose_precision(named, device, pays) == chosen


def test_flags_of_the_cpu(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("cpu\t: 0\nflags\t\t: fpu avx2 avx512_bf16\n\ncpu\t: 1\nflags\t: x\n")
    assert cpu_flags(info) == {"fpu", "avx2", "avx512_bf16"}
    assert cpu_flags(tmp_path / "absent") == set()


def test_policy_holds_within_the_block_only():
    with computing_in("mixed_bfloat16"):
        inside = keras.layers.Dense(1).compute_dtype
    assert inside == "bfloat16"
    assert keras.layers.Dense(1).compute_dtype == "float32"
