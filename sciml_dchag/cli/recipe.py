"""`recipe new`: begin a recipe."""

from __future__ import annotations

from pathlib import Path

import click

from sciml_dchag.cli.console import Command, Group, say
from sciml_dchag.tasks import TASKS


@click.group(cls=Group)
def recipe() -> None:
    """Begin a recipe."""


@recipe.command("new", cls=Command)
@click.argument("kind", type=click.Choice(list(TASKS)))
@click.argument("path", type=click.Path(path_type=Path))
def new_recipe(kind: str, path: Path) -> None:
    """Write a recipe for a task of KIND to PATH, every knob with its meaning and default.

    \b
    Example:
      sciml-dchag recipe new forecast my_forecast.yaml
    """
    from sciml_dchag.config.new_recipe import commented_recipe
    from sciml_dchag.files.atomic import write_text
    from sciml_dchag.tasks import named

    if path.exists():
        raise FileExistsError(f"{path} exists: choose another name.")
    values = {"name": path.stem, "data.store": f"stores/{path.stem}.zarr", "task.kind": kind}
    write_text(path, commented_recipe(named(TASKS[kind].recipe), values))
    say(f"Recipe: {path}; set prepare.sources and what your data need, then `check` it.")
