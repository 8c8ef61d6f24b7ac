"""The lows and highs of a store or of forecasts, written as a table and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from sciml_dchag.channels import ChannelSet
from sciml_dchag.figures.saving import save_figure
from sciml_dchag.files.atomic import written_beside
from sciml_dchag.files.checksums import damage_named
from sciml_dchag.files.places import check_file
from sciml_dchag.files.resumable import Progress
from sciml_dchag.files.zarr_groups import read_attrs
from sciml_dchag.weather.grid import coordinate_names
from sciml_dchag.weather.objects.finding import Finder, Kind
from sciml_dchag.weather.objects.plots import plot_objects
from sciml_dchag.weather.objects.quantity import Quantity
from sciml_dchag.weather.objects.table import finders_of, tabulated
from sciml_dchag.weather.scores.layouts import open_forecasts
from sciml_dchag.weather.scores.plots import time_text
from sciml_dchag.weather.store.layout import FORMAT
from sciml_dchag.weather.store.store import Period, Store, times_within

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TIMES = ("time", "init_time", "valid_time")
"""Dimensions that a period is taken of."""


def write_objects(
    source: Path,
    out: Path,
    *,
    channel: str = "msl",
    kinds: tuple[Kind, ...] = ("lows",),
    period: Period = (None, None),
    min_depth: float | None = None,
    band: tuple[float, float] = (20.0, 75.0),
    picture: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Find the objects of a store or of forecasts and write them as CSV, whole or not at all.

    Args:
        source: a weather store, or forecasts or fields in Zarr or NetCDF.
        out: the table to write, `.csv`.
        channel: a channel of the store, or of the forecasts, or a variable's name.
        kinds: lows, highs or both.
        period: first and last time (of forecasts: initial time), both included.
        min_depth, band: as of `find_lows`.
        picture: draw the first time there too, `.png`.
        overwrite: replace what is at `out` and `picture`.
        progress: called for every field.

    Returns:
        The table: `time`, of forecasts `lead_hours`, and the columns of `find_lows`.

    Raises:
        FileNotFoundError: there is nothing at `source`.
        FileExistsError: `out` or `picture` exists, and `overwrite` is off.
        ValueError: no such channel, one without lows and highs, or a period without times.
    """
    for path, suffix in ((out, ".csv"), (picture, ".png")):
        if path is None:
            continue
        check_file(path, overwrite, suffix)
    field, attribution = open_field(source, channel)
    field = field.transpose(..., *coordinate_names(field))
    time = next((dim for dim in TIMES if dim in field.dims), None)
    if time is not None:
        field = field.isel({time: times_within(field[time].values, period, str(source))})
    elif period != (None, None):
        raise ValueError(f"{source} has no times, so that no period can be taken: leave it out.")
    finders, quantity = finders_of(field, kinds, min_depth=min_depth, band=band)
    with damage_named(source):
        table = tabulated(field, finders, quantity, progress)
    with written_beside(out) as partial:
        table.to_csv(partial, index=False, float_format="%.4f", lineterminator="\n")
    if picture is not None:
        save_figure(_draw(field, finders, quantity), picture, attribution)
    return table


def open_field(source: Path, channel: str) -> tuple[xr.DataArray, str]:
    """Open a channel of a store or of forecasts, reading nothing yet; and whose the data are.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: no weather store, forecasts or NetCDF file, or no such channel in it.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist: name a weather store or forecasts.")
    is_zarr = (source / "zarr.json").is_file()
    if is_zarr and read_attrs(source).get("format") == FORMAT:
        store = Store.open(source)
        position = store.channels.index(channel)
        state = store.dataset()["state"].isel(channel=position).reset_coords(drop=True)
        units = store.channels[position].units
        return state.rename(channel).assign_attrs(units=units), store.attribution
    if not is_zarr and source.suffix != ".nc":
        raise ValueError(
            f"{source} is neither a weather store nor forecasts in Zarr or NetCDF: name one."
        )
    dataset = open_forecasts(source)
    return _variable(dataset, source, channel), str(dataset.attrs.get("attribution", ""))


def _variable(dataset: xr.Dataset, source: Path, channel: str) -> xr.DataArray:
    """A variable by its own name, or by the channel that it holds."""
    if channel in dataset.data_vars:
        return dataset[channel]
    known = ChannelSet.of([channel])[0]
    level = known.level_hpa
    if known.long_name in dataset.data_vars:
        field = dataset[known.long_name]
        if level is None:
            return field
        if "level" in field.coords and level in np.atleast_1d(field["level"].values):
            return field.sel(level=level, drop=True).rename(channel)
    alone = f"{known.long_name}_{level}hpa"
    if level is not None and alone in dataset.data_vars:
        return dataset[alone]
    have = ", ".join(map(str, list(dataset.data_vars)[:8])) or "nothing"
    raise ValueError(
        f"{source} has no channel {channel} ({known.long_name}): it has {have}; name one of them."
    )


def _draw(field: xr.DataArray, finders: Mapping[Kind, Finder], quantity: Quantity) -> Figure:
    """Draw the first field with its objects."""
    first = field.isel({dim: 0 for dim in field.dims[:-2]}).load()
    when = []
    for dim in field.dims[:-2]:
        value = first[dim].values if dim in first.coords else np.array(0)
        if value.dtype.kind == "m":
            when.append(f"{value / np.timedelta64(1, 'h'):g} h ahead")
        elif value.dtype.kind == "M":
            when.append(time_text(value.astype("datetime64[ns]").reshape(1)[0]))
        else:
            when.append(f"{dim} {value}")
    tables = {kind: tabulated(first, {kind: one}, quantity) for kind, one in finders.items()}
    return plot_objects(first, tables, ", ".join(when))
