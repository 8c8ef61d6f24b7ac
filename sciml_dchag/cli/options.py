"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a knob of the recipe, such as training.steps=100; repeatable.",
)
runs_option = click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Folder of run folders.",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "xpu", "mps"]),
    default=None,
    help="Where to compute; the run's parallel.device by default.",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what is there.")


def recipe_options(command: Decorated) -> Decorated:
    """Add RECIPE, `--set` and `--runs`."""
    recipe = click.argument("recipe", type=click.Path(path_type=Path))
    return recipe(set_option(runs_option(command)))


def folder_option(text: str) -> Callable[[Decorated], Decorated]:
    """Make `--out`, the folder to write, whose default the help names."""
    return click.option("--out", "folder", type=click.Path(path_type=Path), help=text)
