"""The best two-band index: what a spectrum is worth to whoever has two filters.

Of all normalised differences (R_i - R_j) / (R_i + R_j) the one that correlates best with a trait on
the training rows, and a line through it (Thenkabail et al. 2000, Remote Sensing of Environment 71).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_BANDS = 150
"""Bands that pairs are made of, evenly over the spectrum: 11,175 pairs."""


@dataclass(frozen=True, kw_only=True)
class TwoBandIndex:
    """A trait as a line through a normalised difference."""

    first: int
    """Position of band i."""
    second: int
    """Position of band j."""
    slope: float
    """In the trait's units."""
    intercept: float
    """In the trait's units."""

    def predict(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predict from spectra (rows, bands): (rows,)."""
        return self.intercept + self.slope * _difference(X[:, self.first], X[:, self.second])


def fit_two_band(X: NDArray[np.float64], y: NDArray[np.float64]) -> TwoBandIndex:
    """Find the pair of bands and the line, from spectra (rows, bands) and a trait (rows,)."""
    bands = np.unique(
        np.linspace(0, X.shape[1] - 1, min(MOST_BANDS, X.shape[1])).round().astype(int)
    )
    centred = y - y.mean()
    best, pair = -1.0, (0, 0)
    for place, first in enumerate(bands[:-1]):
        others = bands[place + 1 :]
        index = _difference(X[:, [first]], X[:, others])
        index = index - index.mean(axis=0)
        spread = np.sqrt((index**2).sum(axis=0))
        strength = np.abs(centred @ index) / np.where(spread > 0, spread, np.inf)
        if strength.max() > best:
            best, pair = float(strength.max()), (int(first), int(others[strength.argmax()]))
    index = _difference(X[:, pair[0]], X[:, pair[1]])
    variance = float(((index - index.mean()) ** 2).sum())
    slope = float(centred @ (index - index.mean())) / variance if variance > 0 else 0.0
    return TwoBandIndex(
        first=pair[0], second=pair[1], slope=slope,
        intercept=float(y.mean() - slope * index.mean()),
    )  # fmt: skip


def _difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    total = one + other
    return np.where(total != 0, (one - other) / np.where(total != 0, total, 1.0), 0.0)
