"""Sums over time, such as precipitation: over the time step that is asked for, and no other.

A file's sums are over the hours that its name, its messages or its bounds of times say (`spans`),
else over the time between them. Several are added to one over a longer step.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.channels import Channel, variables
from sciml_dchag.weather.channels import SPANS
from sciml_dchag.weather.prepare.axes import STORED_AS
from sciml_dchag.weather.prepare.cells import Cells
from sciml_dchag.weather.prepare.grib import ACCUMULATED_HOURS
from sciml_dchag.weather.prepare.magnitudes import ENOUGH_CELLS, check_span
from sciml_dchag.weather.prepare.pieces import Piece
from sciml_dchag.weather.prepare.reading import Part
from sciml_dchag.weather.prepare.spans import INTERVAL_HOURS, OF_ERA5
from sciml_dchag.weather.prepare.times import choose_times, join_times, refuse_doubled_times
from sciml_dchag.weather.store.layout import iso
from sciml_dchag.weather.store.store import Period

HOUR = np.timedelta64(1, "h")
LOOKED_AT, A_DAY = 9, 27
"""Times that are looked at for sums that run on, and those of a day that decide on radiation."""
LEAST_CELLS = 50
"""With so many cells above 0, some fall from one sum to the next, unless sums run on."""
PACKED = 1e-3
"""What packing may take from a value, as a fraction of the largest."""


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over time found in files."""

    part: Part
    """At the times of the step."""
    lost: NDArray[np.datetime64]
    """Times of the step for which the files hold less than the hours before them."""
    pieces: list[Piece]
    """What they are of."""


def accumulated(
    channel: Channel, pieces: Sequence[Piece], period: Period, step_hours: int | None
) -> Sums | None:
    """Find sums over time in files, and add them up to those that a channel is.

    Args:
        channel: `tp`, over the time step, or `tp_6h`, over six hours whatever the step.
        pieces: variables of files.
        period: first and last time, both included.
        step_hours: the time step asked for; None for that of the files.

    Returns:
        None where no file has the variable.

    Raises:
        ValueError: sums over other hours than can be added up to those needed, or since the start
            of each forecast.

    Warns:
        UserWarning: a time for which the files hold less than the hours before it, or sums whose
            mean shows other hours.
    """
    wanted = variables()[channel.variable].accumulated_hours or None
    base = channel.variable.removesuffix(f"_{wanted}h")
    found: dict[int, tuple[Part, list[Piece]]] = {}
    for name in (base, *(f"{base}_{hours}h" for hours in SPANS)):
        by_span: dict[int, list[Piece]] = {}
        for piece in (p for p in pieces if _holds(p, name)):
            hours_summed = variables()[name].accumulated_hours or piece.field.attrs.get(
                ACCUMULATED_HOURS
            )
            by_span.setdefault(int(hours_summed or 0), []).append(piece)
        if untold := by_span.pop(0, []):
            part = _joined(channel, name, untold)
            if untold[0].name != "state":
                refuse_running_sums(part)
            span = _spacing(part.times, wanted or step_hours or 0)
            _refuse_interval(untold, base, span)
            by_span.setdefault(span, []).extend(untold)
        for span, held in by_span.items():
            refuse_since_start([piece for piece in held if piece.name != "state"])
            part = _joined(channel, name, held)
            if held[0].name != "state":
                _check_span(part, name, span, held[0], untold=held[0] in untold)
            found.setdefault(span, (part, held))
    if not found:
        return None
    ends = np.unique(np.concatenate([part.times for part, _ in found.values()]))
    hours = wanted or step_hours or _spacing(ends, max(found))
    # The longest sums that fit: the fewest are added, and those over the hours themselves are best.
    for span in sorted(found, reverse=True):
        part, held = found[span]
        if (span and hours % span == 0) or not hours:
            _refuse_longer_sums(found, span, hours, base)
            return Sums(*_summed(part, span, hours, period, step_hours), held)
    there = ", ".join(f"{span} h" for span in sorted(found))
    named = next((f"{base}_{span}h" for span in sorted(found) if span in SPANS), None)
    raise ValueError(
        f"{next(iter(found.values()))[1][0].source} holds {base} as sums over {there}, which do "
        f"not make sums over {hours} h: "
        f"{f'take the channel {named}, or ' if named else ''}choose a step_hours that is a "
        f"multiple of {min(found)}."
    )


def _joined(channel: Channel, name: str, held: Sequence[Piece]) -> Part:
    """Order the times of the files that hold a sum."""
    part = join_times(
        (channel.name,),
        [p.raw() for p in held],
        [p.times for p in held],
        [_position(p, name) for p in held],
    )
    refuse_doubled_times(part)
    return part


def _refuse_interval(pieces: Sequence[Piece], base: str, hours: int) -> None:
    """Refuse sums whose only word on their hours is an interval other than the time between them.

    Raises:
        ValueError: one is there.
    """
    for piece in pieces:
        interval = piece.field.attrs.get(INTERVAL_HOURS)
        if interval is not None and hours and interval != hours:
            raise ValueError(
                f"{piece.source} holds {base} every {hours} h and says in its cell_methods that it "
                f"is a sum at an interval of {interval:g} h, so that it is over {interval:g} h or "
                f"made of such sums: add the bounds of its times, or call it {base}_{interval:g}h "
                f"or {base}_{hours}h, in the file and among the channels."
            )


def _refuse_longer_sums(
    found: dict[int, tuple[Part, list[Piece]]], span: int, hours: int, base: str
) -> None:
    """Refuse sums that begin with those chosen and end at later times of the step.

    Forecasts hold them, all since their start: those over other hours would be left out.
    """
    chosen = found[span][0].times
    begins = chosen - span * HOUR
    for longer, (part, held) in found.items():
        if re.search(r"_\d+hr?$", str(held[0].field.attrs.get(STORED_AS, ""))):
            continue  # its name says which hours: another variable, and no forecast's later step
        later = part.times[np.isin(part.times - longer * HOUR, begins) & (longer > span)]
        later = later[~np.isin(later, chosen)]
        if len(later[(later - chosen[0]) % (hours * HOUR) == np.timedelta64(0, "h")]):
            raise ValueError(
                f"{held[0].source} holds {base} as sums over {span} and {longer} h that begin at "
                f"one time, the start of each forecast: take the differences between steps first."
            )


def _check_span(part: Part, name: str, hours: int, piece: Piece, *, untold: bool) -> None:
    """Compare the first sum with what its hours bring, on the mean; see `check_span`."""
    grid = piece.grid()
    cells = Cells(latitude=grid.latitude, longitude=grid.longitude)
    check_span(
        part.read(0, 1)[0, 0],
        name,
        hours,
        grid.latitude,
        part.fields[part.field_of_time[0, 0]].source,
        whole_globe=cells.global_,
    )
    enough = cells.global_ and grid.size >= ENOUGH_CELLS
    if untold and hours > 1 and piece.field.attrs.get(OF_ERA5) and not enough:
        warnings.warn(
            f"{piece.source} is of ERA5, whose sums are over 1 h whatever the time between them, "
            f"and holds {name} every {hours} h, which is taken for sums over {hours} h: if it is "
            f"as ERA5 gives it, call it {name}_1h in the file and among the channels, or name "
            f"files of all hours.",
            UserWarning,
            stacklevel=4,
        )


def _holds(piece: Piece, name: str) -> bool:
    return name in piece.field["channel"].values if piece.name == "state" else piece.name == name


def _position(piece: Piece, name: str) -> tuple[int, ...]:
    """Where a store of ours has a channel; nowhere in particular, any other file."""
    if piece.name != "state":
        return ()
    return (piece.field["channel"].values.tolist().index(name),)


def _spacing(times: NDArray[np.datetime64], otherwise: int) -> int:
    """Hours between neighbouring times."""
    if len(times) < 2:
        return otherwise
    hours = np.diff(times).min() / HOUR
    if hours != int(hours) or hours < 1:
        raise ValueError(
            f"Sums at {iso(times[0])} and later follow each other by {hours:g} h: add them up to "
            f"whole hours first."
        )
    return int(hours)


def _summed(
    part: Part, span: int, hours: int, period: Period, step_hours: int | None
) -> tuple[Part, NDArray[np.datetime64]]:
    """Add the sums of the files over some hours, at the times of the step; and what is lost."""
    count = hours // span if span else 1
    if count == 1:
        return choose_times(part, period, step_hours), part.times[:0]
    ends = part.times
    before = ends[:, None] - np.arange(count - 1, -1, -1) * (span * HOUR)
    places = np.minimum(np.searchsorted(ends, before), len(ends) - 1)
    whole = (ends[places] == before).all(axis=1)
    asked = choose_times(part, period, step_hours)
    summed = replace(
        part,
        field_of_time=part.field_of_time[places, 0],
        place_in_field=part.place_in_field[places, 0],
    )
    kept = np.flatnonzero(np.isin(ends, asked.times) & whole)
    lost = np.setdiff1d(asked.times, ends[kept])
    if not len(kept) or (len(lost) and lost[-1] > ends[kept[0]]):
        when = lost[-1] if len(lost) else ends[0]
        raise ValueError(
            f"{part.channels[0]} at {iso(when)} needs {count} sums over {span} h, of which the "
            f"sources lack some: add what is missing, or choose another period."
        )
    if len(lost):
        warnings.warn(
            f"{iso(lost[0])}{f' to {iso(lost[-1])}' if len(lost) > 1 else ''} is left out, as the "
            f"sources hold {part.channels[0]} of less than the {hours} h before it.",
            UserWarning,
            stacklevel=4,
        )
    return summed.at(kept), lost


def refuse_since_start(pieces: Sequence[Piece]) -> None:
    """Refuse sums since the start of each forecast, which never fall from step to step.

    Raises:
        ValueError: they are such sums.
    """
    by_source: dict[str, list[Piece]] = {}
    for piece in pieces:
        by_source.setdefault(piece.source, []).append(piece)
    for source, steps in by_source.items():
        if len(steps) < 3:
            continue
        fields = [piece.raw().read(np.array([0]), ())[0, 0] for piece in steps[:4]]
        changes = np.diff(np.stack(fields), axis=0)
        if (changes >= 0).all() and (changes > 0).any(axis=(1, 2)).all():
            raise ValueError(
                f"{source} holds {steps[0].name} as sums since the start of each forecast (no cell "
                f"falls from step to step): take the differences between steps first."
            )


def refuse_running_sums(part: Part) -> None:
    """Refuse sums that run on from time to time and start anew, as ERA5-Land's do each day.

    From one sum to the next some cell falls: rain moves on, and the sun sets. Where sums run on,
    none does but where they start anew.

    Raises:
        ValueError: they are such sums.
    """
    rises, falls = _changes(part, LOOKED_AT)
    if part.channels[0].startswith("tp"):
        running = rises >= 2 and rises >= 0.7 * falls
    elif running := falls <= rises + 1:
        # In a region all cells rise in the morning, and fall in the evening.
        rises, falls = _changes(part, A_DAY)
        whole_day = part.times[:A_DAY][-1] - part.times[0] >= 24 * HOUR
        running = whole_day and rises >= 3 and rises >= 2 * falls
    if running:
        raise ValueError(
            f"{part.fields[0].source} holds {part.channels[0]} as sums that run on from time to "
            f"time and start anew, each day (as those of ERA5-Land) or forecast: take the "
            f"differences between times first."
        )


def _changes(part: Part, most: int) -> tuple[int, int]:
    """How often no cell falls from one time to the next while some rise, and how often some do."""
    rises = falls = 0
    before: NDArray[np.float32] | None = None
    for place in range(min(most, len(part.times))):
        after = part.read(place, place + 1)
        if before is not None:
            slack = PACKED * max(float(np.nanmax(after, initial=0)), 0.0)
            counted = before > slack
            if np.count_nonzero(counted) >= LEAST_CELLS:
                change = (after - before)[counted]
                fell = bool((change < -slack).any())
                falls += fell
                rises += not fell and bool((change > slack).any())
        before = after
    return rises, falls
