"""Raw ERA5 files, joined to one lazy state of the channels asked for.

What a single file looks like is `layouts`' concern, reading it `reading`'s, its times `times`', and
whether its values are believable `checks`'.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag.channels import VARIABLES, Channel, ChannelSet
from sciml_dchag.data.layout import iso
from sciml_dchag.data.store import Period
from sciml_dchag.prepare.checks import check_mean, check_wind_rows
from sciml_dchag.prepare.grid_checks import SLACK_DEGREES
from sciml_dchag.prepare.grids import Grid
from sciml_dchag.prepare.layouts import expand_sources, open_raw, units_factor
from sciml_dchag.prepare.reading import VERTICAL, RawField, lazy_state
from sciml_dchag.prepare.times import check_times, choose_times, join_times

ERA5_ATTRIBUTION = "Contains modified Copernicus Climate Change Service information"
WIND_WITNESSES: tuple[Literal["vo", "z"], ...] = ("vo", "z")
"""Fields that tell whether a wind's rows are where its labels say."""


@dataclass(frozen=True, eq=False)
class _Piece:
    """One variable of one file."""

    field: xr.DataArray
    source: str

    @cached_property
    def name(self) -> str:
        return str(self.field.name)

    @cached_property
    def times(self) -> NDArray[np.datetime64]:
        if "time" not in self.field.coords:
            raise ValueError(
                f"{self.name} of {self.source} has no time coordinate: add one, as every state "
                f"belongs to a time."
            )
        return np.atleast_1d(self.field["time"].values)

    @cached_property
    def levels(self) -> list[int]:
        if "level" not in self.field.coords:
            return []
        return [int(level) for level in np.atleast_1d(self.field["level"].values)]

    @cached_property
    def further_dims(self) -> list[str]:
        """Dimensions that a field does not have, such as ensemble members."""
        known = ("time", "latitude", "longitude", "expver", *VERTICAL)
        return [str(dim) for dim in self.field.dims if dim not in known]

    @cached_property
    def missing_dims(self) -> list[str]:
        """Dimensions that a field must have and this one has not."""
        return [dim for dim in ("latitude", "longitude") if dim not in self.field.dims]

    def raw(self) -> RawField:
        """The field ready to be read, if it has the axes of one and units that we know."""
        if self.missing_dims:
            raise ValueError(
                f"{self.name} of {self.source} has no {self.missing_dims[0]} axis: only fields on "
                f"a latitude-longitude grid can be read."
            )
        if self.further_dims:
            dim = self.further_dims[0]
            what = "ensemble members" if dim == "number" else "values"
            raise ValueError(
                f"{self.source} holds {self.field.sizes[dim]} {what} of {self.name} (dimension "
                f"{dim}) where one is needed: write one of them to a file of its own."
            )
        factor = units_factor(self.field, self.source) if self.name in VARIABLES else 1.0
        return RawField(self.field.variable, self.source, factor)


def open_era5(
    sources: Sequence[str],
    channels: ChannelSet,
    *,
    period: Period = (None, None),
    step_hours: int | None = None,
) -> xr.DataArray:
    """Open raw files as lazy `state(time, channel, latitude, longitude)`, float32.

    Variables, levels and times may be spread over files in any way. The grid and its row order
    stay. A chunk is one time, or several where the files store several together.

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
    if step_hours is not None and step_hours < 1:
        raise ValueError(f"A time step of {step_hours} h was asked: give 1 or more, such as 6.")
    paths = expand_sources(sources)
    raw = [(path, dataset) for path in paths for dataset in open_raw(path)]
    pieces = [
        _Piece(dataset[name], path)
        for path, dataset in raw
        for name in dataset.data_vars
        if name != "static"
    ]
    if not {"u", "v"}.isdisjoint(channel.variable for channel in channels):
        _check_winds(pieces)
    chosen = _choose_pieces(pieces, channels)
    grid = _one_grid([piece for _, held, _ in chosen for piece in held])
    parts = []
    for names, held, levels in chosen:
        part = join_times(names, [p.raw() for p in held], [p.times for p in held], levels)
        parts.append(choose_times(part, period, step_hours))
    check_times(parts, step_hours)
    state = lazy_state(parts, channels.names, grid)
    state.attrs = {**_origin([d for _, d in raw], parts[0].times), "sources": paths}
    return state


def open_static(sources: Sequence[str], names: Sequence[str]) -> xr.DataArray:
    """Read static fields: (static_channel, latitude, longitude), float32, in memory.

    Raises:
        ValueError: a field that is not there, the message says which ones are; units or values
            that are not ours; files of different grids.
    """
    found: dict[str, tuple[_Piece, list[int]]] = {}
    for path in expand_sources(sources):
        for dataset in open_raw(path):
            for name in dataset.data_vars:
                piece = _Piece(dataset[name], path)
                if name == "static":
                    stored = [str(n) for n in dataset["static_channel"].values]
                    found |= {short: (piece, [i]) for i, short in enumerate(stored)}
                    continue
                # A file of surface geopotential calls it z, on no level.
                on_surface = name == "z" and "level" not in dataset[name].coords
                short = "orography" if on_surface else str(name)
                if short in VARIABLES and VARIABLES[short].kind == "static":
                    found[short] = (piece, [])
    if missing := [name for name in names if name not in found]:
        raise ValueError(
            f"The static field {missing[0]!r} is not in {', '.join(map(str, sources))}, which "
            f"hold {', '.join(found) or 'none'}: name a file with --static-source."
        )
    grid = _one_grid([found[name][0] for name in names])
    fields = []
    for name in names:
        piece, position = found[name]
        fields.append(piece.raw().read(np.array([0]), position)[0, 0])
        check_mean(fields[-1], name, VARIABLES[name])
    return xr.DataArray(
        np.stack(fields),
        dims=("static_channel", "latitude", "longitude"),
        coords={
            "static_channel": list(names),
            "latitude": grid.latitude,
            "longitude": grid.longitude,
        },
    )


def list_contents(sources: Sequence[str]) -> dict[str, object]:
    """Say what raw files hold, reading no values: variables, levels, grid, times.

    Raises:
        FileNotFoundError, ValueError: as `open_era5`.
    """
    paths = expand_sources(sources)
    held: dict[str, set[int | str]] = {}
    grids: dict[str, None] = {}
    times: list[NDArray[np.datetime64]] = []
    for path in paths:
        for dataset in open_raw(path):
            for name in dataset.data_vars:
                piece = _Piece(dataset[name], path)
                on = dataset["channel"].values.tolist() if name == "state" else piece.levels
                held.setdefault(piece.name, set()).update(on)
                if {"latitude", "longitude"} <= set(piece.field.dims):
                    grid = Grid.of(piece.field)
                    grids[f"{grid.shape[0]} x {grid.shape[1]}, {grid.kind}"] = None
                if "time" in piece.field.coords:
                    times.append(piece.times)
    unique = np.unique(np.concatenate(times)) if times else np.array([], "datetime64[ns]")
    return {
        "files": len(paths),
        "variables": [_in_words(name, on) for name, on in held.items()],
        "grid": "; ".join(grids) or "none",
        "times": len(unique),
        "period": f"{iso(unique[0])} to {iso(unique[-1])}" if len(unique) else "none",
    }


def _in_words(name: str, on: Iterable[int | str]) -> str:
    if name == "state":
        return f"state of {len(list(on))} channel(s)"
    levels = sorted(int(level) for level in on)
    return (
        f"{name} on {len(levels)} level(s): {', '.join(map(str, levels))} hPa" if levels else name
    )


def _origin(datasets: Sequence[xr.Dataset], times: NDArray[np.datetime64]) -> dict[str, Any]:
    """Tell whether data are simulated, and whom to thank; a store of ours knows both."""
    stores = [dataset.attrs for dataset in datasets if "state" in dataset]
    first, last = str(times[0])[:4], str(times[-1])[:4]
    copernicus = f"{ERA5_ATTRIBUTION} {first if first == last else f'{first}-{last}'}"
    told = [str(attrs["attribution"]) for attrs in stores if "attribution" in attrs]
    simulated = any(int(attrs.get("simulated", 0)) for attrs in stores)
    return {"attribution": (told or [copernicus])[0], "simulated": int(simulated)}


def _one_grid(pieces: Sequence[_Piece]) -> Grid:
    """Return the grid of all pieces, refusing two files of different grids."""
    first = pieces[0]
    for piece in pieces:
        piece.raw()  # refuses a field without the axes of one
    grid = Grid.of(first.field)
    for piece in pieces[1:]:
        rows, columns = piece.field["latitude"].values, piece.field["longitude"].values
        if (rows.size, columns.size) == grid.shape and (
            max(np.abs(rows - grid.latitude).max(), np.abs(columns - grid.longitude).max())
            < SLACK_DEGREES
        ):
            continue
        other = Grid.of(piece.field)
        raise ValueError(
            f"{piece.source} has a grid of {_corner(other)} and {first.source} one of "
            f"{_corner(grid)}: prepare files of one grid at a time."
        )
    return grid


def _corner(grid: Grid) -> str:
    rows, columns = grid.shape
    return f"{rows} x {columns} from {grid.latitude[0]:g} degrees north, {grid.longitude[0]:g} east"


def _check_winds(pieces: Sequence[_Piece]) -> None:
    """Warn of winds whose rows run against their labels, where another field is there to tell.

    Looks at one time, on the level next to 500 hPa on which all are there.
    """
    usable = [piece for piece in pieces if not piece.missing_dims and not piece.further_dims]
    first = next((piece for piece in usable if piece.name == "u"), None)
    if first is None:
        return
    time = first.times[0] if "time" in first.field.coords else None
    levels: list[int | None] = [*sorted(first.levels, key=lambda level: abs(level - 500))]
    for known in WIND_WITNESSES:
        for level in levels or [None]:
            fields = [_field_at(usable, name, time, level) for name in ("u", "v", known)]
            u, v, other = fields
            if u is None or v is None or other is None or not u.shape == v.shape == other.shape:
                continue
            grid = Grid.of(first.field)
            check_wind_rows(
                u, v, other, grid.latitude, grid.longitude, known=known, source=first.source
            )
            return


def _field_at(
    pieces: Sequence[_Piece], name: str, time: np.datetime64 | None, level: int | None
) -> NDArray[np.float32] | None:
    """Read one field in the file's units, or None where no file has it at that time and level."""
    for piece in pieces:
        if piece.name != name or (level is not None and level not in piece.levels):
            continue
        times = piece.times if "time" in piece.field.coords else None
        if time is not None and times is not None and time not in times:
            continue
        when = 0 if time is None or times is None else int(np.argmax(times == time))
        where = [] if level is None else [piece.levels.index(level)]
        return RawField(piece.field.variable, piece.source, 1.0).read(np.array([when]), where)[0, 0]
    return None


_Chosen = tuple[tuple[str, ...], list[_Piece], list[tuple[int, ...]]]
"""Names of channels, the pieces that hold them, and by piece their positions on its levels."""


def _choose_pieces(pieces: Sequence[_Piece], channels: ChannelSet) -> list[_Chosen]:
    """Find the pieces that hold each channel; channels of the same pieces go together."""
    wanted: dict[str, list[Channel]] = {}
    for channel in channels:
        if channel.offset_hours or channel.kind in ("static", "forcing", "band"):
            kind = "history" if channel.offset_hours else channel.kind
            raise ValueError(
                f"Channel {channel.name!r} is {kind}, no state of the atmosphere: put it into "
                f"prepare.static, data.forcings or data.history_hours instead."
            )
        wanted.setdefault(channel.variable, []).append(channel)
    chosen: list[_Chosen] = []
    for members in wanted.values():
        groups: dict[tuple[int, ...], list[Channel]] = {}
        for channel in members:
            holders = tuple(i for i, piece in enumerate(pieces) if _position(piece, channel) >= 0)
            if not holders:
                raise ValueError(_missing(pieces, channel))
            groups.setdefault(holders, []).append(channel)
        for holders, together in groups.items():
            held = [pieces[i] for i in holders]
            levels = [
                tuple(_position(piece, channel) for channel in together)
                if any(dim in piece.field.dims for dim in VERTICAL)
                else ()
                for piece in held
            ]
            chosen.append((tuple(channel.name for channel in together), held, levels))
    return chosen


def _position(piece: _Piece, channel: Channel) -> int:
    """Where a piece holds a channel on its vertical axis; -1 where it does not."""
    if piece.name == "state":
        names = piece.field["channel"].values.tolist()
        return names.index(channel.name) if channel.name in names else -1
    if piece.name != channel.variable:
        return -1
    if channel.level_hpa is None:
        return 0
    return piece.levels.index(channel.level_hpa) if channel.level_hpa in piece.levels else -1


def _missing(pieces: Sequence[_Piece], channel: Channel) -> str:
    """Say which channel is missing and what is there."""
    levels = {level for p in pieces if p.name == channel.variable for level in p.levels}
    if levels:
        return (
            f"The sources lack {channel.variable} at {channel.level_hpa} hPa and hold it at "
            f"{', '.join(map(str, sorted(levels)))}: add that level's file or change the channels."
        )
    if any(piece.name == channel.variable for piece in pieces):
        return (
            f"The sources do not say on which level {channel.variable} is: give it a coordinate "
            f"level in hPa, a scalar one for a single level."
        )
    there = {piece.name for piece in pieces if piece.name != "state"}
    for piece in pieces:
        if piece.name == "state":
            there.update(map(str, piece.field["channel"].values))
    return (
        f"The sources lack the variable {channel.variable!r} ({channel.label}) and hold "
        f"{', '.join(sorted(there)) or 'no known variable'}: add its file or change the channels."
    )
