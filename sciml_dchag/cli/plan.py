"""`plan`: what a run will need of each rank, before it is queued."""

from __future__ import annotations

import os
from pathlib import Path

import click

from sciml_dchag.cli.console import Command, ProgressBar, out
from sciml_dchag.cli.console import show as show_table
from sciml_dchag.cli.options import recipe_options


@click.command(cls=Command)
@recipe_options
@click.option("--gpus", type=click.IntRange(min=1), required=True, help="Ranks in all.")
@click.option("--memory", default=None, metavar="SIZE", help="Of one GPU, such as 64GiB.")
@click.option(
    "--machine",
    type=click.Choice(["frontier", "a100", "h100"]),
    default=None,
    help="Whose speed and links times are estimated with; frontier (MI250X) by default.",
)
def plan(
    recipe: Path, overrides: tuple[str, ...], runs: Path, gpus: int, memory: str | None,
    machine: str | None,
) -> None:  # fmt: skip
    """Say what each layout of RECIPE over some GPUs needs, and which is the fastest that fits.

    Memory, bytes and arithmetic come from a training step of the real model without its numbers.
    Times are estimates from the machine's published rates.

    \b
    Example:
      sciml-dchag plan pipelines/era5_forecast.yaml --gpus 1024 --memory 64GiB --set model.size=26b
    """
    from sciml_dchag.planning import presentation as show
    from sciml_dchag.planning.layouts import chosen_machine, demand_of, make_plan
    from sciml_dchag.tasks import load_recipe, task_of

    loaded = load_recipe(recipe, overrides)
    demand, on = demand_of(task_of(loaded)), chosen_machine(machine or "frontier", memory)
    with ProgressBar() as progress:
        found = make_plan(demand, gpus, on, processes=os.cpu_count() or 1, progress=progress)
    if not found.fitting:
        raise ValueError(show.nothing_fits(found, demand, on))
    best = found.fitting[0]
    show_table(
        show.layouts_table(found.fitting, f"{len(found.fitting)} layouts fit, fastest first")
    )
    show_table(show.layout_table(best))
    for layout in found.too_large[: show.MOST_ROWS]:
        out.print(f"does not fit: {show.why_too_large(layout, on)}", highlight=False)
    for reason in found.impossible:
        out.print(f"not possible: {reason}", highlight=False, markup=False)
    if machine is None:
        out.print("Times are estimated for Frontier (MI250X): name your own with --machine.")
    out.print(f"\nProposed: {show.settings(best)}", highlight=False, soft_wrap=True)
