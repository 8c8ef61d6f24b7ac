"""A new recipe as YAML: every knob of a task with its meaning and default, to be changed."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from sciml_dchag.config.knobs import field_docs

FROM_DATA = "filled in from the data."
"""Ends the text of knobs that no recipe sets."""


def commented_recipe(recipe: type, values: Mapping[str, Any]) -> str:
    """Return a recipe's YAML with the text of each knob as a comment above it.

    Args:
        recipe: the recipe's dataclass.
        values: what differs from the defaults, by dotted key, such as `data.store`.
    """
    whole = recipe(name=values.get("name", "NAME"))
    title = (recipe.__doc__ or "").splitlines()[0]
    return "\n".join([f"# {title}", *_lines(whole, "", values)]) + "\n"


def as_yaml(default: Any) -> str:
    """Return a default as YAML on one line."""
    plain = list(default) if isinstance(default, tuple) else default
    text = yaml.safe_dump(plain, default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")


def _lines(section: Any, prefix: str, values: Mapping[str, Any]) -> Iterator[str]:
    docs = field_docs(section.__class__)
    indent = "  " * prefix.count(".")
    for field in dataclasses.fields(section):
        key = prefix + field.name
        text = docs[field.name]
        if text.endswith(FROM_DATA):
            continue
        default = getattr(section, field.name)
        if dataclasses.is_dataclass(default):
            yield from ("", f"{indent}{field.name}:")
            yield from _lines(default, f"{key}.", values)
            continue
        yield from textwrap.wrap(
            text, 98, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        yield f"{indent}{field.name}: {as_yaml(values.get(key, default))}"
