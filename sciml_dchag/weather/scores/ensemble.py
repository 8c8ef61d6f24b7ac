"""Scores of ensembles: CRPS, spread and error, rank histogram, Brier scores.

As of single forecasts (`formulas`), each is computed in three steps: statistics of one field, their
sum over times and processes, a function of the sums.

Shapes: M members, C channels, Q thresholds, S statistics, H x W grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.figures.metric import Metric, no_units
from sciml_dchag.weather.area import latitude_weights

Floats = NDArray[np.float64]

QUANTILES = (0.1, 0.9)
"""Of climatology: an event is a value below the first, or above the second."""
STATISTICS = ("weight", "crps", "squared_error", "variance", "brier_low", "brier_high")
"""What is summed over times and cells, each times the cell's area."""


class EnsembleSums:
    """Sums from which the scores of ensembles of one lead time follow.

    Sums over ranks that hold different times and channels are sums of `totals` and `ranks`.

    Args:
        channels: C.
        members: M, at least 2.
        latitude: row centres in degrees, (H,).
    """

    def __init__(self, channels: int, members: int, latitude: NDArray[np.floating[Any]]) -> None:
        self.members, self.weights_H = members, latitude_weights(latitude)[:, None]
        self.totals: Floats = np.zeros((len(STATISTICS), channels))
        """(S, C)."""
        self.ranks: Floats = np.zeros((channels, members + 1))
        """Area on which the truth is above so many members, (C, M + 1)."""

    def update(
        self,
        members_MCHW: NDArray[np.floating[Any]],
        truth_CHW: NDArray[np.floating[Any]],
        thresholds_QCHW: NDArray[np.floating[Any]],
    ) -> None:
        """Add an ensemble from one initial time, in physical units.

        A cell that is NaN in the truth or a member is left out.

        Args:
            members_MCHW: in any order.
            truth_CHW: what happened.
            thresholds_QCHW: of the events, in the order of `QUANTILES`.
        """
        members, truth = np.sort(members_MCHW, axis=0).astype(np.float64), truth_CHW.astype(float)
        present = ~(np.isnan(truth) | np.isnan(members[-1]))  # NaN is sorted to the end
        weights = present * self.weights_H
        low, high = thresholds_QCHW
        error = np.where(present, members.mean(0) - truth, 0.0)
        fields = (
            weights,
            weights * np.where(present, fair_crps(members, truth), 0.0),
            weights * error**2,
            weights * np.where(present, members.var(0, ddof=1), 0.0),
            weights * fair_brier(members <= low, truth <= low),
            weights * fair_brier(members >= high, truth >= high),
        )
        self.totals += [field.sum((-2, -1)) for field in fields]
        self._rank(members, truth, weights)

    def _rank(self, members: Floats, truth: Floats, weights: Floats) -> None:
        """Count cells by rank; a truth that equals some members is shared out over their ranks."""
        below = (members < truth).sum(0)
        equal = (members == truth).sum(0)
        share = weights / (equal + 1)
        size = self.members + 2
        for channel, ranks in enumerate(self.ranks):
            start, own = below[channel].ravel(), share[channel].ravel()
            stop = start + equal[channel].ravel() + 1
            steps = np.bincount(start, own, size) - np.bincount(stop, own, size)
            ranks += np.cumsum(steps)[:-1]

    def result(self) -> dict[str, Floats]:
        """Each score of `ENSEMBLE_METRICS`, (C,); NaN where there is no value."""
        with np.errstate(invalid="ignore", divide="ignore"):
            means = dict(zip(STATISTICS, self.totals / self.totals[0], strict=True))
            return {name: m.value(means, self.members) for name, m in ENSEMBLE_METRICS.items()}

    def rank_fractions(self) -> Floats:
        """Fraction of the area and times of each rank, (C, M + 1): flat where members are right."""
        with np.errstate(invalid="ignore"):
            return self.ranks / self.ranks.sum(-1, keepdims=True)


def fair_crps(members_M: Floats, truth: Floats) -> Floats:
    """Continuous ranked probability score of an ensemble, unbiased by its size.

    CRPS = 1/M sum_i |x_i - y| - 1/(2 M (M - 1)) sum_ij |x_i - x_j|  (Ferro 2014, Q. J. R. Meteorol.
    Soc. 140, doi:10.1002/qj.2270), of a single forecast its absolute error. The double sum is one
    over sorted members: 2 sum_i (2 i - M - 1) x_(i).

    Args:
        members_M: sorted along the first axis, (M, ...).
        truth: (...).
    """
    count = len(members_M)
    distance: Floats = np.abs(members_M - truth).mean(0)
    if count == 1:
        return distance
    ranks = 2.0 * np.arange(1, count + 1) - count - 1
    spread: Floats = np.tensordot(ranks, members_M, axes=1) / (count * (count - 1))
    return distance - spread


def fair_brier(members_M: NDArray[np.bool_], happened: NDArray[np.bool_]) -> Floats:
    """Brier score of the fraction of members with an event, unbiased by their number.

    (i/M - o)^2 - i (M - i) / (M^2 (M - 1)), where i of M members have the event and o is 1 where it
    happened (Ferro 2014).

    Args:
        members_M: whether each member has the event, (M, ...).
        happened: whether it happened, (...).
    """
    count = len(members_M)
    fraction = members_M.mean(0)
    score: Floats = (fraction - happened) ** 2 - fraction * (1 - fraction) / (count - 1)
    return score


def _root(name: str) -> Callable[[dict[str, Floats], int], Floats]:
    return lambda means, members: np.sqrt(means[name])


def _mean(name: str) -> Callable[[dict[str, Floats], int], Floats]:
    return lambda means, members: means[name]


def spread_over_error(means: dict[str, Floats], members: int) -> Floats:
    """sqrt((M + 1) / M) times spread over the root mean squared error of the ensemble mean."""
    return np.sqrt((members + 1) / members * means["variance"] / means["squared_error"])


@dataclass(frozen=True, kw_only=True)
class EnsembleMetric(Metric):
    """A score of an ensemble."""

    value: Callable[[dict[str, Floats], int], Floats]
    """From means of statistics by name, (C,) each, and M to the score, (C,)."""


_FERRO = "Ferro 2014, Q. J. R. Meteorol. Soc. 140, doi:10.1002/qj.2270"
_FORTIN = "Fortin et al. 2014, J. Hydrometeorol. 15, doi:10.1175/JHM-D-14-0008.1"

ENSEMBLE_METRICS: dict[str, EnsembleMetric] = {
    metric.name: metric
    for metric in (
        EnsembleMetric(
            name="crps",
            label="CRPS",
            formula="Continuous ranked probability score of an ensemble, unbiased by its size "
            "(fair): the mean distance of members from the truth minus half the mean distance of "
            "two members, over initial times and area. Of a single forecast it is the mean "
            "absolute error.",
            perfect=0.0,
            reference=_FERRO,
            value=_mean("crps"),
        ),
        EnsembleMetric(
            name="ensemble_mean_rmse",
            label="RMSE of the ensemble mean",
            formula="Root mean squared error of the mean of all members; of a single forecast its "
            "RMSE.",
            perfect=0.0,
            reference=_FORTIN,
            value=_root("squared_error"),
        ),
        EnsembleMetric(
            name="spread",
            label="Spread",
            formula="Root of the mean over initial times and area of the variance of members about "
            "their mean, divided by one less than their number.",
            perfect=None,
            reference=_FORTIN,
            value=_root("variance"),
        ),
        EnsembleMetric(
            name="spread_over_error",
            label="Spread over error",
            formula="sqrt((M + 1) / M) times the spread of M members, divided by the RMSE of their "
            "mean: 1 where the truth is one more member, below 1 where members are too close to "
            "each other.",
            perfect=1.0,
            units=no_units,
            reference=_FORTIN,
            value=spread_over_error,
        ),
        EnsembleMetric(
            name="brier_low",
            label="Brier score, below the 10th percentile",
            formula="Mean squared difference between the fraction of members at or below the 10th "
            "percentile of climatology at a place and 1 where the truth is, 0 where it is not; "
            "unbiased by the number of members (fair).",
            perfect=0.0,
            units=no_units,
            reference=_FERRO,
            value=_mean("brier_low"),
        ),
        EnsembleMetric(
            name="brier_high",
            label="Brier score, above the 90th percentile",
            formula="The same at or above the 90th percentile.",
            perfect=0.0,
            units=no_units,
            reference=_FERRO,
            value=_mean("brier_high"),
        ),
    )
}
"""By name, in the order of tables."""
