"""The time for which a field is valid: of analyses, and of forecasts by initial time and step.

Decoding times is `calendars`' work.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import numpy as np
import xarray as xr

from sciml_dchag.weather.prepare.axes import said
from sciml_dchag.weather.prepare.calendars import STANDARD, decode_times
from sciml_dchag.weather.store.layout import iso

TIME_NAMES = ("time", "valid_time", "time_index", "initial_time0_hours", "times", "datetime")
REFERENCE_NAMES = (
    "forecast_reference_time", "reference_time", "reftime", "init_time", "initial_time",
    "analysis_time",
)  # fmt: skip
"""Names of the time at which a forecast begins; beside a step, `time` is one too."""
STEP_NAMES = (
    "step", "forecast_period", "prediction_timedelta", "lead_time", "leadtime", "forecast_hour",
    "lead", "forecast_lead_time", "forecast_lead", "lead_hours", "fhour", "fhr", "fxx",
)  # fmt: skip
"""Names of the time since a forecast began."""
DATES_LEFT_OUT = "dates_left_out"
"""Attribute of a field: how many of its times are on dates that only their calendar has."""
_HOURS = {
    "hours": 1.0, "hour": 1.0, "hrs": 1.0, "hr": 1.0, "h": 1.0, "days": 24.0, "day": 24.0,
    "d": 24.0, "minutes": 1 / 60, "minute": 1 / 60, "min": 1 / 60, "mins": 1 / 60,
    "seconds": 1 / 3600, "second": 1 / 3600, "sec": 1 / 3600, "s": 1 / 3600,
    "milliseconds": 1 / 3.6e6, "microseconds": 1 / 3.6e9, "nanoseconds": 1 / 3.6e12,
}  # fmt: skip
"""Hours in a unit of steps."""


def by_valid_time(dataset: xr.Dataset, name: str, source: str) -> list[xr.Dataset]:
    """Put a variable on one axis `time`, the time that it is valid for, or none where it has none.

    A variable of several initial times and steps makes one dataset per step, so that nothing is
    read; those of equal times are refused where they are joined.

    Args:
        dataset: the variable alone, under the file's names of coordinates.
        name: the variable's.
        source: what messages call the file.

    Raises:
        ValueError: times that cannot be read.
    """
    step = _find(dataset, STEP_NAMES, "forecast period")
    valid = _find(dataset, ("valid_time",), "")
    times = time_axis(dataset, name)
    reference = _find(dataset, REFERENCE_NAMES, "")
    if step is None and valid is not None and dataset[valid].ndim == 2:
        step = str(dataset[valid].dims[1])
    if step is None:
        begins = valid is not None and times in (None, "time")
        return _on(dataset, valid if begins else times, source)
    labelled = times is not None and said(dataset[times].variable, "standard_name") == "time"
    began = times if reference is None else reference
    hours = _hours(dataset[step].variable)
    if valid is not None:
        _refuse_other_sums(dataset, valid, (began, times), step, source)
        return _by_step(dataset, name, step, dataset[valid].variable, source)
    if times is not None and times != step and (reference not in (None, times) or labelled):
        _refuse_other_sums(dataset, times, (reference,), step, source)
        return _on(dataset, times, source)  # CF: `time` is the valid time, the others describe it
    if hours is None and dataset[step].size == 1:
        raise ValueError(
            f"{source} has {name} of a forecast's {step} without units that can be read, so that "
            f"the time it is valid for is unknown: set the units attribute of {step}, such as "
            f"hours."
        )
    if began is None or hours is None:
        return _on(dataset, times, source)  # steps without meaning stay an axis of their own
    return _by_step(dataset, name, step, _sum(dataset, began, hours, source), source)


def _sum(dataset: xr.Dataset, began: str, hours: xr.Variable, source: str) -> xr.Variable:
    """Add steps to the time at which forecasts begin, on the dimensions of both.

    In the time's own calendar: of one without leap years, 28 February and a day are 1 March.
    """
    time = dataset[began].variable
    unit = hours_in(str(time.attrs.get("units", "")).split(" since")[0])
    other = str(time.attrs.get("calendar", "standard")).lower() not in STANDARD
    first: Any
    since: Any
    if other and unit and time.dtype.kind in "iuf":
        first, since = time.values.astype(np.float64), hours.values / unit
    elif time.dtype.kind == "O":
        first, since = time.values, hours.values * timedelta(hours=1)
    else:
        first = decode_times(time, source, dataset.attrs)
        since = np.rint(hours.values * 3600).astype("timedelta64[s]").astype("timedelta64[ns]")
    if hours.dims and hours.dims == time.dims:
        dims, summed = time.dims, first + since
    else:
        dims = (*time.dims, *hours.dims)
        summed = np.reshape(first, (*np.shape(first), *([1] * hours.ndim))) + since
    if summed.dtype.kind != "M":
        summed = decode_times(xr.Variable(dims, summed, time.attrs), source, dataset.attrs)
    return xr.Variable(dims, summed)


def _refuse_other_sums(
    dataset: xr.Dataset, valid: str, begins: tuple[str | None, ...], step: str, source: str
) -> None:
    """Refuse valid times that are not the initial times and steps that stand beside them.

    Args:
        dataset: with all three.
        valid: what holds the valid times.
        begins: what may hold the initial times; a name that is the valid time itself says so by
            its values.
        step: what holds the steps.
        source: what messages call the file.

    Raises:
        ValueError: they differ, at which place first.
    """
    hours = _hours(dataset[step].variable) if step in dataset.coords else None
    named = [b for b in dict.fromkeys(begins) if b is not None and b not in (valid, step)]
    if hours is None or not named:
        return
    times = decode_times(dataset[valid].variable, source, dataset.attrs)
    for began in named:
        first = decode_times(dataset[began].variable, source, dataset.attrs)
        summed, told, begun = xr.broadcast(
            xr.DataArray(_sum(dataset, began, hours, source)),
            xr.DataArray(times, dims=dataset[valid].dims),
            xr.DataArray(first, dims=dataset[began].dims),
        )
        missing = np.isnat(told.values) | np.isnat(summed.values) | np.isnat(begun.values)
        other = (summed.values != told.values) & ~missing
        # Some call the valid time `time` too, and then the step adds nothing to it.
        twice = began.lower() in TIME_NAMES and (missing | (begun.values == told.values)).all()
        if not other.any() or twice:
            continue
        place = tuple(np.argwhere(other)[0])
        raise ValueError(
            f"{source} has {valid} {iso(told.values[place])} where {began} "
            f"{iso(begun.values[place])} and {step} make {iso(summed.values[place])}: correct the "
            f"one that is wrong, or remove it from the file."
        )


def hours_in(unit: str) -> float | None:
    """Hours in a unit of time, such as `hours`, `min` or `d`; None for another word."""
    return _HOURS.get(unit.strip().lower())


def _find(dataset: xr.Dataset, names: tuple[str, ...], standard_name: str) -> str | None:
    """Find a coordinate by its names in any capitals, or by its standard name."""
    lower = {str(c).lower(): str(c) for c in dataset.coords}
    for name in names:
        if name in lower:
            return lower[name]
    if standard_name:
        for c in dataset.coords:
            if said(dataset[c].variable, "standard_name") == standard_name:
                return str(c)
    return None


def time_axis(dataset: xr.Dataset, name: str) -> str | None:
    """Find the variable's time: an axis by name, by units since a date, or a scalar."""
    dims = [str(dim) for dim in dataset[name].dims]
    scalars = [str(c) for c in dataset.coords if not dataset[c].dims]
    for places in (dims, scalars):
        by_name = {p.lower(): p for p in places}
        for alias in TIME_NAMES:
            if alias in by_name and by_name[alias] in dataset.coords:
                return by_name[alias]
        for place in places:
            if place not in dataset.coords or place.lower() in STEP_NAMES:
                continue
            variable = dataset[place].variable
            is_time = variable.dtype.kind == "M" or " since " in str(variable.attrs.get("units"))
            if re.fullmatch(r"time\d*", place.lower()) or (is_time and places is dims):
                return place
    return None


def _hours(step: xr.Variable) -> xr.Variable | None:
    """Turn steps into hours; None where they do not say what they are."""
    if step.dtype.kind == "m":
        return step.copy(data=step.values / np.timedelta64(1, "h"))
    units = str(step.attrs.get("units", "")).strip().lower()
    if step.dtype.kind in "iuf" and units in _HOURS:
        return step.copy(data=step.values.astype(np.float64) * _HOURS[units])
    if step.dtype.kind in "iuf" and step.size == 1 and float(step.values.reshape(-1)[0]) == 0:
        return step.copy(data=step.values.astype(np.float64))
    return None


def _by_step(
    dataset: xr.Dataset, name: str, step: str, valid: xr.Variable, source: str
) -> list[xr.Dataset]:
    """Give each step its valid times; `valid` lies on the initial time, the step, or both."""
    values = decode_times(valid, source, dataset.attrs)
    on = [str(dim) for dim in valid.dims]
    step_dim = next((str(dim) for dim in dataset[step].dims if dim in dataset[name].dims), None)
    if len(on) < 2 or step_dim is None:
        return [_timed(dataset, values, on[0] if on else None)]
    place = on.index(step_dim) if step_dim in on else len(on) - 1
    other = on[1 - place]
    found = []
    for k in range(dataset.sizes[on[place]]):
        one = dataset.isel({on[place]: k}, drop=True)
        found.append(_timed(one, np.take(values, k, axis=place), other))
    return found


def _on(dataset: xr.Dataset, axis: str | None, source: str) -> list[xr.Dataset]:
    """Take an axis or scalar coordinate for the valid time."""
    if axis is None:  # a time axis without coordinates is still one, for whoever asks for times
        bare = [d for d in dataset.dims if str(d).lower() in TIME_NAMES and d != "time"]
        return [dataset.rename_dims({bare[0]: "time"}) if bare else dataset]
    variable = dataset[axis].variable
    values = decode_times(variable, source, dataset.attrs)
    return [_timed(dataset, values, str(variable.dims[0]) if variable.dims else None)]


def _timed(dataset: xr.Dataset, values: np.ndarray, dim: str | None) -> xr.Dataset:
    """Replace whatever holds times by `time`; dates that only their calendar has are left out.

    How many is noted on the field, for a warning about all files; see `warn_of_dates`.
    """
    gone = (*TIME_NAMES, *REFERENCE_NAMES, *STEP_NAMES)
    known = [c for c in dataset.coords if str(c).lower() in gone or c == dim]
    steps = [c for c in known if dataset[c].dims == (c,) and c in STEP_NAMES and c != dim]
    dataset = dataset.drop_vars([c for c in known if c not in steps])
    if dim is None:
        return dataset.assign_coords(time=((), values.reshape(())))
    if dim != "time" and dim in dataset.dims:
        dataset = dataset.rename_dims({dim: "time"})
    keep = ~np.isnat(values)
    if not keep.all():
        dataset, values = dataset.isel(time=np.flatnonzero(keep)), values[keep]
        for field in dataset.data_vars.values():
            field.attrs[DATES_LEFT_OUT] = int((~keep).sum())
    return dataset.assign_coords(time=("time", values))


def warn_of_dates(fields: Iterable[tuple[str, xr.DataArray]]) -> None:
    """Warn once of all dates that are left out, given each field with what messages call its file.

    Warns:
        UserWarning: there are any.
    """
    by_file: dict[str, int] = {}
    for source, field in fields:
        if count := field.attrs.get(DATES_LEFT_OUT):
            by_file[source] = max(by_file.get(source, 0), int(count))
    if by_file:
        more = f" and {len(by_file) - 1} more file(s)" if len(by_file) > 1 else ""
        warnings.warn(
            f"{next(iter(by_file))}{more} have {sum(by_file.values())} times on dates such as 30 "
            f"February, which their calendar has and the standard one has not: they are left out.",
            UserWarning,
            stacklevel=2,
        )
