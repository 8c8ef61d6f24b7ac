"""Running mean, squared deviations and extremes of many quantities, merged without cancelling."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LARGEST, SMALLEST = float(np.sqrt(np.finfo(np.float32).max)), float(np.finfo(np.float32).tiny)
"""Greatest value whose square float32 holds, and least number that it holds to all digits."""


@dataclass(eq=False)
class RunningMoments:
    """Weighted moments of quantities such as channels or bands, float64, each array (C,).

    Values are added about their own mean and merged by Chan, Golub and LeVeque 1983, eq. 2.1, so
    that nothing cancels. Missing values, those that are not finite, count nothing.
    """

    size: int
    """Number of quantities, C."""
    weight: Floats = field(init=False)
    """Sum of weights; equal to `count` where all weigh 1."""
    mean: Floats = field(init=False)
    """Weighted mean, 0 where nothing was added."""
    squares: Floats = field(init=False)
    """Weighted sum of squared deviations from the mean."""
    count: Floats = field(init=False)
    """Number of values."""
    minimum: Floats = field(init=False)
    """Least value."""
    maximum: Floats = field(init=False)
    """Greatest value."""

    def __post_init__(self) -> None:
        for name in self._names():
            setattr(self, name, np.zeros(self.size))
        self.minimum += np.inf
        self.maximum -= np.inf

    @classmethod
    def _names(cls) -> list[str]:
        return [f.name for f in fields(cls) if not f.init]

    def add(self, parts: Iterable[NDArray[np.float32]]) -> None:
        """Add values, each of weight 1, of all quantities.

        Args:
            parts: values (quantities, n) of consecutive quantities, so few at a time that their
                float64 copies stay in a core's cache.
        """
        self._merge(slice(None), *np.concatenate([_moments_of(part) for part in parts], axis=1))

    def add_weighted(self, place: int, values: NDArray[np.floating[Any]], weights: Floats) -> None:
        """Add values (T, H, W) of one quantity, of which row h has the weight `weights[h]`."""
        values = values.astype(np.float64)
        present = np.isfinite(values)
        count_by_row = np.count_nonzero(present, axis=(0, 2))
        count = int(count_by_row.sum())
        if count == 0:
            return
        weight = weights @ count_by_row
        mean = weights @ np.where(present, values, 0.0).sum(axis=(0, 2)) / weight
        deviations = np.where(present, values - mean, 0.0)
        squares = weights @ np.einsum("thw,thw->h", deviations, deviations)
        lowest = values.min(where=present, initial=np.inf)
        highest = values.max(where=present, initial=-np.inf)
        self._merge(place, weight, mean, squares, count, lowest, highest)

    def merge(self, other: RunningMoments) -> None:
        """Add all values of another's."""
        self._merge(slice(None), *(getattr(other, name) for name in self._names()))

    def _merge(
        self, place: int | slice, more: Any, mean: Any, squares: Any, count: Any, lowest: Any,
        highest: Any,
    ) -> None:  # fmt: skip
        """Merge moments into those at a place, numbers for one quantity and arrays for several."""
        weight = self.weight[place]
        total = weight + more
        of_one = np.maximum(total, np.finfo(np.float64).tiny)
        shift = mean - self.mean[place]
        self.mean[place] += shift * more / of_one
        self.squares[place] += squares + shift**2 * weight * more / of_one
        self.weight[place] = total
        self.count[place] += count
        self.minimum[place] = np.minimum(self.minimum[place], lowest)
        self.maximum[place] = np.maximum(self.maximum[place], highest)

    @property
    def std(self) -> Floats:
        """Standard deviation about the mean, NaN where nothing was added."""
        out = np.full(self.size, np.nan)
        return np.sqrt(np.divide(self.squares, self.weight, where=self.weight > 0, out=out))

    def to_array(self) -> Floats:
        """All of it as one array, (6, C), for a file."""
        return np.stack([getattr(self, name) for name in self._names()])

    @classmethod
    def from_array(cls, array: Floats) -> RunningMoments:
        """What `to_array` gave."""
        moments = cls(array.shape[1])
        for name, values in zip(cls._names(), array, strict=True):
            setattr(moments, name, values)
        return moments


def _moments_of(values: NDArray[np.float32]) -> Floats:
    """Moments of values (quantities, n), in the order of the fields, (6, quantities)."""
    lowest = values.min(axis=1)
    if np.isnan(lowest).any():
        present = np.isfinite(values)
        count = np.count_nonzero(present, axis=1).astype(np.float64)
        total = np.where(present, values, 0.0).sum(axis=1, dtype=np.float64)
        mean = np.divide(total, count, where=count > 0, out=np.zeros(len(values)))
        deviations = np.where(present, values - mean[:, None], 0.0)
        lowest = values.min(axis=1, where=present, initial=np.inf)
        highest = values.max(axis=1, where=present, initial=-np.inf)
    else:
        count = np.full(len(values), float(values.shape[1]))
        # Deviations from a value that is among them: one pass, and little cancels.
        start = values[:, :1].astype(np.float64)
        deviations = values - start
        shift = deviations.sum(axis=1) / count
        mean = start[:, 0] + shift
        highest = values.max(axis=1)
        deviations -= shift[:, None]
    squares = np.einsum("bp,bp->b", deviations, deviations)
    return np.stack([count, mean, squares, count, lowest, highest])


def cannot_normalise(
    mean: Floats, std: Floats, minimum: Floats, maximum: Floats
) -> tuple[int, str] | None:
    """Find the first quantity that training cannot normalise, and say why; None where all can be.

    Training computes in float32: with 1e20 among other numbers, as files mark missing values, all
    others become equal, and weights end as NaN.
    """
    greatest = np.maximum(np.abs(minimum), np.abs(maximum))
    deviation = std.astype(np.float32)
    for i in range(len(mean)):
        if not np.isfinite([mean[i], std[i], greatest[i]]).all():
            return i, f"statistics that are not finite (mean {mean[i]:g}, std {std[i]:g})"
        if greatest[i] > LARGEST:
            return i, f"values of up to {greatest[i]:.3g}, whose squares float32 cannot hold"
        if deviation[i] < SMALLEST:
            return i, f"a standard deviation of {std[i]:g}"
    return None
