"""`inspect` and `check`: look before work starts."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sciml_dchag.cli.console import Command, out, plain, say
from sciml_dchag.cli.options import recipe_options


@click.command(cls=Command)
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(path: str, as_json: bool) -> None:
    """Report what PATH holds.

    PATH is a recipe, raw files, a store, forecasts, embeddings, a run, a checkpoint, an exported
    model, or scores.

    \b
    Example:
      sciml-dchag inspect stores/demo_weather.zarr
    """
    from sciml_dchag.files.facts import in_text
    from sciml_dchag.inspecting import describe

    facts = describe(path)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else in_text(value)
        say(f"{plain(name):<{width}}  {text}")


@click.command(cls=Command)
@recipe_options
@click.pass_context
def check(context: click.Context, recipe: Path, overrides: tuple[str, ...], runs: Path) -> None:
    """Say what of RECIPE would fail, and the fix, reading metadata and first values.

    \b
    Example:
      sciml-dchag check pipelines/era5_forecast.yaml
    """
    from sciml_dchag.checking import check_recipe
    from sciml_dchag.tasks import load_recipe

    findings = check_recipe(load_recipe(recipe, overrides), runs)
    for finding in findings:
        style = {"ok": "green", "note": "yellow", "fails": "red"}[finding.verdict]
        out.print(f"{finding.verdict:<6} ", style=style, end="")
        say(finding.what)
    if any(finding.verdict == "fails" for finding in findings):
        context.exit(2)
