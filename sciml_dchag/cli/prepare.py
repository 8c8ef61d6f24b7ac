"""`prepare` and `prepare era5`: raw files to a store; `prepare plants` is in `prepare_plants`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from sciml_dchag.cli.console import Group, ProgressBar, out
from sciml_dchag.cli.generated import options_of
from sciml_dchag.cli.options import overwrite_option
from sciml_dchag.cli.prepare_plants import plants
from sciml_dchag.weather.prepare.config import PrepareWeather


@click.group(cls=Group)
def prepare() -> None:
    """Turn raw files into a store that training reads."""


prepare.add_command(plants)


@prepare.command()
@options_of(PrepareWeather)
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--train-start", default=None, help="First time of the training period.")
@click.option("--train-end", default=None, help="Last time of the training period, included.")
@click.option("--scheduler", default=None, metavar="ADDRESS", help="A Dask scheduler to run on.")
@overwrite_option
def era5(
    config: PrepareWeather,
    store: Path,
    train_start: str | None,
    train_end: str | None,
    scheduler: str | None,
    overwrite: bool,
) -> None:
    """Read ERA5 from SOURCES, regrid it and write STORE with its statistics.

    SOURCES are NetCDF or GRIB files, globs, Zarr directories or URLs. An interrupted call resumes
    where it stopped when it is repeated.

    \b
    Example:
      sciml-dchag prepare era5 'era5/*.nc' stores/era5.zarr \\
        --train-start 1979 --train-end 2015
    """
    from sciml_dchag.weather.prepare.era5 import prepare_era5
    from sciml_dchag.weather.prepare.recipe import WHOLE_PERIOD

    if train_start is None and train_end is None:
        out.print(WHOLE_PERIOD, highlight=False)
    with ProgressBar() as progress:
        path = prepare_era5(
            out=store,
            **dataclasses.asdict(config),
            statistics_period=(train_start, train_end),
            overwrite=overwrite,
            scheduler=scheduler,
            progress=progress,
        )
    out.print(f"Store: {path}\nLook at it: sciml-dchag inspect {path}", highlight=False)
