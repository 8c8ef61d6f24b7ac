"""A run's recipe: frozen dataclasses, read from YAML and `--set key=value`, checked at once.

Every field is a knob that a recipe may set; the text under it is its documentation. Checks that
need data (does the store hold this channel?) are made by `sciml-dchag check`, not here. What a
task adds to these sections is in its own `config` module; `sciml_dchag.tasks` finds it.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from sciml_dchag.config.common import Recipe, StoreConfig, TrainingConfig
from sciml_dchag.config.mapping import from_mapping, shown, to_mapping

__all__ = [
    "Recipe",
    "StoreConfig",
    "TrainingConfig",
    "from_mapping",
    "read_mapping",
    "save_recipe",
    "to_mapping",
]


def read_mapping(path: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Read a recipe's plain values and apply `--set` overrides such as `training.steps=100`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, or an override that is not KEY=VALUE.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no recipe {str(path)!r}: name a YAML file, such as one in pipelines/."
        )
    try:
        text = path.read_text(encoding="utf-8")
        mapping = _values(text) or {}
    except UNREADABLE as error:
        raise ValueError(
            f"{path} is not readable as YAML ({_reason(error)}): fix that line."
        ) from error
    if text.startswith(SAVED) and not text.rstrip().endswith("\n..."):
        raise ValueError(
            f"{path} is cut short, as its last line is not `...`: copy it again, or give the "
            f"recipe that the run was trained with."
        )
    if not isinstance(mapping, dict):
        raise ValueError(f"{path} holds a {type(mapping).__name__}, not `key: value` lines.")
    mapping.setdefault("name", path.stem)
    for override in overrides:
        _set(mapping, override)
    try:
        os.fsencode(repr(mapping))
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{path} has {error.object[error.start : error.end][:20]!a}, which file names cannot "
            f"have here, as Python's encoding is {error.encoding}: set PYTHONUTF8=1."
        ) from error
    return mapping


SAVED = "# A recipe as a run keeps it; it ends with a line `...`."
"""First line of a recipe that was saved, whose defaults must not stand for what was lost."""
MOST_VALUES = 100_000
"""Most values of a recipe, aliases unfolded."""
UNREADABLE = (yaml.YAMLError, ValueError, RecursionError)
"""What YAML's reader raises: a date of month 13 and a number of 5,000 digits are a ValueError."""


def _values(text: str) -> Any:
    """Read YAML as plain values, none of them larger than a recipe is."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _unfolded(node, {}) > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES} values")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _unfolded(node: yaml.Node, sizes: dict[int, float]) -> float:
    """Count the values of a node, those of an alias wherever it is used; a cycle has no end."""
    if id(node) not in sizes:
        sizes[id(node)] = math.inf  # met again before it is known: it holds itself
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = itertools.chain.from_iterable(
            child if isinstance(child, tuple) else (child,) for child in children
        )
        sizes[id(node)] = 1 + sum(_unfolded(child, sizes) for child in flat)
    return sizes[id(node)]


def _reason(error: BaseException) -> str:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return " ".join(reason.split())[:200]


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe so that `load_recipe` reads the same one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    text = yaml.safe_dump(to_mapping(recipe), sort_keys=False, explicit_end=True)
    partial.write_text(f"{SAVED}\n{text}", encoding="utf-8")
    partial.replace(path)


def _set(mapping: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *parents, last = key.strip().split(".")
    if not equals or not last:
        raise ValueError(
            f"--set {shown(override)} is not KEY=VALUE: write, say, training.steps=100."
        )
    try:
        value = _values(text)
    except UNREADABLE as error:
        raise ValueError(
            f"--set {shown(override)} has a value that is not YAML ({_reason(error)}): quote it."
        ) from error
    for parent in parents:
        mapping = mapping.setdefault(parent, {})
        if not isinstance(mapping, dict):
            raise ValueError(f"--set {shown(override)}: {parent!r} is no section of the recipe.")
    mapping[last] = value
