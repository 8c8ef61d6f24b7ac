"""`plan`: what a run will need of each rank, before it is queued."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sciml_dchag.cli.console import Command, ProgressBar, out
from sciml_dchag.cli.console import show as show_table
from sciml_dchag.cli.options import recipe_options

if TYPE_CHECKING:
    from sciml_dchag.training.measured import Measured


@click.command(cls=Command)
@recipe_options
@click.option("--gpus", type=click.IntRange(min=1), default=None, help="Ranks in all.")
@click.option("--memory", default=None, metavar="SIZE", help="Of one GPU, such as 64GiB.")
@click.option(
    "--machine",
    type=click.Choice(["frontier", "a100", "h100"]),
    default=None,
    help="Whose speed and links times are estimated with; frontier (MI250X) by default.",
)
@click.option(
    "--measure",
    type=click.IntRange(min=1),
    is_flag=False,
    flag_value=20,
    default=None,
    metavar="[STEPS]",
    help="Instead, time so many steps (20) here, as RECIPE says and with one change each.",
)
def plan(
    recipe: Path, overrides: tuple[str, ...], runs: Path, gpus: int | None, memory: str | None,
    machine: str | None, measure: int | None,
) -> None:  # fmt: skip
    """Say what each layout of RECIPE over some GPUs needs, and which is the fastest that fits.

    Memory, bytes and arithmetic come from a training step of the real model without its numbers.
    Times are estimates from the machine's published rates. With --measure real steps are timed on
    this machine instead, on the recipe's own store.

    \b
    Example:
      sciml-dchag plan pipelines/era5_forecast.yaml --gpus 1024 --memory 64GiB --set model.size=26b
      sciml-dchag plan pipelines/msl_forecast.yaml --measure
    """
    if measure is not None:
        if gpus is not None or memory is not None or machine is not None:
            raise click.UsageError("--measure is about this machine: leave out the other options.")
        _measure(recipe, overrides, measure)
        return
    if gpus is None:
        raise click.UsageError("Give --gpus, the number of ranks in all, or --measure.")
    from sciml_dchag.planning import presentation as show
    from sciml_dchag.planning.layouts import chosen_machine, demand_of, make_plan, unused_memory
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
    show_table(show.layout_table(best, unused_memory(demand, best)))
    for layout in found.too_large[: show.MOST_ROWS]:
        out.print(f"does not fit: {show.why_too_large(layout, on)}", highlight=False)
    for reason in found.impossible:
        out.print(f"not possible: {reason}", highlight=False, markup=False)
    out.print(show.accounting(demand), highlight=False)
    if machine is None:
        out.print("Times are estimated for Frontier (MI250X): name your own with --machine.")
    out.print(f"\nProposed: {show.settings(best)}", highlight=False, soft_wrap=True)


def _measure(recipe: Path, overrides: tuple[str, ...], steps: int) -> None:
    """Time steps of a recipe and of what one change makes of it, and say what each brings."""
    from rich.table import Table

    from sciml_dchag.tasks import load_recipe, task_of
    from sciml_dchag.training.measured import CHANGES, WARM_UP, measure

    loaded = load_recipe(recipe, overrides).replace(training={"log_every": 1})
    table = Table(
        title=f"{steps} steps from the start, after {WARM_UP} that do not count",
        title_justify="left",
    )
    for name in ("", "samples/s", "times", "s a step", "GiB at most", "loss at the end"):
        table.add_column(name, justify="left" if not name else "right")
    plain, impossible = None, list[str]()
    for name, changes in CHANGES.items():
        try:
            other = loaded.replace(**changes)
            if plain is not None and other == loaded:
                continue
            with ProgressBar() as progress:
                found = measure(task_of(other), steps, progress)
        except (ValueError, FloatingPointError) as error:
            if plain is None:  # the recipe itself
                raise
            impossible.append(f"{name}: {error}")
            continue
        plain = plain or found
        table.add_row(name, *_row(found, plain))
    show_table(table)
    for line in impossible:
        out.print(f"not possible: {line}", highlight=False, markup=False)


def _row(found: Measured, plain: Measured) -> list[str]:
    """Cells of what a change brings; memory is known of accelerators alone."""
    fastest, slowest = found.seconds
    memory = "–" if found.peak_bytes is None else f"{found.peak_bytes / 2**30:.2f}"  # noqa: RUF001
    return [
        f"{found.samples_per_second:.3g}",
        f"{found.samples_per_second / plain.samples_per_second:.2f}",
        f"{fastest:.3g} to {slowest:.3g}",
        memory,
        f"{found.loss:.5g}",
    ]
