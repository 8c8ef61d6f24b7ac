"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def recipe_options(command: Decorated) -> Decorated:
    """Add RECIPE, `--set` and `--runs`."""
    for decorate in (
        click.option(
            "--runs",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path("runs"),
            show_default=True,
            help="Folder of run folders.",
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Change a knob of the recipe, such as training.steps=100; repeatable.",
        ),
        click.argument("recipe", type=click.Path(path_type=Path)),
    ):
        command = decorate(command)
    return command


def run_folder(path: Path) -> Path:
    """Return a run folder that exists.

    Raises:
        FileNotFoundError: there is no run there.
    """
    if not (path / "recipe.yaml").is_file():
        raise FileNotFoundError(
            f"{path} is no run folder (it has no recipe.yaml): name one, such as runs/NAME, made "
            f"by `sciml-dchag train`."
        )
    return path


overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what is there.")
