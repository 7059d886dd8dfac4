"""The compiler's text: bytes of all-reduces, bytes in HBM, and the layers that move them."""

import textwrap

from pipelines.tpu_check.hlo import all_reduce_bytes, hbm_bytes, heaviest

MODULE = textwrap.dedent(
    """\
    HloModule jit_train_step, is_scheduled=true

    %fused_computation (p: bf16[2,4]) -> bf16[2,4] {
      %p = bf16[2,4]{1,0:T(8,128)(2,1)} parameter(0)
      ROOT %m = bf16[2,4]{1,0:T(8,128)(2,1)} multiply(%p, %p)
    }

    ENTRY %main (param.1: bf16[1000,4], param.2: f32[500]) -> (f32[500]) {
      %param.1 = bf16[1000,4]{1,0:T(8,128)(2,1)} parameter(0), metadata={op_name="state[0][1]"}
      %param.2 = f32[500]{0:T(512)} parameter(1)
      %fusion.1 = bf16[1000,8]{1,0:T(8,128)(2,1)} fusion(%param.1), kind=kLoop, calls=%fused_computation, metadata={op_name="jit(train_step)/jvp(net)/fire2_expand/jit(_conv)/mul"}
      %fusion.2 = (bf16[10]{0:T(512)}, f32[500]{0:T(512)S(1)}) fusion(%fusion.1), kind=kLoop, metadata={op_name="jit(train_step)/transpose(jvp(net))/fire2_expand/mul"}
      %get-tuple-element.1 = f32[500]{0:T(512)S(1)} get-tuple-element(%fusion.2), index=1
      %all-reduce.1 = (f32[500]{0:T(512)S(1)}, f32[]{:T(128)S(1)}) all-reduce(%get-tuple-element.1, %c), channel_id=1, to_apply=%add, metadata={op_name="jit(train_step)/transpose(jvp(net))/fire2_expand/mul"}
      %copy-start.1 = (f32[500]{0:T(512)S(1)}, f32[500]{0:T(512)}, u32[]{:S(2)}) copy-start(%param.2)
      %copy-done.1 = f32[500]{0:T(512)S(1)} copy-done(%copy-start.1)
      %fusion.3 = f32[500]{0:T(512)} fusion(%copy-done.1, %get-tuple-element.1), kind=kLoop, metadata={op_name="jit(train_step)/adam_w/jit(sub)/sub"}
      %fusion.4 = f32[100]{0:T(512)} fusion(%copy-done.1), kind=kLoop, metadata={op_name="jit(train_step)/jvp()/mul"}
      ROOT %tuple = (f32[500]{0:T(512)}) tuple(%fusion.3)
    }
    """  # noqa: E501
)


def test_all_reduces_count_all_they_are_given():
    assert all_reduce_bytes(MODULE) == 500 * 4 + 4


def test_bytes_in_vector_memory_are_not_of_hbm():
    moved = {one.name: one.bytes for one in heaviest(MODULE)}
    assert moved == {
        # Reads [1000, 4] and writes [1000, 8], two bytes each.
        "fire2_expand": 24_000,
        # Reads [1000, 8] and writes [10]; what it writes to vector memory is free.
        "fire2_expand backward": 16_020,
        # 4 bytes behind the array are the copy's flag.
        "copies between HBM and vector memory": 2_004,
        "adam_w": 2_000,
        "augmentation": 400,
    }
    assert hbm_bytes(MODULE) == sum(moved.values())


def test_heaviest_come_first():
    assert [one.name for one in heaviest(MODULE, 2)] == ["fire2_expand", "fire2_expand backward"]
