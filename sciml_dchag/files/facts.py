"""What an object holds, as facts for people: its representation in text and in HTML."""

from __future__ import annotations

import abc
import html
from collections.abc import Mapping
from typing import Any

MOST = 24
"""Items of a list that are shown."""


class Described(abc.ABC):
    """An object whose representation says what is in it."""

    @abc.abstractmethod
    def facts(self) -> dict[str, Any]:
        """What it holds, by what it is; `kind` says what the object is."""

    def __repr__(self) -> str:
        facts = dict(self.facts())
        width = max(map(len, facts))
        lines = [f"  {name:<{width}}  {in_text(value)}" for name, value in facts.items()]
        return "\n".join([f"<{type(self).__name__}>", *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(in_text(value))}</td></tr>"
            for name, value in self.facts().items()
        )
        return f"<table><caption>{html.escape(type(self).__name__)}</caption>{rows}</table>"


def in_text(value: Any) -> str:
    """Write a fact in a line; long lists are cut."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {in_text(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        shown = [str(one) for one in value[:MOST]]
        more = [f"... ({len(value)} in all)"] if len(value) > MOST else []
        return ", ".join([*shown, *more])
    return str(value)
