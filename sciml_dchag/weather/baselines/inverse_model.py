"""A linear inverse model: forecasts from the leading patterns of variability.

Anomalies of all channels, weighted by area and in deviations, are projected on their leading
empirical orthogonal functions (EOFs); their coefficients at a later time are regressed on those at
the initial time, G = C(lead) C(0)^-1 (Penland and Sardeshmukh 1995, J. Climate 8), by the direct
regression at each lead time instead of a power of the shortest one's. The number of patterns is
chosen for each lead time on the last fifth of the training period. What the patterns do not hold is
forecast as expected.

Shapes: B initial times, C channels, H x W grid, K patterns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.weather.baselines.training_pairs import HELD_OUT, TrainingPairs, blocks, hours

PATTERNS = (2, 5, 10, 20, 40)
"""Numbers of patterns to choose from."""


class InverseModel:
    """The regression, fitted on the training period.

    Args:
        pairs: the training period.
        channels: positions of the channels to forecast.
        lead_hours: lead times, each fitted by itself.
    """

    def __init__(
        self, pairs: TrainingPairs, channels: Sequence[int], lead_hours: Sequence[int]
    ) -> None:
        self.pairs, self.channels = pairs, list(channels)
        self.everything = range(len(pairs.store.channels))
        initial = pairs.initial(0)
        self.patterns = self._patterns(initial)
        now = self._coefficients(initial)
        self.maps = {lead: self._fit(initial, now, lead) for lead in lead_hours}

    def forecast(self, initial: NDArray[np.int64], lead_hours: int) -> NDArray[np.float32]:
        """Forecast from initial times, (B, C, H, W) in physical units."""
        step = self.maps[lead_hours]
        later = self._coefficients(initial)[:, : len(step)] @ step
        picked = self.patterns[: len(step), self.channels]
        fields = np.tensordot(later, picked, axes=1) / self._weights()[:, None]
        valid = self.pairs.store.times[initial] + hours(lead_hours)
        return self.pairs.physical(fields, valid, self.channels)

    def _weights(self) -> NDArray[np.float64]:
        """Square roots of the rows' area, with which squares are areal means, (H,)."""
        return np.sqrt(self.pairs.weights_of_rows)

    def _weighted(self, indices: NDArray[np.int64], channels: Sequence[int]) -> NDArray[np.float64]:
        anomalies = np.nan_to_num(self.pairs.anomalies(indices, channels), posinf=0.0, neginf=0.0)
        return anomalies * self._weights()[:, None]

    def _patterns(self, initial: NDArray[np.int64]) -> NDArray[np.float64]:
        """The leading EOFs, (K, C, H, W), from products between times, a channel at a time."""
        products = np.zeros((len(initial), len(initial)))
        for channel in self.everything:
            fields = self._weighted(initial, [channel]).reshape(len(initial), -1)
            products += fields @ fields.T
        values, vectors = np.linalg.eigh(products)
        count = min(max(PATTERNS), int((values > 1e-9 * values[-1]).sum()))
        leading = vectors[:, ::-1][:, :count] / np.sqrt(values[::-1][:count])
        found = [
            np.tensordot(leading.T, self._weighted(initial, [channel])[:, 0], axes=1)
            for channel in self.everything
        ]
        return np.stack(found, axis=1)

    def _coefficients(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Coefficients of the patterns at some times, (B, K)."""
        flat = self.patterns.reshape(len(self.patterns), -1).T
        return np.concatenate(
            [
                self._weighted(block, self.everything).reshape(len(block), -1) @ flat
                for block in blocks(indices)
            ]
        )

    def _fit(
        self, initial: NDArray[np.int64], now: NDArray[np.float64], lead: int
    ) -> NDArray[np.float64]:
        """The map from coefficients now to those later, (K, K) of the best number of patterns."""
        fits = self.pairs.initial(lead)
        cut = round(len(fits) * (1 - HELD_OUT))
        allowed = [count for count in PATTERNS if count <= min(now.shape[1], cut // 3)]
        if not allowed:  # too few pairs to fit anything on
            return np.full((1, 1), np.nan)
        now, later = now[: len(fits)], self._coefficients(self.pairs.later(fits, lead))

        def error(count: int) -> float:
            step = _regression(now[:cut, :count], later[:cut, :count])
            missed = later[cut:].copy()
            missed[:, :count] -= now[cut:, :count] @ step
            return float((missed**2).sum())

        count = min(allowed, key=error)
        return _regression(now[:, :count], later[:, :count])


def _regression(now: NDArray[np.float64], later: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares of later coefficients on those now, (K, K)."""
    fit: NDArray[np.float64] = np.linalg.lstsq(now, later, rcond=None)[0].astype(np.float64)
    return fit
