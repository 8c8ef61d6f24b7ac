"""`prepare` and `prepare era5`: raw files to a store; `prepare plants` is in `prepare_plants`."""

from __future__ import annotations

from pathlib import Path

import click

from sciml_dchag.cli.console import Group, ProgressBar, out
from sciml_dchag.cli.options import overwrite_option
from sciml_dchag.cli.prepare_plants import plants


@click.group(cls=Group)
def prepare() -> None:
    """Turn raw files into a store that training reads."""


prepare.add_command(plants)


@prepare.command()
@click.argument("sources", nargs=-1, required=True)
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--channels",
    default="era5_80",
    show_default=True,
    help="era5_80, era5_84, wb2_69 or names separated by commas (t2m,z500).",
)
@click.option(
    "--grid",
    default="5.625",
    show_default=True,
    help="5.625, 2.8125, 1.40625, ROWSxCOLUMNS, or native.",
)
@click.option(
    "--method",
    type=click.Choice(["bilinear", "conservative"]),
    default="bilinear",
    show_default=True,
    help="How to regrid.",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "xesmf", "native"]),
    default="auto",
    show_default=True,
    help="Regridding engine; auto takes xESMF where it imports.",
)
@click.option("--static", default="", metavar="NAMES", help="Static fields: orography,lsm.")
@click.option("--static-source", multiple=True, help="File with the static fields.")
@click.option("--start", default=None, help="First time to prepare, such as 1979-01-01.")
@click.option("--end", default=None, help="Last time to prepare, included.")
@click.option("--step-hours", type=int, default=None, help="Time step; finer data are thinned.")
@click.option("--train-start", default=None, help="First time of the training period.")
@click.option("--train-end", default=None, help="Last time of the training period, included.")
@click.option(
    "--climatology",
    type=click.Choice(["auto", "mean", "hourly"]),
    default="auto",
    show_default=True,
    help="hourly: by hour and day of year; mean: training mean.",
)
@click.option(
    "--climatology-window-days",
    type=int,
    default=61,
    show_default=True,
    help="Smoothing window of the hourly climatology.",
)
@click.option("--allow-missing", is_flag=True, help="Keep missing values as missing.")
@click.option("--scheduler", default=None, metavar="ADDRESS", help="A Dask scheduler to run on.")
@overwrite_option
def era5(
    sources: tuple[str, ...], store: Path, channels: str, grid: str, method: str, engine: str,
    static: str, static_source: tuple[str, ...], start: str | None, end: str | None,
    step_hours: int | None, train_start: str | None, train_end: str | None, climatology: str,
    climatology_window_days: int, allow_missing: bool, scheduler: str | None, overwrite: bool,
) -> None:  # fmt: skip
    """Read ERA5 from SOURCES, regrid it and write STORE with its statistics.

    SOURCES are NetCDF or GRIB files, globs, Zarr directories or URLs. An interrupted call goes on
    where it stopped when it is repeated.

    \b
    Example:
      sciml-dchag prepare era5 'era5/*.nc' stores/era5.zarr \\
        --train-start 1979 --train-end 2015
    """
    from sciml_dchag.weather.prepare.era5 import prepare_era5

    with ProgressBar() as progress:
        path = prepare_era5(
            sources,
            store,
            channels=channels,
            grid=grid,
            method=method,
            engine=engine,
            static_sources=static_source,
            static=tuple(name for name in static.split(",") if name),
            period=(start, end),
            step_hours=step_hours,
            statistics_period=(train_start, train_end),
            climatology=climatology,  # type: ignore[arg-type]  # click has checked it
            climatology_window_days=climatology_window_days,
            allow_missing=allow_missing,
            overwrite=overwrite,
            scheduler=scheduler,
            progress=progress,
        )
    out.print(f"Store: {path}\nLook at it: sciml-dchag inspect {path}", highlight=False)
