"""The tasks by kind, and the recipe that plain values describe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from sciml_dchag.config.common import Recipe
from sciml_dchag.config.mapping import from_mapping
from sciml_dchag.plants.masked.config import (
    MaskedRecipe,
)
from sciml_dchag.weather.forecast.config import (
    ForecastRecipe,
)

RECIPES: dict[str, type[Recipe]] = {"forecast": ForecastRecipe, "masked": MaskedRecipe}
"""Kind of recipe by `task.kind`."""


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply `--set` overrides such as `training.steps=100`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, an unknown key (the nearest right one is named), a value of the
            wrong kind, or values that do not fit together.
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
        raise ValueError(f"{path} is not readable as YAML ({reason}): mend that line.") from error
    if not isinstance(mapping, dict):
        raise ValueError(f"{path} holds a {type(mapping).__name__}, not `key: value` lines.")
    mapping.setdefault("name", path.stem)
    for override in overrides:
        _set(mapping, override)
    return recipe_from_mapping(mapping)


def recipe_from_mapping(mapping: Mapping[str, Any]) -> Recipe:
    """Build the recipe that plain values describe.

    Raises:
        ValueError: an unknown kind of task or key, or values that do not fit.
    """
    task = mapping.get("task")
    kind = task.get("kind", "forecast") if isinstance(task, Mapping) else "forecast"
    if kind not in RECIPES:
        raise ValueError(f"The recipe's task.kind is {kind!r}: it must be {' or '.join(RECIPES)}.")
    return from_mapping(RECIPES[kind], mapping)


def require_forecast(recipe: Recipe, what: str) -> ForecastRecipe:
    """Refuse a recipe of another task where only forecasting is understood.

    Raises:
        ValueError: the recipe's task is another.
    """
    if not isinstance(recipe, ForecastRecipe):
        raise ValueError(
            f"{what} understands forecasters, and {recipe.name} is a recipe of another task: use "
            f"one with task.kind forecast."
        )
    return recipe


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
