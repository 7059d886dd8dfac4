"""Command lines made from configuration, so that a flag and its help are written once."""

import dataclasses
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import docstring_parser

from components.common.config import build, is_required, read_mapping
from components.common.errors import FlowersError, UserError
from components.common.resources import lacking_resource

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])
_SCALARS: dict[type, click.ParamType[Any]] = {
    int: click.INT,
    float: click.FLOAT,
    str: click.STRING,
    bool: click.BOOL,
}
# A path that a step reads; it says itself what it expected when the path is not right.
PATH = click.Path(path_type=Path)


def config_options(cls: type, **defaults: Any) -> Callable[[Function], Function]:
    """Adds a flag for every field of a configuration to a command.

    Fields that are numbers or text are flags of that kind. Fields with an inner structure take a
    YAML or JSON file, or JSON text. Help texts are those of the docstring's `Attributes`.

    Args:
        cls: The dataclass.
        defaults: Defaults of this command, for fields that have another or none.
    """
    options = list(_options(cls, defaults))

    def decorate(function: Function) -> Function:
        parameters = getattr(function, "__click_params__", [])
        # Click reads this list from its end, as it does for stacked decorators.
        function.__click_params__ = [*parameters, *reversed(options)]  # type: ignore[attr-defined]
        return function

    return decorate


def _options(cls: type, defaults: dict[str, Any]) -> typing.Iterator[click.Option]:
    hints, texts = typing.get_type_hints(cls), field_texts(cls)
    for field in dataclasses.fields(typing.cast(Any, cls)):
        kind = _SCALARS.get(hints[field.name])
        yield click.Option(
            [flag(field.name)],
            type=kind,
            # Left out means the default of the dataclass, where there is one.
            required=is_required(field) and field.name not in defaults,
            metavar=None if kind else "FILE|JSON",
            help=texts[field.name] + _shown_default(defaults.get(field.name, field.default)),
            **{"default": defaults[field.name]} if field.name in defaults else {},
        )


def field_texts(cls: type) -> dict[str, str]:
    """What the `Attributes` of a dataclass's own docstring say of each."""
    return {
        parameter.arg_name: " ".join((parameter.description or "").split())
        for parameter in docstring_parser.parse(cls.__doc__ or "").params
    }


def _shown_default(default: Any) -> str:
    shown = isinstance(default, (int, float, str)) and default != ""
    return f"  [{default}]" if shown else ""


def flag(name: str) -> str:
    """The flag of a parameter, e.g. `--image-size` of `image_size`."""
    return "--" + name.replace("_", "-")


def take_config(
    cls: type[T], arguments: dict[str, Any], section: Mapping[str, Any] | None = None
) -> T:
    """Takes the flags that `config_options` added out of a command's arguments.

    Args:
        cls: The dataclass.
        arguments: Those of the command; the flags are taken out.
        section: Values of a recipe, for flags that are not given.

    Raises:
        ConfigError: A value is wrong.
    """
    hints = typing.get_type_hints(cls)
    values = dict(section or {})
    for field in dataclasses.fields(typing.cast(Any, cls)):
        value = arguments.pop(field.name)
        if value is not None:
            values[field.name] = value if hints[field.name] in _SCALARS else read_mapping(value)
    return build(cls, values)


def run_cli(command: click.Command, arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command; a wrong flag or a known error is one line and its exit code."""
    name = command.name or "flowers"
    try:
        result = command.main(arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.ctx.get_help() if error.ctx else error.message)
        sys.exit(0)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else name
        _fail(f"{path}: {error.format_message()} See {path} --help.", error.exit_code)
    except click.ClickException as error:
        _fail(f"{name}: {error.format_message()}", error.exit_code)
    except click.Abort:
        _fail(f"{name}: interrupted", 130)
    except FlowersError as error:
        _fail(f"{name}: {' '.join(str(error).split())}", error.exit_code)
    except (OSError, MemoryError) as error:
        said = lacking_resource(error)
        if not said:
            raise
        _fail(f"{name}: {said}", UserError.exit_code)
    sys.exit(result if isinstance(result, int) else 0)


def _fail(message: str, exit_code: int) -> NoReturn:
    print(message, file=sys.stderr, flush=True)
    sys.exit(exit_code)
