"""Every key of a recipe as a page, made of the dataclasses as flags and their help are.

`make reference` writes docs/recipes.md.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from components.common.cli import field_texts
from components.common.config import is_required
from pipelines.recipe import Recipe

_INTRODUCTION = """\
# Recipes

A recipe is a YAML file with the sections below; those of the project are in
[pipelines/recipes/](../pipelines/recipes), and `--recipe FILE` takes one of yours. `--set` changes
a key, and what has a `name` is given as a whole where the name changes, for its other keys go with
it:

```console
$ flowers run --set train.epochs=5 --set train.policy.crop_area=0.4
$ flowers run --set 'train.optimizer={name: sgd, momentum: 0.9}'
```

A key that does not exist, a value out of range, and what model and training cannot do together are
refused before anything starts. This page is made of the code by `make reference`.

**A recipe of your own** begins as a copy of the one that is nearest. `ingest`, `augment`, `model`,
`train` and `gate` must be there, if only as `ingest: {}`; `deploy` and `export` may be left out:

```console
$ cp pipelines/recipes/squeezenet.yaml my-recipe.yaml
$ flowers run --images photos --recipe my-recipe.yaml
```

**Another backbone** takes other sizes, rates and a number of epochs of its own, so start from a
recipe that has it, such as `--recipe mobilenet_v2`, and not from `--set model=...`. ImageNet
weights (`weights: imagenet`) are published for `mobilenet_v2` and `xception` only; weights of your
own fit every architecture. A new architecture is a dataclass and its entry in
`components/train_model/architectures.py`, and a module and its entry in
`components/train_model/models/`; `tests/components/train_model/test_models.py` wants a small one.
"""


def reference() -> str:
    """The page, as Markdown."""
    hints, shown = typing.get_type_hints(Recipe), dict[type, str]()
    sections = [
        part
        for field in dataclasses.fields(Recipe)
        for part in _section(field.name, hints[field.name], "##", shown)
    ]
    return "\n".join([_INTRODUCTION, *sections])


def _section(key: str, cls: type, level: str, shown: dict[type, str]) -> Iterator[str]:
    """A dataclass: its keys, then the kinds it comes in, then the dataclasses in it.

    Args:
        key: Where it stands in a recipe.
        cls: The dataclass.
        level: What a heading of its level begins with.
        shown: Dataclasses that the page has already, and where.
    """
    yield f"{level} `{key}`\n"
    yield f"{_summary(cls)}\n"
    if cls in shown:
        yield f"The keys are those of `{shown[cls]}`.\n"
        return
    shown[cls] = key
    yield _table(cls, ())
    common = _names(cls)
    for kind, names in _kinds(cls).items():
        yield f"{level}# `{key}` with `name: {'` or `'.join(names)}`\n"
        yield f"{_summary(kind)}\n"
        if own := _table(kind, common):
            yield own
    for name, inner in _inner(cls):
        yield from _section(f"{key}.{name}", inner, f"{level}#", shown)


def _kinds(cls: type) -> dict[type, list[str]]:
    """Names by the dataclass that they choose; two names may choose one."""
    found: dict[type, list[str]] = {}
    if hasattr(cls, "kinds"):
        kinds: Mapping[str, type] = typing.cast(Any, cls).kinds()
        for name, kind in kinds.items():
            found.setdefault(kind, []).append(name)
    return found


def _inner(cls: type) -> Iterator[tuple[str, type]]:
    """Fields that are dataclasses themselves, optional or not."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(typing.cast(Any, cls)):
        hint = hints[field.name]
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        for option in options:
            if dataclasses.is_dataclass(option):
                yield field.name, typing.cast(type, option)


def _table(cls: type, but: tuple[str, ...]) -> str:
    """The keys of a dataclass but some; empty where no key is left."""
    texts = {name: text for one in reversed(cls.__mro__) for name, text in field_texts(one).items()}
    rows = [
        f"| `{field.name}` | {_default(field)} | {_in_a_cell(texts[field.name])} |"
        for field in dataclasses.fields(typing.cast(Any, cls))
        if field.name not in but
    ]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows, ""]) if rows else ""


def _names(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(typing.cast(Any, cls)))


def _default(field: "dataclasses.Field[Any]") -> str:
    if is_required(field):
        return ""
    factory: Any = field.default_factory
    value = factory() if field.default is dataclasses.MISSING else field.default
    if dataclasses.is_dataclass(value):
        name = getattr(value, "name", "")
        return f"`{{name: {name}}}`" if name else "see below"
    if value is None:
        return "none"
    if value in {"", ()}:
        return "empty"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _summary(cls: type) -> str:
    """The first paragraph of a docstring."""
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())


def _in_a_cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")
