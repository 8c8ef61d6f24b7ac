"""Sums of squared errors of interpolated states of the test period, beside other ways.

Sums are over windows and cells, weighted by their areas, in float64.

Shapes: B windows, C channels, H x W grid; all in physical units.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.files.resumable import Progress
from sciml_dchag.objectives.between import ENDS, FRAMES
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.interpolate.baselines import BASELINES, cubic, linear
from sciml_dchag.weather.interpolate.config import InterpolateRecipe
from sciml_dchag.weather.interpolate.interpolator import Fields, Interpolator
from sciml_dchag.weather.interpolate.training import BetweenStore
from sciml_dchag.weather.interpolate.windows import times_between
from sciml_dchag.weather.objects.quantity import Quantity, quantity_of
from sciml_dchag.weather.objects.scores import ObjectScores
from sciml_dchag.weather.store.store import Store, taken_every
from sciml_dchag.weather.training_store import Timed, require_test

NAMES = ("model", *BASELINES)
Totals = dict[tuple[str, int, int], NDArray[np.float64]]


def check_objects(recipe: InterpolateRecipe, store: Store) -> Quantity | None:
    """Return what the lows and highs to be scored are of; None where none are.

    Raises:
        ValueError: no such channel, or one that is no pressure or geopotential.
    """
    if not recipe.evaluation.objects:
        return None
    channel = store.channels[recipe.evaluation.objects_channel]
    return quantity_of(channel.name, channel.units, channel.long_name, channel.variable)


def scored_starts(
    recipe: InterpolateRecipe, store: Timed, window: int, step: int
) -> NDArray[np.int64]:
    """Starts of windows within the test period whose outer times the store has, too.

    Args:
        recipe: says which times are scored.
        store: the store, or one that will be.
        window: its length in hours.
        step: of the store, in hours.

    Raises:
        ValueError: no test period, one without such a window, or `evaluation.every_hours` that is
            no multiple of the step.
    """
    test = require_test(recipe.data)
    inside, steps = store.time_indices(test), window // step
    every = recipe.evaluation.every_hours
    fits = inside[
        (inside + steps <= inside[-1])
        & (inside >= steps)
        & (inside + 2 * steps < len(store.times))
        & taken_every(store.times[inside], every, "evaluation.every_hours")
    ]
    if not len(fits):
        among = (
            f" at every {every} h since its first time (evaluation.every_hours)" if every else ""
        )
        raise ValueError(
            f"The test period {test[0]} to {test[1]} has no window of {window} h{among} with a "
            f"time of the store {window} h before and after it, which are used: lengthen it."
        )
    return fits


class Scorer:
    """A checkpoint on windows of a period, and sums of squared errors.

    Args:
        run: the run folder.
        recipe: says which store and times.

    Raises:
        ValueError: no test period, one too short, or a store that does not fit the checkpoint.
    """

    def __init__(self, run: Path, recipe: InterpolateRecipe) -> None:
        require_test(recipe.data)
        self.recipe, opened = recipe, BetweenStore(recipe)
        self.store = opened.store
        self.interpolator = Interpolator(run, self.store, recipe.parallel.device)
        if difference := opened.difference(self.interpolator.checkpoint):
            raise ValueError(
                f"{self.interpolator.path} is of a run {difference}: set data.store to the store "
                f"of the run."
            )
        self.step = self.interpolator.step_hours
        self.starts = {
            hours: scored_starts(recipe, self.store, hours, self.step)
            for hours in self.interpolator.window_hours
        }
        self.area = latitude_weights(self.store.latitude)[:, None]
        self.squares: Totals = {}
        self.counts: dict[tuple[int, int], NDArray[np.float64]] = {}
        quantity, names = check_objects(recipe, self.store), self.store.channels.names
        self.objects = {
            hours: ObjectScores(
                recipe.evaluation.objects, recipe.evaluation.objects_channel, quantity, names,
                NAMES, times_between(hours, self.step), (self.store.latitude, self.store.longitude),
            )
            for hours in self.starts
        }  # fmt: skip

    def run(self, progress: Progress | None) -> None:
        """Score all windows."""
        batch, done = self.recipe.evaluation.batch, 0
        total = sum(len(starts) for starts in self.starts.values())
        for window, starts in self.starts.items():
            for begin in range(0, len(starts), batch):
                block = starts[begin : begin + batch]
                self._score(window, block)
                done += len(block)
                if progress is not None:
                    progress(done, total, "scoring")

    def _score(self, window: int, starts: NDArray[np.int64]) -> None:
        """Add the windows of a length that start at some positions of the store."""
        steps, times = window // self.step, self.store.times
        frames = [self.store.read(starts + shift * steps) for shift in FRAMES.values()]
        departures = [
            state - self.interpolator.expected(times[starts + shift * steps])
            for state, shift in zip(frames, FRAMES.values(), strict=True)
        ]
        first, last = (frames[end] for end in ENDS)
        before, a, b, after = departures
        stacked = np.stack(frames, axis=1)
        for tau in times_between(window, self.step):
            at, s = starts + tau // self.step, tau / window
            mean = self.interpolator.expected(times[at])
            fields = {
                "linear": linear(first, last, s),
                "linear_of_departures": mean + linear(a, b, s),
                "cubic_of_departures": mean + cubic(before, a, b, after, s),
                **self.interpolator.ridges(stacked, times[starts], window, tau),
                "model": self.interpolator.between(stacked, times[starts], window, tau),
            }
            self._add(window, tau, fields, self.store.read(at))

    def _add(self, window: int, tau: int, fields: dict[str, Fields], truth: Fields) -> None:
        """Add the states at a time within windows, (B, C, H, W), to the sums."""
        # The same cells for all: where any of them is missing, none counts.
        known = np.isfinite(truth) & np.all([np.isfinite(f) for f in fields.values()], axis=0)
        count = (known * self.area).sum((0, 2, 3))
        self.counts[window, tau] = self.counts.get((window, tau), 0.0) + count
        everything = np.arange(len(count))
        for name in NAMES:
            error = np.where(known, fields[name].astype(np.float64) - truth, 0.0)
            squares = (error**2 * self.area).sum((0, 2, 3))
            key = (name, window, tau)
            self.squares[key] = self.squares.get(key, 0.0) + squares
            self.objects[window].update(name, tau, everything, fields[name], truth)

    def table(self) -> pd.DataFrame:
        """One row per channel, window and time within it."""
        rows = []
        for place, channel in enumerate(self.store.channels):
            for (window, tau), count in self.counts.items():
                with np.errstate(invalid="ignore", divide="ignore"):
                    errors = {
                        name: float(np.sqrt(self.squares[name, window, tau][place] / count[place]))
                        for name in NAMES
                    }
                rows.append(
                    {"metric": "rmse", "channel": channel.name, "window_hours": window,
                     "elapsed_hours": tau, "units": channel.units, "perfect": 0.0, **errors}
                )  # fmt: skip
        return pd.DataFrame(rows)

    def objects_table(self) -> pd.DataFrame:
        """Lows and highs by window and time within it; empty where none are asked for."""
        tables = []
        for window, scores in self.objects.items():
            table = scores.table().rename(columns={"lead_hours": "elapsed_hours"})
            table.insert(0, "window_hours", window)
            tables.append(table)
        return pd.concat(tables, ignore_index=True)
