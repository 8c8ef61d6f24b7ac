"""Dataclasses to plain values and back, every key and kind checked."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import os
import reprlib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
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


class UnknownKeyError(ValueError):
    """A key that a recipe does not have."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def from_mapping(
    section: type[Section], mapping: Mapping[str, Any], where: str = "", whole: type | None = None
) -> Section:
    """Build a section from plain values, checking every key and kind.

    Args:
        section: its dataclass.
        mapping: the values by key.
        where: the section's key with a dot, for messages; empty for what is not a section.
        whole: the dataclass that the section is a part of, whose keys a message may suggest.

    Raises:
        ValueError: an unknown key or a value of the wrong kind.
    """
    kinds, whole = typing.get_type_hints(section), whole or section
    unknown = [key for key in mapping if key not in kinds]
    if unknown:
        name = unknown[0] if isinstance(unknown[0], str) else shown(unknown[0])
        own = [where + kind for kind in kinds]
        key = (where + name)[:120]
        raise UnknownKeyError(key, unknown_key(key, own, list(all_keys(whole))))
    values = {
        key: _convert(kinds[key], value, where + key, whole) for key, value in mapping.items()
    }
    return section(**values)


def from_keywords(section: type[Section], values: Mapping[str, Any]) -> Section:
    """Build a section from a Python caller's keyword arguments, their kinds checked.

    Raises:
        TypeError: an unknown name, as of any function.
        ValueError: a value of the wrong kind.
    """
    kinds = typing.get_type_hints(section)
    converted = {
        key: of_kind(kinds[key], value, key) if key in kinds else value
        for key, value in values.items()
    }
    return section(**converted)


def of_kind(kind: Any, value: Any, name: str) -> Any:
    """Return a Python caller's argument as its annotation says it.

    Raises:
        ValueError: it is of another kind.
    """
    return _convert(kind, _as_in_yaml(value), name, type(None))


def _as_in_yaml(value: Any) -> Any:
    """Turn numbers, times and arrays of NumPy, and whatever can be iterated over, into Python's."""
    if hasattr(value, "dtype") and not getattr(value, "ndim", 1):
        return str(value) if value.dtype.kind == "M" else value.item()
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        return value
    return [_as_in_yaml(each) for each in value]


def all_keys(section: type, where: str = "") -> Iterator[str]:
    """Yield the dotted keys of a section and of the sections in it."""
    for name, kind in typing.get_type_hints(section).items():
        if dataclasses.is_dataclass(kind):
            yield from all_keys(typing.cast(type, kind), f"{where}{name}.")
        else:
            yield where + name


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


SYNONYMS = {
    "batch_size": "batch", "bands": "wavelengths", "channel": "channels", "cuda": "device",
    "dim": "embed_dim", "epochs": "steps", "ema": "ema_decay", "grad_clip": "clip_norm",
    "gradient_clip": "clip_norm", "hidden_dim": "embed_dim", "iterations": "steps",
    "layers": "depth", "leads": "lead_hours", "lead_time": "lead_hours",
    "lead_times": "lead_hours", "levels": "channels", "lr": "learning_rate",
    "lr_min": "final_learning_rate", "max_steps": "steps", "num_heads": "heads",
    "num_layers": "depth", "num_workers": "workers", "patch_size": "patch", "resolution": "grid",
    "val": "validation", "variables": "channels", "warmup": "warmup_steps", "wd": "weight_decay",
    "years": "period",
}  # fmt: skip
"""What other packages call knobs of ours."""


def unknown_key(key: str, own: list[str], everywhere: list[str]) -> str:
    """Say that a key is unknown, and which is meant by its meaning, its place or its letters.

    Args:
        key: the unknown one, dotted.
        own: keys of the section where it stands.
        everywhere: keys of the whole recipe.
    """
    name = key.rpartition(".")[2]
    meant = (SYNONYMS.get(name.lower(), name), name)
    by_meaning = [k for want in meant for k in (*own, *everywhere) if k.rpartition(".")[2] == want]
    nearest = by_meaning[:1] or difflib.get_close_matches(key, own, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(own)}."
    return f"The recipe has an unknown key {key!r}: {hint}"


def _convert(kind: Any, value: Any, key: str, whole: type) -> Any:
    """Convert a YAML value to a field's type, or say what is needed."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return from_mapping(typing.cast(type, kind), value, f"{key}.", whole)
    if origin in UNIONS:
        if value in (None, "") and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, key, whole)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple:
        values = value.split(",") if isinstance(value, str) else value
        values = values if isinstance(values, list | tuple) else [values]
        if arguments[-1] is Ellipsis:
            return tuple(_convert(arguments[0], v, key, whole) for v in values)
        if len(values) == len(arguments):
            pairs = zip(arguments, values, strict=True)
            return tuple(_convert(argument, v, key, whole) for argument, v in pairs)
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:  # YAML 1.1 reads 2e-5 as text
            return float(value)
        except (ValueError, OverflowError):
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
    raise ValueError(f"{key} is {shown(value)}: it must be {describe_kind(kind)}.")


def shown(value: Any) -> str:
    """A value for a message, cut to a line however much it holds."""
    cut = reprlib.Repr()
    cut.maxstring, cut.maxother, cut.maxlong = 60, 60, 40
    text = cut.repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


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
