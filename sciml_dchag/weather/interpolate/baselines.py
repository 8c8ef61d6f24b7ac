"""What stands beside a model's interpolation: what anyone does without one.

Shapes: B windows, C channels, H x W grid; s is the fraction of the window that has passed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

BASELINES = {
    "linear": "Linear interpolation in time between both ends of the window.",
    "linear_of_departures": "The same of departures from the training period's mean by hour of "
    "day, which is added for the time between: the daily cycle is known.",
    "cubic_of_departures": "A cubic through departures at four times: both ends, one window before "
    "and one after.",
    "ridge": "Linear interpolation of departures, and a ridge regression of what it misses on both "
    "ends on 5 x 9 cells around each place, by row and time within the window, fitted on the "
    "training period.",
    "ridge_of_four": "The same on four times: both ends, one window before and one after.",
}
"""By name."""


def linear(first: Floats, last: Floats, s: float) -> Floats:
    """(1 - s) first + s last."""
    return (1 - s) * first + s * last


def cubic(before: Floats, first: Floats, last: Floats, after: Floats, s: float) -> Floats:
    """Cubic through four evenly spaced values, s between the middle ones (Lagrange's formula)."""
    return (
        -s * (s - 1) * (s - 2) / 6 * before
        + (s + 1) * (s - 1) * (s - 2) / 2 * first
        - (s + 1) * s * (s - 2) / 2 * last
        + (s + 1) * s * (s - 1) / 6 * after
    )
