"""`run` and `demo`: all steps of a recipe, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sciml_dchag.cli.console import Command, Group, ProgressBar, out, program, show
from sciml_dchag.cli.options import recipe_options, runs_option, set_option

if TYPE_CHECKING:
    from rich.table import Table

    from sciml_dchag.pipeline import PipelineResult
    from sciml_dchag.pipeline_plants import PlantPipelineResult
    from sciml_dchag.plants.masked.config import MaskedRecipe
    from sciml_dchag.weather.forecast.config import ForecastRecipe


@click.command(cls=Command)
@recipe_options
def run(recipe: Path, overrides: tuple[str, ...], runs: Path) -> None:
    """Prepare, train and score RECIPE, of forecasts or of plants, skipping finished steps.

    \b
    Example:
      sciml-dchag run pipelines/demo_weather.yaml
      sciml-dchag run pipelines/demo_plants.yaml
    """
    from sciml_dchag.plants.masked.config import MaskedRecipe
    from sciml_dchag.tasks import load_recipe, require_forecast

    loaded = load_recipe(recipe, overrides)
    if isinstance(loaded, MaskedRecipe):
        _run_plants(loaded, runs)
    else:
        _run(require_forecast(loaded, "run"), runs)


@click.group(cls=Group)
def demo() -> None:
    """Run a whole job on embedded real data, in minutes, without a network."""


@demo.command()
@set_option
@runs_option
def weather(overrides: tuple[str, ...], runs: Path) -> None:
    """Forecast sea level pressure from the embedded month of ERA5.

    \b
    Example:
      sciml-dchag demo weather
    """
    from sciml_dchag.files.samples import recipe_path
    from sciml_dchag.tasks import load_recipe, require_forecast

    recipe = require_forecast(load_recipe(recipe_path("demo_weather"), overrides), "demo weather")
    result = _run(recipe, runs)
    _suggest(
        f"open {result.run / 'evaluation' / 'report.html'} in a browser",
        f"sciml-dchag inspect {result.forecasts}",
        "sciml-dchag demo weather --set name=clima --set model.aggregation=single, then",
        f"sciml-dchag evaluate runs/clima --against {result.run}",
        "pipelines/README.md: 80 simulated channels, and your own ERA5",
    )


@demo.command()
@set_option
@runs_option
def plants(overrides: tuple[str, ...], runs: Path) -> None:
    """Reconstruct the embedded maize kernel, 500 bands, from a quarter of its pixels.

    \b
    Example:
      sciml-dchag demo plants
    """
    from sciml_dchag.files.samples import recipe_path
    from sciml_dchag.plants.masked.config import MaskedRecipe
    from sciml_dchag.tasks import load_recipe

    recipe = load_recipe(recipe_path("demo_plants"), overrides)
    if not isinstance(recipe, MaskedRecipe):
        raise ValueError("--set task.kind makes this another demo: leave it out.")
    result = _run_plants(recipe, runs)
    store = recipe.data.store
    _suggest(
        f"look at {result.run / 'evaluation' / 'figures'}",
        f"sciml-dchag inspect {store}",
        f"sciml-dchag indices {store}",
        f"sciml-dchag embed {result.run} {store}",
        "sciml-dchag simulate poplars raw/poplars --cubes 8, then pipelines/README.md",
    )


def _suggest(*lines: str) -> None:
    show("\n[bold]What to try next[/bold]")
    for line in lines:
        line = line.replace("sciml-dchag ", f"{program()} ")
        out.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _run_plants(recipe: MaskedRecipe, runs: Path) -> PlantPipelineResult:
    from sciml_dchag.pipeline_plants import run_plant_recipe
    from sciml_dchag.plants.masked.evaluate import scores_table

    with ProgressBar() as progress:
        result = run_plant_recipe(recipe, runs / recipe.name, progress=progress, console=_tell)
    _show(scores_table(result.rows), result.attribution, result.paths)
    return result


def _run(recipe: ForecastRecipe, runs: Path) -> PipelineResult:
    from sciml_dchag.pipeline import run_weather_recipe
    from sciml_dchag.weather.forecast.report import scores_table

    with ProgressBar() as progress:
        result = run_weather_recipe(recipe, runs / recipe.name, progress=progress, console=_tell)
    _show(scores_table(result.shown, result.units), result.attribution, result.paths)
    return result


def _tell(line: str) -> None:
    out.print(line, highlight=False, markup=False)


def _show(scores: Table, attribution: str, paths: dict[str, Path]) -> None:
    out.print()
    show(scores)
    out.print(attribution, style="dim")
    for name, path in paths.items():
        out.print(f"{name:<10} {path}", highlight=False, soft_wrap=True)
