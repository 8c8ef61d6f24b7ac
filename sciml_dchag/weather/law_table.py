"""A table of a store's channels and their gradients, for laws to be looked for in."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag.channels import canonical_units
from sciml_dchag.files.atomic import written_beside
from sciml_dchag.files.checksums import damage_named
from sciml_dchag.files.places import check_file
from sciml_dchag.laws.units import Unit
from sciml_dchag.weather.grid import Grid, coordinate_names
from sciml_dchag.weather.objects.files import open_field
from sciml_dchag.weather.store.store import Period, times_within

Array = NDArray[np.float64]

EARTH_RADIUS = 6_371_220.0
"""Metres, as in ERA5's model."""
EARTH_ROTATION = 7.2921e-5
"""Radians per second."""
CORIOLIS = "f"
AT_POLE = 1e-4
"""Rows within so many degrees of a pole lie on it."""
SECTOR = 30
"""Degrees of longitude of the column `sector`."""


def write_law_table(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    columns: Sequence[str],
    *,
    period: Period = (None, None),
    every: int = 1,
    band: tuple[float, float] = (0.0, 90.0),
    overwrite: bool = False,
) -> pd.DataFrame:
    """Write channels and their gradients at grid points as CSV, units in the headings.

    Args:
        source: a weather store, or forecasts or fields in Zarr or NetCDF.
        out: the table, `.csv`.
        columns: `v500` is a channel, `dz500_dx` and `dz500_dy` its derivatives to the east and
            to the north (centred differences on a sphere), and `f` = 2 Omega sin(latitude) the
            Coriolis parameter.
        period: first and last time, both included.
        every: takes every n-th of the points in the band, counted over times, latitudes and
            longitudes.
        band: least and greatest absolute latitude.
        overwrite: replace what is at `out`.

    Returns:
        The table. Beside its columns it has `time`, `day`, `sector` (30 degrees of longitude),
        `latitude` and `longitude`; `day` and `sector` serve as groups.

    Raises:
        FileExistsError: `out` exists, and `overwrite` is off.
        FileNotFoundError: there is nothing at `source`.
        ValueError: a column, a band or a period that is not there.
    """
    source, out = Path(source), Path(out)
    check_file(out, overwrite, ".csv")
    if every < 1:
        raise ValueError(f"every is {every}: it must be at least 1.")
    names = list(dict.fromkeys(columns))
    if not set(names) - {CORIOLIS}:
        raise ValueError("no channel is named among the columns: name one, such as v500.")
    with damage_named(source):
        fields = [_column(source, name, period) for name in names if name != CORIOLIS]
    table = xr.merge(fields, join="exact").to_dataframe().reset_index()
    if CORIOLIS in names:
        latitude = np.deg2rad(table["latitude"])
        table[f"{CORIOLIS} [s-1]"] = 2 * EARTH_ROTATION * np.sin(latitude)
    inside = table["latitude"].abs().between(*band)
    if not inside.any():
        raise ValueError(f"{source} has no latitudes between {band[0]:g} and {band[1]:g} degrees.")
    table = table[inside].iloc[::every].reset_index(drop=True)
    table.insert(1, "day", table["time"].dt.strftime("%Y-%m-%d"))
    table.insert(2, "sector", (table["longitude"] % 360 // SECTOR).astype(int))
    with written_beside(out) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")
    return table


def _column(source: Path, name: str, period: Period) -> xr.DataArray:
    """A channel or its derivative on (time, latitude, longitude), units in the name."""
    derivative = re.fullmatch(r"d(\w+)_d([xy])", name)
    field, _ = open_field(source, derivative[1] if derivative else name)
    rows, columns = coordinate_names(field)
    if "time" not in field.coords:
        raise ValueError(f"{source} has no time, and the table has a row per time: add it.")
    if "time" not in field.dims:
        field = field.expand_dims("time")
    field = field.isel(time=times_within(field["time"].values, period, str(source)))
    field = field.transpose("time", rows, columns).rename({rows: "latitude", columns: "longitude"})
    units = canonical_units(str(field.attrs.get("units", "1")))
    values = np.asarray(field.values, dtype=np.float64)
    if derivative:
        grid = Grid.of(field)
        unit = Unit.parse(f"{units} m-1")
        values = unit.scale * _gradient(values, grid, eastward=derivative[2] == "x")
        units = unit.text()
    plain = xr.DataArray(values, {n: field[n].values for n in field.dims}, field.dims)
    return plain.rename(f"{name} [{units}]")


def _gradient(values: Array, grid: Grid, *, eastward: bool) -> Array:
    """Differentiate (time, latitude, longitude) by metres; second-order centred differences.

    (1 / (a cos latitude)) d/d longitude, or (1 / a) d/d latitude, with a the Earth's radius. At a
    pole there is no east, and the value is NaN.
    """
    latitude = np.deg2rad(np.asarray(grid.latitude, dtype=np.float64))
    if not eastward:
        return np.asarray(np.gradient(values, latitude, axis=1)) / EARTH_RADIUS
    longitude = np.deg2rad(np.asarray(grid.unwrapped_longitude, dtype=np.float64))
    if grid.is_periodic:
        turn = np.copysign(2 * np.pi, longitude[1] - longitude[0])
        longitude = np.concatenate([[longitude[-1] - turn], longitude, [longitude[0] + turn]])
        values = np.concatenate([values[..., -1:], values, values[..., :1]], axis=-1)
    change = np.asarray(np.gradient(values, longitude, axis=2))
    change = change[..., 1:-1] if grid.is_periodic else change
    cosine = np.where(np.abs(grid.latitude) < 90 - AT_POLE, np.cos(latitude), np.nan)
    return np.asarray(change / (EARTH_RADIUS * cosine[:, None]))
