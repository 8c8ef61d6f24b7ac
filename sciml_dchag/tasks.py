"""The tasks by kind. Their modules are imported when they are used.

To add one, write its folder in a wing and a line here; CONTRIBUTING.md says how.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml_dchag.config import Recipe, from_mapping, read_mapping
from sciml_dchag.config.mapping import UnknownKeyError, all_keys, shown

if TYPE_CHECKING:
    from sciml_dchag.training.checkpoint import Checkpoint
    from sciml_dchag.training.task import Task


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where a task lives, as `module:name`."""

    recipe: str
    """Its recipe's dataclass; importing it needs no torch."""
    task: str
    """Its `Task`."""
    model: str = ""
    """Its `TrainedModel`: what `sciml_dchag.open` makes of a run; empty for what all have."""


TASKS = {
    "forecast": Entry(
        recipe="sciml_dchag.weather.forecast.config:ForecastRecipe",
        task="sciml_dchag.weather.forecast.task:ForecastTask",
        model="sciml_dchag.weather.opened:ForecastModel",
    ),
    "masked": Entry(
        recipe="sciml_dchag.plants.masked.config:MaskedRecipe",
        task="sciml_dchag.plants.masked.task:MaskedTask",
        model="sciml_dchag.plants.opened:MaskedModel",
    ),
    "masked-weather": Entry(
        recipe="sciml_dchag.weather.masked.config:MaskedWeatherRecipe",
        task="sciml_dchag.weather.masked.task:MaskedWeatherTask",
        model="sciml_dchag.weather.masked.model:MaskedWeatherModel",
    ),
    "interpolate": Entry(
        recipe="sciml_dchag.weather.interpolate.config:InterpolateRecipe",
        task="sciml_dchag.weather.interpolate.task:InterpolateTask",
        model="sciml_dchag.weather.interpolate.model:InterpolateModel",
    ),
    "detect": Entry(
        recipe="sciml_dchag.weather.detect.config:DetectRecipe",
        task="sciml_dchag.weather.detect.task:DetectTask",
        model="sciml_dchag.weather.detect.model:DetectModel",
    ),
    "grade": Entry(
        recipe="sciml_dchag.plants.grade.config:GradeRecipe",
        task="sciml_dchag.plants.grade.task:GradeTask",
        model="sciml_dchag.plants.grade.model:GradeModel",
    ),
    "detect-plants": Entry(
        recipe="sciml_dchag.plants.detect.config:DetectPlantsRecipe",
        task="sciml_dchag.plants.detect.task:DetectPlantsTask",
        model="sciml_dchag.plants.detect.model:DetectPlantsModel",
    ),
}
"""By `task.kind`; a recipe that does not say its kind is the first one's."""

DESCRIBERS = (
    "sciml_dchag.plants.store.summary:describe",
    "sciml_dchag.plants.traits.embeddings:describe",
    "sciml_dchag.plants.traits.index_maps:describe",
    "sciml_dchag.plants.traits.probe:describe",
    "sciml_dchag.plants.read.describing:describe",
    "sciml_dchag.weather.detect.found:describe",
    "sciml_dchag.weather.forecast.describing:describe",
)
"""Functions that `inspect` asks in turn: given a path, each returns facts, or None if not known."""


OPENERS = (
    "sciml_dchag.plants.opened:open_store",
    "sciml_dchag.weather.opened:open_store",
)
"""Functions that `sciml_dchag.open` asks in turn: given a path, each opens it, or returns None."""


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply `--set` overrides such as `training.steps=100`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, an unknown key (the nearest right one is named), a value of the
            wrong kind, or values that do not fit together.
    """
    return recipe_from_mapping(read_mapping(path, overrides))


def recipe_from_mapping(mapping: Mapping[str, Any]) -> Recipe:
    """Build the recipe that plain values describe.

    Raises:
        ValueError: an unknown kind of task or key, or values that do not fit.
    """
    try:
        recipe: Recipe = from_mapping(named(_entry(mapping).recipe), mapping)
    except UnknownKeyError as error:
        others = [kind for kind in TASKS if error.key in all_keys(named(TASKS[kind].recipe))]
        if not others:
            raise
        raise ValueError(
            f"The recipe has the key {error.key!r}, which belongs to task.kind "
            f"{' or '.join(others)}: leave it out, or choose that task."
        ) from error
    return recipe


def task_of(recipe: Recipe) -> Task[Any]:
    """Return the task of a recipe."""
    task: Task[Any] = task_class({"task": {"kind": recipe.kind}})(recipe)
    return task


def task_of_checkpoint(checkpoint: Checkpoint) -> Task[Any]:
    """Return the task that a checkpoint was trained for."""
    return task_of(recipe_from_mapping(checkpoint.recipe))


def task_class(mapping: Mapping[str, Any]) -> type[Task[Any]]:
    """Return the class of the task of a recipe given as plain values."""
    cls: type[Task[Any]] = named(_entry(mapping).task)
    return cls


def _entry(mapping: Mapping[str, Any]) -> Entry:
    section = mapping.get("task")
    default = next(iter(TASKS))
    kind = section.get("kind", default) if isinstance(section, Mapping) else default
    if not isinstance(kind, str) or kind not in TASKS:
        raise ValueError(
            f"The recipe's task.kind is {shown(kind)}: it must be one of {', '.join(TASKS)}."
        )
    return TASKS[kind]


def named(place: str) -> Any:
    """Import what `module:name` says."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
