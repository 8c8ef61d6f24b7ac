"""A run's recipe: frozen dataclasses, read from YAML and `--set key=value`, checked at once.

Every field is a knob that a recipe may set; the text under it is its documentation. Checks that
need data (does the store hold this channel?) are made by `sciml-dchag check`, not here. What kind
of recipe it is follows from `task.kind`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from sciml_dchag.config.common import Recipe, TrainingConfig
from sciml_dchag.config.mapping import from_mapping, to_mapping
from sciml_dchag.plants.masked.config import (
    CubesConfig,
    MaskedConfig,
    MaskedRecipe,
    PreparePlantsConfig,
    ReconstructionConfig,
)
from sciml_dchag.weather.forecast.config import (
    DataConfig,
    EvaluationConfig,
    ForecastConfig,
    ForecastRecipe,
    Period,
    PrepareConfig,
)

__all__ = [
    "CubesConfig",
    "DataConfig",
    "EvaluationConfig",
    "ForecastConfig",
    "ForecastRecipe",
    "MaskedConfig",
    "MaskedRecipe",
    "Period",
    "PrepareConfig",
    "PreparePlantsConfig",
    "Recipe",
    "ReconstructionConfig",
    "TrainingConfig",
    "from_mapping",
    "load_recipe",
    "recipe_from_mapping",
    "require_forecast",
    "save_recipe",
    "to_mapping",
]


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe so that `load_recipe` reads the same one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(yaml.safe_dump(to_mapping(recipe), sort_keys=False), encoding="utf-8")
    partial.replace(path)
