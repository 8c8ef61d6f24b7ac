"""Raw ERA5 files, joined to one lazy state of the channels asked for.

What a single file looks like is `layouts`' concern, one variable of it `pieces`', its times are
`times`', reading is `reading`'s, and whether values are believable `checks`'.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from sciml_dchag.channels import Channel, ChannelSet, declared_channels, variables
from sciml_dchag.weather.channels import level_name
from sciml_dchag.weather.prepare.accumulations import accumulated
from sciml_dchag.weather.prepare.axes import SEVERAL_NAMES
from sciml_dchag.weather.prepare.cells import Believable, Cells
from sciml_dchag.weather.prepare.checks import check_mean
from sciml_dchag.weather.prepare.chunks import check_missing_chunks
from sciml_dchag.weather.prepare.layouts import open_raw, unknown_names
from sciml_dchag.weather.prepare.magnitudes import refuse_heights
from sciml_dchag.weather.prepare.opening import expand_sources
from sciml_dchag.weather.prepare.origin import origin
from sciml_dchag.weather.prepare.pieces import Piece, in_several, north_and_east, one_grid
from sciml_dchag.weather.prepare.pressures import check_doubtful_levels
from sciml_dchag.weather.prepare.reading import VERTICAL, lazy_state
from sciml_dchag.weather.prepare.times import (
    check_times,
    choose_times,
    join_times,
    warn_of_missing_ends,
)
from sciml_dchag.weather.prepare.valid_times import warn_of_dates
from sciml_dchag.weather.prepare.winds import check_winds
from sciml_dchag.weather.store.store import Period

ALL = "all"
"""Stands for every channel that the sources hold."""


def open_era5(
    sources: Sequence[str],
    channels: ChannelSet | None,
    *,
    period: Period = (None, None),
    step_hours: int | None = None,
    judge: Believable | None = None,
) -> xr.DataArray:
    """Open raw files as lazy `state(time, channel, latitude, longitude)`, float32.

    Variables, levels and times may be spread over files in any way. The grid stays, its rows from
    south to north and its columns from 0 eastward. A chunk is one time, or several where the files
    store several together.

    Args:
        sources: NetCDF, GRIB or Zarr files, globs, URLs, or a store of ours.
        channels: the channels wanted; None for all that the sources hold.
        period: first and last time, both included; None for no bound.
        step_hours: time step wanted; finer data are thinned to its multiples since midnight, or
            since the first time where it does not divide a day. Accumulations are summed over it.
        judge: checks fields as they are read.

    Raises:
        FileNotFoundError: a source that is not there.
        ValueError: an unreadable file, a variable or level that is missing, files of different
            grids or overlapping times, gaps or uneven steps where `step_hours` is given, or a
            period outside the data.

    Warns:
        UserWarning: a period that is partly outside the data, or winds stored upside down.
    """
    if step_hours is not None and step_hours < 1:
        raise ValueError(f"A time step of {step_hours} h was asked: give 1 or more, such as 6.")
    paths = expand_sources(sources)
    raw = [(path, dataset) for path in paths for dataset in open_raw(path)]
    channels = held_channels(raw) if channels is None else channels
    state = join_states(raw, channels, period=period, step_hours=step_hours, judge=judge)
    warn_of_missing_ends(state["time"].values, period, "period")
    state.attrs = {**origin(raw, state["time"].values), "sources": paths}
    return state


def join_states(
    raw: Sequence[tuple[str, xr.Dataset]],
    channels: ChannelSet,
    *,
    period: Period = (None, None),
    step_hours: int | None = None,
    judge: Believable | None = None,
) -> xr.DataArray:
    """Join datasets under our names as `open_era5` does, each given with what messages call it.

    Raises:
        ValueError: as `open_era5`.
    """
    pieces = [
        Piece(north_and_east(dataset[name]), path)
        for path, dataset in raw
        for name in dataset.data_vars
        if name != "static"
    ]
    if not {"u", "v"}.isdisjoint(channel.variable for channel in channels):
        check_winds(pieces)
    parts, used, lost = [], [], []
    sums = {c.name: accumulated(c, pieces, period, step_hours) for c in channels if _is_sum(c)}
    for sum_ in sums.values():
        if sum_ is not None:
            parts.append(sum_.part)
            used += sum_.pieces
            lost.append(sum_.lost)
    rest = ChannelSet(c for c in channels if sums.get(c.name) is None)
    for names, held, levels in _choose_pieces(pieces, rest, unknown_names(raw)):
        part = join_times(names, [p.raw() for p in held], [p.times for p in held], levels)
        parts.append(choose_times(part, period, step_hours))
        used += held
    grid = one_grid(used)
    if lost:  # of a time without its sums nothing is kept
        without = np.concatenate(lost)
        parts = [p.at(np.flatnonzero(~np.isin(p.times, without))) for p in parts]
    check_times(parts, step_hours)
    if not len(parts[0].times):
        raise ValueError(
            f"No time of {used[0].source} has all that {', '.join(channels.names[:5])} need: add "
            f"what is missing, or choose other channels."
        )
    check_doubtful_levels(pieces, used)
    warn_of_dates((piece.source, piece.field) for piece in used)
    if judge is not None:
        judge.bind(channels, Cells(latitude=grid.latitude, longitude=grid.longitude))
        check_missing_chunks(parts, allow_missing=judge.allow_missing)
    return lazy_state(parts, channels.names, grid, judge)


def held_channels(raw: Sequence[tuple[str, xr.Dataset]]) -> ChannelSet:
    """List every channel that datasets under our names hold, by variable and level.

    Raises:
        ValueError: they hold none.
    """
    names: dict[str, None] = {}
    kinds = {short: variable.kind for short, variable in variables().items()}
    own = {(c.variable, c.level_hpa): c.name for c in declared_channels()}
    for path, dataset in raw:
        for name in map(str, dataset.data_vars):
            piece = Piece(dataset[name], path)
            if name == "state":
                names |= dict.fromkeys(map(str, dataset["channel"].values))
            elif name in kinds and "time" in piece.field.coords and not piece.further_dims:
                if several := piece.field.attrs.get(SEVERAL_NAMES):
                    fix = "or name the channels that are wanted"
                    raise ValueError(f"{name} of {path} {in_several(several, name)}, {fix}.")
                levels = piece.levels if kinds[name] == "level" else [None]
                for level in levels if kinds[name] in ("level", "surface") else []:
                    plain = name if level is None else level_name(name, level)
                    names[own.get((name, level), plain)] = None
    if not names:
        raise ValueError("The sources hold no channel that is known: name other files.")
    return ChannelSet(names)


def _is_sum(channel: Channel) -> bool:
    ours = variables().get(channel.variable)
    return ours is not None and ours.accumulated_hours is not None and not channel.offset_hours


def open_static(sources: Sequence[str], names: Sequence[str]) -> xr.DataArray:
    """Read static fields: (static_channel, latitude, longitude), float32, in memory.

    Raises:
        ValueError: a field that is not there, the message says which ones are; units or values
            that are not ours; files of different grids.
    """
    paths = expand_sources(sources)
    return join_static([(path, d) for path in paths for d in open_raw(path)], names)


def join_static(raw: Sequence[tuple[str, xr.Dataset]], names: Sequence[str]) -> xr.DataArray:
    """Join datasets under our names as `open_static` does, each given with what messages call it.

    Raises:
        ValueError: as `open_static`.
    """
    found: dict[str, tuple[Piece, list[int]]] = {}
    ours = variables()
    for path, dataset in raw:
        for name in dataset.data_vars:
            piece = Piece(north_and_east(dataset[name]), path)
            if name == "static":
                stored = [str(n) for n in dataset["static_channel"].values]
                found |= {short: (piece, [i]) for i, short in enumerate(stored)}
                continue
            # A file of surface geopotential calls it z, on no level.
            on_surface = name == "z" and "level" not in dataset[name].coords
            on_surface &= "surface" in (piece.not_on_pressure or "surface")
            short = "orography" if on_surface else str(name)
            if short in ours and ours[short].kind == "static":
                found[short] = (piece, [])
    if missing := [name for name in names if name not in found]:
        where = ", ".join(dict.fromkeys(path for path, _ in raw))
        raise ValueError(
            f"The static field {missing[0]!r} is not in {where}, which "
            f"hold {', '.join(found) or 'none'}: name a file that has it in `static_sources`."
        )
    grid = one_grid([found[name][0] for name in names])
    fields = []
    for name in names:
        piece, position = found[name]
        fields.append(piece.raw().read(np.array([0]), position)[0, 0])
        check_mean(fields[-1], name, ours[name])
        if piece.name != "static":
            cells = Cells(latitude=grid.latitude, longitude=grid.longitude)
            refuse_heights(fields[-1], name, whole_globe=cells.global_)
    return xr.DataArray(
        np.stack(fields),
        dims=("static_channel", "latitude", "longitude"),
        coords={
            "static_channel": list(names),
            "latitude": grid.latitude,
            "longitude": grid.longitude,
        },
    )


_Chosen = tuple[tuple[str, ...], list[Piece], list[tuple[int, ...]]]
"""Names of channels, the pieces that hold them, and by piece their positions on its levels."""


def _choose_pieces(
    pieces: Sequence[Piece], channels: ChannelSet, unknown: Sequence[str]
) -> list[_Chosen]:
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
                raise ValueError(_missing(pieces, channel, unknown))
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


def _position(piece: Piece, channel: Channel) -> int:
    """Where a piece holds a channel on its vertical axis; -1 where it does not."""
    if piece.name == "state":
        names = piece.field["channel"].values.tolist()
        return names.index(channel.name) if channel.name in names else -1
    if piece.name != channel.variable or (channel.level_hpa and piece.not_on_pressure):
        return -1
    if channel.level_hpa is None:
        return 0
    return piece.levels.index(channel.level_hpa) if channel.level_hpa in piece.levels else -1


def _missing(pieces: Sequence[Piece], channel: Channel, unknown: Sequence[str]) -> str:
    """Say which channel is missing and what is there."""
    of_it = [piece for piece in pieces if piece.name == channel.variable]
    levels = {level for piece in of_it for level in piece.levels}
    if of_it and not any(piece.field.size for piece in of_it):
        of_it[0].raw()  # says which axis has length 0
    if levels:
        return (
            f"The sources lack {channel.variable} at {channel.level_hpa} hPa and hold it at "
            f"{', '.join(map(str, sorted(levels)))}: add that level's file or change the channels."
        )
    if elsewhere := [piece for piece in of_it if piece.not_on_pressure]:
        return (
            f"{channel.variable} of {elsewhere[0].source} lies on {elsewhere[0].not_on_pressure}, "
            f"and only pressure levels of whole hPa can be read: interpolate it to those first."
        )
    if of_it and (dims := of_it[0].further_dims):
        return (
            f"{channel.variable} of {of_it[0].source} lies on {', '.join(dims)}, of which the file "
            f"does not say that it is pressure: if it is, call it level and set its units to hPa "
            f"or Pa, and else interpolate it to pressure levels first."
        )
    if of_it:
        timeless = "time" not in of_it[0].field.coords
        nor, what = (", nor at which time", "both") if timeless else ("", "it")
        return (
            f"The sources do not say on which level {channel.variable} is{nor}: if it is at "
            f"{channel.level_hpa} hPa, add {what} to {of_it[0].source}, as xarray's "
            f"assign_coords(level={channel.level_hpa}{', time=...' if timeless else ''}) does."
        )
    there = {piece.name for piece in pieces if piece.name != "state"}
    for piece in pieces:
        if piece.name == "state":
            there.update(map(str, piece.field["channel"].values))
    others = f" and, under names that are not known, {', '.join(unknown[:20])}" if unknown else ""
    return (
        f"The sources lack the variable {channel.variable!r} ({channel.label}) and hold "
        f"{', '.join(sorted(there)) or 'no known variable'}{others}: add its file, rename the "
        f"variable in it, or change the channels."
    )
