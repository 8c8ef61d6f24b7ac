"""Whether a forecast, its truth and a climatology belong together, and which entry goes with which.

Everything is checked on coordinates before any field is read, and nothing is reindexed or sorted
in silence: the first difference is an error that names it. The scores are in `metrics`.
"""

import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag.weather.units import in_one_spelling

Index = NDArray[np.intp]

# Coordinates that went through float32 differ by about 1e-5 degrees.
SAME_DEGREES = 1e-4
FAR = 10.0
"""Means that are further apart than so many standard deviations are of other units."""


@dataclass(frozen=True, kw_only=True)
class Positions:
    """For each (initial time, lead time), the entry to take along each dimension, by dimension."""

    forecast: Mapping[str, Index]
    truth: Mapping[str, Index]
    climatology: Mapping[str, Index]
    """Empty where the climatology does not depend on time."""


def align(forecast: xr.Dataset, truth: xr.Dataset, climatology: xr.Dataset | None) -> Positions:
    """Check that the three belong together and find the entries that go with each forecast.

    Raises:
        ValueError: naming the first thing that does not fit.
    """
    _check_forecast(forecast)
    for other, name in ((truth, "truth"), (climatology, "climatology")):
        if other is not None:
            _check_same_variables(forecast, other, name)
            for dim in ("latitude", "longitude"):
                _check_same_coordinate(forecast, other, dim, name)
    valid_time = _valid_time(forecast)
    return Positions(
        forecast=dict(zip(("init_time", "lead_time"), np.indices(valid_time.shape), strict=True)),
        truth=_truth_positions(forecast, truth, valid_time),
        climatology={} if climatology is None else _climatology_positions(climatology, valid_time),
    )


def _check_forecast(forecast: xr.Dataset) -> None:
    needed = ("init_time", "lead_time", "latitude", "longitude")
    if not forecast.data_vars:
        raise ValueError("the forecast holds no variables, so there is nothing to score.")
    for dim in needed:
        if dim not in forecast.coords:
            raise ValueError(
                f"the forecast has no coordinate {dim} (it has {_listed(forecast.coords)}): "
                f"rename its own to {', '.join(needed)}."
            )
        if forecast.sizes[dim] == 0:
            raise ValueError(f"the forecast's {dim} is empty, so there is nothing to score.")
    if not np.issubdtype(forecast["lead_time"].dtype, np.timedelta64):
        raise ValueError(
            f"the forecast's lead_time is {forecast['lead_time'].dtype}, but timedelta64 is "
            "needed: open the file with decode_timedelta=True or use pandas.to_timedelta."
        )
    if not np.issubdtype(forecast["init_time"].dtype, np.datetime64):
        raise ValueError(
            f"the forecast's init_time is {forecast['init_time'].dtype}, but datetime64 is needed."
        )
    for dim, text in (("init_time", _time), ("lead_time", _hours)):
        index = forecast[dim].to_index()
        if not index.is_unique:
            twice = forecast[dim].values[index.duplicated()][0]
            raise ValueError(f"the forecast's {dim} {text(twice)} occurs twice: drop one of them.")
    _check_degrees(forecast)
    _check_columns(forecast["longitude"])
    for name, variable in forecast.data_vars.items():
        lacking = [dim for dim in needed if dim not in variable.dims]
        if lacking:
            raise ValueError(
                f"forecast variable {name} has no dimension {lacking[0]}: drop it to score the "
                "others."
            )


def _check_degrees(forecast: xr.Dataset) -> None:
    """Refuse latitudes in radians, over which every row would weigh about the same."""
    latitude, longitude = forecast["latitude"], forecast["longitude"]
    around = 5.5 < np.ptp(longitude.values) < 6.3 if longitude.dtype.kind in "iuf" else False
    bare = around and np.abs(latitude.values).max() < 1.5709 and np.ptp(latitude.values) > 2.5
    if bare or str(latitude.attrs.get("units", "")).lower().startswith("rad"):
        raise ValueError(
            "the forecast's latitude is in radians, and degrees are needed: convert it with "
            "numpy.rad2deg, in the truth too."
        )


def _check_columns(longitude: xr.DataArray) -> None:
    """Refuse a column that is there twice, as where 360 follows 0: it would count twice."""
    columns = np.sort(np.mod(longitude.values.astype(np.float64) + SAME_DEGREES / 2, 360.0))
    twice = np.flatnonzero(np.diff(columns) < SAME_DEGREES)
    if len(twice):
        shown = round(abs(float(columns[twice[0]])), 3)
        raise ValueError(
            f"the forecast's longitude {shown:g} is there twice "
            f"(modulo 360): drop the repeated column, in the truth too."
        )


def _check_same_variables(forecast: xr.Dataset, other: xr.Dataset, what: str) -> None:
    time_dims = {"init_time", "lead_time", "time", "valid_time", "hour", "dayofyear"}
    for name, variable in forecast.data_vars.items():
        if name not in other.data_vars:
            raise ValueError(
                f"forecast variable {name} is missing in the {what}, which has "
                f"{_listed(other.data_vars)}: add it there or drop it from the forecast."
            )
        for data, whose in ((variable, "forecast"), (other[name], what)):
            if data.dtype.kind not in "iufb":
                raise ValueError(
                    f"{name} is of type {data.dtype} in the {whose}, and numbers are needed: "
                    "convert it to a floating-point type."
                )
        ours, theirs = variable.attrs.get("units"), other[name].attrs.get("units")
        if ours and theirs and in_one_spelling(str(ours)) != in_one_spelling(str(theirs)):
            raise ValueError(
                f"{name} is in {ours!r} in the forecast and in {theirs!r} in the {what}: convert "
                "one of them."
            )
        further = set(variable.dims) - time_dims
        if further != set(other[name].dims) - time_dims:
            raise ValueError(
                f"{name} has dimensions {variable.dims} in the forecast and {other[name].dims} in "
                f"the {what}: apart from time they must be the same."
            )
        for dim in further - {"latitude", "longitude"}:
            _check_same_coordinate(forecast, other, str(dim), what)


def _check_same_coordinate(forecast: xr.Dataset, other: xr.Dataset, dim: str, what: str) -> None:
    if dim not in other.coords and dim not in forecast.coords:
        if forecast.sizes[dim] != other.sizes[dim]:
            raise ValueError(
                f"{dim} has {forecast.sizes[dim]} entries in the forecast and {other.sizes[dim]} "
                f"in the {what}: they must be the same."
            )
        return
    if dim not in other.coords or dim not in forecast.coords:
        lacking = what if dim not in other.coords else "forecast"
        raise ValueError(f"the {lacking} has no coordinate {dim}: give it the other's.")
    ours, theirs = forecast[dim].values, other[dim].values
    if ours.shape != theirs.shape:
        raise ValueError(
            f"the forecast has {ours.size} values of {dim} and the {what} {theirs.size}: regrid or "
            "select so that they are the same."
        )
    if np.issubdtype(ours.dtype, np.number) and np.issubdtype(theirs.dtype, np.number):
        differs = ~(np.abs(ours.astype(np.float64) - theirs) <= SAME_DEGREES)
    else:
        differs = ours != theirs
    if not differs.any():
        return
    first = int(np.argmax(differs))
    fix = "regrid or select so that they are the same"
    if dim == "latitude" and np.allclose(ours[::-1], theirs, rtol=0, atol=SAME_DEGREES):
        fix = "the rows run the other way: sort one of them with sortby('latitude')"
    raise ValueError(
        f"{dim} number {first} is {ours[first]} in the forecast and {theirs[first]} in the "
        f"{what}: {fix}."
    )


def _valid_time(forecast: xr.Dataset) -> NDArray[np.datetime64]:
    """Times the forecast is valid at, shape (init_time, lead_time)."""
    computed: NDArray[np.datetime64] = (
        forecast["init_time"].values[:, None] + forecast["lead_time"].values[None, :]
    )
    if "valid_time" in forecast.coords:
        dims = forecast["valid_time"].dims
        if set(dims) != {"init_time", "lead_time"}:
            raise ValueError(
                f"the forecast's valid_time has dimensions {dims}, but init_time and lead_time "
                "are needed: drop it, it is computed."
            )
        stated = forecast["valid_time"].transpose("init_time", "lead_time").values
        differs = stated != computed
        if differs.any():
            first = tuple(int(i) for i in np.argwhere(differs)[0])
            raise ValueError(
                f"the forecast's valid_time is {_time(stated[first])} where init_time plus "
                f"lead_time is {_time(computed[first])}: drop valid_time or fix it."
            )
    return computed


def _truth_positions(
    forecast: xr.Dataset, truth: xr.Dataset, valid_time: NDArray[np.datetime64]
) -> dict[str, Index]:
    inits, leads = forecast["init_time"].values, forecast["lead_time"].values
    if "init_time" in truth.dims and "lead_time" in truth.dims:
        init_index = _find("truth", truth, "init_time", inits, _time)
        lead_index = _find("truth", truth, "lead_time", leads, _hours)
        grid = np.meshgrid(init_index, lead_index, indexing="ij")
        return {"init_time": grid[0], "lead_time": grid[1]}
    for dim in ("time", "valid_time"):
        if dim in truth.dims and dim in truth.coords:
            return {dim: _find("truth", truth, dim, valid_time, _time)}
    raise ValueError(
        f"the truth has dimensions {_listed(truth.dims)}, but time, or init_time with lead_time, "
        "is needed: rename its own."
    )


def _climatology_positions(
    climatology: xr.Dataset, valid_time: NDArray[np.datetime64]
) -> dict[str, Index]:
    times = xr.DataArray(valid_time).dt
    wanted = {"hour": times.hour.values, "dayofyear": times.dayofyear.values}
    if "time" in climatology.dims:
        raise ValueError(
            "the climatology has a dimension time, but hour and dayofyear, or no time at all, is "
            "needed: average it first."
        )
    return {
        dim: _find("climatology", climatology, dim, values, str)
        for dim, values in wanted.items()
        if dim in climatology.dims
    }


def _find(
    what: str,
    data: xr.Dataset,
    dim: str,
    wanted: NDArray[Any],
    text: Callable[[Any], str],
) -> Index:
    """Where each wanted value is along a dimension, in the shape of `wanted`."""
    if dim not in data.coords:
        raise ValueError(f"the {what} has no coordinate {dim}: give its dimension {dim} values.")
    index = data[dim].to_index()
    if not index.is_unique:
        twice = data[dim].values[index.duplicated()][0]
        raise ValueError(f"the {what}'s {dim} {text(twice)} occurs twice: drop one of them.")
    found: Index = index.get_indexer(wanted.ravel()).reshape(wanted.shape)
    lacking = np.unique(wanted[found < 0])
    if lacking.size:
        raise ValueError(
            f"the {what} lacks {lacking.size} of {np.unique(wanted).size} values of {dim} that the "
            f"forecast needs, the first is {text(lacking[0])}: extend the {what} or drop those "
            "forecasts."
        )
    return found


def _listed(names: Iterable[Hashable]) -> str:
    return ", ".join(str(name) for name in names) or "none"


def _time(value: np.datetime64) -> str:
    return np.datetime_as_string(value, unit="m")


def _hours(value: np.timedelta64) -> str:
    return f"{value / np.timedelta64(1, 'h'):g} h"


def doubt_units(
    name: str, forecast_BCHW: NDArray[np.floating], truth_BCHW: NDArray[np.floating]
) -> None:
    """Warn where fields of the same times are too far from each other for any forecast.

    Arithmetic of xarray keeps the attribute `units`, whatever it was multiplied by.

    Args:
        name: of the variable.
        forecast_BCHW: some fields.
        truth_BCHW: those of the same times.
    """
    for channel in range(truth_BCHW.shape[1]):
        forecast, truth = forecast_BCHW[:, channel], truth_BCHW[:, channel]
        known = np.isfinite(forecast) & np.isfinite(truth)
        if not known.any():
            continue
        one, other = (float(np.mean(f, where=known, dtype=float)) for f in (forecast, truth))
        spread = float(np.std(truth, where=known, dtype=float))
        if abs(one - other) > FAR * spread > 0:
            warnings.warn(
                f"{name} has a mean of {one:.4g} in the forecast and of {other:.4g} in the truth "
                f"of the same times: look whether both are in the units that they say.",
                stacklevel=5,
            )
            return
