"""`objects`: the lows and highs of a store or of forecasts."""

from __future__ import annotations

from pathlib import Path

import click

from sciml_dchag.cli.console import Command, ProgressBar, require_one_process, say
from sciml_dchag.cli.options import overwrite_option


@click.command(cls=Command)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("table", type=click.Path(path_type=Path))
@click.option(
    "--channel",
    default="msl",
    show_default=True,
    help="Pressure or geopotential, such as z500; or a variable of SOURCE.",
)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(["lows", "highs"]),
    multiple=True,
    default=("lows",),
    show_default=True,
    help="Repeatable.",
)
@click.option("--start-time", "start", default=None, help="First time; of forecasts, initial time.")
@click.option("--end-time", "end", default=None, help="Last time, included.")
@click.option(
    "--min-depth",
    type=float,
    default=None,
    help="Least difference from the mean on a ring of 600 km; by default 4 hPa, 300 m2 s-2 or "
    "30 gpm.",
)
@click.option(
    "--band",
    type=(float, float),
    default=(20.0, 75.0),
    show_default=True,
    help="Least and greatest absolute latitude.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    default=None,
    help="Draw the first time with its objects into this PNG.",
)
@overwrite_option
def objects(
    source: Path, table: Path, channel: str, kinds: tuple[str, ...], start: str | None,
    end: str | None, min_depth: float | None, band: tuple[float, float], picture: Path | None,
    overwrite: bool,
) -> None:  # fmt: skip
    """Find the lows or highs of SOURCE, a store or forecasts, and write them into TABLE (CSV).

    A row per low: time, of forecasts lead time, place, value and depth. How they are found is in
    docs/objects.md.

    \b
    Example:
      sciml-dchag objects stores/era5.zarr lows.csv --picture lows.png
      sciml-dchag objects forecasts.zarr highs.csv --channel z500 --kind highs
    """
    from sciml_dchag.weather.objects.files import write_objects

    require_one_process("objects")
    with ProgressBar() as progress:
        found = write_objects(
            source, table, channel=channel, kinds=tuple(dict.fromkeys(kinds)),  # type: ignore[arg-type]
            period=(start, end), min_depth=min_depth, band=band, picture=picture,
            overwrite=overwrite, progress=progress,
        )  # fmt: skip
    say(f"Table of {len(found)} {' and '.join(dict.fromkeys(kinds))}: {table}")
    if picture is not None:
        say(f"Picture: {picture}")
