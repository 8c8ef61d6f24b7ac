"""Over which hours a sum is, and which statistic over time a field is, as its file says.

Bounds of the time axis and GRIB's ranges of steps say it for certain. An interval in `cell_methods`
is by CF that of the values summed, and some write the length of the sum there.
"""

from __future__ import annotations

import re

import numpy as np
import xarray as xr

from sciml_dchag.weather.prepare.calendars import decode_times
from sciml_dchag.weather.prepare.grib import ACCUMULATED_HOURS
from sciml_dchag.weather.prepare.origin import is_era5
from sciml_dchag.weather.prepare.valid_times import hours_in, time_axis

INTERVAL_HOURS = "interval_hours"
"""Attribute of a sum: the interval of its `cell_methods`, where nothing else says its span."""

OF_ERA5 = "of_era5"
"""Attribute of a sum: its file says that it is of ERA5."""

_STATISTICS = {
    "max": "a maximum", "maximum": "a maximum", "min": "a minimum", "minimum": "a minimum",
    "range": "a range", "standard_deviation": "a standard deviation", "variance": "a variance",
    "median": "a median", "diff": "a difference", "sd": "a standard deviation",
    "stdanom": "an anomaly", "cov": "a covariance", "sdiff": "a difference", "rms": "a mean square",
}  # fmt: skip
"""Statistics over time, as `cell_methods` and GRIB's `stepType` call them, and in words."""
_MEANS = ("mean", "avg", "avgua", "avgad", "avgfc", "avgd", "avgas")
_SUMS = ("sum", "accum")


def another_statistic(field: xr.DataArray, short: str, *, is_sum: bool) -> str | None:
    """Say which statistic over time a field is, where that is none of the variable that it names.

    A mean over time of what is no sum stays: daily means are states of their own.

    Args:
        field: with the attributes of its file.
        short: our name of the variable.
        is_sum: whether the variable is summed over time.
    """
    said = str(field.attrs.get("cell_methods", ""))
    if "over years" in said or any("climatology" in field[c].attrs for c in field.coords):
        return (
            "says by its cell_methods or the attribute climatology of its time that it is a mean "
            "over many years, whose times are of none of them: name files of single times"
        )
    methods = re.findall(r"\btime\d*:\s*(\w+)", said)
    for key, names in (("cell_methods", methods), ("GRIB_stepType", [_step_type(field)])):
        for name in map(str.lower, names):
            what = _STATISTICS.get(name)
            if short == "i10fg" and what == "a maximum":
                continue
            if is_sum and name in _MEANS:
                what = "a mean"
            if not is_sum and name in _SUMS:
                what = "a sum"
            if what is not None:
                return (
                    f"says by its {key} that it is {what} over time, which is another quantity: "
                    f"name files of the variable itself, or correct that attribute"
                )
    return None


def _step_type(field: xr.DataArray) -> str:
    return str(field.attrs.get("GRIB_stepType", ""))


def span_notes(
    dataset: xr.Dataset, name: str, named: int | None, source: str
) -> tuple[dict[str, object], str | None]:
    """Read over which hours a sum is.

    Args:
        dataset: the whole file, under its own names.
        name: the sum's.
        named: the hours that its name says; None where it says none.
        source: what messages call the file.

    Returns:
        Attributes for the field, and what speaks against it, if anything does.

    Raises:
        ValueError: bounds of times that cannot be read.
    """
    field = dataset[name]
    told: dict[str, int] = {} if named is None else {"name": named}
    if (bounds := _bounds(dataset, name)) is not None:
        axis, key = bounds
        hours, odd = _by_bounds(dataset, axis, key, source)
        if odd is not None:
            return {}, odd
        if hours is not None:
            told[key] = hours
    if match := re.fullmatch(r"(\d+)-(\d+)", str(field.attrs.get("GRIB_stepRange", ""))):
        told["GRIB_stepRange"] = int(match[2]) - int(match[1])
    if (by_messages := field.attrs.get(ACCUMULATED_HOURS)) is not None:
        told["messages"] = int(by_messages)
    text = " ".join(str(field.attrs.get(k, "")) for k in ("long_name", "description"))
    if match := re.search(_IN_WORDS, text, re.IGNORECASE):
        told["long_name"] = int(match[1] or match[2])
    if len(set(told.values())) > 1:
        (one, first), *rest = told.items()
        other, second = next(item for item in rest if item[1] != first)
        return {}, (
            f"says by its {one} that it is a sum over {first} h and by its {other} over {second} "
            f"h: correct the one that is wrong"
        )
    notes: dict[str, object] = {OF_ERA5: 1} if is_era5(dataset.attrs) else {}
    if told:
        return {**notes, ACCUMULATED_HOURS: next(iter(told.values()))}, None
    if interval := _interval(field):
        notes[INTERVAL_HOURS] = interval
    return notes, None


_IN_WORDS = (
    r"(?<![\d.])(\d+)[ _-]?h(?:ou)?r?s?[ _-]*(?:accumulat|sum\b|total\b)"
    r"|accumulated (?:over|in) (?:the (?:last|past|previous) )?(\d+) ?h(?:ou)?rs?\b"
)
"""How long names say the hours of a sum."""


def _interval(field: xr.DataArray) -> float | None:
    """Hours of the interval in `time: sum (interval: 1 hour)`; None where there is none."""
    methods = str(field.attrs.get("cell_methods", ""))
    match = re.search(r"\btime\d*:\s*sum\s*\(\s*interval:?\s*([\d.]+)\s*(\w+)", methods)
    if match is None or (unit := hours_in(match[2])) is None:
        return None
    try:
        return float(match[1]) * unit
    except ValueError:
        return None


def _bounds(dataset: xr.Dataset, name: str) -> tuple[str, str] | None:
    """Find the time axis of a field and the variable of its bounds."""
    axis = time_axis(dataset[[name]], name)
    if axis is None:
        return None
    said = str(dataset[axis].attrs.get("bounds", dataset[axis].encoding.get("bounds", "")))
    for key in (said, f"{axis}_bnds", f"{axis}_bounds"):
        if key in dataset.variables and dataset[key].ndim == dataset[axis].ndim + 1:
            return (axis, key) if dataset[key].shape[-1] == 2 else None
    return None


def _by_bounds(
    dataset: xr.Dataset, axis: str, key: str, source: str
) -> tuple[int | None, str | None]:
    """Hours between bounds of times, or what speaks against these.

    None and None where months or other spans follow each other without a gap: the time between is
    their span.
    """
    times, bounds = dataset[axis].variable, dataset[key].variable
    attrs = {**times.attrs, **bounds.attrs}
    pairs = decode_times(xr.Variable(bounds.dims, bounds.values, attrs), source, dataset.attrs)
    begins, ends = pairs.min(axis=-1).reshape(-1), pairs.max(axis=-1).reshape(-1)
    under = decode_times(times, source, dataset.attrs).reshape(-1)
    known = ~(np.isnat(begins) | np.isnat(ends) | np.isnat(under))
    begins, ends, under = begins[known], ends[known], under[known]
    if not len(ends):
        return None, None
    if (under != ends).any() and (begins != ends).any():
        where = "the start" if (under == begins).all() else "another time than the end"
        return None, (
            f"has its times at {where} of the hours that {key} gives, and a sum stands under "
            f"their end: set {axis} to the second of each pair of bounds"
        )
    lengths = (ends - begins) / np.timedelta64(1, "h")
    if (lengths == lengths[0]).all():
        return _whole(lengths[0], key)
    if (begins[1:] == ends[:-1]).all():
        return None, None
    return None, (
        f"is summed over {lengths.min():g} to {lengths.max():g} h by {key}: sums over the same "
        f"hours are needed, so take the differences between steps first"
    )


def _whole(hours: np.floating | float, key: str) -> tuple[int | None, str | None]:
    if hours > 0 and hours == int(hours):
        return int(hours), None
    return None, f"is summed over {hours:g} h by {key}: add its sums up to whole hours first"
