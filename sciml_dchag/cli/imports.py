"""`import`: others' weights as models of this package."""

from __future__ import annotations

from pathlib import Path

import click

from sciml_dchag.cli.console import Command, Group, say
from sciml_dchag.cli.options import overwrite_option


@click.group("import", cls=Group)
def import_() -> None:
    """Make others' published weights a model to start training from."""


@import_.command(cls=Command)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--variables",
    default="",
    metavar="NAME,NAME,...",
    help="ClimaX's names in the order of its default_vars; the published ones by default.",
)
@click.option(
    "--heads",
    type=int,
    default=16,
    show_default=True,
    help="Attention heads, which the file does not say.",
)
@click.option("--rows", type=int, default=0, help="Of the grid; half the columns by default.")
@overwrite_option
def climax(
    checkpoint: Path, model: Path, variables: str, heads: int, rows: int, overwrite: bool
) -> None:
    """Write the weights of ClimaX's CHECKPOINT (.ckpt) to MODEL, one safetensors file.

    The model computes what ClimaX computes, in our aggregation `single`; a checkpoint for which
    that cannot be exact is refused. It has no statistics of data, so that it is started from.

    \b
    Example:
      sciml-dchag import climax 5.625deg.ckpt climax.safetensors
      sciml-dchag train RECIPE --set training.start_from=climax.safetensors
    """
    from sciml_dchag.weather.climax import import_climax

    names = [name.strip() for name in variables.split(",") if name.strip()]
    path = import_climax(
        checkpoint, model, variables=names, heads=heads, rows=rows, overwrite=overwrite
    )
    say(f"Model: {path}")
