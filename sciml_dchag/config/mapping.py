"""Dataclasses to plain values and back, every key and kind checked."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import os
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

Section = TypeVar("Section")

UNIONS = (types.UnionType, typing.Union)
"""What `X | None` is: the second where X is a `Literal`."""


def to_mapping(section: Any) -> dict[str, Any]:
    """Turn a section into plain dicts, lists and scalars."""
    return {f.name: _plain(getattr(section, f.name)) for f in dataclasses.fields(section)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def from_mapping(section: type[Section], mapping: Mapping[str, Any], where: str = "") -> Section:
    """Build a section from plain values, checking every key and kind.

    Raises:
        ValueError: an unknown key or a value of the wrong kind.
    """
    kinds = typing.get_type_hints(section)
    unknown = [key for key in mapping if key not in kinds]
    if unknown:
        raise ValueError(_unknown_key(where + str(unknown[0]), [where + kind for kind in kinds]))
    values = {key: _convert(kinds[key], value, where + key) for key, value in mapping.items()}
    return section(**values)


def changed(section: Section, changes: Mapping[str, Any]) -> Section:
    """Return a section with some values changed, those of nested sections given as mappings.

    Raises:
        ValueError: an unknown key or a value of the wrong kind.
    """
    return from_mapping(type(section), _merged(to_mapping(section), changes))


def _merged(mapping: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(mapping)
    for key, value in changes.items():
        new = _plain(value)
        both = isinstance(new, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], new) if both else new
    return merged


def _unknown_key(key: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(known)}."
    return f"The recipe has an unknown key {key!r}: {hint}"


def _convert(kind: Any, value: Any, key: str) -> Any:
    """Convert a YAML value to a field's type, or say what is needed."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return from_mapping(typing.cast(type, kind), value, where=f"{key}.")
    if origin in UNIONS:
        if value in (None, "") and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, key)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple:
        values = value.split(",") if isinstance(value, str) else value
        values = values if isinstance(values, list | tuple) else [values]
        if arguments[-1] is Ellipsis:
            return tuple(_convert(arguments[0], v, key) for v in values)
        if len(values) == len(arguments):
            pairs = zip(arguments, values, strict=True)
            return tuple(_convert(argument, v, key) for argument, v in pairs)
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:  # YAML 1.1 reads 2e-5 as text
            return float(value)
        except ValueError:
            pass
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value).strip()
    if kind is str and isinstance(value, os.PathLike):  # from Python; YAML has none
        return str(os.fspath(value))
    if kind is str and isinstance(value, datetime.date):  # YAML reads 2016-01-01 as a date
        return str(value.isoformat())
    raise ValueError(f"The recipe's {key} is {value!r}: it must be {describe_kind(kind)}.")


def describe_kind(kind: Any) -> str:
    """Say what a field takes."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if typing.get_origin(kind) is tuple and arguments[-1] is Ellipsis:
        return f"a list of {describe_kind(arguments[0])}"
    if typing.get_origin(kind) is tuple:
        return f"a list of {len(arguments)} ({', '.join(map(describe_kind, arguments))})"
    if typing.get_origin(kind) in UNIONS:
        return " or ".join("null" if a is type(None) else describe_kind(a) for a in arguments)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(kind, "a section of `key: value` lines")
