"""The scores of a forecast that there are. To add one, add its function and its `ForecastMetric`.

Every metric is computed in three steps: statistics of one field, their sum over times (and over
processes), a function of the sums. Splitting the times in any way gives the same score up to
rounding. Sums are kept by `metrics.ScoreSums`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.figures.metric import Metric, no_units, squared

Floats = NDArray[np.float64]
Totals = Mapping[str, Floats]

# A variance this far below the mean square is rounding of a constant field, not a variance.
NO_VARIANCE = 1e-24


def error_statistics(forecast_CHW: Floats, truth_CHW: Floats, weights_H: Floats) -> Totals:
    """Sums over the cells of one time, a channel each, by name: shape (channel,).

    A cell that is NaN in either field is left out and its weight with it; infinity is kept, so
    that a forecast that has blown up is not scored on what is left of it.
    """
    present = ~(np.isnan(forecast_CHW) | np.isnan(truth_CHW))
    error = np.where(present, forecast_CHW - truth_CHW, 0.0)
    weights = present * weights_H[:, None]
    weight = _area_sum(weights)
    squared_error = _area_sum(weights * error**2)
    cells = _area_sum(present)
    return {
        "cells": cells,
        "missing_cells": prod(present.shape[1:]) - cells,
        "weight": weight,
        "squared_error": squared_error,
        "absolute_error": _area_sum(weights * np.abs(error)),
        "error": _area_sum(weights * error),
        "times": (weight > 0).astype(np.float64),
        "root_mean_square": np.sqrt(_ratio(squared_error, weight, otherwise=0.0)),
    }


def anomaly_statistics(
    forecast_CHW: Floats, truth_CHW: Floats, climatology_CHW: Floats, weights_H: Floats
) -> Totals:
    """Sums over the cells of one time, a channel each, by name: shape (channel,).

    The correlation of a time at which forecast or truth has no anomaly at all is undefined; such
    a time is not counted in `wb2_times` or `centred_times`.
    """
    present = ~(np.isnan(forecast_CHW) | np.isnan(truth_CHW) | np.isnan(climatology_CHW))
    forecast = np.where(present, forecast_CHW - climatology_CHW, 0.0)
    truth = np.where(present, truth_CHW - climatology_CHW, 0.0)
    weights = present * weights_H[:, None]
    weight = _area_sum(weights)
    forecast_square = _area_sum(weights * forecast**2)
    truth_square = _area_sum(weights * truth**2)
    product = _area_sum(weights * forecast * truth)
    forecast_sum = _area_sum(weights * forecast)
    truth_sum = _area_sum(weights * truth)
    wb2, wb2_defined = _correlation(product, forecast_square, truth_square, 0.0, 0.0)

    forecast_mean = _ratio(forecast_sum, weight, otherwise=0.0)[:, None, None]
    truth_mean = _ratio(truth_sum, weight, otherwise=0.0)[:, None, None]
    centred, centred_defined = _correlation(
        _area_sum(weights * (forecast - forecast_mean) * (truth - truth_mean)),
        _area_sum(weights * (forecast - forecast_mean) ** 2),
        _area_sum(weights * (truth - truth_mean) ** 2),
        NO_VARIANCE * forecast_square,
        NO_VARIANCE * truth_square,
    )
    return {
        "anomaly_cells": _area_sum(present),
        "anomaly_weight": weight,
        "forecast_anomaly": _area_sum(forecast),
        "truth_anomaly": _area_sum(truth),
        "weighted_forecast_anomaly": forecast_sum,
        "weighted_truth_anomaly": truth_sum,
        "weighted_forecast_square": forecast_square,
        "weighted_truth_square": truth_square,
        "weighted_product": product,
        "wb2_times": wb2_defined,
        "wb2_correlation": wb2,
        "centred_times": centred_defined,
        "centred_correlation": centred,
    }


def mse(totals: Totals) -> Floats:
    """Mean over times and area of the squared error."""
    return _ratio(totals["squared_error"], totals["weight"])


def rmse(totals: Totals) -> Floats:
    """Root of `mse`: the root is taken after the mean over times and area."""
    return np.sqrt(mse(totals))


def rmse_sqrt_before_time_mean(totals: Totals) -> Floats:
    """Mean over times of the root of each time's area mean (`RMSESqrtBeforeTimeAvg` of WB2)."""
    return _ratio(totals["root_mean_square"], totals["times"])


def mae(totals: Totals) -> Floats:
    """Mean over times and area of the absolute error."""
    return _ratio(totals["absolute_error"], totals["weight"])


def bias(totals: Totals) -> Floats:
    """Mean over times and area of forecast minus truth."""
    return _ratio(totals["error"], totals["weight"])


def acc_wb2(totals: Totals) -> Floats:
    """Anomaly correlation of WeatherBench 2: uncentred, a time at a time, then the mean."""
    return _ratio(totals["wb2_correlation"], totals["wb2_times"])


def acc_centred(totals: Totals) -> Floats:
    """As `acc_wb2`, with each time's area mean taken off both anomalies first."""
    return _ratio(totals["centred_correlation"], totals["centred_times"])


def acc_climax(totals: Totals) -> Floats:
    """Anomaly correlation as ClimaX's `lat_weighted_acc` computes it.

    One correlation over all times and cells together, which ClimaX calls the batch; the mean
    taken off the anomalies is over the batch and not area-weighted, the products are. ClimaX
    weights by the cosine of latitude, which on equally spaced rows that leave out the poles is
    exactly the cell area used here.
    """
    forecast_mean = _ratio(totals["forecast_anomaly"], totals["anomaly_cells"])
    truth_mean = _ratio(totals["truth_anomaly"], totals["anomaly_cells"])
    weight = totals["anomaly_weight"]
    forecast_sum = totals["weighted_forecast_anomaly"]
    truth_sum = totals["weighted_truth_anomaly"]
    forecast_square = totals["weighted_forecast_square"]
    truth_square = totals["weighted_truth_square"]
    covariance = totals["weighted_product"] - forecast_mean * truth_sum
    covariance = covariance - truth_mean * (forecast_sum - forecast_mean * weight)
    forecast_variance = forecast_square - forecast_mean * (
        2 * forecast_sum - forecast_mean * weight
    )
    truth_variance = truth_square - truth_mean * (2 * truth_sum - truth_mean * weight)
    # These are differences of sums, so a constant anomaly leaves rounding of the sums' size.
    correlation, defined = _correlation(
        covariance, forecast_variance, truth_variance, 1e-12 * forecast_square, 1e-12 * truth_square
    )
    return _ratio(correlation, defined)


@dataclass(frozen=True, kw_only=True)
class ForecastMetric(Metric):
    """A score of a forecast."""

    value: Callable[[Totals], Floats]
    """From sums of statistics by name, (channel,) each, to the score, (channel,); NaN where it is
    undefined."""
    needs_climatology: bool = False
    """Whether it is of anomalies, so that the sums need a climatology."""


_WB2 = "Rasp et al. 2024, WeatherBench 2, doi:10.1029/2023MS004019"
_CLIMAX = "Nguyen et al. 2023, ClimaX, arXiv:2301.10343"

METRICS: dict[str, ForecastMetric] = {
    metric.name: metric
    for metric in (
        ForecastMetric(
            name="mse",
            label="MSE",
            formula="Mean squared error: the mean over initial times and area of the squared "
            "difference between forecast and truth.",
            perfect=0.0,
            units=squared,
            reference=_WB2,
            value=mse,
        ),
        ForecastMetric(
            name="rmse",
            label="RMSE",
            formula="Root mean squared error: the root is taken once, after the mean over initial "
            "times and area.",
            perfect=0.0,
            reference=_WB2,
            value=rmse,
        ),
        ForecastMetric(
            name="rmse_sqrt_before_time_mean",
            label="RMSE, root before time mean",
            formula="Root mean squared error as WeatherBench 2's first papers have it: the root of "
            "each initial time's area mean, then the mean of the roots. It is never larger than "
            "RMSE.",
            perfect=0.0,
            reference=f"{_WB2}, RMSESqrtBeforeTimeAvg of its code",
            value=rmse_sqrt_before_time_mean,
        ),
        ForecastMetric(
            name="mae",
            label="MAE",
            formula="Mean absolute error over initial times and area.",
            perfect=0.0,
            reference=_WB2,
            value=mae,
        ),
        ForecastMetric(
            name="bias",
            label="Bias",
            formula="Mean over initial times and area of forecast minus truth. It can be zero by "
            "accident, so that no comparison with a baseline is made.",
            perfect=None,
            reference=_WB2,
            value=bias,
        ),
        ForecastMetric(
            name="acc_wb2",
            label="ACC",
            formula="Anomaly correlation coefficient, WeatherBench 2's convention: for each "
            "initial time the correlation over the area of the departures from climatology, "
            "without taking their area mean off, then the mean over initial times.",
            perfect=1.0,
            units=no_units,
            reference=_WB2,
            value=acc_wb2,
            needs_climatology=True,
        ),
        ForecastMetric(
            name="acc_centred",
            label="ACC, centred in space",
            formula="Anomaly correlation coefficient with each time's area mean taken off both "
            "departures before they are correlated; then the mean over initial times.",
            perfect=1.0,
            units=no_units,
            reference="Wilks 2011, Statistical Methods in the Atmospheric Sciences, section 8.6.4",
            value=acc_centred,
            needs_climatology=True,
        ),
        ForecastMetric(
            name="acc_climax",
            label="ACC, centred over the batch",
            formula="Anomaly correlation coefficient, ClimaX's convention: one correlation over "
            "all initial times and cells together, after taking one common mean off the "
            "departures.",
            perfect=1.0,
            units=no_units,
            reference=f"{_CLIMAX}, lat_weighted_acc of its code",
            value=acc_climax,
            needs_climatology=True,
        ),
    )
}
"""By name, in the order of tables."""


def _area_sum(field_CHW: NDArray[np.floating] | NDArray[np.bool_]) -> Floats:
    total: Floats = field_CHW.sum(axis=(-2, -1), dtype=np.float64)
    return total


def _ratio(numerator: Floats, denominator: Floats, otherwise: float = np.nan) -> Floats:
    """Numerator over denominator, or `otherwise` where the denominator is zero."""
    out = np.full_like(numerator, otherwise)
    return np.divide(numerator, denominator, out=out, where=denominator != 0)


def _correlation(
    covariance: Floats,
    variance_a: Floats,
    variance_b: Floats,
    least_a: Floats | float,
    least_b: Floats | float,
) -> tuple[Floats, Floats]:
    """Correlation (0 where undefined) and 1 or 0 for defined or not.

    It is undefined where either variance is not above its `least`.
    """
    # Written so that NaN, which infinity brings, counts as defined and shows in the score.
    defined = ~((variance_a <= least_a) | (variance_b <= least_b))
    roots = np.sqrt(np.maximum(variance_a, 0.0)) * np.sqrt(np.maximum(variance_b, 0.0))
    scale = np.where(defined, roots, 1.0)
    return np.where(defined, covariance / scale, 0.0), defined.astype(np.float64)
