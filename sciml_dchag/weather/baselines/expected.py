"""What is expected of a place at a time, from which anomalies are taken.

A store with a climatology by hour and day of year gives that. Of a record that is too short for
one, the mean by hour of day is taken: the pressure tide and the warmth of noon are no skill.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.weather.store.climatology import Climatology, hour_of_day
from sciml_dchag.weather.store.store import Period, Store

BLOCK_TIMES = 32
"""Times that are read at once."""


class DailyCycle:
    """The mean of a period by hour of day.

    Args:
        store: where the states are.
        period: the training period; nothing else is read.
        channels: positions of the channels that will be asked for.
    """

    def __init__(self, store: Store, period: Period, channels: Sequence[int]) -> None:
        self.channels = list(channels)
        inside = store.time_indices(period)
        hours = hour_of_day(store.times[inside])
        self.hours = np.unique(hours)
        shape = (len(self.hours), len(self.channels), *store.shape[2:])
        sums, counts = np.zeros(shape), np.zeros(shape, np.int64)
        for start in range(0, len(inside), BLOCK_TIMES):
            block = slice(start, start + BLOCK_TIMES)
            fields = store.read(inside[block], self.channels).astype(np.float64)
            for field, hour in zip(fields, hours[block], strict=True):
                place = int(np.searchsorted(self.hours, hour))
                known = np.isfinite(field)
                sums[place] += np.where(known, field, 0.0)
                counts[place] += known
        with np.errstate(invalid="ignore"):
            self.mean = (sums / counts).astype(np.float32)

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
                f"The training period has the hours {self.hours.tolist()} and {absent[0]} h is to "
                f"be scored: choose initial times and lead times that fall on its hours."
            )
        picked = [self.channels.index(channel) for channel in channel_indices]
        return self.mean[np.searchsorted(self.hours, hours)][:, picked]

    def in_words(self) -> str:
        """Say what it is, for a report."""
        return "the mean by hour of day"


class ByDayOfYear:
    """A store's climatology by hour and day of year."""

    def __init__(self, climatology: Climatology) -> None:
        self.climatology = climatology

    def at(
        self, times: NDArray[np.datetime64], channel_indices: Sequence[int]
    ) -> NDArray[np.float32]:
        """Return what is expected at given times, (T, C, H, W)."""
        return self.climatology.at(times, list(channel_indices))

    def in_words(self) -> str:
        """Say what it is, for a report."""
        return "the mean by hour and day of year"


Expected = DailyCycle | ByDayOfYear


def expected_of(store: Store, period: Period, channels: Sequence[int]) -> Expected:
    """Return what is expected of a store's channels, from its training period alone.

    Raises:
        ValueError: the store's climatology is of another period.
        FileNotFoundError: the store has none.
    """
    climatology = store.climatology()
    climatology.require(period=store.period(period))
    if climatology.hourly is not None:
        return ByDayOfYear(climatology)
    return DailyCycle(store, period, channels)
