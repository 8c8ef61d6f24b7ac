"""The times of files: joined, cut to a period, thinned to a step, and checked for gaps."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.weather.prepare.reading import Part, RawField
from sciml_dchag.weather.store.layout import iso
from sciml_dchag.weather.store.store import Period, times_within


def join_times(
    channels: tuple[str, ...],
    fields: Sequence[RawField],
    times: Sequence[NDArray[np.datetime64]],
    levels: Sequence[tuple[int, ...]],
) -> Part:
    """Order the times of the files that hold some channels.

    Args:
        channels: the channels' names.
        fields: their variable in each file.
        times: by file, its times.
        levels: by file, the channels' positions on its vertical axis.

    A time that is there twice stays twice, for `refuse_doubled_times`.
    """
    counts = [len(values) for values in times]
    joined = np.concatenate(times)
    field_of_time = np.repeat(np.arange(len(fields)), counts)
    place_in_field = np.concatenate([np.arange(count) for count in counts])
    order = np.argsort(joined, kind="stable")
    joined, field_of_time = joined[order], field_of_time[order]
    place_in_field = place_in_field[order]
    return Part(
        channels, tuple(fields), tuple(levels), joined, field_of_time[:, None],
        place_in_field[:, None],
    )  # fmt: skip


def refuse_doubled_times(part: Part) -> None:
    """Refuse a time that is there twice.

    Raises:
        ValueError: the first one, and in which files.
    """
    if len(twice := np.flatnonzero(np.diff(part.times) == np.timedelta64(0, "h"))):
        one, other = (part.fields[part.field_of_time[twice[0] + i, 0]].source for i in (0, 1))
        what = f"{part.channels[0]} at {iso(part.times[twice[0]])}"
        if one == other:
            raise ValueError(
                f"{one} holds {what} twice: remove one of the two (of forecasts that overlap, keep "
                f"one step)."
            )
        raise ValueError(f"{one} and {other} both hold {what}: remove it from one of the two.")


def choose_times(part: Part, period: Period, step_hours: int | None) -> Part:
    """Cut to a period, and thin what is finer than the step.

    To the multiples of the step since midnight where it divides a day, else since the first time.

    Raises:
        ValueError: no time is left, one of those left is there twice, or a gap of which a time
            between the multiples is the cause.
    """
    part = part.at(times_within(part.times, period, "the sources"))
    if step_hours is None:
        refuse_doubled_times(part)
        return part
    step = np.timedelta64(step_hours, "h")
    finer = len(part.times) > 1 and np.diff(part.times).min() < step
    if finer:
        midnight = part.times.astype("datetime64[D]")
        since = part.times - (midnight if 24 % step_hours == 0 else part.times[0])
        multiples = np.flatnonzero(since % step == np.timedelta64(0, "h"))
        if not len(multiples):
            raise ValueError(
                f"{part.channels[0]} is there at no multiple of {step_hours} h since midnight, but "
                f"at {iso(part.times[0])}: choose another step_hours."
            )
        _refuse_odd_times(part.times, multiples, step)
        part = part.at(multiples)
    refuse_doubled_times(part)
    return part


def _refuse_odd_times(
    times: NDArray[np.datetime64], multiples: NDArray[np.int64], step: np.timedelta64
) -> None:
    """Refuse a time off the multiples of a step where one of them is missing."""
    kept = times[multiples]
    for before in np.flatnonzero(np.diff(kept) > step):
        between = times[(times > kept[before]) & (times < kept[before + 1])]
        if len(between):
            hours = int(step / np.timedelta64(1, "h"))
            raise ValueError(
                f"{iso(between[0])} is no multiple of {hours} h, and between {iso(kept[before])} "
                f"and {iso(kept[before + 1])} there is none: correct that time or add what is "
                f"missing, or choose another step_hours."
            )


def warn_of_missing_ends(times: NDArray[np.datetime64], period: Period, what: str) -> None:
    """Warn where a period would hold another time before or after those that were found in it.

    Less than a time step is nothing missing: all of 2017 is there where 18:00 is the last of
    6-hourly times.

    Args:
        times: those found in the period, ascending.
        period: first and last time asked, both included.
        what: what the warning calls the period.
    """
    one_day = np.timedelta64(1, "D").astype("timedelta64[ns]")
    step = np.median(np.diff(times)) if len(times) > 1 else one_day
    before = times[:1] - step if period[0] is not None else times[:0]
    after = times[-1:] + step if period[1] is not None else times[:0]
    asked = times_within(np.concatenate([before, times, after]), period, what)
    if len(asked) > len(times):
        warnings.warn(
            f"The {what} asked is {period[0] or 'the first time'} to {period[1] or 'the last'}, of "
            f"which the sources hold {iso(times[0])} to {iso(times[-1])} alone: add what is "
            f"missing, unless that is enough.",
            UserWarning,
            stacklevel=3,
        )


def check_times(parts: Sequence[Part], step_hours: int | None) -> None:
    """Refuse channels of different times, and gaps where a step is asked.

    Raises:
        ValueError: either is found; the first place is named.
    """
    times = parts[0].times
    for part in parts[1:]:
        if not np.array_equal(part.times, times):
            odd = np.setxor1d(part.times, times)[0]
            has, lacks = (part, parts[0]) if odd in part.times else (parts[0], part)
            raise ValueError(
                f"{has.channels[0]} is there at {iso(odd)} and {lacks.channels[0]} is not: add "
                f"what is missing, or choose a period that both have."
            )
    if step_hours is None:
        return
    gaps = np.flatnonzero(np.diff(times) != np.timedelta64(step_hours, "h"))
    if len(gaps):
        hours = (times[gaps[0] + 1] - times[gaps[0]]) / np.timedelta64(1, "h")
        raise ValueError(
            f"After {iso(times[gaps[0]])} the next time comes {hours:g} h later where "
            f"{step_hours} h is asked: add what is missing, or choose another period or step_hours."
        )
