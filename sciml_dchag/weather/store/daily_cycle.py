"""The mean by hour of day: what is expected of a place where a record is too short for seasons.

Departures from it are what is left to forecast: the pressure tide and the warmth of noon are no
skill.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.weather.store.climatology import hour_of_day
from sciml_dchag.weather.store.store import Period, Store

BLOCK_TIMES = 32
"""Times that are read at once."""


class DailyCycle:
    """The mean of a period by hour of day.

    Args:
        hours: hours of the day, ascending, (K,).
        mean: of each hour, in physical units, (K, C, H, W); NaN where every value is missing.
    """

    def __init__(self, hours: NDArray[np.int64], mean: NDArray[np.float32]) -> None:
        self.hours, self.mean = hours, mean

    @classmethod
    def of(cls, store: Store, period: Period) -> DailyCycle:
        """Average all channels of a store over a period; nothing else is read.

        Raises:
            ValueError: the period holds no time of the store.
        """
        inside = store.time_indices(period)
        hours = hour_of_day(store.times[inside])
        kept = np.unique(hours)
        shape = (len(kept), *store.shape[1:])
        sums, counts = np.zeros(shape), np.zeros(shape, np.int64)
        for start in range(0, len(inside), BLOCK_TIMES):
            block = slice(start, start + BLOCK_TIMES)
            fields = store.read(inside[block]).astype(np.float64)
            for field, hour in zip(fields, hours[block], strict=True):
                place = int(np.searchsorted(kept, hour))
                known = np.isfinite(field)
                sums[place] += np.where(known, field, 0.0)
                counts[place] += known
        with np.errstate(invalid="ignore"):
            return cls(kept, (sums / counts).astype(np.float32))

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
        return self.mean[np.searchsorted(self.hours, hours)][:, list(channel_indices)]

    def in_words(self) -> str:
        """Say what it is, for a report."""
        return "the mean by hour of day"
