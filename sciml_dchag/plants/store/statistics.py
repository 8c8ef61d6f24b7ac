"""Statistics of reflectance by wavelength over plant pixels, gathered while images are written.

Their place in a store is `cube_writing`'s, reading them `cubes`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.files.moments import merged
from sciml_dchag.plants.store.cubes import SpectralStatistics

_BANDS_AT_ONCE = 16
"""Bands whose float64 copies are held at a time, so that they stay in a core's cache."""


@dataclass(eq=False)
class SpectralMoments:
    """Running count, mean, sum of squared deviations and extremes of each band, float64, (C,)."""

    bands: int
    """Number of bands."""
    count: NDArray[np.float64] = field(init=False)
    mean: NDArray[np.float64] = field(init=False)
    squares: NDArray[np.float64] = field(init=False)
    minimum: NDArray[np.float64] = field(init=False)
    maximum: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.count, self.mean, self.squares = (np.zeros(self.bands) for _ in range(3))
        self.minimum, self.maximum = np.full(self.bands, np.inf), np.full(self.bands, -np.inf)

    @classmethod
    def of(cls, block: NDArray[np.float32], plants: NDArray[np.bool_]) -> SpectralMoments:
        """Moments of the plant pixels of a block; NaN counts nothing.

        Args:
            block: reflectance, (C, lines, columns).
            plants: true where a plant is, (lines, columns).
        """
        moments = cls(len(block))
        if not plants.any():
            return moments
        # All pixels as they lie, or the plants' alone.
        chosen = None if plants.all() else np.flatnonzero(plants)
        for first in range(0, len(block), _BANDS_AT_ONCE):
            part = slice(first, min(first + _BANDS_AT_ONCE, len(block)))
            values = block[part].reshape(part.stop - first, -1)
            moments._fill(part, values if chosen is None else values.take(chosen, axis=1))
        return moments

    def _fill(self, part: slice, values: NDArray[np.float32]) -> None:
        """Set the moments of some bands from their values, (bands, pixels)."""
        lowest = values.min(axis=1)
        if np.isnan(lowest).any():
            present = np.isfinite(values)
            count = np.count_nonzero(present, axis=1).astype(np.float64)
            total = np.where(present, values, 0.0).sum(axis=1, dtype=np.float64)
            mean = np.divide(total, count, where=count > 0, out=np.zeros(len(values)))
            deviations = np.where(present, values - mean[:, None], 0.0)
            self.minimum[part] = values.min(axis=1, where=present, initial=np.inf)
            self.maximum[part] = values.max(axis=1, where=present, initial=-np.inf)
        else:
            count = np.full(len(values), float(values.shape[1]))
            # Deviations from a value that is among them: one pass, and little cancels.
            start = values[:, :1].astype(np.float64)
            deviations = values - start
            shift = deviations.sum(axis=1) / count
            mean = start[:, 0] + shift
            self.minimum[part], self.maximum[part] = lowest, values.max(axis=1)
            deviations -= shift[:, None]
        self.count[part], self.mean[part] = count, mean
        self.squares[part] = np.einsum("bp,bp->b", deviations, deviations)

    def merge(self, other: SpectralMoments) -> None:
        """Add another's values to these."""
        self.count, self.mean, self.squares = merged(
            (self.count, self.mean, self.squares), (other.count, other.mean, other.squares)
        )
        np.minimum(self.minimum, other.minimum, out=self.minimum)
        np.maximum(self.maximum, other.maximum, out=self.maximum)

    def statistics(
        self, wavelength_nm: NDArray[np.float64], cubes: Sequence[str]
    ) -> SpectralStatistics:
        """Return the statistics of all that was merged.

        Raises:
            ValueError: a band has no value, or one value throughout, with which nothing can be
                normalised.
        """
        for what, wrong in (("no value", self.count == 0), ("one value", self.squares == 0.0)):
            if wrong.any():
                raise ValueError(
                    f"The band at {wavelength_nm[int(np.flatnonzero(wrong)[0])]:g} nm has {what} "
                    f"over all plant pixels of the training images, with which nothing can be "
                    f"normalised: leave it out with `--bands`, or look at the references "
                    f"and at `--clip`."
                )
        return SpectralStatistics(
            mean=self.mean,
            std=np.sqrt(self.squares / self.count),
            minimum=self.minimum,
            maximum=self.maximum,
            count=self.count,
            cubes=tuple(cubes),
        )

    def to_array(self) -> NDArray[np.float64]:
        """All of it as one array, (5, C), for a file."""
        return np.stack([self.count, self.mean, self.squares, self.minimum, self.maximum])

    @classmethod
    def from_array(cls, array: NDArray[np.float64]) -> SpectralMoments:
        """What `to_array` gave."""
        moments = cls(array.shape[1])
        moments.count, moments.mean, moments.squares, moments.minimum, moments.maximum = array
        return moments
