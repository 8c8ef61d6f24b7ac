"""Samples of interpolation: the frames around a window, and the state at a time within it.

A sample is a pure function of (seed, number of the sample), so that a run that is resumed, on any
number of ranks, repeats and skips nothing.

Shapes: B batch, N input channels, C channels of the store, O target channels, F forcings, T times,
H x W grid; states are departures from the daily cycle in deviations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from sciml_dchag.objectives.between import ENDS, FRAMES, OUTER, FramesLayout
from sciml_dchag.training.batches import Batch, drawn
from sciml_dchag.weather.forcing import scaled_forcing
from sciml_dchag.weather.store.cycles import Cycle
from sciml_dchag.weather.store.states import States
from sciml_dchag.weather.store.store import Period
from sciml_dchag.weather.windows import require_even_steps

Floats = NDArray[np.float32]

ENDS_ALONE = 0.25
"""Fraction of the training samples that show the network both ends alone, as at the ends of a
record."""


class OnGrid(Protocol):
    """A store, or forecasts: where they are and their grid."""

    @property
    def path(self) -> Path:
        """Where they are."""

    @property
    def latitude(self) -> NDArray[np.float64]:
        """Row centres in degrees north, (H,)."""

    @property
    def longitude(self) -> NDArray[np.float64]:
        """Column centres in degrees east, (W,)."""

    @property
    def grid_sha256(self) -> str:
        """Hash of the grid."""


@dataclass(frozen=True)
class BetweenBatch(Batch):
    """Samples ready for the model; values are normalised, NaN where missing."""

    inputs: Tensor
    """(B, N, H, W): the input channels."""
    first: Tensor
    """(B, O, H, W): the target channels at the start of the window."""
    last: Tensor
    """(B, O, H, W): at its end."""
    targets: Tensor
    """(B, O, H, W): at the time between."""
    elapsed_hours: Tensor
    """(B,): from the start to the time between."""
    window_hours: Tensor
    """(B,): from the start to the end."""

    def rotated(self, columns: int) -> BetweenBatch:
        """Turn all fields eastward by a number of columns of a global grid."""
        *on_grid, elapsed, window = self.tensors
        turned = [field.roll(columns, dims=-1) for field in on_grid]
        return BetweenBatch(*turned, elapsed, window)  # type: ignore[call-arg]


class BetweenWindows(Dataset[BetweenBatch]):
    """All windows of a period, with all times of the store within them.

    Args:
        store: the prepared store, evenly spaced in time.
        period: the times that samples may touch.
        cycle: what states are departures from.
        std: deviation by channel of the store, (C,).
        window_hours: lengths of the windows.
        forcings: computed fields at the time between.
        rotate: turn each sample about the Earth's axis by a random number of columns.
        ends_alone: fraction of the samples that lack the frames outside of the window.
        seed: what order and rotations are drawn from.
        memory_mebibytes: the period is kept in memory if it is no larger than this.
        inputs: positions of the input channels to read; None for all.
        outputs: positions of the channels to predict; None for all.

    Raises:
        ValueError: uneven steps, windows of no whole number of steps or of one, or a period too
            short for one of them.
    """

    def __init__(
        self,
        store: States,
        period: Period,
        *,
        cycle: Cycle,
        std: NDArray[np.float64],
        window_hours: Sequence[int],
        forcings: Sequence[str] = (),
        rotate: bool = False,
        ends_alone: float = 0.0,
        seed: int = 0,
        memory_mebibytes: int = 0,
        inputs: range | None = None,
        outputs: range | None = None,
    ) -> None:
        self.store, self.cycle, self.seed = store, cycle, seed
        self.rotate, self.ends_alone = rotate, ends_alone
        self.window_hours = tuple(window_hours)
        self.step_hours = check_windows(window_hours, require_even_steps(store))
        self.layout = layout_of(store.channels.names, forcings)
        self.indices = store.time_indices(period)
        self.samples = np.concatenate([self._samples(hours) for hours in window_hours])
        self._std = std.astype(np.float32)[:, None, None]
        channels = range(len(store.channels))
        own = range(len(self.layout)) if inputs is None else inputs
        self._parts = self.layout.by_time(own)
        self._constants = self.layout.constants_of(own)
        self._states = sum(len(part.places) for part in self._parts)
        self.targets = list(channels if outputs is None else outputs)
        self._cache: Floats | None = None
        read = sorted({c for part in self._parts for c in part.channels}.union(self.targets))
        if 4 * len(self.indices) * len(read) * np.prod(store.shape[2:]) <= memory_mebibytes * 2**20:
            self._place = {channel: place for place, channel in enumerate(read)}
            self._cache = self.read(self.indices, read)

    def _samples(self, window: int) -> NDArray[np.int64]:
        """(start, window, elapsed) of all samples of a window: positions and hours, (n, 3)."""
        elapsed = times_between(window, self.step_hours)
        starts = self.starts(window)
        first, tau = (grid.ravel() for grid in np.meshgrid(starts, elapsed, indexing="ij"))
        return np.stack([first, np.full_like(first, window), tau], axis=1)

    def starts(self, window: int) -> NDArray[np.int64]:
        """Positions in the store of the starts of all windows of a length.

        Raises:
            ValueError: the period holds none.
        """
        steps = window // self.step_hours
        starts = self.indices[self.indices + steps <= self.indices[-1]]
        if not len(starts):
            raise ValueError(
                f"A period of {len(self.indices)} times of {self.step_hours} h holds no window of "
                f"{window} h: lengthen it, or shorten task.window_hours."
            )
        return starts

    def surrounded(self, window: int) -> NDArray[np.int64]:
        """Positions of the starts of those windows that have all frames within the period."""
        steps, starts = window // self.step_hours, self.starts(window)
        first, last = starts + steps * min(FRAMES.values()), starts + steps * max(FRAMES.values())
        return starts[(first >= self.indices[0]) & (last <= self.indices[-1])]

    def __len__(self) -> int:
        """Return the number of windows, times those within each."""
        return len(self.samples)

    def __getitem__(self, number: int) -> BetweenBatch:
        """Return sample `number`, counted on through all epochs, as a batch of one."""
        epoch, place = drawn(self.seed, number, len(self))
        start, window, elapsed = self.samples[place].tolist()
        draw = np.random.default_rng([self.seed, epoch, place])
        columns, alone = int(draw.integers(len(self.store.longitude))), draw.random()
        sample = self.sample(start, window, elapsed, ends_alone=alone < self.ends_alone)
        return sample.rotated(columns) if self.rotate else sample

    def sample(
        self, start: int, window: int, elapsed: int, *, ends_alone: bool = False
    ) -> BetweenBatch:
        """Return one sample as a batch of one.

        Args:
            start: position of the start of the window in the store.
            window: its length in hours.
            elapsed: hours from its start to the time between.
            ends_alone: leave the frames outside of the window out, as those are that the period
                does not have: they are missing.
        """
        frames = [start + shift * (window // self.step_hours) for shift in FRAMES.values()]
        inputs = np.full((self._states, *self.store.shape[2:]), np.nan, np.float32)
        for part in self._parts:
            frame = frames[part.time]
            within = self.indices[0] <= frame <= self.indices[-1]
            if within and not (ends_alone and part.time in OUTER):
                inputs[part.places] = self._normalised([frame], part.channels)[0]
        between = start + elapsed // self.step_hours
        constants = constants_of(self.layout, self.store, self.store.times[between], window)
        states = self._normalised([*(frames[end] for end in ENDS), between], self.targets)
        whole = np.concatenate([inputs, constants[self._constants]])
        fields = (torch.from_numpy(field)[None] for field in (whole, *states))
        hours = (torch.tensor([float(number)]) for number in (elapsed, window))
        return BetweenBatch(*fields, *hours)

    def _normalised(self, times: Sequence[int], channels: list[int]) -> Floats:
        if self._cache is None:
            return self.read(np.array(times), channels)
        places = [self._place[channel] for channel in channels]
        return self._cache[np.ix_(np.array(times) - self.indices[0], places)]

    def read(self, indices: NDArray[np.int64], channels: Sequence[int]) -> Floats:
        """Departures from the daily cycle in deviations at times of the store, (T, C, H, W)."""
        states = self.store.read(indices, list(channels))
        states -= self.cycle.at(self.store.times[indices], channels)
        states /= self._std[list(channels)]
        return states


def times_between(window_hours: int, step_hours: int) -> range:
    """Hours from the start of a window to each time of a store within it."""
    return range(step_hours, window_hours, step_hours)


def layout_of(channels: Sequence[str], forcings: Sequence[str]) -> FramesLayout:
    """Lay out the inputs that are made of a store's channels."""
    return FramesLayout(channels=tuple(channels), forcings=tuple(forcings))


def constants_of(
    layout: FramesLayout, grid: OnGrid, valid: np.datetime64, window_hours: int
) -> Floats:
    """Forcings at a time and the length of the window in days, (F + 1, H, W)."""
    at = np.array([valid])
    forcing = scaled_forcing(layout.forcings, at, grid.latitude, grid.longitude)[0]
    size = (len(grid.latitude), len(grid.longitude))
    window = np.full((1, *size), window_hours / 24, np.float32)
    return np.concatenate([forcing, window])


def check_windows(window_hours: Sequence[int], step_hours: int) -> int:
    """Refuse windows that hold no time of the store between their ends; return its step in hours.

    Raises:
        ValueError: the first window that is no multiple of the step, or only one step.
    """
    for hours in window_hours:
        if hours % step_hours or hours == step_hours:
            raise ValueError(
                f"task.window_hours has {hours} h, and a store of steps of {step_hours} h has "
                f"windows of {2 * step_hours}, {3 * step_hours}, ... h with times between: choose "
                f"among these, or prepare a store of a finer step."
            )
    return step_hours
