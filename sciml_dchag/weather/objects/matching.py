"""Pairs objects of two fields by great-circle distance, and adds up what the pairs say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.weather.objects.finding import Objects
from sciml_dchag.weather.objects.sphere import distance_km

Floats = NDArray[np.float64]

WITHIN_KM = 400.0
"""An object counts as found where its counterpart is no farther away."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Which objects belong together."""

    found: NDArray[np.intp]
    """Positions among the objects of the forecast, one per pair."""
    truth: NDArray[np.intp]
    """Positions among the true objects, one per pair."""
    distance_km: Floats
    """Between them."""


def match(found: Objects, truth: Objects, within_km: float = WITHIN_KM) -> Pairs:
    """Pair objects so that there are as many pairs as can be, and then the least sum of distances.

    Each object is in one pair at most, and no pair is farther apart than `within_km`. The optimal
    assignment, and not the nearest first: in a chain of lows one wrong pair would cost another.
    """
    from scipy.optimize import linear_sum_assignment

    apart = distance_km(
        found.latitude[:, None], found.longitude[:, None], truth.latitude, truth.longitude
    )
    # Any pair within reach is cheaper than none, however near all others come by leaving it out.
    out_of_reach = within_km * (1 + min(apart.shape, default=0)) + 1.0
    rows, columns = linear_sum_assignment(np.where(apart <= within_km, apart, out_of_reach))
    kept = apart[rows, columns] <= within_km
    rows, columns = rows[kept], columns[kept]
    return Pairs(found=rows, truth=columns, distance_km=apart[rows, columns])


SUMS = (
    "truth", "forecast", "hits", "km", "value", "value_squared", "depth", "depth_squared",
)  # fmt: skip
"""Numbers of objects, and sums over pairs of the distance and of forecast minus truth."""


def sums_of(found: Objects, truth: Objects, within_km: float = WITHIN_KM) -> Floats:
    """Return `SUMS` of one field; those of several times and ranks may be added."""
    pairs = match(found, truth, within_km)
    value = found.value[pairs.found] - truth.value[pairs.truth]
    depth = found.depth[pairs.found] - truth.depth[pairs.truth]
    return np.array(
        [
            len(truth), len(found), len(pairs.found), pairs.distance_km.sum(), value.sum(),
            (value**2).sum(), depth.sum(), (depth**2).sum(),
        ],
        np.float64,
    )  # fmt: skip


def scores_of(sums: Floats) -> dict[str, float]:
    """Turn `SUMS` into scores; NaN where there is nothing to divide by.

    precision = hits / forecast, recall = hits / truth, F1 = 2 hits / (forecast + truth); the place
    error is the mean distance of pairs, biases and root mean squares are of forecast minus truth
    over pairs.
    """
    truth, forecast, hits, km, value, value_squared, depth, depth_squared = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "true": int(truth),
            "found": int(hits),
            "missed": int(truth - hits),
            "false": int(forecast - hits),
            "precision": hits / forecast,
            "recall": hits / truth,
            "f1": 2 * hits / (forecast + truth),
            "place_error_km": km / hits,
            "value_bias": value / hits,
            "value_rms": np.sqrt(value_squared / hits),
            "depth_bias": depth / hits,
            "depth_rms": np.sqrt(depth_squared / hits),
        }
