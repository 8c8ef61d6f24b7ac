"""A run's recipe: frozen dataclasses, read from YAML and `--set key=value`, checked at once.

Every field is a knob that a recipe may set; the text under it is its documentation. Checks that
need data (does the store hold this channel?) are made by `sciml-dchag check`, not here. What a
task adds to these sections is in its own `config` module; `sciml_dchag.tasks` finds it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from sciml_dchag.config.common import Recipe, StoreConfig, TrainingConfig
from sciml_dchag.config.mapping import from_mapping, to_mapping

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
        mapping = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not readable as YAML ({reason}): fix that line.") from error
    if not isinstance(mapping, dict):
        raise ValueError(f"{path} holds a {type(mapping).__name__}, not `key: value` lines.")
    mapping.setdefault("name", path.stem)
    for override in overrides:
        _set(mapping, override)
    return mapping


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe so that `load_recipe` reads the same one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(yaml.safe_dump(to_mapping(recipe), sort_keys=False), encoding="utf-8")
    partial.replace(path)


def _set(mapping: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *parents, last = key.strip().split(".")
    if not equals or not last:
        raise ValueError(f"--set {override!r} is not KEY=VALUE: write, say, training.steps=100.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {override!r} has a value that is not YAML: quote it.") from error
    for parent in parents:
        mapping = mapping.setdefault(parent, {})
        if not isinstance(mapping, dict):
            raise ValueError(f"--set {override!r}: {parent!r} is no section of the recipe.")
    mapping[last] = value
