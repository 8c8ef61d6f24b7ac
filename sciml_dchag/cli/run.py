"""`run` and `demo`: all steps of a recipe, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sciml_dchag.cli.console import Command, Group, ProgressBar, out, program, say, show
from sciml_dchag.cli.learn import show_evaluation
from sciml_dchag.cli.options import recipe_options, runs_option, set_option

if TYPE_CHECKING:
    from sciml_dchag.config import Recipe


@click.command(cls=Command)
@recipe_options
def run(recipe: Path, overrides: tuple[str, ...], runs: Path) -> None:
    """Prepare, train and score RECIPE, of whatever task, skipping finished steps.

    \b
    Example:
      sciml-dchag run pipelines/demo_weather.yaml
      sciml-dchag run pipelines/demo_plants.yaml
    """
    from sciml_dchag.tasks import load_recipe

    _run(load_recipe(recipe, overrides), runs)


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
    _, run = _demo("demo_weather", overrides, runs)
    _suggest(
        f"open {run / 'evaluation' / 'report.html'} in a browser",
        f"sciml-dchag inspect {run / 'forecasts' / 'test.zarr'}",
        "sciml-dchag demo weather --set name=clima --set model.aggregation=single, then",
        f"sciml-dchag evaluate runs/clima --against {run}",
        "docs/recipes.md: 80 simulated channels, and your own ERA5",
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
    recipe, run = _demo("demo_plants", overrides, runs)
    store = recipe.data.store
    _suggest(
        f"open {run / 'evaluation' / 'report.html'} in a browser",
        f"sciml-dchag inspect {store}",
        f"sciml-dchag indices {store}",
        f"sciml-dchag embed {run} {store}",
        "sciml-dchag simulate poplars raw/poplars --cubes 8, then docs/recipes.md",
    )


def _demo(name: str, overrides: tuple[str, ...], runs: Path) -> tuple[Recipe, Path]:
    from sciml_dchag.files.samples import recipe_path
    from sciml_dchag.tasks import load_recipe

    plain = load_recipe(recipe_path(name))
    recipe = load_recipe(recipe_path(name), overrides)
    if recipe.kind != plain.kind:
        raise ValueError("--set task.kind makes this another demo: leave it out.")
    _run(recipe, runs)
    return recipe, runs / recipe.name


def _run(recipe: Recipe, runs: Path) -> None:
    from sciml_dchag.pipeline import run_recipe

    with ProgressBar() as progress:
        result = run_recipe(recipe, runs / recipe.name, progress=progress, console=say)
    out.print()
    show_evaluation(result.evaluation)


def _suggest(*lines: str) -> None:
    show("\n[bold]What to try next[/bold]")
    for line in lines:
        say("  " + line.replace("sciml-dchag ", f"{program()} "))
