"""Write `docs/recipe_reference.md`, every knob of every recipe, from the recipes' dataclasses.

    python docs/recipe_reference.py

A test holds that the page is what this makes.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path

from sciml_dchag.config import Recipe
from sciml_dchag.config.knobs import field_docs
from sciml_dchag.config.mapping import describe_kind
from sciml_dchag.config.new_recipe import as_yaml
from sciml_dchag.tasks import TASKS, named

PAGE = Path(__file__).with_suffix(".md")


def reference() -> str:
    """Return the page."""
    lines = [
        "# Recipe reference",
        "",
        "Every knob that a recipe can set, in YAML or with `--set KEY=VALUE`. Made from recipes'",
        "dataclasses by `python docs/recipe_reference.py`: change the text under a field, not this",
        "page.",
        "",
        "## Every recipe",
        "",
        *_table(Recipe, skip={"data", "task"}),
    ]
    for kind, entry in TASKS.items():
        recipe = named(entry.recipe)
        doc = (recipe.__doc__ or "").splitlines()[0]
        common = {field.name for field in dataclasses.fields(Recipe)} - {"data", "task"}
        lines += ["", f"## `task.kind: {kind}`", "", doc, "", *_table(recipe, skip=common)]
    return "\n".join(lines) + "\n"


def _table(section: type, skip: set[str]) -> list[str]:
    rows = [f"| {' | '.join(cells)} |" for cells in _rows(section, "", skip)]
    return ["| knob | value | default | meaning |", "| --- | --- | --- | --- |", *rows]


def _rows(section: type, prefix: str, skip: set[str]) -> Iterator[tuple[str, str, str, str]]:
    kinds, docs = typing.get_type_hints(section), field_docs(section)
    for field in dataclasses.fields(section):
        if field.name in skip:
            continue
        kind = kinds[field.name]
        if dataclasses.is_dataclass(kind):
            yield from _rows(typing.cast(type, kind), f"{prefix}{field.name}.", set())
            continue
        text = docs[field.name].replace("|", "\\|")
        inner = typing.get_args(kind)[:1]
        if inner and dataclasses.is_dataclass(inner[0]):
            yield f"`{prefix}{field.name}`", "a list of sections", "`[]`", docs[field.name]
            yield from _rows(typing.cast(type, inner[0]), f"{prefix}{field.name}[].", set())
            continue
        shown = f"`{as_yaml(field.default)}`" if field.default is not dataclasses.MISSING else ""
        yield f"`{prefix}{field.name}`", describe_kind(kind).replace("|", "\\|"), shown, text


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
