"""Mean and squared deviations of parts, merged into those of the whole without cancelling."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Numbers = TypeVar("Numbers", np.float64, NDArray[np.float64])


def merged(
    one: tuple[Numbers, Numbers, Numbers], other: tuple[Numbers, Numbers, Numbers]
) -> tuple[Numbers, Numbers, Numbers]:
    """Merge (weight, mean, sum of squared deviations) of two parts, numbers or arrays alike.

    Chan, Golub and LeVeque 1983, eq. 2.1. Zero where both weights are.
    """
    weight, mean, squares = one
    more, mean_of_more, squares_of_more = other
    total = weight + more
    of_one = np.maximum(total, np.finfo(np.float64).tiny)
    shift = mean_of_more - mean
    return (
        total,
        mean + shift * more / of_one,
        squares + (squares_of_more + shift**2 * weight * more / of_one),
    )
