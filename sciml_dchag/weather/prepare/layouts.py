"""One raw file, whatever its layout, as a Dataset under our names, not yet read.

Giving dimensions, variables, times and levels one form. Opening files is `opening`'s work, their
variables' names and units are `names`', reading values is `reading`'s, joining files `sources`'.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from sciml_dchag.weather.prepare.names import (
    GEOPOTENTIAL_HEIGHT,
    UNITS_UNTOLD,
    Known,
    known_variables,
)
from sciml_dchag.weather.prepare.opening import open_source

DIMENSION_NAMES = {
    "latitude": ("lat", "y"),
    "longitude": ("lon", "x"),
    "level": ("pressure_level", "isobaricInhPa", "isobaricInPa", "plev", "lev", "pressure"),
    "time": ("valid_time", "time_index", "initial_time0_hours"),
}
"""Our name of a dimension, and the names that files give it."""

HECTOPASCAL = ("hpa", "millibar", "millibars", "mbar", "mb")
PASCAL = ("pa", "pascal", "pascals")


def open_raw(source: str) -> list[xr.Dataset]:
    """Open one source under our names, reading no fields; GRIB may hold several hypercubes.

    Known variables alone are kept, in the file's units. Dimensions of one value are dropped. Where
    there is one time or one level, it may be a scalar coordinate. Levels are whole hPa; others are
    left out.

    Raises:
        ValueError: an unreadable or half-written source, or times or levels without meaning.
        ModuleNotFoundError: an extra is missing; the message names it.
    """
    return [part for dataset in open_source(source) for part in tidy(dataset, source)]


def tidy(dataset: xr.Dataset, source: str) -> list[xr.Dataset]:
    """Give dimensions, variables, times and levels our form; drop what is no field.

    Variables with a level in their names, such as u850, make a dataset of their own by level.

    Args:
        dataset: as its file gives it.
        source: what messages call it.
    """
    dataset = _level_in_hpa(_decode_time(_rename_dimensions(dataset), source), source)
    if "expver" in dataset.coords and "expver" in dataset.dims:
        dataset = dataset.sortby("expver")  # final data (1) come before preliminary ones (5)
    if "state" in dataset and "channel" in dataset.dims:
        return [dataset[["state", *(["static"] if "static" in dataset else [])]]]
    single = {d: 0 for d, size in dataset.sizes.items() if size == 1 and d not in DIMENSION_NAMES}
    dataset = dataset.isel(single, drop=True)
    known = known_variables(dataset)
    dataset = dataset.drop_vars([c for c in dataset.coords if c not in DIMENSION_NAMES])
    levels = dict.fromkeys([None, *(variable.level_hpa for variable in known)])
    return [
        _renamed(dataset, [variable for variable in known if variable.level_hpa == level], source)
        for level in levels
    ]


def _renamed(dataset: xr.Dataset, known: list[Known], source: str) -> xr.Dataset:
    """Keep some variables under our names, on the level that theirs tell.

    Raises:
        ValueError: a level in a name that is not the one of the coordinate.
    """
    renamed = dataset[[v.name for v in known]].rename({v.name: v.short for v in known})
    for variable in known:
        field = renamed[variable.short]
        if variable.alias in GEOPOTENTIAL_HEIGHT:
            field.attrs.setdefault("units", UNITS_UNTOLD)
        if variable.level_hpa is None:
            continue
        if "level" not in (*field.dims, *field.coords):
            renamed = renamed.assign_coords(level=variable.level_hpa)
        elif (held := np.atleast_1d(field["level"].values).tolist()) != [variable.level_hpa]:
            raise ValueError(
                f"{source} has {variable.name} on {', '.join(map(str, held))} hPa by its "
                f"coordinate level: correct that or the name."
            )
    return renamed


def _rename_dimensions(dataset: xr.Dataset) -> xr.Dataset:
    """Give the four dimensions our names, taking the first that a file has."""
    names: dict[str, str] = {}
    for ours, theirs in DIMENSION_NAMES.items():
        on_axis = [name for name in theirs if name in dataset.dims]
        scalar = [name for name in theirs if name in dataset.coords and not dataset[name].dims]
        if ours in dataset.dims:
            continue
        if on_axis:
            names[on_axis[0]] = ours
        elif ours not in dataset.variables and scalar:
            names[scalar[0]] = ours
    dataset = dataset.drop_vars([n for n in names.values() if n in dataset.variables])
    return dataset.rename(names)


def _decode_time(dataset: xr.Dataset, source: str) -> xr.Dataset:
    """Make `time` the time for which the fields are valid, as datetime64[ns]."""
    if "valid_time" in dataset.coords and dataset["valid_time"].dims in (("time",), ()):
        # GRIB's own `time` is when a forecast began.
        dataset = dataset.assign_coords(time=dataset["valid_time"].variable)
    if "time" not in dataset.coords:
        return dataset
    time = dataset["time"].variable
    if time.dtype.kind == "O":
        raise ValueError(
            f"{source} has times of the calendar {time.encoding.get('calendar', 'unknown')!r}: "
            f"only the standard calendar can be read."
        )
    if time.dtype.kind != "M":
        units = time.attrs.get("units") or dataset.attrs.get("time_units")
        if units is None:
            raise ValueError(
                f"{source} has times without units: write `units`, such as hours since 1900-01-01."
            )
        units = str(units).split(" (")[0]
        try:
            bare = xr.Dataset({"time": (time.dims, time.values, {"units": units})})
            time = xr.decode_cf(bare)["time"].variable
            if time.dtype.kind != "M":  # units of no time are left as they are
                raise ValueError(units)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(
                f"{source} has times in {units!r}, which cannot be read: write units such as "
                f"hours since 1900-01-01."
            ) from error
    values = time.values.astype("datetime64[ns]")
    if np.isnat(values).any():
        raise ValueError(
            f"{source} has {int(np.isnat(values).sum())} missing times: repair its time coordinate."
        )
    return dataset.assign_coords(time=(time.dims, values))


def _level_in_hpa(dataset: xr.Dataset, source: str) -> xr.Dataset:
    """Turn levels into whole hPa; Pa is told by the units, or by the size where there are none.

    Raises:
        ValueError: levels labelled hPa that can only be Pa, or levels of no pressure.
    """
    if "level" not in dataset.coords:
        return dataset
    level = dataset["level"].variable
    values = level.values.astype(np.float64)
    units = str(level.attrs.get("units", "")).strip()
    too_large = values.max() > 1100
    if units.lower() in HECTOPASCAL and too_large:
        raise ValueError(
            f"{source} has level {values.max():g} labelled {units}, which only Pa can be: correct "
            f"the units attribute of its level coordinate."
        )
    if units and units.lower() not in (*HECTOPASCAL, *PASCAL):
        raise ValueError(
            f"{source} has levels in {units!r}: only pressure levels in hPa or Pa can be read."
        )
    if units.lower() in PASCAL or (not units and too_large):
        values = values / 100.0
    whole = np.rint(values).astype(np.int64)
    # Channels are on whole hPa: 1.5 must not pass for 2. Files of float32 round to 1e-4.
    exact = np.abs(values - whole) < 1e-3
    if not level.dims:
        return dataset.assign_coords(level=whole) if exact else dataset.drop_vars("level")
    dataset = dataset.assign_coords(level=(level.dims, whole)).isel({level.dims[0]: exact})
    values_once, counts = np.unique(dataset["level"].values, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"{source} holds the level {values_once[counts > 1][0]} hPa twice: remove one of the "
            f"two."
        )
    return dataset
