"""Persistence: of the state, of its departure from what is expected, and of a part of that.

Each has `forecast(initial, lead_hours)`: positions of initial times (B,) to fields (B, C, H, W) in
physical units, float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.weather.baselines.training_pairs import TrainingPairs, blocks, hours


class _OfChannels:
    """A forecast of some channels of a store, by what a training period says of them."""

    def __init__(self, pairs: TrainingPairs, channels: Sequence[int]) -> None:
        self.pairs, self.channels = pairs, list(channels)


class Persistence(_OfChannels):
    """The state at the initial time, held."""

    def forecast(self, initial: NDArray[np.int64], lead_hours: int) -> NDArray[np.float32]:
        """Return the state at the initial times."""
        return self.pairs.store.read(initial, self.channels)


class Climatology(_OfChannels):
    """What is expected at the valid time, whatever the initial state."""

    def forecast(self, initial: NDArray[np.int64], lead_hours: int) -> NDArray[np.float32]:
        """Return what is expected."""
        valid = self.pairs.store.times[initial] + hours(lead_hours)
        return self.pairs.expected.at(valid, self.channels)


class AnomalyPersistence(_OfChannels):
    """What is expected at the valid time, with the departure of the initial time added."""

    def forecast(self, initial: NDArray[np.int64], lead_hours: int) -> NDArray[np.float32]:
        """Hold the departure."""
        kept = self.kept(lead_hours)[:, None, None]
        valid = self.pairs.store.times[initial] + hours(lead_hours)
        return self.pairs.physical(
            kept * self.pairs.anomalies(initial, self.channels), valid, self.channels
        )

    def kept(self, lead_hours: int) -> NDArray[np.float64]:
        """The fraction of the departure that is held, by channel: all of it."""
        return np.ones(len(self.channels))


class DampedPersistence(AnomalyPersistence):
    """What is expected, with a fraction of the departure: one coefficient a channel and lead time.

    The coefficient is the least-squares one of the training period, <a(t) a(t + lead)> / <a(t)^2>,
    averaged over area and time.
    """

    def __init__(
        self, pairs: TrainingPairs, channels: Sequence[int], lead_hours: Sequence[int]
    ) -> None:
        super().__init__(pairs, channels)
        self.coefficients = {lead: self._fit(lead) for lead in lead_hours}

    def kept(self, lead_hours: int) -> NDArray[np.float64]:
        """The coefficients of a lead time."""
        return self.coefficients[lead_hours]

    def _fit(self, lead: int) -> NDArray[np.float64]:
        pairs, weights = self.pairs, self.pairs.weights_of_rows[:, None]
        products = np.zeros((2, len(self.channels)))
        for block in blocks(pairs.initial(lead)):
            now = pairs.anomalies(block, self.channels)
            then = pairs.anomalies(pairs.later(block, lead), self.channels)
            known = np.isfinite(now) & np.isfinite(then)
            now, then = np.where(known, now, 0.0), np.where(known, then, 0.0)
            products += [
                (weights * now * then).sum((0, 2, 3)), (weights * now * now).sum((0, 2, 3)),
            ]  # fmt: skip
        with np.errstate(invalid="ignore"):
            return products[0] / products[1]  # NaN where the period holds no pair
