"""How far a score could be off because it is of few initial times: a bootstrap over blocks of them.

Errors of neighbouring initial times resemble each other, so that single times drawn anew would make
intervals too narrow; runs of neighbours are drawn (moving blocks: Kuensch 1989, Annals of
Statistics 17).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
COVERAGE = 0.95
"""Of the intervals."""


def block_length(times: int, lead_hours: float, interval_hours: float) -> int:
    """Number of neighbouring initial times that are drawn together.

    As long as the lead time, over which errors grow from the same weather, and 48 h at least; at
    most a quarter of the times, so that there is something to draw.
    """
    wanted = int(np.ceil(max(lead_hours, 48.0) / interval_hours))
    return max(1, min(wanted, times // 4))


def resampled(times: int, block: int, seed: int = 0) -> NDArray[np.float64]:
    """How often each initial time occurs in each resample, (RESAMPLES, times)."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(times - block + 1, size=(RESAMPLES, -(-times // block)))
    drawn = (starts[..., None] + np.arange(block)).reshape(RESAMPLES, -1)[:, :times]
    counts = np.zeros((RESAMPLES, times))
    np.add.at(counts, (np.arange(RESAMPLES)[:, None], drawn), 1.0)
    return counts


def interval(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bounds of the middle 95 % of resamples, (2, ...) from (RESAMPLES, ...)."""
    tail = 100 * (1 - COVERAGE) / 2
    bounds: NDArray[np.float64] = np.nanpercentile(values, [tail, 100 - tail], axis=0)
    return bounds
