"""`verify`: whether what was written is still what is there."""

from __future__ import annotations

from pathlib import Path

import click

from sciml_dchag.cli.console import Command, out, say


@click.command(cls=Command)
@click.argument("path", type=click.Path(path_type=Path))
@click.pass_context
def verify(context: click.Context, path: Path) -> None:
    """Read all of PATH and compare it with the checksums that it carries.

    PATH is a store, forecasts, a checkpoint, a run folder, an exported model, or a folder that
    holds some of them. The status is 2 if anything is missing or has changed.

    \b
    Example:
      sciml-dchag verify stores/era5.zarr
      sciml-dchag verify runs/era5
    """
    from sciml_dchag.verifying import verify as verified

    damaged = False
    for place, files, sentences in verified(path):
        for sentence in sentences:
            damaged = True
            out.print("fails  ", style="red", end="")
            say(sentence)
        if not sentences and files:
            out.print("ok     ", style="green", end="")
            say(f"{place}: {files} file{'s' * (files > 1)} as they were written")
        elif not sentences:
            out.print("note   ", style="yellow", end="")
            say(f"{place} carries no checksums, so that nothing can be said of it")
    if damaged:
        context.exit(2)
