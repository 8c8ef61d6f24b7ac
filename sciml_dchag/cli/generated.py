"""Options made from a dataclass, so that a knob is declared once.

| field | option |
| --- | --- |
| name `merge_bands` | `--merge-bands` |
| `bool` | a flag; `--no-NAME` where the default is on |
| `Literal` | a choice |
| `tuple[X, ...]` | values separated by commas, or a repeatable option (`knob(repeat=True)`) |
| `tuple[X, Y]` | two values separated by a comma, or one option each (`knob(option=(...))`) |
| the text under it | the help |
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable
from typing import Any, Literal

import click

from sciml_dchag.config.knobs import field_docs
from sciml_dchag.config.mapping import UNIONS


def options_of(section: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options of a dataclass to a command, which takes the dataclass as `config`."""
    kinds, docs = typing.get_type_hints(section), field_docs(section)
    fields = dataclasses.fields(section)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_config(**given: Any) -> Any:
            values = {field.name: _folded(field, given) for field in fields}
            return command(config=section(**values), **given)

        decorated: Callable[..., Any] = with_config
        for field in reversed(fields):
            for add in reversed(_parameters(field, kinds[field.name], docs[field.name])):
                decorated = add(decorated)
        return decorated

    return decorate


def _option_names(field: dataclasses.Field[Any]) -> tuple[str, ...]:
    option = field.metadata.get("option") or field.name.replace("_", "-")
    return option if isinstance(option, tuple) else (option,)


def _folded(field: dataclasses.Field[Any], given: dict[str, Any]) -> Any:
    """Take a field's value out of what click has read."""
    names = _option_names(field)
    if len(names) > 1:
        return tuple(given.pop(_destination(field, name)) for name in names)
    return given.pop(field.name)


def _destination(field: dataclasses.Field[Any], option: str) -> str:
    return f"{field.name}_{option.replace('-', '_')}"


def _parameters(
    field: dataclasses.Field[Any], kind: Any, text: str
) -> list[Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """Make the decorators of one field."""
    names, default = _option_names(field), typing.cast(Any, field.default)
    if field.metadata.get("argument"):
        return [click.argument(field.name, nargs=-1, required=True)]
    text = text.replace("`", "")
    settings: dict[str, Any] = {"help": text, "metavar": field.metadata.get("metavar")}
    if kind is bool and default:
        text = f"Do not {text[0].lower()}{text[1:]}"
    if kind is bool:
        switch = f"--no-{names[0]}" if default else f"--{names[0]}"
        return [click.option(switch, field.name, is_flag=True, flag_value=not default,
                             default=default, help=text)]  # fmt: skip
    kind = _without_none(kind)
    if len(names) > 1:
        first = names[0]
        pairs = zip(names, typing.get_args(kind), default, strict=True)
        return [
            click.option(
                f"--{name}", _destination(field, name), type=_click_type(part), default=value,
                show_default=value is not None, metavar=settings["metavar"],
                help=text if name == first else f"See --{first}.",
            )
            for name, part, value in pairs
        ]  # fmt: skip
    if field.metadata.get("repeat"):
        part = typing.get_args(kind)[0]
        settings["help"] = f"{text} Repeatable."
        return [click.option(f"--{names[0]}", field.name, multiple=True, default=default,
                             type=_click_type(part), **settings)]  # fmt: skip
    shown = default not in (None, (), "")
    return [click.option(f"--{names[0]}", field.name, type=_click_type(kind), default=default,
                         show_default=shown, **settings)]  # fmt: skip


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) in UNIONS:
        return next(a for a in typing.get_args(kind) if a is not type(None))
    return kind


def _click_type(kind: Any) -> Any:
    kind = _without_none(kind)
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return click.Choice(arguments)
    if typing.get_origin(kind) is tuple:
        return _Separated(arguments)
    return kind


class _Separated(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """Values separated by commas: as many as there are kinds, or any number of one kind."""

    name = "list"

    def __init__(self, kinds: tuple[Any, ...]) -> None:
        self.kinds, self.any_number = kinds, kinds[-1] is Ellipsis

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Read `11,2`."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",") if part.strip()]
        kinds = self.kinds[:1] * len(parts) if self.any_number else self.kinds
        try:
            return tuple(kind(part) for kind, part in zip(kinds, parts, strict=True))
        except ValueError:
            number = "values" if self.any_number else f"{len(kinds)} values"
            what = " and ".join(sorted({_WORDS.get(kind, "text") for kind in kinds}))
            self.fail(f"{value!r} is not {number} ({what}) separated by commas.", param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Stand for the value in the help."""
        return "LIST" if self.any_number else ",".join(["VALUE"] * len(self.kinds))


_WORDS = {int: "whole numbers", float: "numbers"}
