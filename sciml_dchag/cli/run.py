"""`run` and `demo`: all steps of a recipe, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sciml_dchag.cli.console import Command, Group, ProgressBar, out
from sciml_dchag.cli.options import recipe_options

if TYPE_CHECKING:
    from sciml_dchag.config import ForecastRecipe
    from sciml_dchag.pipeline import PipelineResult


@click.command(cls=Command)
@recipe_options
def run(recipe: Path, overrides: tuple[str, ...], runs: Path) -> None:
    """Prepare, train, predict and evaluate RECIPE, skipping steps that are finished.

    \b
    Example:
      sciml-dchag run pipelines/demo_weather.yaml
    """
    from sciml_dchag.config import load_recipe, require_forecast

    _run(require_forecast(load_recipe(recipe, overrides), "run"), runs)


@click.group(cls=Group)
def demo() -> None:
    """Run a whole job on embedded real data, in minutes, without a network."""


@demo.command()
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a knob of the demo's recipe; repeatable.",
)
@click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Folder of run folders.",
)
def weather(overrides: tuple[str, ...], runs: Path) -> None:
    """Forecast sea level pressure from the embedded month of ERA5.

    \b
    Example:
      sciml-dchag demo weather
    """
    from sciml_dchag.config import load_recipe, require_forecast
    from sciml_dchag.data.samples import recipe_path

    recipe = require_forecast(load_recipe(recipe_path("demo_weather"), overrides), "demo weather")
    result = _run(recipe, runs)
    out.print("\n[bold]What to try next[/bold]")
    for line in (
        f"open {result.run / 'evaluation' / 'report.html'} in a browser",
        f"sciml-dchag inspect {result.forecasts}",
        "sciml-dchag demo weather --set name=clima --set model.aggregation=single, then",
        f"sciml-dchag evaluate runs/clima --against {result.run}",
        "pipelines/README.md: 80 simulated channels, and your own ERA5",
    ):
        out.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _run(recipe: ForecastRecipe, runs: Path) -> PipelineResult:
    from sciml_dchag.evaluation.report import scores_table
    from sciml_dchag.pipeline import run_recipe

    with ProgressBar() as progress:
        result = run_recipe(
            recipe,
            runs / recipe.name,
            progress=progress,
            console=lambda line: out.print(line, highlight=False, markup=False),
        )
    out.print()
    out.print(scores_table(result.shown, result.units))
    out.print(result.attribution, style="dim")
    for name, path in result.paths.items():
        out.print(f"{name:<10} {path}", highlight=False, soft_wrap=True)
    return result
