"""`laws` and `law-table`: formulas with units between the columns of a table."""

from __future__ import annotations

from pathlib import Path

import click

from sciml_dchag.cli.console import Command, ProgressBar, require_one_process, say
from sciml_dchag.cli.options import folder_option, overwrite_option


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


@click.command(cls=Command)
@click.argument("table", type=click.Path(path_type=Path))
@click.option("--target", required=True, metavar="COLUMN", help="What the formulas are of.")
@click.option(
    "--inputs", required=True, metavar="COLUMNS", help="What they may hold, with commas between."
)
@click.option(
    "--constants",
    default="",
    metavar="NAME:UNITS,...",
    help="Constants that they may hold: c:1 and U:m s-1 are fitted, g=9.81:m s-2 is given.",
)
@click.option(
    "--group",
    default=None,
    metavar="COLUMN",
    help="Rows equal in it are held out together, such as a day; by default each by itself.",
)
@click.option(
    "--unit",
    "units",
    multiple=True,
    metavar="COLUMN:UNITS",
    help="Units of a column whose heading has none or wrong ones; repeatable.",
)
@click.option(
    "--held-out", type=float, default=0.25, show_default=True, help="Fraction of the groups."
)
@click.option(
    "--index-bands",
    default="",
    metavar="COLUMNS",
    help="Inputs whose best normalised difference is a baseline; by default those named like "
    "wavelengths, such as r652.0.",
)
@click.option(
    "--seconds", type=float, default=300.0, show_default=True, help="Longest time of the search."
)
@click.option(
    "--patience",
    type=int,
    default=20,
    show_default=True,
    help="Batches without a better formula after which the search ends.",
)
@click.option(
    "--batch", type=int, default=1000, show_default=True, help="Formulas proposed at once."
)
@click.option(
    "--rows", type=int, default=400, show_default=True, help="Training rows the search sees."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of groups and search.")
@folder_option("Folder to write; TABLE's name with _laws beside it by default.")
@overwrite_option
def laws(
    table: Path, target: str, inputs: str, constants: str, group: str | None,
    units: tuple[str, ...], held_out: float, index_bands: str, seconds: float, patience: int,
    batch: int, rows: int, seed: int, folder: Path | None, overwrite: bool,
) -> None:  # fmt: skip
    """Find the simplest formulas, right in units, of a column of TABLE (CSV).

    Headings have units in brackets: dz500_dx [m s-2]. Writes laws.csv, baselines.csv, laws.tex and
    laws.png. Formulas and constants are in SI base units. Needs the extra `laws`.

    \b
    Example:
      sciml-dchag law-table era5.zarr wind.csv --columns v500,dz500_dx,f --band 30 75
      sciml-dchag laws wind.csv --target v500 --inputs dz500_dx,f --constants c:1 --group day
    """
    from sciml_dchag.laws.discover import find_laws

    require_one_process("laws")
    pairs = [text.partition(":") for text in units]
    for name, colon, _ in pairs:
        if not colon:
            raise ValueError(f"--unit {name} has no units: write COLUMN:UNITS, such as v:m s-1.")
    place = folder or table.with_name(f"{table.stem}_laws")
    with ProgressBar() as progress:
        found = find_laws(
            table, target, _names(inputs), constants=_names(constants), group=group,
            units={name.strip(): unit for name, _, unit in pairs}, seconds=seconds,
            patience=patience, batch=batch, rows=rows, held_out=held_out,
            bands=_names(index_bands), seed=seed, out=place, overwrite=overwrite,
            progress=progress,
        )  # fmt: skip
    if found.training.left_out:
        say(f"Left out: {found.training.left_out} rows without a number in one of the columns.")
    say(found.summary())
    say(f"Formulas: {place / 'laws.csv'}")


@click.command("law-table", cls=Command)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("table", type=click.Path(path_type=Path))
@click.option(
    "--columns",
    required=True,
    metavar="COLUMNS",
    help="With commas between: v500 is a channel, dz500_dx and dz500_dy its derivatives to the "
    "east and north, f the Coriolis parameter.",
)
@click.option("--start-time", "start", default=None, help="First time.")
@click.option("--end-time", "end", default=None, help="Last time, included.")
@click.option("--every", type=int, default=1, show_default=True, help="Take every n-th point.")
@click.option(
    "--band",
    type=(float, float),
    default=(0.0, 90.0),
    show_default=True,
    help="Least and greatest absolute latitude.",
)
@overwrite_option
def law_table(
    source: Path, table: Path, columns: str, start: str | None, end: str | None, every: int,
    band: tuple[float, float], overwrite: bool,
) -> None:  # fmt: skip
    """Tabulate channels of SOURCE and their gradients into TABLE (CSV), for `laws`.

    SOURCE is a weather store, or fields in Zarr or NetCDF. Columns `day` and `sector` (30 degrees
    of longitude) serve as groups.

    \b
    Example:
      sciml-dchag law-table stores/era5.zarr wind.csv --columns v500,dz500_dx,f --every 97
    """
    from sciml_dchag.weather.law_table import write_law_table

    require_one_process("law-table")
    written = write_law_table(
        source, table, _names(columns), period=(start, end), every=every, band=band,
        overwrite=overwrite,
    )  # fmt: skip
    say(f"Table of {len(written)} rows: {table}")
