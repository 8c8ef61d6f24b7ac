"""One raw file, whatever its layout, as Datasets under our names, not yet read.

Opening files is `opening`'s work, their variables' names and units are `names`', their axes
`axes`', their times `valid_times`', reading values is `reading`'s, joining files `sources`'.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path

import numpy as np
import xarray as xr

from sciml_dchag.channels import variables
from sciml_dchag.weather.prepare.axes import (
    ANOTHER_QUANTITY,
    HORIZONTAL,
    LEVELS_LOW,
    LEVELS_UNTOLD,
    NOT_ON_A_GRID,
    NOT_ON_PRESSURE,
    SEVERAL_NAMES,
    STORED_AS,
    Vertical,
    horizontal_axis,
    levels_in_hpa,
    not_on_a_grid,
    says_place,
    vertical_axis,
)
from sciml_dchag.weather.prepare.calendars import decode_times
from sciml_dchag.weather.prepare.chunks import refuse_lost_coordinates
from sciml_dchag.weather.prepare.names import (
    AT_HEIGHT,
    GEOPOTENTIAL_HEIGHT,
    SURFACE_HEIGHT,
    UNITS_UNTOLD,
    Known,
    another_height,
    another_quantity,
    known_variables,
)
from sciml_dchag.weather.prepare.opening import open_source
from sciml_dchag.weather.prepare.spans import another_statistic, span_notes
from sciml_dchag.weather.prepare.valid_times import by_valid_time

UNKNOWN = "unknown_variables"
"""Attribute of a Dataset without variables: the names in a file that none of ours is."""


def open_raw(source: str) -> list[xr.Dataset]:
    """Open one source under our names, reading no fields; each variable is a Dataset or several.

    Known variables alone are kept, in the file's units. Dimensions of one value are dropped. Where
    there is one time or one level, it may be a scalar coordinate. Levels are whole hPa; others are
    left out.

    Raises:
        ValueError: an unreadable or half-written source, axes of which a part is lost, or times or
            levels without meaning.
        ModuleNotFoundError: an extra is missing; the message names it.
    """
    opened = open_source(source)
    if Path(source).is_dir():
        refuse_lost_coordinates(source, opened[0])
    return [part for dataset in opened for part in tidy(dataset, source)]


def tidy(dataset: xr.Dataset, source: str) -> list[xr.Dataset]:
    """Give dimensions, variables, times and levels our form; name what is no field of ours.

    Args:
        dataset: as its file gives it.
        source: what messages call it.
    """
    if "state" in dataset and "channel" in dataset.dims:
        times = decode_times(dataset["time"].variable, source, dataset.attrs)
        dataset = dataset.assign_coords(time=("time", times))
        return [dataset[["state", *(["static"] if "static" in dataset else [])]]]
    dataset = _with_places(dataset)
    known = known_variables(dataset)
    found = [part for variable in known for part in _tidied(dataset, variable, source)]
    names = {variable.name for variable in known}
    others = [str(n) for n in dataset.data_vars if n not in names and dataset[n].ndim > 1]
    return [*found, xr.Dataset(attrs={**dataset.attrs, UNKNOWN: others})]


def _with_places(dataset: xr.Dataset) -> xr.Dataset:
    """Give dimensions without coordinates the latitudes or longitudes that lie along them.

    Some files have `lat(y)` and `lon(x)`, and no variables called y and x.
    """
    for dim in [dim for dim in dataset.dims if dim not in dataset.variables]:
        along = [(str(n), v) for n, v in dataset.variables.items() if v.dims == (dim,)]
        found = [
            (v, ours)
            for ours, names in HORIZONTAL.items()
            for n, v in along
            if n.lower() in names or says_place(v, ours)
        ]
        if len(found) == 1:  # cells of an unstructured grid have both along one dimension
            place, ours = found[0]
            attrs = {**place.attrs, "standard_name": ours}
            dataset = dataset.assign_coords({dim: (dim, place.values, attrs)})
    return dataset


def _tidied(dataset: xr.Dataset, variable: Known, source: str) -> list[xr.Dataset]:
    """Bring one variable into our form, as one Dataset per step of a forecast."""
    name = variable.name
    horizontal = {
        axis: ours
        for ours in HORIZONTAL
        if (axis := horizontal_axis(dataset, ours, dataset[name].dims)) is not None
    }
    vertical = vertical_axis(dataset, name)
    ours = variables().get(variable.short)
    named = None if ours is None else ours.accumulated_hours
    spans: dict[str, object] = {}
    odd = None
    if named is not None:
        spans, odd = span_notes(dataset, name, named or None, source)
    notes = {
        NOT_ON_A_GRID: not_on_a_grid(dataset, name),
        NOT_ON_PRESSURE: vertical.instead,
        ANOTHER_QUANTITY: another_quantity(dataset[name], variable.short)
        or another_height(dataset[name], variable.short, _height(dataset, vertical))
        or another_statistic(dataset[name], variable.short, is_sum=named is not None)
        or odd,
        **spans,
        LEVELS_UNTOLD: vertical.axis if vertical.untold else None,
        LEVELS_LOW: vertical.axis if vertical.low else None,
        SEVERAL_NAMES: " and ".join((name, *variable.beside)) if variable.beside else None,
    }
    alone = dataset[[name]]
    short = _at_height(variable.short, alone, vertical)
    found = []
    for part in by_valid_time(alone, name, source):
        if "expver" in part.coords and "expver" in part.dims:
            part = part.sortby("expver")  # final data (1) come before preliminary ones (5)
        part = _vertical_named(part, vertical)
        part = _renamed(part, {a: o for a, o in horizontal.items() if a != o})
        part = part.rename({name: short}) if name != short else part
        keep = ("latitude", "longitude", "level", "time")
        part = part.drop_vars([c for c in part.coords if c not in keep])
        single = {d: 0 for d, n in part.sizes.items() if n == 1 and d not in keep}
        part = _level_in_hpa(part.isel(single, drop=True), vertical, source)
        part = _on_the_level_of_its_name(part, short, variable, source)
        height = variable.alias in (*GEOPOTENTIAL_HEIGHT, *SURFACE_HEIGHT)
        if height and not str(part[short].attrs.get("units", "")).strip():
            part[short].attrs["units"] = UNITS_UNTOLD
        part[short].attrs[STORED_AS] = name
        part[short].attrs.update({key: text for key, text in notes.items() if text is not None})
        found.append(part)
    return found


def _at_height(short: str, dataset: xr.Dataset, vertical: Vertical) -> str:
    """Name a variable by the one height above the ground that it is on, as 2 m temperature."""
    height = _height(dataset, vertical)
    return short if height is None else AT_HEIGHT.get((short, int(height)), short)


def _height(dataset: xr.Dataset, vertical: Vertical) -> float | None:
    """The one height in metres that a field is on; None where there is none, or several."""
    axis, instead = vertical.axis, vertical.instead
    if axis is None or axis not in dataset.coords or dataset[axis].size != 1 or instead is None:
        return None
    if "(heights)" not in instead and "'m'" not in instead:
        return None
    return float(dataset[axis].values.reshape(-1)[0])


def _renamed(dataset: xr.Dataset, names: dict[str, str]) -> xr.Dataset:
    """Rename axes, dropping what else has the new names."""
    free = dataset.drop_vars([n for n in names.values() if n in dataset.variables])
    present: dict[Hashable, Hashable] = {
        a: o for a, o in names.items() if a in free.variables or a in free.dims
    }
    return free.rename(present)


def _vertical_named(dataset: xr.Dataset, vertical: Vertical) -> xr.Dataset:
    """Call a pressure axis `level`, and another axis of that name something else."""
    if vertical.instead is not None or vertical.axis is None:
        return _renamed(dataset, {"level": "other_level"})
    return dataset if vertical.axis == "level" else _renamed(dataset, {vertical.axis: "level"})


def _level_in_hpa(dataset: xr.Dataset, vertical: Vertical, source: str) -> xr.Dataset:
    """Turn levels into whole hPa, and leave out those between.

    A level that is there twice stays twice, for whoever reads it to compare the two.

    Raises:
        ValueError: levels labelled hPa that can only be Pa.
    """
    if "level" not in dataset.coords:
        return dataset
    level = dataset["level"].variable
    values = levels_in_hpa(str(vertical.axis), level, source)
    whole = np.rint(values).astype(np.int64)
    # Channels are on whole hPa: 1.5 must not pass for 2. Files of float32 round to 1e-4.
    exact = np.abs(values - whole) < 1e-3
    if not level.dims:
        return dataset.assign_coords(level=whole) if exact else dataset.drop_vars("level")
    if not exact.any() and values.size:
        shown = ", ".join(f"{value:g}" for value in values[:6]) + (
            ", ..." if len(values) > 6 else ""
        )
        for field in dataset.data_vars.values():
            field.attrs.setdefault(
                NOT_ON_PRESSURE, f"{vertical.axis} ({shown} hPa, none of them a whole one)"
            )
        return _renamed(dataset, {"level": "other_level"})
    return dataset.assign_coords(level=(level.dims, whole)).isel({level.dims[0]: exact})


def _on_the_level_of_its_name(
    dataset: xr.Dataset, short: str, variable: Known, source: str
) -> xr.Dataset:
    """Put a variable on the level that its name says, as `u850` does.

    Raises:
        ValueError: it is not the one of the coordinate.
    """
    if variable.level_hpa is None:
        return dataset
    if "level" not in dataset.coords:
        return dataset.assign_coords(level=variable.level_hpa)
    if (held := np.atleast_1d(dataset["level"].values).tolist()) != [variable.level_hpa]:
        raise ValueError(
            f"{source} has {variable.name} on {', '.join(map(str, held))} hPa by its "
            f"coordinate level: correct that or the name."
        )
    return dataset


def unknown_names(raw: Iterable[tuple[str, xr.Dataset]]) -> list[str]:
    """List the variables in files that none of ours is, as `tidy` has noted them."""
    return list(dict.fromkeys(name for _, d in raw for name in d.attrs.get(UNKNOWN, [])))
