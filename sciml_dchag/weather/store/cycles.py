"""The mean by hour of day, and its seasons: what is expected of a place and a time.

Departures from it are what is left to forecast: the pressure tide, the warmth of noon and the
winter are no skill. Seasons are four harmonics of the year, fitted for each hour of day by least
squares, where the period is at least a year long; a shorter one has none. Higher harmonics of a few
years are mostly chance and count for less, as in a running mean over some weeks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.weather.store.climatology import hour_of_day
from sciml_dchag.weather.store.store import Period, Store

BLOCK_TIMES = 32
"""Times that are read at once."""
HARMONICS = (1.0, 0.9, 0.5, 0.25)
"""How much each harmonic of the year counts. On three simulated years these left the smallest error
on the fourth; two harmonics alone leave 1 % more in temperature near the ground."""
DAYS_OF_YEAR = 365.2425
SHORTEST_DAYS = 360
"""Length of a period from which on its seasons are fitted."""
EVEN_ENOUGH = 0.05
"""Least eigenvalue of the mean product of the terms, 0.5 for a cell known all the year."""


def season_terms(times: NDArray[np.datetime64]) -> int:
    """How many terms a period of these times has: a mean, and sine and cosine of each harmonic."""
    long = len(times) > 1 and times[-1] - times[0] >= np.timedelta64(SHORTEST_DAYS, "D")
    return 1 + 2 * len(HARMONICS) if long else 1


def terms_at(times: NDArray[np.datetime64], terms: int) -> NDArray[np.float64]:
    """Values of the terms at some times, (T, J): one, then cosine and sine of each harmonic."""
    phase = 2 * np.pi * (times - np.datetime64("2000-01-01")) / np.timedelta64(1, "D")
    angles = np.outer(phase / DAYS_OF_YEAR, np.arange(1, (terms - 1) // 2 + 1))
    waves = np.stack([np.cos(angles), np.sin(angles)], axis=-1).reshape(len(times), terms - 1)
    return np.concatenate([np.ones((len(times), 1)), waves], axis=1)


class Cycle:
    """The mean of a period by hour of day and, of a long one, by season.

    Args:
        hours: hours of the day, ascending, (K,).
        mean: of each hour, the mean and its harmonics, in physical units, (K, J, C, H, W); NaN
            where every value is missing.
    """

    def __init__(self, hours: NDArray[np.int64], mean: NDArray[np.float32]) -> None:
        self.hours, self.mean = hours, mean

    @classmethod
    def of(cls, store: Store, period: Period) -> Cycle:
        """Fit all channels of a store over a period; nothing else is read.

        Raises:
            ValueError: the period holds no time of the store.
        """
        inside = store.time_indices(period)
        times = store.times[inside]
        terms, hours = season_terms(times), hour_of_day(times)
        kept = np.unique(hours)
        shape = store.shape[1:]
        mean = np.empty((len(kept), terms, *shape), np.float32)
        for place, hour in enumerate(kept):
            of_hour = np.flatnonzero(hours == hour)
            cells = int(np.prod(shape))
            products, sums = np.zeros((terms**2, cells)), np.zeros((terms, cells))
            for start in range(0, len(of_hour), BLOCK_TIMES):
                block = of_hour[start : start + BLOCK_TIMES]
                fields = store.read(inside[block]).reshape(len(block), -1).astype(np.float64)
                at = terms_at(times[block], terms)
                known = np.isfinite(fields)
                sums += at.T @ np.where(known, fields, 0.0)
                products += (at[:, :, None] * at[:, None, :]).reshape(len(block), -1).T @ known
            counted = [1.0, *np.repeat(HARMONICS, 2)][:terms]
            found = _solve(products, sums) * np.array(counted)[:, None]
            mean[place] = found.reshape(terms, *shape)
        return cls(kept, mean)

    def at(
        self, times: NDArray[np.datetime64], channel_indices: Sequence[int]
    ) -> NDArray[np.float32]:
        """Return what is expected at given times, (T, C, H, W).

        Raises:
            ValueError: an hour of day that the training period does not have.
        """
        hours = hour_of_day(times)
        if absent := sorted(set(hours.tolist()) - set(self.hours.tolist())):
            raise ValueError(
                f"The mean by hour of day is of the training period's hours {self.hours.tolist()}, "
                f"and {absent[0]} h is needed: choose initial times and lead times that fall on "
                f"these hours."
            )
        terms, channels = self.mean.shape[1], list(channel_indices)
        found = np.empty((len(times), len(channels), *self.mean.shape[3:]), np.float32)
        values = terms_at(times, terms)
        for place, hour in enumerate(self.hours):
            chosen = hours == hour
            if chosen.any():
                picked = self.mean[place][:, channels]
                found[chosen] = np.tensordot(values[chosen], picked, axes=1)
        return found

    def in_words(self) -> str:
        """Say what it is, for a report."""
        return "the mean by hour of day" + (" and season" if self.mean.shape[1] > 1 else "")


def _solve(products: NDArray[np.float64], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients (J, cells), from products of terms (J J, cells) and with values (J, cells).

    A cell that is known in one season alone has a mean and no seasons.
    """
    terms = len(sums)
    counts = products[0]
    with np.errstate(invalid="ignore"):
        found = np.zeros_like(sums)
        found[0] = sums[0] / counts
    if terms == 1:
        return found
    of_cell = products.T.reshape(-1, terms, terms)
    even = counts > 0
    even[even] = np.linalg.eigvalsh(of_cell[even])[:, 0] > EVEN_ENOUGH * counts[even]
    found[:, even] = np.linalg.solve(of_cell[even], sums.T[even, :, None])[..., 0].T
    return found
