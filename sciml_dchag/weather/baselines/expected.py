"""What is expected of a place at a time, from which anomalies are taken.

A store with a climatology by hour and day of year gives that. Of a record that is too short for
one, the mean by hour of day is taken: the pressure tide and the warmth of noon are no skill.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.weather.store.climatology import Climatology
from sciml_dchag.weather.store.cycles import Cycle
from sciml_dchag.weather.store.store import Period, Store


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


Expected = Cycle | ByDayOfYear


def expected_of(store: Store, period: Period) -> Expected:
    """Return what is expected of a store's channels, from its training period alone.

    Raises:
        ValueError: the store's climatology is of another period.
        FileNotFoundError: the store has none.
    """
    climatology = store.climatology()
    climatology.require(period=store.period(period))
    if climatology.hourly is not None:
        return ByDayOfYear(climatology)
    return Cycle.of(store, period)
