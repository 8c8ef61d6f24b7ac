"""Pairs of an initial and a valid time of the training period, as departures from what is expected.

Shapes: B initial times, T times of the input (now and earlier), C channels, H x W grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.baselines.expected import Expected
from sciml_dchag.weather.store.store import Period, Store

MOST_TIMES = 1000
"""Initial times that a baseline is fitted on, evenly over the training period."""
HELD_OUT = 0.2
"""The last fraction of them, on which strengths of regularisation are chosen."""
BLOCK_TIMES = 32


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingPairs:
    """A training period as the baselines see it."""

    store: Store
    """Where the states are."""
    period: Period
    """The training period."""
    expected: Expected
    """What anomalies are taken from."""
    std: NDArray[np.float64]
    """Deviation by channel of the store, which puts channels on one scale."""
    weights_of_rows: NDArray[np.float64] = field(init=False)
    """Weights of the rows by area, of mean 1, (H,)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights_of_rows", latitude_weights(self.store.latitude))

    def initial(self, lead_hours: int, earlier_hours: int = 0) -> NDArray[np.int64]:
        """Positions of initial times whose history and valid time lie in the period, thinned.

        Those of a longer lead time are the first of those of a shorter one.
        """
        inside = self.store.time_indices(self.period)
        times = self.store.times[inside]
        fits = (times + hours(lead_hours) <= times[-1]) & (times - hours(earlier_hours) >= times[0])
        return inside[fits & (np.arange(len(inside)) % thinned_by(len(inside), MOST_TIMES) == 0)]

    def later(self, initial: NDArray[np.int64], lead_hours: int) -> NDArray[np.int64]:
        """Positions of the times a number of hours after others; negative hours are before."""
        valid = self.store.times[initial] + hours(lead_hours)
        found = np.searchsorted(self.store.times, valid)
        if (found == len(self.store.times)).any() or (self.store.times[found] != valid).any():
            raise ValueError(
                f"{self.store.path} has no time {lead_hours} h from some of its times: baselines "
                f"need even steps."
            )
        return found

    def anomalies(self, indices: NDArray[np.int64], channels: Sequence[int]) -> NDArray[np.float64]:
        """Departures from what is expected, in deviations, (B, C, H, W); NaN where missing."""
        fields = self.store.read(indices, channels).astype(np.float64)
        fields -= self.expected.at(self.store.times[indices], channels)
        return fields / self.std[list(channels)][:, None, None]

    def physical(
        self, anomalies: NDArray[np.float64], valid: NDArray[np.datetime64], channels: Sequence[int]
    ) -> NDArray[np.float32]:
        """From anomalies in deviations to fields in physical units, float32."""
        fields = anomalies * self.std[list(channels)][:, None, None]
        fields += self.expected.at(valid, channels)
        return fields.astype(np.float32)


def thinned_by(count: int, most: int) -> int:
    """Of so many times take every n-th, at most `most` of them, at all hours of the day in turn.

    n has no factor in common with 24, the hours of a day, so that no hour is left out.
    """
    every = -(-count // most)
    while math.gcd(every, 24) > 1:
        every += 1
    return every


def hours(count: int) -> np.timedelta64:
    """A number of hours."""
    return np.timedelta64(count, "h")


def blocks(indices: NDArray[np.int64], size: int = BLOCK_TIMES) -> Iterator[NDArray[np.int64]]:
    """Split positions into blocks of some size that are worked on at once."""
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
