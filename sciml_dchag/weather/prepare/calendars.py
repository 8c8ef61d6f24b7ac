"""Times as files write them, decoded to the standard calendar.

Which time of a forecast a field is valid for is in `valid_times`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

STANDARD = ("standard", "gregorian", "proleptic_gregorian")
CALENDARS = (*STANDARD, "noleap", "365_day", "360_day", "all_leap", "366_day", "julian")

NO_DATE = np.datetime64("NaT", "ns")


def decode_times(
    time: xr.Variable, source: str, dataset_attrs: Mapping[Any, Any]
) -> NDArray[np.datetime64]:
    """Decode times to datetime64[ns], whole seconds; NaT for a date that only its calendar has.

    Dates of other calendars keep their year, month and day.

    Args:
        time: as the file holds it, decoded or not.
        source: what messages call the file.
        dataset_attrs: attributes of the file, where some keep the units.

    Raises:
        ValueError: no units, or such as cannot be read; an unknown calendar; missing times; none.
    """
    if time.size == 0:
        raise ValueError(
            f"{source} holds no time: its time axis has length 0, so leave the file out of the "
            f"sources."
        )
    if time.dtype.kind == "M":
        return _rounded(_in_range(time.values, source), source)
    if time.dtype.kind == "O":
        return _by_date(np.asarray(time.values), source)
    units = time.attrs.get("units") or dataset_attrs.get("time_units")
    if time.dtype.kind in "SU":
        raise ValueError(
            f"{source} has times that are text, such as {time.values.reshape(-1)[0]!s:.40}: write "
            f"numbers with `units`, such as hours since 1900-01-01."
        )
    if units is None:
        raise ValueError(
            f"{source} has times without units: write `units`, such as hours since 1900-01-01."
        )
    units = str(units).split(" (")[0].strip()
    units = re.sub(r"\s+00?:00$", "", units)  # wgrib2 writes an offset of 0:00 after the time
    calendar = str(time.attrs.get("calendar", "standard")).lower()
    if calendar not in CALENDARS:
        raise ValueError(
            f"{source} has times of the calendar {calendar!r}, which is unknown: correct the "
            f"attribute `calendar` of its time axis to one of {', '.join(CALENDARS)}."
        )
    values = np.asarray(time.values)
    if values.dtype.kind not in "iuf" or (values.dtype.kind == "f" and np.isnan(values).any()):
        missing = int(np.isnan(values).sum()) if values.dtype.kind == "f" else values.size
        raise ValueError(f"{source} has {missing} missing times: repair its time coordinate.")
    _refuse_marks(values, source)
    if re.fullmatch(_ABSOLUTE, units, re.IGNORECASE):
        return _absolute_days(values, units, source)
    _require_plain_reference(units, source)
    if match := re.match(r"(month|year)s?\s+since\s+(\S+)", units, re.IGNORECASE):
        return _whole_months(values, match[1].lower(), units, source)
    return _decoded(values, units, calendar, source)


def _refuse_marks(values: NDArray[Any], source: str) -> None:
    """Refuse usual marks of missing values that are far from all other times."""
    marked = np.isin(values, _MARKS) | (np.abs(values.astype(np.float64)) >= 9e15)
    others = np.sort(values[~marked].astype(np.float64))
    if not marked.any() or others.size < 2:
        return
    mark = values[marked].reshape(-1)[0]
    if np.abs(others - mark).min() > 10 * np.diff(others).max():
        raise ValueError(
            f"{source} has {int(marked.sum())} times of {mark:g}, far from all others, which marks "
            f"what is missing: repair its time coordinate."
        )


_MARKS = (-99.0, -999.0, -9999.0, -99999.0, -999999.0, -32767.0, -32768.0, -2147483647.0,
          -2147483648.0)  # fmt: skip


def _require_plain_reference(units: str, source: str) -> None:
    """Refuse a reference date that is not year, month, day, or in a time zone known by a name.

    pandas would read 01/02/2001 as 2 January, and EST as UTC.
    """
    match = re.match(r"\w+\s+since\s+(\S.*)", units, re.IGNORECASE)
    if match is None:
        return  # no time at all, which is said where it is decoded
    if re.fullmatch(_REFERENCE, match[1].strip(), re.IGNORECASE) is None:
        raise ValueError(
            f"{source} has times in {units!r}, whose date is not clear: write year, month and day, "
            f"and UTC or an offset such as +05:30, as in hours since 1900-01-01 00:00:00."
        )


_REFERENCE = (
    r"(\d{8}|\d{4}|-?\d{1,4}-\d{1,2}(-\d{1,2})?)"
    r"([T ]\s*\d{1,2}(:\d{1,2}(:\d{1,2}(\.\d*)?)?)?)?"
    r"\s*(Z|UTC|GMT|[+-]\d{1,2}(:?\d{2})?)?"
)
"""Dates from which times are counted; old files write `1-1-1 00:00:0.0`."""


def _decoded(
    values: NDArray[Any], units: str, calendar: str, source: str
) -> NDArray[np.datetime64]:
    """Decode numbers since a date in units that have a length."""
    attrs = {"units": units, "calendar": calendar}
    bare = xr.Dataset({"time": (("n",), values.reshape(-1), attrs)})
    coder = xr.coders.CFDatetimeCoder(time_unit="us")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of dates that only cftime holds
            time = xr.decode_cf(bare, decode_times=coder)["time"].variable.load()
        if time.dtype.kind not in "MO":  # units of no time are left as they are
            raise ValueError(units)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(
            f"{source} has times in {units!r}, which cannot be read: write units such as "
            f"hours since 1900-01-01."
        ) from error
    if time.dtype.kind == "O":
        return _by_date(np.asarray(time.values), source).reshape(values.shape)
    return _rounded(_in_range(time.values, source), source).reshape(values.shape)


_ABSOLUTE = r"days? as %Y%m%d(\.%f)?"
"""Units of CDO's absolute times: 20190701.25 is 6 h on 1 July."""


def _absolute_days(values: NDArray[Any], units: str, source: str) -> NDArray[np.datetime64]:
    """Decode dates written as numbers, with a fraction of a day.

    Raises:
        ValueError: numbers of single precision, which hold no such dates, or that are no dates.
    """
    if values.dtype.kind == "f" and values.dtype.itemsize < 8:
        raise ValueError(
            f"{source} has times in {units!r} in single precision, which rounds dates to two days: "
            f"write them anew, as cdo -r copy of the original file does."
        )
    days = np.floor(values).astype(np.int64)
    found = np.empty(values.shape, "datetime64[us]")
    for place, day in np.ndenumerate(days):
        year, month, of_month = day // 10_000, day // 100 % 100, day % 100
        try:
            date = np.datetime64(f"{year:04d}-{month:02d}-{of_month:02d}", "us")
        except ValueError as error:
            raise ValueError(
                f"{source} has the time {values[place]} in {units!r}, which is no date: correct "
                f"it, or leave it out."
            ) from error
        found[place] = date + np.timedelta64(round((values[place] - day) * 86_400e6), "us")
    return _rounded(_in_range(found, source), source)


def _whole_months(
    values: NDArray[Any], unit: str, units: str, source: str
) -> NDArray[np.datetime64]:
    """Decode whole months or years since the beginning of a month; others have no length."""
    date = re.split(r"since\s+", units, flags=re.IGNORECASE)[1].split()[0].split("T")[0]
    whole = np.rint(values).astype(np.int64)
    match = re.fullmatch(r"(\d{1,4})-(\d{1,2})(?:-0?1)?", date)
    if match is None or np.abs(values - whole).max() > 1e-6:
        raise ValueError(
            f"{source} has times in {units!r}, which are whole {unit}s since the first of a month "
            f"only where they say so, and have no length else: write units such as hours since "
            f"1900-01-01."
        )
    first = np.datetime64(f"{int(match[1]):04d}-{int(match[2]):02d}", "M")
    months = _in_range(first + whole * (12 if unit == "year" else 1), source)
    return months.astype("datetime64[ns]")


def _by_date(dates: NDArray[Any], source: str) -> NDArray[np.datetime64]:
    """Turn cftime's dates into those of the standard calendar that have the same name."""
    found = np.empty(dates.shape, "datetime64[us]")
    for place, date in np.ndenumerate(dates):
        if not hasattr(date, "year"):
            raise ValueError(
                f"{source} has times that are {type(date).__name__}: repair its time coordinate."
            )
        if not 1678 <= date.year <= 2261:
            raise _out_of_range(str(date), source)
        month = np.datetime64(f"{date.year:04d}-{date.month:02d}")
        day = month.astype("datetime64[D]") + np.timedelta64(date.day - 1, "D")
        of_day = (date.hour * 60 + date.minute) * 60 + date.second
        micro = np.timedelta64(of_day * 10**6 + date.microsecond, "us")
        time = day.astype("datetime64[us]") + micro
        found[place] = time if day.astype("datetime64[M]") == month else np.datetime64("NaT")
    return _rounded(found, source, allow_missing=True)


def _in_range(values: NDArray[Any], source: str) -> NDArray[np.datetime64]:
    """Refuse dates that nanoseconds cannot hold."""
    years = values.astype("datetime64[Y]").astype(np.int64) + 1970
    years = years[~np.isnat(values)]
    if years.size and not (years.min() >= 1678 and years.max() <= 2261):
        odd = years.min() if years.min() < 1678 else years.max()
        raise _out_of_range(f"the year {odd}", source)
    return values


def _out_of_range(what: str, source: str) -> ValueError:
    return ValueError(
        f"{source} has times in {what}, and a store holds times from 1678 to 2261: select times "
        f"within them, or shift the reference date of the units of its time axis."
    )


def _rounded(
    values: NDArray[Any], source: str, *, allow_missing: bool = False
) -> NDArray[np.datetime64]:
    """Round to whole seconds, and to the minute where that is less than a second away.

    Files that count in floating-point numbers are off by milliseconds.
    """
    if (missing := np.isnat(values)).any() and not allow_missing:
        raise ValueError(
            f"{source} has {int(missing.sum())} missing times: repair its time coordinate."
        )
    micro = values.astype("datetime64[us]")
    seconds = (micro + np.timedelta64(500, "ms")).astype("datetime64[s]")
    minutes = (micro + np.timedelta64(30, "s")).astype("datetime64[m]")
    near = np.abs(micro - minutes) < np.timedelta64(1, "s")
    return np.where(near, minutes.astype("datetime64[s]"), seconds).astype("datetime64[ns]")
