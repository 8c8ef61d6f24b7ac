"""All steps of a recipe in order: prepare, train, predict, evaluate; finished ones are skipped.

Each step is done by its own package; here is only what follows what, and when a step is finished.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sciml_dchag.config import Recipe, save_recipe, to_mapping
from sciml_dchag.files.resumable import Progress
from sciml_dchag.files.samples import resolve_samples
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.tasks import load_recipe, require_forecast
from sciml_dchag.training.checkpoint import (
    RECORD,
    find_checkpoint,
    last_checkpoint,
    read_checkpoint,
)
from sciml_dchag.training.trainer import train
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.forecast.evaluate import evaluate, shown_rows
from sciml_dchag.weather.forecast.predict import predict_period
from sciml_dchag.weather.forecast.report import read_scores_csv
from sciml_dchag.weather.forecast.training import training_statistics
from sciml_dchag.weather.prepare.era5 import prepare_era5
from sciml_dchag.weather.scores.table import ScoreRow
from sciml_dchag.weather.store.store import Store

if TYPE_CHECKING:
    from sciml_dchag.pipeline_plants import PlantPipelineResult


@dataclass(frozen=True)
class PipelineResult:
    """What a pipeline has left, and the scores to show first."""

    run: Path
    """The run folder."""
    forecasts: Path
    """The forecast store."""
    shown: list[ScoreRow]
    """RMSE and ACC of the first channels."""
    units: dict[str, str]
    """Units by channel."""
    attribution: str
    """Whose the data are."""

    @property
    def paths(self) -> dict[str, Path]:
        """What to look at, by name."""
        evaluation = self.run / "evaluation"
        return {
            "Forecasts": self.forecasts,
            "Scores": evaluation / "scores.csv",
            "Plots": evaluation / "figures",
            "Report": evaluation / "report.html",
        }


def run_recipe(
    recipe: Recipe,
    run: Path,
    *,
    progress: Progress | None = None,
    console: Callable[[str], None] = lambda line: None,
) -> PipelineResult | PlantPipelineResult:
    """Do what a recipe of either task asks for, step by step.

    Raises:
        ValueError, OSError: as the steps do; finished steps stay finished.
    """
    from sciml_dchag.pipeline_plants import run_plant_recipe  # it shares the training with us

    if isinstance(recipe, MaskedRecipe):
        return run_plant_recipe(recipe, run, progress=progress, console=console)
    forecast = require_forecast(recipe, "run")
    return run_weather_recipe(forecast, run, progress=progress, console=console)


def run_weather_recipe(
    recipe: ForecastRecipe,
    run: Path,
    *,
    progress: Progress | None = None,
    console: Callable[[str], None] = lambda line: None,
) -> PipelineResult:
    """Prepare, train, predict and evaluate.

    A step is skipped when what it makes is there and was made from the same settings and the
    same checkpoint.

    Raises:
        ValueError, OSError: as the steps do; finished steps stay finished.
    """
    _prepare(recipe, progress, console)
    train_unless_done(recipe, run, progress, console)
    newest = (find_checkpoint(run) / RECORD).stat().st_mtime
    forecasts = run / "forecasts" / "test.zarr"
    scores = run / "evaluation" / "scores.csv"
    same = _same_evaluation(recipe, run)

    def finished(path: Path) -> bool:
        return same and path.exists() and path.stat().st_mtime >= newest

    if finished(forecasts):
        console(f"predict: {forecasts} is there")
    else:
        console("predict: forecasts from every initial time of the test period")
        predict_period(run, forecasts, recipe=recipe, overwrite=True, progress=progress)
    if finished(scores):
        console(f"evaluate: {scores} is there")
    else:
        console("evaluate: scores beside persistence and climatology")
        evaluate(run, recipe, progress=progress)
    save_recipe(recipe, run / "recipe.yaml")
    rows = read_scores_csv(scores)
    store = Store.open(recipe.data.store)
    units = {row.channel: store.channels[row.channel].units for row in rows}
    return PipelineResult(run, forecasts, shown_rows(rows), units, store.attribution)


def _prepare(
    recipe: ForecastRecipe, progress: Progress | None, console: Callable[[str], None]
) -> None:
    store, prepare = Path(recipe.data.store), recipe.prepare
    if store.exists():
        console(f"prepare: {store} is there")
        training_statistics(Store.open(store), recipe)  # of this training period, or an error
        return
    console(f"prepare: {prepare.grid} degrees, {prepare.method}, into {store}")
    prepare_era5(
        resolve_samples(prepare.sources),
        store,
        channels=prepare.channels,
        grid=prepare.grid,
        method=prepare.method,
        engine=prepare.engine,
        static_sources=prepare.static_sources,
        static=prepare.static,
        period=prepare.period,
        step_hours=prepare.step_hours,
        statistics_period=recipe.data.train,
        climatology=prepare.climatology,
        climatology_window_days=prepare.climatology_window_days,
        allow_missing=prepare.allow_missing,
        progress=progress,
    )


def train_unless_done(
    recipe: Recipe, run: Path, progress: Progress | None, console: Callable[[str], None]
) -> None:
    """Train a recipe's model, unless its run folder holds it, trained to the end."""
    last = last_checkpoint(run / "checkpoints")
    if last is not None:
        checkpoint = read_checkpoint(last)
        wanted = to_mapping(recipe)
        if checkpoint.complete and all(
            checkpoint.recipe[section] == wanted[section]
            for section in ("seed", "data", "model", "task", "training")
        ):
            console(f"train: {last} is there")
            return
    console(f"train: {recipe.training.steps} steps of {recipe.training.batch} samples")
    result = train(recipe, run, progress=progress, console=console)
    console(f"train: {result.steps} steps done, {result.seconds:.0f} s")


def _same_evaluation(recipe: ForecastRecipe, run: Path) -> bool:
    """Say whether the run's recipe, as last completed, asked for the same forecasts and scores."""
    saved = run / "recipe.yaml"
    if not saved.is_file():
        return False
    return require_forecast(load_recipe(saved), "run").evaluation == recipe.evaluation
