"""Reads a compiled module: what its replicas send each other, and which operations move the bytes.

A line of the compiler's text is one operation:

    %fusion.3 = bf16[16,48,48,32]{3,0,2,1:T(8,128)(2,1)} fusion(%p.1, %p.2), kind=kLoop, ...
        metadata={op_name="jit(train_step)/jvp(squeezenet)/fire2_expand3x3/conv_general_dilated"}

A layout with S(1) is in the vector memory of the core; all others are in its HBM.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator

_SIZES = {
    "pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2,
    "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](?:\{([^}]*)\})?")
_LINE = re.compile(r"^\s+(?:ROOT )?(%[\w.-]+) = ")
_OPCODE = re.compile(r"\s*([\w-]+)\(")
_OPERAND = re.compile(r"%[\w.-]+")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_VECTOR_MEMORY = "S(1)"
# They name what is there and move nothing, or their bytes are those of the operation they end.
_FREE = {
    "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all",
    "all-reduce-done", "copy-done", "slice-done", "async-done",
}  # fmt: skip
_WRAPPER = re.compile(r"^(?:jvp|transpose|vmap|checkpoint|remat)\((.*)\)$")


@dataclasses.dataclass(frozen=True)
class Operation:
    """Operations of one layer, or of one kind, in one direction.

    Attributes:
        name: The layer, `backward` behind it where it computes a gradient.
        bytes: What it reads from and writes to HBM in a step, bytes of a core.
    """

    name: str
    bytes: float


@dataclasses.dataclass(frozen=True)
class _Line:
    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    op_name: str


def all_reduce_bytes(text: str) -> float:
    """Bytes that one core gives into the all-reduces of a step."""
    return sum(
        _bytes(line.type)
        for line in _lines(text.splitlines())
        if line.opcode in {"all-reduce", "all-reduce-start"}
    )


def heaviest(text: str, count: int | None = None) -> tuple[Operation, ...]:
    """The layers whose operations move most bytes between HBM and core, the heaviest first.

    Args:
        text: The compiled module.
        count: How many; None for all.
    """
    lines = list(_lines(_entry(text)))
    types = {line.name: line.type for line in lines}
    moved: dict[str, float] = defaultdict(float)
    for line in lines:
        if line.opcode not in _FREE:
            moved[_layer(line)] += _moved(line, types)
    ordered = sorted(moved.items(), key=lambda item: -item[1])
    return tuple(Operation(*item) for item in ordered[:count])


def hbm_bytes(text: str) -> float:
    """Bytes that one core reads from and writes to its HBM in a step.

    The compiler's own "bytes accessed" counts the vector memory too, which is many times as fast.
    """
    return sum(one.bytes for one in heaviest(text))


def _moved(line: _Line, types: dict[str, str]) -> float:
    # What starts a copy has source and target in its own type.
    read = 0.0
    if not line.opcode.endswith("-start"):
        read = sum(_hbm_bytes(types.get(name, "")) for name in line.operands)
    return read + _hbm_bytes(line.type)


def _entry(text: str) -> Iterator[str]:
    """The lines of the computation that a step runs; all others are called by it."""
    within = False
    for line in text.splitlines():
        if line.startswith("ENTRY"):
            within = True
        elif within and line.startswith("}"):
            return
        elif within:
            yield line


def _lines(text: Iterator[str] | list[str]) -> Iterator[_Line]:
    for line in text:
        found = _LINE.match(line)
        if not found:
            continue
        end = _type_end(line, found.end())
        opcode = _OPCODE.match(line, end)
        if not opcode:
            continue
        arguments = line[opcode.end() : _close(line, opcode.end() - 1)]
        name = _OP_NAME.search(line)
        yield _Line(
            found[1],
            line[found.end() : end],
            opcode[1],
            tuple(_OPERAND.findall(arguments)),
            name[1] if name else "",
        )


def _type_end(line: str, start: int) -> int:
    """Where the type that begins at `start` ends; that of a tuple is in parentheses."""
    if line[start] == "(":
        return _close(line, start) + 1
    end = line.find(" ", start)
    return end if end >= 0 else len(line)


def _close(line: str, start: int) -> int:
    depth = 0
    for place in range(start, len(line)):
        depth += {"(": 1, ")": -1}.get(line[place], 0)
        if depth == 0:
            return place
    return len(line)


def _bytes(shape: str) -> float:
    return sum(_size(one) for one in _ARRAY.finditer(shape))


def _hbm_bytes(shape: str) -> float:
    return sum(_size(one) for one in _ARRAY.finditer(shape) if _VECTOR_MEMORY not in (one[3] or ""))


def _size(array: re.Match[str]) -> float:
    sides = [int(side) for side in array[2].split(",") if side]
    return math.prod(sides) * _SIZES.get(array[1], 0)


def _layer(line: _Line) -> str:
    """Layer of an operation, as in Keras; its opcode where nothing is said of where it is from."""
    # Functions of the libraries are no layers; what a net does not do itself has no name.
    parts = [_bare(part) for part in _split(line.op_name) if not part.startswith("jit(")]
    if line.opcode in {"copy-start", "slice-start"}:
        return "copies between HBM and vector memory"
    if len(parts) < 2:
        return line.opcode
    layer = "/".join(parts[1:-1]) or parts[0] or "augmentation"
    return f"{layer} backward" if "transpose(" in line.op_name else layer


def _split(op_name: str) -> Iterator[str]:
    """Parts of a path; a slash within parentheses parts nothing."""
    depth, part = 0, ""
    for letter in op_name:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "/" and depth == 0:
            yield part
            part = ""
        else:
            part += letter
    yield part


def _bare(part: str) -> str:
    """A name without the transformations around it."""
    while found := _WRAPPER.match(part):
        part = found[1]
    return part
