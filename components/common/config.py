"""Configuration as frozen dataclasses: read strictly, checked once, said clearly when wrong."""

import contextlib
import copy
import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from components.common.errors import ConfigError

T = TypeVar("T")


_IN_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
# A recipe has about a hundred.
_MAX_VALUES = 100_000


class Range(NamedTuple):
    """A closed range of numbers."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        low, high = (
            f"{number:d}" if isinstance(number, int) else f"{number:g}"
            for number in (self.low, self.high)
        )
        return f"at least {low}" if math.isinf(self.high) else f"{low} to {high}"


def check(name: str, value: float, allowed: Range) -> None:
    """Refuses a number outside a range, infinity and NaN.

    Raises:
        ConfigError: Names the key, what was expected and what was received.
    """
    if not (allowed.low <= value <= allowed.high and math.isfinite(value)):
        raise ConfigError(f"{name}: expected {allowed}, received {_shorten(value)}")


def _shorten(value: Any) -> str:
    """A value as a message shows it, however long it is."""
    return f"{value:g}" if isinstance(value, float) else f"{value!r:.60}"


def choose(name: str, value: str, allowed: typing.Iterable[str]) -> None:
    """Refuses a word that is not one of those allowed.

    Raises:
        ConfigError: Names the key, the words allowed and the one received.
    """
    if value not in allowed:
        raise ConfigError(f"{name}: expected one of {', '.join(allowed)}, received {value!r}")


def build(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Makes a frozen dataclass from plain data, every key and type checked.

    Args:
        cls: A dataclass; its fields may be dataclasses, tuples, and optional. One that comes in
            kinds has a static method `kinds` that gives the dataclass for each `name`.
        values: Plain data as JSON or YAML gives it.
        where: Name of the enclosing key, for messages.

    Raises:
        ConfigError: A key is unknown or missing, or a value has another type or is out of range.
            The message starts with the full key, e.g. `train.epochs`.
    """
    if not isinstance(values, Mapping):
        first = dataclasses.fields(typing.cast(Any, cls))[0].name
        raise ConfigError(
            f"{where or 'configuration'}: expected keys with values, such as {{{first}: ...}}, "
            f"received {_shorten(values)}"
        )
    kinds = cls
    cls = _kind(kinds, values, where)
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, cls))}
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        full = f"{where}.{key}" if where else str(key)
        if key not in fields:
            hint = "" if cls is kinds else _hint_at_kind(where, values["name"])
            raise ConfigError(f"{full}: unknown key; expected one of {', '.join(fields)}{hint}")
        arguments[key] = _convert(hints[key], value, full)
    for name, field in fields.items():
        if is_required(field) and name not in arguments:
            raise ConfigError(
                f"{f'{where}.{name}' if where else name}: missing, and has no default"
            )
    try:
        return cls(**arguments)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}" if where else str(error)) from None


def _kind(cls: type[T], values: Mapping[str, Any], where: str) -> type[T]:
    """The dataclass that `name` chooses, for one that comes in kinds; else `cls` itself."""
    if not hasattr(cls, "kinds"):
        return cls
    kinds: Mapping[str, type[T]] = typing.cast(Any, cls).kinds()
    full = f"{where}.name" if where else "name"
    if "name" not in values:
        raise ConfigError(f"{full}: missing; expected one of {', '.join(kinds)}")
    choose(full, values["name"], tuple(kinds))
    return kinds[values["name"]]


def _hint_at_kind(where: str, name: str) -> str:
    """What to do where a name was changed and the keys of the former kind have stayed."""
    return f"; to change the name, give it all: {where or 'SECTION'}={{name: {name}, ...}}"


def is_required(field: "dataclasses.Field[Any]") -> bool:
    """Whether a field of a dataclass has no default."""
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Turns plain data into a value of type `hint`, or refuses it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {types.UnionType, typing.Union}:
        if value is None and type(None) in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _convert(inner, value, where)
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected keys with values, received {_shorten(value)}")
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    return _convert_scalar(hint, value, where)


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    # KFP hands every number of a struct over as a float, 1.0 for 1 included.
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    if hint is Any:
        return value
    # In Python True is an int, and here it is not.
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ConfigError(f"{where}: expected {_IN_WORDS.get(hint, hint)}, received {_shorten(value)}")


def _convert_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where}: expected a list, received {value!r}")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise ConfigError(f"{where}: expected {len(arguments)} values, received {len(value)}")
    return tuple(
        _convert(hint, item, f"{where}[{index}]")
        for index, (hint, item) in enumerate(zip(arguments, value, strict=True))
    )


class _Loader(yaml.SafeLoader):
    """Safe YAML with the scalars of JSON: 1e-3 is a number, a date is text, a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key in seen:
                raise yaml.MarkedYAMLError(None, None, f"key {key:.60} twice", node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _check_size(content: Any) -> None:
    """Refuses YAML whose references to references are more than anybody could have written.

    Raises:
        ValueError: It would be more than `_MAX_VALUES` values if each reference were written out.
    """
    waiting = [content]
    for _ in range(_MAX_VALUES):
        if not waiting:
            return
        value = waiting.pop()
        if isinstance(value, (list, tuple, set)):
            waiting.extend(value)
        elif isinstance(value, dict):
            waiting.extend(value.values())
    raise ValueError(f"expected at most {_MAX_VALUES} values, received more; write it shorter")


def _parse(text: str) -> Any:
    """Reads YAML, of which JSON is a part.

    Raises:
        ValueError: The text is neither.
    """
    try:
        # What our steps write is JSON, and a YAML reader would take a hundred times as long.
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(text)
        # The loader is a safe one: it makes plain data and no objects.
        content = yaml.load(text, _Loader)  # noqa: S506
        _check_size(content)
        return content
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def read_mapping(text_or_path: str) -> dict[str, Any]:
    """Reads keys and values from a YAML or JSON file, or from text that begins with a brace.

    Raises:
        ConfigError: The file is absent or is not YAML, or it does not hold keys with values.
    """
    is_text = text_or_path.lstrip().startswith("{")
    shown = f"{text_or_path:.80}" if is_text else text_or_path
    try:
        text = text_or_path if is_text else Path(text_or_path).read_text(encoding="utf-8")
        content = _parse(text)
    except OSError as error:
        raise ConfigError(
            f"{shown}: cannot be read ({error.strerror}); expected a YAML or JSON file"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{shown}: not valid YAML or JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{shown}: expected keys with values, received {_shorten(content)}")
    return content


def override(content: dict[str, Any], assignments: typing.Iterable[str]) -> dict[str, Any]:
    """Applies `key.path=value` assignments to nested plain data.

    Values are read as YAML, so `3` is a number and `[1, 2]` a list.

    Args:
        content: Plain data; not changed.
        assignments: e.g. `["train.epochs=5"]`.

    Returns:
        A changed copy. Keys are checked by `build`, which knows them.

    Raises:
        ConfigError: An assignment has no `=`, or its path leads through a plain value.
    """
    result = copy.deepcopy(content)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {assignment}: expected KEY=VALUE, for example train.epochs=5")
        *parents, last = path.split(".")
        node = result
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"--set {assignment}: {parent} is a value and holds no keys")
        try:
            node[last] = _parse(text)
        except ValueError as error:
            raise ConfigError(f"--set {assignment}: {text!r} is not a YAML value") from error
    return result


def to_json(content: Any) -> str:
    """Plain data as JSON text, indented for people; NaN is refused, since JSON has none."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
