"""Statistics of reflectance by wavelength over plant pixels, gathered while images are written.

Their place in a store is `writing`'s, reading them `cubes`'.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.files.moments import RunningMoments, cannot_normalise
from sciml_dchag.plants.store.cubes import SpectralStatistics

_BANDS_AT_ONCE = 16
"""Bands whose float64 copies are held at a time, so that they stay in a core's cache."""


def add_plants(
    moments: RunningMoments, block: NDArray[np.float32], plants: NDArray[np.bool_]
) -> None:
    """Add the plant pixels of a block; NaN counts nothing.

    Args:
        moments: of C bands.
        block: reflectance, (C, lines, columns).
        plants: true where a plant is, (lines, columns).
    """
    if not plants.any():
        return
    # All pixels as they lie, or the plants' alone.
    chosen = None if plants.all() else np.flatnonzero(plants)
    moments.add(
        values if chosen is None else values.take(chosen, axis=1)
        for values in (
            block[first : first + _BANDS_AT_ONCE].reshape(-1, plants.size)
            for first in range(0, len(block), _BANDS_AT_ONCE)
        )
    )


def spectral_statistics(
    moments: RunningMoments, wavelength_nm: NDArray[np.float64], cubes: Sequence[str]
) -> SpectralStatistics:
    """Return the statistics of all that was added.

    Raises:
        ValueError: no training image has a plant, or a band has one value throughout, with which
            nothing can be normalised, or values whose squares float32 cannot hold. A band without a
            value has NaN.
    """
    if not moments.count.any():
        raise ValueError(
            f"None of the {len(cubes)} training images shows a plant: choose another `split`, or "
            f"give plants with `mask=FILE`."
        )
    constant = moments.minimum == moments.maximum  # squares of a constant may be rounding, not 0
    if constant.any():
        raise ValueError(
            f"The band at {wavelength_nm[int(np.flatnonzero(constant)[0])]:g} nm has one value "
            f"over all plant pixels of the training images, with which nothing can be normalised: "
            f"leave it out with `bands`, or look at the references and at `clip`."
        )
    empty = moments.count == 0  # a band without a usable reference; training refuses it
    mean, std, minimum, maximum = (
        np.where(empty, np.nan, values)
        for values in (moments.mean, moments.std, moments.minimum, moments.maximum)
    )
    statistics = SpectralStatistics(
        mean=mean,
        std=std,
        minimum=minimum,
        maximum=maximum,
        count=moments.count,
        cubes=tuple(cubes),
    )
    require_normalisable(statistics, wavelength_nm)
    return statistics


def require_normalisable(
    statistics: SpectralStatistics, wavelength_nm: NDArray[np.float64]
) -> None:
    """Refuse statistics with which a band cannot be normalised; one without a value is not asked.

    Raises:
        ValueError: naming the first such band.
    """
    known = np.flatnonzero(statistics.count > 0)
    found = cannot_normalise(
        statistics.mean[known], statistics.std[known], statistics.minimum[known],
        statistics.maximum[known],
    )  # fmt: skip
    if found:
        raise ValueError(
            f"The band at {wavelength_nm[known[found[0]]]:g} nm has {found[1]}, over the plant "
            f"pixels of the training images, with which nothing can be normalised: leave it out "
            f"with `drop_bands=FIRST-LAST`, set `clip`, or repair the images, and prepare them "
            f"again."
        )
