"""The public API: what a notebook types, see `sciml_dchag`.

What all tasks share is here; what can be done with a store or a model of a wing is in
`weather.opened` and `plants.opened`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml_dchag.tasks import OPENERS, TASKS, named
from sciml_dchag.tasks import load_recipe as read_recipe

if TYPE_CHECKING:
    import xarray as xr

    from sciml_dchag.config import Recipe
    from sciml_dchag.files.resumable import Progress
    from sciml_dchag.training.evaluation import Evaluation

    PathLike = str | os.PathLike[str]

SAMPLE = "sample:"
"""Begins the name of a recipe or a file that the package carries."""


def open(path: PathLike) -> Any:
    """Open a store, a run, a checkpoint, an exported model or forecasts.

    Args:
        path: what the package has written.

    Returns:
        An object whose representation, in text and in HTML, says what is in it: `WeatherStore`,
        `ForecastModel`, `PlantStore`, `MaskedModel`, or forecasts as a Dataset.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: what is there is damaged, not finished or not known.

    Example:
        >>> sd.open("runs/demo-weather")  # doctest: +SKIP
    """
    from sciml_dchag.files.zarr_groups import partial_path
    from sciml_dchag.training.checkpoint import RECORD
    from sciml_dchag.training.export import SUFFIX, find_model

    place = Path(path)
    if place.suffix == SUFFIX or any(
        (place / name).exists() for name in (RECORD, "checkpoints", "recipe.yaml")
    ):
        saved = find_model(place)
        run = place if (place / "recipe.yaml").is_file() else None
        return _model_class(saved.checkpoint.kind)(saved, run)
    if not place.exists():
        begun = partial_path(place)
        fix = f"{begun} was begun, so repeat what writes it" if begun.exists() else "check the path"
        raise FileNotFoundError(f"There is nothing at {place}: {fix}.")
    for opener in OPENERS:
        if (opened := named(opener)(place)) is not None:
            return opened
    raise ValueError(
        f"{place} is no store, run, checkpoint, exported model or forecast of this package: open "
        f"raw files with xarray, or prepare a store from them."
    )


def load_recipe(path: PathLike, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: a YAML file, or `sample:NAME`, which the package carries: `demo_weather`,
            `demo_plants`, `msl_forecast`, `between_weather` or `coffee_leaves`.
        overrides: changes as on the command line, such as `training.steps=100`; `Recipe.replace`
            takes them as Python values.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown knob (the nearest right one is named), or values that do not fit.
    """
    from sciml_dchag.files.samples import recipe_path

    text = os.fspath(path)
    found = recipe_path(text.removeprefix(SAMPLE)) if text.startswith(SAMPLE) else Path(text)
    return read_recipe(found, overrides)


def sample(name: str) -> Path:
    """Return the file or folder of a sample that the package carries, such as `era5_msl`.

    Raises:
        ValueError: there is no such sample; which there are.
    """
    from sciml_dchag.files.samples import sample_path

    return sample_path(name)


def train(
    recipe: Recipe | PathLike,
    run: PathLike | None = None,
    *,
    resume: bool = True,
    progress: Progress | None = None,
    console: Callable[[str], None] | None = None,
) -> Any:
    """Train a recipe's model, or resume its training, and open the run.

    Args:
        recipe: a recipe or the path of one; its store must be there.
        run: the run folder; None is `runs/NAME`.
        resume: from the last checkpoint of the folder, if there is one.
        progress: called after each optimizer step.
        console: called with each line of the log, such as `print`.

    Returns:
        The run: `ForecastModel` or `MaskedModel`.

    Raises:
        ValueError, OSError: recipe and store do not fit, or the folder holds another run.
        FloatingPointError: the loss is no longer finite.
    """
    from sciml_dchag import pipeline

    loaded = _recipe(recipe)
    folder = Path("runs") / loaded.name if run is None else Path(run)
    pipeline.train(loaded, folder, resume=resume, progress=progress, console=console)
    return open(folder)


def predict(
    model: Any, data: Any, leads: Sequence[int] | None = None, **settings: Any
) -> xr.Dataset:
    """Forecast with a trained model; see `weather.opened.ForecastModel.forecast`.

    Args:
        model: a run, a checkpoint or an exported model, opened or its path.
        data: an initial state as labelled xarray, with the history that the model needs, or a
            weather store or its path.
        leads: lead times in hours; None takes those of the recipe's evaluation.
        settings: further ones of `forecast`, such as `period` and `out`.

    Raises:
        ValueError: a model that does not forecast, or data that it cannot start from.
    """
    opened = _opened(model)
    if not hasattr(opened, "forecast"):
        raise ValueError(
            f"{opened.path} is a {opened.kind}, which does not forecast: use its methods embed and "
            f"reconstruct."
        )
    forecast: xr.Dataset = opened.forecast(data, leads, **settings)
    return forecast


def evaluate(
    run: Any, recipe: Recipe | PathLike | None = None, *, progress: Progress | None = None
) -> Evaluation:
    """Score a run on its test data beside baselines; `to_frame()` of the result is the table.

    Args:
        run: a run, opened or its path.
        recipe: says what is scored; None is the run's own.
        progress: called as the work goes on.

    Raises:
        FileNotFoundError: this is no run folder, or holds no checkpoint.
        ValueError: there are no test data, or they do not fit the model.
    """
    from sciml_dchag import pipeline

    changed = None if recipe is None else _recipe(recipe)
    return pipeline.evaluate(Path(os.fspath(run)), changed, progress=progress)


def from_pretrained(path: PathLike) -> Any:
    """Open a trained model: an exported file, a checkpoint or a run folder.

    Returns:
        `ForecastModel` or `MaskedModel`, to be used on data; the network is its `model`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a damaged file, or one of another kind.

    Example:
        >>> sd.from_pretrained("demo.safetensors").forecast(state, leads=[6])  # doctest: +SKIP
    """
    opened = open(path)
    if not hasattr(opened, "saved"):
        raise ValueError(f"{path} holds no model: name a run, a checkpoint or an exported file.")
    opened.model  # noqa: B018 - loaded now, so that a damaged file is refused here
    return opened


def _model_class(kind: str) -> Any:
    """Return the class of a task's trained models."""
    from sciml_dchag.training.trained import TrainedModel

    entry = TASKS[kind]
    if entry.model:
        return named(entry.model)
    members = {"kind": f"model of task {kind}", "recipe_type": named(entry.recipe)}
    return type("TaskModel", (TrainedModel,), members)


def _opened(thing: Any) -> Any:
    return thing if hasattr(thing, "saved") else open(thing)


def _recipe(recipe: Recipe | PathLike) -> Recipe:
    return load_recipe(recipe) if isinstance(recipe, str | os.PathLike) else recipe
