"""Forecasts, truths and climatologies as they come, in the form that `metrics.score` works on.

Known beside that form are WeatherBench 2's layout of forecasts (initial `time` and
`prediction_timedelta`), which `predict` writes too, and weather stores and their climatologies
(`channel`). What is more than the forecast needs is left out, by label and never by position.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from sciml_dchag.channels import Channel, ChannelSet
from sciml_dchag.files.checksums import require_whole
from sciml_dchag.files.zarr_groups import open_zarr
from sciml_dchag.weather.prepare.calendars import decode_times
from sciml_dchag.weather.variables import split_level

FIELDS = ("state", "hourly", "mean")
"""Variables by channel: a store's states, and those of a climatology, the more detailed first."""


def open_forecasts(path: Path) -> xr.Dataset:
    """Open forecasts in Zarr or NetCDF, reading nothing yet."""
    if path.suffix == ".nc":
        return xr.open_dataset(path, engine="h5netcdf", decode_timedelta=True)
    require_whole(path)
    return open_zarr(path, decode_timedelta=True)


def standard_times(data: xr.Dataset, what: str) -> xr.Dataset:
    """Turn times of cftime into datetime64, by year, month and day.

    Raises:
        ValueError: dates that the standard calendar has not, or none that a score can use.
    """
    for name, coordinate in data.coords.items():
        if coordinate.dtype.kind != "O" or not coordinate.size:
            continue
        if not hasattr(np.asarray(coordinate.values).reshape(-1)[0], "calendar"):
            continue
        times = decode_times(coordinate.variable, f"the {what}", {})
        if np.isnat(times).any():
            raise ValueError(
                f"the {what} has {int(np.isnat(times).sum())} values of {name} on dates that the "
                f"standard calendar has not, such as 30 February: drop them."
            )
        data = data.assign_coords({name: (coordinate.dims, times)})
    return data


def as_forecast(forecast: xr.Dataset) -> xr.Dataset:
    """Name a forecast's dimensions `init_time` and `lead_time`."""
    forecast = standard_times(forecast, "forecast")
    if "prediction_timedelta" not in forecast.dims or "time" not in forecast.dims:
        return forecast
    named = forecast.rename(time="init_time", prediction_timedelta="lead_time")
    lead = named["lead_time"]
    if lead.dtype.kind in "iuf" and str(lead.attrs.get("units")) in ("hours", "h"):
        hours = (lead.values * 3600).astype("timedelta64[s]").astype("timedelta64[ns]")
        named = named.assign_coords(lead_time=hours)
    return named


def as_reference(data: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    """Give a truth or a climatology the forecast's variables, on the forecast's levels.

    A variable or level that is not there is left to `alignment` to refuse.
    """
    data = standard_times(data, "truth")
    by_channel = "channel" in data.dims and "channel" not in forecast.dims
    fields = next((data[name] for name in FIELDS if by_channel and name in data), None)
    if fields is None:
        return _on_levels(data, forecast)
    names = ChannelSet(str(name) for name in fields["channel"].values)
    where = {(channel.long_name, channel.level_hpa): channel for channel in names}
    found: dict[Hashable, xr.DataArray] = {}
    for name, variable in forecast.data_vars.items():
        wanted = _channels(str(name), variable, where)
        if wanted is None:
            continue
        values = fields.sel(channel=[channel.name for channel in wanted])
        values = values.reset_coords(drop=True)
        if "level" in variable.dims:
            values = values.rename(channel="level").assign_coords(level=variable["level"].values)
        else:
            values = values.isel(channel=0, drop=True)
        found[name] = values.assign_attrs(units=wanted[0].units)
    if not found:
        return xr.Dataset({channel.label: fields.isel(channel=0) for channel in names})
    return xr.Dataset(found)


def _channels(
    name: str, variable: xr.DataArray, where: Mapping[tuple[str, int | None], Channel]
) -> list[Channel] | None:
    """The channels that a forecast's variable has, or None where one of them is not there."""
    keys: list[tuple[str, int | None]] = [split_level(name) or (name, None)]
    if "level" in variable.dims:
        keys = [(name, int(level)) for level in np.atleast_1d(variable["level"].values)]
    found = [where[key] for key in keys if key in where]
    return found if len(found) == len(keys) else None


def _on_levels(data: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    """Keep the forecast's levels; make variables of levels that are variables of the forecast."""
    if "level" not in data.dims or "level" not in data.coords:
        return data
    for name in map(str, forecast.data_vars):
        base, level = split_level(name) or (name, 0)
        if name not in data and base in data and level in data["level"].values:
            data = data.assign({name: data[base].sel(level=level, drop=True)})
    if "level" not in forecast.coords:
        return data
    levels = np.atleast_1d(forecast["level"].values)
    return data.sel(level=levels) if np.isin(levels, data["level"].values).all() else data
