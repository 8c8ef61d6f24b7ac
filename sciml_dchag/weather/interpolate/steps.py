"""Which times of a source are taken, and the states of a finer step between them.

Shapes: B windows, n times of a window (its start, then those within), C channels, H x W grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sciml_dchag._version import __version__
from sciml_dchag.files.digests import sampled_digest
from sciml_dchag.objectives.between import FRAMES
from sciml_dchag.weather.interpolate.interpolator import Fields, Interpolator
from sciml_dchag.weather.store.store import Period

HOUR = np.timedelta64(1, "h")


@dataclass(frozen=True)
class Gap:
    """Two neighbouring times that are taken."""

    start: int
    """The first, in hours since the source's first one."""
    hours: int
    """From it to the next."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What is asked for."""

    model: Path
    """A run, a checkpoint or an exported file."""
    every: int
    """Hours between the times wanted."""
    window: int | None
    """Hours between the times that are taken; None takes all."""
    period: Period
    """First and last time."""
    device: str | None
    """Where to compute; None is the run's."""
    note: Callable[[str], None]
    """Called with a sentence that is worth knowing."""

    def gaps(self, hours: Sequence[int], interpolator: Interpolator) -> list[Gap]:
        """All pairs of neighbouring times that are taken.

        Args:
            hours: of the source's times, since its first one.
            interpolator: fills what is longer than the step wanted.

        Raises:
            ValueError: fewer than two times, a distance that was not trained, or that the step
                wanted does not divide.
        """
        apart = self.window or 1
        taken = [hour for hour in hours if (hour - hours[0]) % apart == 0]
        if len(taken) < 2:
            raise ValueError(
                f"Of {len(hours)} time(s) {len(taken)} are taken, and there is nothing between: "
                f"give two or more that are a window apart."
            )
        found = [Gap(a, b - a) for a, b in itertools.pairwise(taken)]
        if all(gap.hours == self.every for gap in found):
            raise ValueError(
                f"The times taken are {self.every} h apart already: ask for a shorter step, or "
                f"take times further apart (`window_hours`)."
            )
        for length in sorted({gap.hours for gap in found} - {self.every}):
            self._require(length, interpolator)
        if self.every % interpolator.step_hours:
            self.note(
                f"times every {self.every} h were never scored: the model was trained on a store "
                f"of {interpolator.step_hours} h"
            )
        return found

    def _require(self, length: int, interpolator: Interpolator) -> None:
        """Refuse windows that were not trained, or that the step does not divide."""
        if length not in interpolator.window_hours:
            trained = " or ".join(f"{hours} h" for hours in interpolator.window_hours)
            raise ValueError(
                f"Two times of the source are {length} h apart, and {interpolator.path} was "
                f"trained on windows of {trained}: take times so far apart (`window_hours`), or "
                f"train with task.window_hours."
            )
        if length % self.every:
            divisors = [hours for hours in range(1, length) if length % hours == 0]
            raise ValueError(
                f"Steps of {self.every} h do not divide a window of {length} h: choose "
                f"{', '.join(map(str, divisors))} h."
            )

    def in_words(self, interpolator: Interpolator, gaps: list[Gap]) -> str:
        """Say what was done, and by which model to the bit."""
        windows = sorted({gap.hours for gap in gaps if gap.hours != self.every})
        name, step = interpolator.recipe.name, interpolator.checkpoint.step
        return (
            f"every {self.every} h, within windows of "
            f"{', '.join(f'{hours} h' for hours in windows)} by {name}, step {step} "
            f"({sampled_digest(interpolator.path)[:16]}), sciml_dchag {__version__}; trained and "
            f"scored on times every {interpolator.step_hours} h"
        )


def filled(
    interpolator: Interpolator,
    frame: Callable[[int], Fields],
    times: NDArray[np.datetime64],
    window: int,
    every: int,
) -> Fields:
    """Starts of windows of one length as they are, and the states within: (B, n, C, H, W).

    Args:
        interpolator: the model.
        frame: the states a number of windows after the starts, (B, C, H, W); NaN where there are
            none.
        times: of the starts, (B,).
        window: its length in hours.
        every: hours between the states wanted.
    """
    if window == every:
        return frame(0)[:, None]
    frames = np.stack([frame(shift) for shift in FRAMES.values()], axis=1)
    within = [
        interpolator.between(frames, times, window, tau) for tau in range(every, window, every)
    ]
    return np.stack([frames[:, list(FRAMES).index("start")], *within], axis=1)
