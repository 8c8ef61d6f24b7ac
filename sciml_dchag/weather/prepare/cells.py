"""Whether each value of a field, as its file has it, is one that a cell can have.

A mean does not show what is lost in part: chunks that read as a fill value, an undeclared -999,
packed values that wrapped around. Means, missing values and winds are in `checks`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.channels import Channel, ChannelSet, variables
from sciml_dchag.weather.channels import VARIABLES
from sciml_dchag.weather.prepare.checks import check_mean, standard_geopotential
from sciml_dchag.weather.prepare.magnitudes import refuse_deluge, refuse_other_units
from sciml_dchag.weather.prepare.reading import RawField
from sciml_dchag.weather.prepare.valid_range import in_words
from sciml_dchag.weather.store.layout import iso

SMOOTH = ("z", "t", "u", "v", "t2m", "u10", "v10", "msl", "sst")
"""Variables whose neighbouring cells differ little, compared with the range over all cells."""

ZERO_BLOCK = 4
"""Rows and columns of a block of zeros that is no weather."""

MARKS = tuple(
    sign * size
    for size in (99.0, 999.0, 9999.0, 99999.0, 999999.0, 32767.0, 32768.0, 1e10, 1e15, 1e20)
    for sign in (-1.0, 1.0)
)
"""Numbers by which files mark missing values without declaring it."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Where the cells of a field are, for messages."""

    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]

    @property
    def global_(self) -> bool:
        """Whether they cover most of the globe."""
        around = np.ptp(self.longitude) * len(self.longitude) / max(1, len(self.longitude) - 1)
        return bool(np.ptp(self.latitude) > 150 and around > 359)

    def place(self, row: int, column: int) -> str:
        """Name a cell."""
        return f"latitude {self.latitude[row]:g}, longitude {self.longitude[column]:g}"


def cell_bounds(channel: Channel) -> tuple[float, float]:
    """Least and greatest value that a cell of a channel can have, in our units."""
    variable = variables()[channel.variable]
    if variable.short == "z" and channel.level_hpa is not None:
        # Deep lows and highs near the ground, warm and cold air above it: a polar night, simulated
        # ones too, is 18 % below the standard at 50 hPa.
        standard = standard_geopotential(channel.level_hpa)
        return 0.88 * standard - 12e3, 1.12 * standard + 12e3
    return variable.cell_bounds


class Believable:
    """Checks fields as they are read; it needs no vocabulary, so that a cluster's worker may.

    Args:
        at_once: raise where a field is read, as on a cluster. Else what is found waits for
            `raise_first`: an exception in a thread of Dask's keeps the files open that it is about.
        allow_missing: whether chunks may be missing that read as missing values.
    """

    def __init__(self, *, at_once: bool = False, allow_missing: bool = False) -> None:
        self.at_once = at_once
        self.allow_missing = allow_missing
        self.refusals: list[tuple[np.datetime64, str]] = []

    def bind(self, channels: ChannelSet, cells: Cells) -> None:
        """Say which channels will be read, and where the cells are."""
        self.channels = {channel.name: channel for channel in channels}
        self.bounds = {channel.name: cell_bounds(channel) for channel in channels}
        self.cells = cells

    def __call__(
        self,
        block: NDArray[np.float32],
        times: NDArray[np.datetime64],
        names: tuple[str, ...],
        field: RawField,
    ) -> None:
        """Check a block of a file; see `check_cells` and `refuse_other_units`."""
        try:
            if field.valid is not None and not self.allow_missing:
                _refuse_invalid(block, times, names, field, self.cells)
            if (scaled := field.scaled_floats) is not None:
                self._refuse_scaled(block, names, field, scaled)
            check_cells(
                block,
                times,
                tuple(self.channels[name] for name in names),
                tuple(self.bounds[name] for name in names),
                cells=self.cells,
                source=field.source,
                packed_range=field.packed_range,
            )
            if field.name != "state":
                for c, name in enumerate(names):
                    refuse_other_units(
                        block[:, c],
                        self.channels[name],
                        self.cells.latitude,
                        field.source,
                        whole_globe=self.cells.global_,
                    )
        except ValueError as error:
            if self.at_once:
                raise
            self.refusals.append((times[0], str(error)))

    def _refuse_scaled(
        self,
        block: NDArray[np.float32],
        names: tuple[str, ...],
        field: RawField,
        scaled: tuple[float, float],
    ) -> None:
        """Refuse floating-point numbers with a scale that are as believable without it.

        Only integers are packed; who unpacks them and keeps `scale_factor` has them scaled again.
        """
        scale, offset = scaled
        for c, name in enumerate(names):
            low, high = self.bounds[name]
            stored = (block[:, c].astype(np.float64) / field.factor - offset) / scale * field.factor
            known = stored[np.isfinite(stored)]
            inside = bool(((known >= low) & (known <= high)).all())
            if known.size and inside and np.isfinite([low, high]).all():
                raise ValueError(
                    f"{field.source} has {name} as floating-point numbers with scale_factor "
                    f"{scale:g} and add_offset {offset:g}, which make "
                    f"{np.nanmean(block[:, c]):.4g} of {known.mean():.4g} on the mean, both "
                    f"believable: if it is unpacked already, remove these attributes, else write "
                    f"the values that are meant."
                )

    def raise_first(self) -> None:
        """Raise the refusal of the earliest time, if there is any.

        Raises:
            ValueError: as `check_cells`.
        """
        if self.refusals:
            raise ValueError(min(self.refusals)[1])


def _refuse_invalid(
    block: NDArray[np.float32],
    times: NDArray[np.datetime64],
    names: tuple[str, ...],
    field: RawField,
    cells: Cells,
) -> None:
    """Refuse missing values of a field that says what is valid, where none may be missing."""
    for c, name in enumerate(names):
        if (missing := np.isnan(block[:, c])).any() and field.valid is not None:
            raise ValueError(
                f"{field.source} has {name} missing, or other than the {in_words(field.valid)} "
                f"that it says is valid, in {_counted(missing, times, cells)}: complete it, "
                f"correct its attributes valid_range, valid_min and valid_max, or pass "
                f"`allow_missing=True`."
            )


def check_cells(
    block: NDArray[np.float32],
    times: NDArray[np.datetime64],
    channels: tuple[Channel, ...],
    bounds: tuple[tuple[float, float], ...],
    *,
    cells: Cells,
    source: str,
    packed_range: float | None = None,
) -> None:
    """Check every value of fields of one file.

    Args:
        block: (T, C, H, W), in our units, NaN where missing.
        times: of the fields.
        channels: of the fields.
        bounds: by channel, as `cell_bounds`.
        cells: where the cells are.
        source: what messages call the file.
        packed_range: by how much two values differ that wrapped integers take for neighbours;
            None where the file does not pack values.

    Raises:
        ValueError: cells outside the bounds, marks of missing values far from all others, a block
            of zeros where a smooth field cannot have one, or packed values that wrapped; how many,
            where the first is, and in which file.
    """
    for c, channel in enumerate(channels):
        fields, (low, high) = block[:, c], bounds[c]
        # NaN compares false: whether values may be missing is asked elsewhere.
        if (fields < low).any() or (fields > high).any():
            _refuse_outside(fields, times, channel, (low, high), cells, source)
        if channel.variable.split("_")[0] == "tp" and cells.global_:
            refuse_deluge(fields, times, channel, cells.latitude, source)
        _refuse_marks(fields, times, channel, cells, source)
        if channel.variable not in SMOOTH:
            continue
        _refuse_zeros(fields, times, channel, cells, source)
        if packed_range:
            _refuse_wrapped(fields, times, channel, packed_range, cells, source)


def _refuse_outside(
    fields: NDArray[np.float32],
    times: NDArray[np.datetime64],
    channel: Channel,
    bounds: tuple[float, float],
    cells: Cells,
    source: str,
) -> None:
    wrong = (fields < bounds[0]) | (fields > bounds[1])
    t, row, column = np.argwhere(wrong)[0].tolist()
    everywhere, ours = wrong.mean() > 0.5, variables().get(channel.variable)
    if everywhere and ours is not None:  # other units, of which a mean says more than a cell
        check_mean(fields[t], channel.name, ours, channel.level_hpa, when=iso(times[t]))
    fix = (
        f"convert it to {channel.units} and set its units attribute"
        if everywhere
        else "if that is how it marks missing values, set its _FillValue and allow missing values, "
        "else download it again"
    )
    if channel.variable not in VARIABLES:
        fix += f", or widen plausible of {channel.name} in the recipe's channels if it is right"
    raise ValueError(
        f"{source} has {channel.name} outside {bounds[0]:.6g} to {bounds[1]:.6g} "
        f"{channel.units} in {_counted(wrong, times, cells, fields[t, row, column])}: {fix}."
    )


def _counted(
    wrong: NDArray[np.bool_],
    times: NDArray[np.datetime64],
    cells: Cells,
    value: np.float32 | None = None,
) -> str:
    """Say how many cells are wrong and where the first is, with its value where that is news."""
    t, row, column = np.argwhere(wrong)[0].tolist()
    shown = "" if value is None else f"{value:.6g} "
    return (
        f"{int(wrong.sum())} of {wrong.size} cells of {len(times)} time(s), the first {shown}at "
        f"{iso(times[t])}, {cells.place(row, column)}"
    )


def _refuse_marks(
    fields: NDArray[np.float32],
    times: NDArray[np.datetime64],
    channel: Channel,
    cells: Cells,
    source: str,
) -> None:
    """Refuse a usual mark of missing values that is far from all other values."""
    extremes = {float(np.fmin.reduce(fields, axis=None)), float(np.fmax.reduce(fields, axis=None))}
    marked = sorted(extremes.intersection(np.array(MARKS, np.float32).tolist()))
    if not marked:
        return
    known = fields[np.isfinite(fields)]
    for mark in marked:
        others = known[known != np.float32(mark)]
        if not len(others) or np.abs(others - mark).min() < abs(mark) / 5:
            continue
        fix = "set its _FillValue and allow missing values, else download it again"
        if channel.variable not in VARIABLES:
            fix += f", or give plausible of {channel.name} in the recipe's channels if it is right"
        raise ValueError(
            f"{source} has {channel.name} exactly {mark:g} in "
            f"{_counted(fields == np.float32(mark), times, cells)}, and {others.min():.6g} to "
            f"{others.max():.6g} elsewhere: if that is how it marks missing values, {fix}."
        )


def _refuse_zeros(
    fields: NDArray[np.float32],
    times: NDArray[np.datetime64],
    channel: Channel,
    cells: Cells,
    source: str,
) -> None:
    zero = fields == 0
    counts = zero.sum(axis=(1, 2))
    many = (counts >= ZERO_BLOCK**2) & (counts < fields[0].size)  # a field of zeros is constant
    for t in np.flatnonzero(many).tolist():
        block = zero[t]
        for axis in (0, 1):  # the block's first cells: those with as many zeros after them
            windows = np.lib.stride_tricks.sliding_window_view(
                block, min(ZERO_BLOCK, block.shape[axis]), axis=axis
            )
            block = windows.all(axis=-1)
        if block.any():
            row, column = np.argwhere(block)[0].tolist()
            raise ValueError(
                f"{source} has {channel.name} exactly 0 in {int(counts[t])} of {fields[t].size} "
                f"cells at {iso(times[t])}, a block of them from {cells.place(row, column)}: a "
                f"part of the file is missing and reads as its fill value, so download it again."
            )


def _refuse_wrapped(
    fields: NDArray[np.float32],
    times: NDArray[np.datetime64],
    channel: Channel,
    packed_range: float,
    cells: Cells,
    source: str,
) -> None:
    """Refuse fields in which neighbours differ by the range of the integers that pack them."""
    if fields[0].size < 64:
        return
    jumps = np.zeros(fields.shape, bool)
    for axis in (1, 2):
        steps = np.abs(np.diff(fields, axis=axis))
        where = [slice(None)] * 3
        where[axis] = slice(None, -1)
        jumps[tuple(where)] |= (steps > 0.85 * packed_range) & (steps < 1.15 * packed_range)
    counts = jumps.sum(axis=(1, 2))
    wrapped = np.flatnonzero(counts >= max(3, fields[0].size // 500))
    if len(wrapped):
        t = int(wrapped[0])
        row, column = np.argwhere(jumps[t])[0].tolist()
        raise ValueError(
            f"{source} has {channel.name} with {int(counts[t])} jumps between neighbouring cells "
            f"at {iso(times[t])}, the first at {cells.place(row, column)}, by about the "
            f"{packed_range:.4g} {channel.units} that its packed integers span: values wrapped "
            f"around when files of other scale_factor were joined, so join them unpacked, or name "
            f"the files that were joined."
        )
