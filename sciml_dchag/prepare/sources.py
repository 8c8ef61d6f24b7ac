"""Raw ERA5 files, joined to one lazy state of the channels asked for.

What a single file looks like is `layouts`' concern, whether its values are believable `checks`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from sciml_dchag.channels import VARIABLES, Channel, ChannelSet
from sciml_dchag.prepare.checks import check_wind_rows
from sciml_dchag.prepare.grids import Grid
from sciml_dchag.prepare.layouts import expand_sources, lazy, open_raw

ERA5_ATTRIBUTION = "Contains modified Copernicus Climate Change Service information"


@dataclass(frozen=True)
class _Piece:
    """One variable of one file."""

    field: xr.DataArray
    source: str

    @property
    def levels(self) -> list[int]:
        return [int(v) for v in self.field["level"].values] if "level" in self.field.dims else []


def open_era5(
    sources: Sequence[str],
    channels: ChannelSet,
    *,
    period: tuple[str | None, str | None] = (None, None),
    step_hours: int | None = None,
) -> xr.DataArray:
    """Open raw files as `state(time, channel, latitude, longitude)`, float32, one time a chunk.

    Variables and times may be spread over files in any way. The grid and its row order stay.

    Args:
        sources: NetCDF, GRIB or Zarr files, globs, URLs, or a store of ours.
        channels: the channels wanted.
        period: first and last time, both included; None for no bound.
        step_hours: time step wanted; finer data are thinned to multiples of it since midnight.

    Raises:
        FileNotFoundError: a source that is not there.
        ValueError: an unreadable file, a variable or level that is missing, files of different
            grids or overlapping times, gaps or uneven steps where `step_hours` is given, or a
            period outside the data.
    """
    paths = expand_sources(sources)
    raw = [(path, dataset) for path in paths for dataset in open_raw(path)]
    pieces = [
        _Piece(dataset[name], path)
        for path, dataset in raw
        for name in dataset.data_vars
        if name != "static"
    ]
    _check_one_grid(pieces)
    _check_winds(pieces)
    state = _assemble(pieces, channels)
    state = _choose_times(state, period, step_hours)
    ours = [dataset for _, dataset in raw if "state" in dataset]
    simulated = any(int(dataset.attrs.get("simulated", 0)) for dataset in ours)
    attribution = next(
        (str(d.attrs["attribution"]) for d in ours if "attribution" in d.attrs), None
    )
    if attribution is None:
        first, last = (str(state["time"].values[i])[:4] for i in (0, -1))
        years = first if first == last else f"{first}-{last}"
        attribution = f"{ERA5_ATTRIBUTION} {years}"
    state.attrs = {"attribution": attribution, "simulated": int(simulated), "sources": paths}
    return state.rename("state")


def open_static(sources: Sequence[str], names: Sequence[str]) -> xr.DataArray:
    """Open static fields as (static_channel, latitude, longitude), float32.

    Raises:
        ValueError: a field that is not there; the message says which ones are.
    """
    fields: dict[str, xr.DataArray] = {}
    for path in expand_sources(sources):
        for dataset in open_raw(path):
            if "static" in dataset:
                for name in dataset["static_channel"].values:
                    fields[str(name)] = dataset["static"].sel(static_channel=name, drop=True)
            for name in dataset.data_vars:
                # A file of surface geopotential calls it z, on no level.
                short = "orography" if name == "z" and "level" not in dataset[name].dims else name
                if VARIABLES.get(str(short)) is not None and VARIABLES[str(short)].kind == "static":
                    field = dataset[name]
                    fields[str(short)] = (
                        field.isel(time=0, drop=True) if "time" in field.dims else field
                    )
    if missing := [name for name in names if name not in fields]:
        raise ValueError(
            f"The static field {missing[0]!r} is not in {', '.join(map(str, sources))}, which "
            f"hold {', '.join(fields) or 'none'}: name a file with --static-source."
        )
    chosen = [
        fields[name].drop_vars(["time", "level"], errors="ignore").astype(np.float32)
        for name in names
    ]
    joined = xr.concat(chosen, dim="static_channel").assign_coords(static_channel=list(names))
    return joined.transpose("static_channel", "latitude", "longitude")


def list_contents(sources: Sequence[str]) -> dict[str, object]:
    """Say what raw files hold, reading no values: variables, levels, grid, times.

    Raises:
        FileNotFoundError, ValueError: as `open_era5`.
    """
    paths = expand_sources(sources)
    variables: dict[str, set[int]] = {}
    times: list[np.datetime64] = []
    grid = ""
    for path in paths:
        for dataset in open_raw(path):
            for name in dataset.data_vars:
                piece = _Piece(dataset[name], path)
                variables.setdefault(str(name), set()).update(piece.levels)
                shape = Grid.of(piece.field).shape
                grid = f"{shape[0]} x {shape[1]}, {Grid.of(piece.field).kind}"
            if "time" in dataset.coords:
                times.extend(np.atleast_1d(dataset["time"].values))
    unique = np.unique(np.array(times, dtype="datetime64[ns]"))
    return {
        "files": len(paths),
        "variables": [
            f"{name} on {len(levels)} level(s)" if levels else name
            for name, levels in variables.items()
        ],
        "grid": grid,
        "times": len(unique),
        "period": f"{_minute(unique[0])} to {_minute(unique[-1])}" if len(unique) else "none",
    }


def _check_one_grid(pieces: Sequence[_Piece]) -> None:
    """Refuse a field without a usable grid, and two files of different grids."""
    first: Grid | None = None
    for piece in pieces:
        missing = [d for d in ("latitude", "longitude") if d not in piece.field.dims]
        if missing:
            raise ValueError(
                f"{piece.field.name} of {piece.source} has no {missing[0]} axis: only fields on a "
                f"latitude-longitude grid can be read."
            )
        grid = Grid.of(piece.field)
        if first is None:
            first, where = grid, piece.source
        elif grid.content_hash != first.content_hash:
            raise ValueError(
                f"{piece.source} has a grid of {grid.shape[0]} x {grid.shape[1]} from "
                f"{grid.latitude[0]:g} degrees and {where} one of {first.shape[0]} x "
                f"{first.shape[1]} from {first.latitude[0]:g}: prepare files of one grid at a time."
            )


def _check_winds(pieces: Sequence[_Piece]) -> None:
    """Warn of winds whose rows run against their labels, where vorticity is there to tell."""
    by_name = {str(p.field.name): p for p in pieces if p.field.name in ("u", "v", "vo")}
    if set(by_name) != {"u", "v", "vo"}:
        return
    u, v, vorticity = (_first_field(by_name[name].field) for name in ("u", "v", "vo"))
    if len({str(f.coords["level"].values) for f in (u, v, vorticity) if "level" in f.coords}) > 1:
        return
    rows, columns = u["latitude"].values, u["longitude"].values
    source = by_name["u"].source
    check_wind_rows(u.values, v.values, vorticity.values, rows, columns, source=source)


def _first_field(field: xr.DataArray) -> xr.DataArray:
    return field.isel({d: 0 for d in field.dims if d in ("time", "level")}).transpose(
        "latitude", "longitude"
    )


def _assemble(pieces: Sequence[_Piece], channels: ChannelSet) -> xr.DataArray:
    """Join the pieces that hold the channels along time, and stack the channels in order."""
    wanted: dict[str, list[Channel]] = {}
    for channel in channels:
        if channel.offset_hours or channel.kind in ("static", "forcing", "band"):
            raise ValueError(
                f"Channel {channel.name!r} is {channel.kind}, no state of the atmosphere: put it "
                f"into prepare.static, data.forcings or data.history_hours instead."
            )
        wanted.setdefault(channel.variable, []).append(channel)
    parts = [_variable(pieces, variable, members) for variable, members in wanted.items()]
    common = [part["time"].values for part in parts]
    for part, times in zip(parts, common, strict=True):
        if not np.array_equal(times, common[0]):
            odd = np.setxor1d(times, common[0])[0]
            raise ValueError(
                f"{part['channel'].values[0]} and {parts[0]['channel'].values[0]} do not have the "
                f"same times ({_minute(odd)} is in one alone): give the same period of both."
            )
    state = xr.concat(parts, dim="channel", join="exact", coords="minimal", compat="override")
    return state.sel(channel=channels.names)


def _variable(pieces: Sequence[_Piece], variable: str, members: Sequence[Channel]) -> xr.DataArray:
    """All wanted levels of one variable over all files: (time, channel, latitude, longitude)."""
    names = [channel.name for channel in members]
    stores = [p for p in pieces if p.field.name == "state"]
    if stores and all(name in stores[0].field["channel"].values for name in names):
        fields = [(lazy(p.field).sel(channel=names), p.source) for p in stores]
        return _join_times([(_only_axes(f), source) for f, source in fields], variable)
    found = [p for p in pieces if p.field.name == variable]
    if not found:
        there = sorted({str(p.field.name) for p in pieces if p.field.name != "state"})
        raise ValueError(
            f"The sources lack the variable {variable!r} ({VARIABLES[variable].long}) and hold "
            f"{', '.join(there) or 'no known variable'}: add its file or change the channels."
        )
    for piece in found:
        if "time" not in piece.field.coords:
            raise ValueError(
                f"{variable} of {piece.source} has no time coordinate: add one, as every state "
                f"belongs to a time."
            )
    if members[0].level_hpa is None:
        parts = [(_surface(p.field).expand_dims(channel=names), p.source) for p in found]
        return _join_times([(lazy(f), source) for f, source in parts], variable)
    levels = [int(channel.level_hpa or 0) for channel in members]
    available = {level for piece in found for level in piece.levels}
    if missing := [level for level in levels if level not in available]:
        have = ", ".join(map(str, sorted(available))) or "no level at all"
        raise ValueError(
            f"The sources lack {variable} at {missing[0]} hPa and hold it at {have}: add that "
            f"level's file or change the channels."
        )
    by_levels: dict[tuple[int, ...], list[tuple[xr.DataArray, str]]] = {}
    for piece in found:
        here = tuple(level for level in levels if level in piece.levels)
        if not here:
            continue
        field = _with_time(piece.field).sel(level=list(here))
        field = lazy(field).rename(level="channel")
        field = field.assign_coords(channel=[names[levels.index(level)] for level in here])
        by_levels.setdefault(here, []).append((_only_axes(field), piece.source))
    joined = [_join_times(group, variable) for group in by_levels.values()]
    if len(joined) > 1:
        return xr.concat(joined, dim="channel", join="exact", coords="minimal", compat="override")
    return joined[0]


def _surface(field: xr.DataArray) -> xr.DataArray:
    if "level" in field.dims:
        field = field.isel(level=0)
    return _only_axes(_with_time(field))


def _with_time(field: xr.DataArray) -> xr.DataArray:
    return field if "time" in field.dims else field.expand_dims("time")


def _only_axes(field: xr.DataArray) -> xr.DataArray:
    return field.drop_vars([c for c in field.coords if c not in field.dims])


def _join_times(parts: Sequence[tuple[xr.DataArray, str]], variable: str) -> xr.DataArray:
    """Concatenate the files of one variable along time, refusing times that occur twice."""
    parts = sorted(parts, key=lambda part: part[0]["time"].values[0])
    seen: dict[np.datetime64, str] = {}
    for field, source in parts:
        for time in field["time"].values:
            if time in seen:
                raise ValueError(
                    f"{source} and {seen[time]} both hold {variable} at {_minute(time)}: remove "
                    f"one of the two, or the repeated time."
                )
            seen[time] = source
    fields = [field.astype(np.float32, copy=False) for field, _ in parts]
    joined = fields[0] if len(fields) == 1 else xr.concat(fields, dim="time", join="exact")
    order = ("time", "channel", "latitude", "longitude")
    return joined.sortby("time").transpose(*order).rename("state").drop_attrs(deep=False)


def _choose_times(
    state: xr.DataArray, period: tuple[str | None, str | None], step_hours: int | None
) -> xr.DataArray:
    """Cut to the period and thin to the step, refusing gaps."""
    every = state["time"].values
    state = state.sel(time=slice(*period))
    times = state["time"].values
    if not len(times):
        raise ValueError(
            f"The sources have no time from {period[0] or 'the start'} to "
            f"{period[1] or 'the end'}: they run from {_minute(every[0])} to {_minute(every[-1])}."
        )
    if step_hours is None:
        return state
    step = np.timedelta64(step_hours, "h")
    since_midnight = times - times.astype("datetime64[D]")
    finer = len(times) > 1 and np.diff(times).min() < step
    if finer and 24 % step_hours == 0:
        state = state.isel(time=np.flatnonzero(since_midnight % step == np.timedelta64(0)))
        times = state["time"].values
    gaps = np.flatnonzero(np.diff(times) != step)
    if len(gaps):
        hours = (times[gaps[0] + 1] - times[gaps[0]]) / np.timedelta64(1, "h")
        raise ValueError(
            f"After {_minute(times[gaps[0]])} the next time comes {hours:g} h later where "
            f"{step_hours} h is asked: add what is missing, or choose another period or step_hours."
        )
    return state


def _minute(time: np.datetime64) -> str:
    return str(time.astype("datetime64[m]"))
