"""The climatological ensemble: states of the training period of the same hour of day and season.

It is the forecast that knows the date and nothing of the weather; an ensemble is worth its cost
where it beats it. Its quantiles are the thresholds of events.

Shapes: M members, C channels, Q quantiles, H x W grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.weather.store.climatology import hour_of_day
from sciml_dchag.weather.store.store import Period, Store

MOST_MEMBERS = 50
"""States that are taken, evenly over those that fit."""
FEWEST_OF_A_SEASON = 20
"""If there are fewer of the month and its two neighbours, those of all months are taken."""
MOST_KEPT = 8
"""Ensembles that are kept in memory: hours of day and months that lead times reach."""


class ClimatologicalEnsemble:
    """States of a training period, by hour of day and month.

    Args:
        store: where they are.
        period: the training period; nothing else is read.
        channels: positions of the channels.
        quantiles: of the members at each place.
    """

    def __init__(
        self, store: Store, period: Period, channels: Sequence[int], quantiles: Sequence[float]
    ) -> None:
        self.store, self.channels, self.quantiles = store, list(channels), list(quantiles)
        self._inside = store.time_indices(period)
        times = store.times[self._inside]
        self._hours, self._months = hour_of_day(times), _month(times)
        self._kept: dict[tuple[int, ...], tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        fewest = min(
            len(self._fitting(hour, month)) for hour in set(self._hours) for month in range(12)
        )
        if fewest < 2:
            raise ValueError(
                f"The training period {period[0]} to {period[1]} has an hour of day with one state "
                f"alone, where an ensemble of climatology needs 2 and more: lengthen data.train."
            )
        self.members = min(MOST_MEMBERS, fewest)
        """M."""

    def _fitting(self, hour: int, month: int) -> NDArray[np.int64]:
        """Positions of the states of an hour of day and the months around, or of all months."""
        same_hour = self._hours == hour
        apart = np.abs(self._months - month)
        season = same_hour & (np.minimum(apart, 12 - apart) <= 1)
        return self._inside[season if season.sum() >= FEWEST_OF_A_SEASON else same_hour]

    def indices(self, time: np.datetime64) -> NDArray[np.int64]:
        """Positions of the states that are the members for a valid time, (M,)."""
        wanted = np.array([time])
        found = self._fitting(int(hour_of_day(wanted)[0]), int(_month(wanted)[0]))
        if not len(found):
            raise ValueError(
                f"The training period has no state at the hour of {time}: choose lead times that "
                f"fall on its hours."
            )
        return found[np.linspace(0, len(found) - 1, self.members).astype(int)]

    def at(self, time: np.datetime64) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return members (M, C, H, W), sorted at each place, and quantiles (Q, C, H, W)."""
        indices = self.indices(time)
        key = tuple(indices.tolist())
        if key not in self._kept:
            members = np.sort(self.store.read(indices, self.channels), axis=0)
            quantiles = np.quantile(members, self.quantiles, axis=0).astype(np.float32)
            if len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = members, quantiles
        return self._kept[key]


def _month(times: NDArray[np.datetime64]) -> NDArray[np.int64]:
    return times.astype("datetime64[M]").astype(np.int64) % 12
