"""Scores of a deterministic forecast: the formulas, a streaming accumulator, `score`.

Every metric is computed in three steps: statistics of one field, their sum over times (and over
processes), a function of the sums. Splitting the times in any way gives the same score up to
rounding. The checks that two data sets belong together are in `alignment`; the baselines that a
score stands beside, running a model, and pictures are not here.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.scores.alignment import Positions, align

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


METRICS: dict[str, Callable[[Totals], Floats]] = {
    "mse": mse,
    "rmse": rmse,
    "rmse_sqrt_before_time_mean": rmse_sqrt_before_time_mean,
    "mae": mae,
    "bias": bias,
    "acc_wb2": acc_wb2,
    "acc_centred": acc_centred,
    "acc_climax": acc_climax,
}
PERFECT = {name: 1.0 if name.startswith("acc") else 0.0 for name in METRICS}
"""The value of each metric for a forecast without error."""

NEEDS_CLIMATOLOGY = frozenset({"acc_wb2", "acc_centred", "acc_climax"})


class ScoreSums:
    """Sums from which the scores of one lead time follow, a channel each.

    Kept by the evaluator, one a lead time, and updated a batch of initial times at a time.
    `totals` maps the name of each statistic to its sum, float64 of shape (channel,); adding them
    over processes is all that a distributed evaluation needs (`merge` does it for two).

    Args:
        channels: number of channels.
        latitude: row centres of the fields in degrees, shape (latitude,), any order.
        with_climatology: whether anomalies are summed too, for the anomaly correlations.
    """

    def __init__(self, channels: int, latitude: NDArray[np.floating], *, with_climatology: bool):
        self.with_climatology = with_climatology
        self.weights_H = latitude_weights(latitude)
        nothing = np.empty((channels, len(self.weights_H), 0))  # no cells, so every sum is zero
        self.totals = dict(error_statistics(nothing, nothing, self.weights_H))
        if with_climatology:
            self._add(anomaly_statistics(nothing, nothing, nothing, self.weights_H))

    def update(
        self,
        forecast_BCHW: NDArray[np.floating],
        truth_BCHW: NDArray[np.floating],
        climatology_BCHW: NDArray[np.floating] | None = None,
    ) -> None:
        """Add a batch of initial times, in physical units.

        `climatology_BCHW` may be anything that broadcasts to the forecast's shape.

        Raises:
            ValueError: shapes that do not belong together, or a climatology given to sums kept
                without one (and the other way round).
        """
        channels, rows = len(self.totals["weight"]), len(self.weights_H)
        if forecast_BCHW.ndim != 4 or forecast_BCHW.shape[1:3] != (channels, rows):
            raise ValueError(
                f"the forecast has shape {forecast_BCHW.shape}, but (time, {channels} channels, "
                f"{rows} latitudes, longitude) is needed."
            )
        if truth_BCHW.shape != forecast_BCHW.shape:
            raise ValueError(
                f"the truth has shape {truth_BCHW.shape}, but the forecast's shape "
                f"{forecast_BCHW.shape} is needed."
            )
        if (climatology_BCHW is not None) != self.with_climatology:
            found = "no climatology" if climatology_BCHW is None else "a climatology"
            raise ValueError(
                f"{found} was given to sums made with with_climatology={self.with_climatology}."
            )
        if climatology_BCHW is not None:
            climatology_BCHW = np.broadcast_to(climatology_BCHW, forecast_BCHW.shape)
        for b in range(len(forecast_BCHW)):  # one time at a time keeps the temporaries small
            forecast = forecast_BCHW[b].astype(np.float64)
            truth = truth_BCHW[b].astype(np.float64)
            self._add(error_statistics(forecast, truth, self.weights_H))
            if climatology_BCHW is not None:
                climatology = climatology_BCHW[b].astype(np.float64)
                with np.errstate(invalid="ignore"):  # infinity minus its own mean: NaN, and shown
                    self._add(anomaly_statistics(forecast, truth, climatology, self.weights_H))

    def merge(self, other: "ScoreSums") -> None:
        """Add sums over other times of the same channels and grid."""
        if self.totals.keys() != other.totals.keys():
            raise ValueError("sums with and without a climatology cannot be added.")
        if not np.array_equal(self.weights_H, other.weights_H):
            raise ValueError("sums on different latitudes cannot be added.")
        if self.totals["weight"].shape != other.totals["weight"].shape:
            raise ValueError("sums of different numbers of channels cannot be added.")
        self._add(other.totals)

    def result(self, metrics: Sequence[str] | None = None) -> dict[str, Floats]:
        """Each metric's value a channel; by default every metric that the sums allow.

        A metric that is undefined (no finite cell, or no anomaly to correlate) is NaN.
        """
        names = check_metrics(metrics, with_climatology=self.with_climatology)
        with np.errstate(invalid="ignore"):
            return {name: METRICS[name](self.totals) for name in names}

    def _add(self, statistics: Totals) -> None:
        for name, value in statistics.items():
            self.totals[name] = self.totals.get(name, 0.0) + value


def check_metrics(metrics: Sequence[str] | None, *, with_climatology: bool) -> tuple[str, ...]:
    """The metrics asked for, or where None is given every one that can be had.

    Raises:
        ValueError: an unknown metric, or one that needs a climatology where there is none.
    """
    if metrics is None:
        return tuple(m for m in METRICS if with_climatology or m not in NEEDS_CLIMATOLOGY)
    if isinstance(metrics, str):
        metrics = (metrics,)
    for metric in metrics:
        if metric not in METRICS:
            raise ValueError(f"unknown metric {metric!r}: the metrics are {', '.join(METRICS)}.")
        if metric in NEEDS_CLIMATOLOGY and not with_climatology:
            raise ValueError(f"{metric} needs a climatology, and none was given: pass one.")
    return tuple(metrics)


def score(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    climatology: xr.Dataset | None = None,
    metrics: Sequence[str] | None = None,
) -> xr.Dataset:
    """Scores by variable and lead time, averaged over initial times and area.

    Args:
        forecast: variables on `init_time`, `lead_time`, `latitude`, `longitude`, and any further
            dimension (`level`, `channel`), which is kept.
        truth: the same variables on `time` or `valid_time`, or on the forecast's `init_time` and
            `lead_time`. It may hold more times and variables than are needed.
        climatology: the same variables on `hour` and `dayofyear`, on one of them, or on neither
            (a plain mean over time). Needed by the anomaly correlations.
        metrics: names from `METRICS`; None gives all of them, without the anomaly correlations
            where there is no climatology.

    Returns:
        The forecast's variables on (`metric`, `lead_time`, further dimensions), float64. The
        attribute `missing_cells` of a variable counts the cells left out because they were NaN,
        `init_times` of the Dataset the initial times.

    Raises:
        ValueError: coordinates, variables or units that do not belong together (the first
            difference is named), or metrics that cannot be had.
    """
    names = check_metrics(metrics, with_climatology=climatology is not None)
    positions = align(forecast, truth, climatology)
    use_climatology = climatology if NEEDS_CLIMATOLOGY.intersection(names) else None
    scored = {
        str(name): _score_variable(str(name), forecast, truth, use_climatology, names, positions)
        for name in forecast.data_vars
    }
    result = xr.Dataset(scored, attrs={"init_times": forecast.sizes["init_time"]})
    return result.assign_coords(metric=list(names), lead_time=forecast["lead_time"])


def _score_variable(
    name: str,
    forecast: xr.Dataset,
    truth: xr.Dataset,
    climatology: xr.Dataset | None,
    metrics: Sequence[str],
    positions: Positions,
) -> xr.DataArray:
    cell = ("init_time", "lead_time", "latitude", "longitude")
    further = [dim for dim in forecast[name].dims if dim not in cell]
    shape = tuple(forecast.sizes[dim] for dim in further)
    times, leads = forecast.sizes["init_time"], forecast.sizes["lead_time"]
    latitude = forecast["latitude"].values
    values = np.empty((len(metrics), leads, *shape))
    missing = 0

    def fields(data: xr.Dataset, where: Mapping[str, NDArray[np.intp]]) -> NDArray[np.floating]:
        picked = {
            dim: xr.DataArray(index[block, lead], dims="case") for dim, index in where.items()
        }
        array = data[name].isel(picked)
        if not where:
            array = array.expand_dims("case")
        array = array.transpose("case", *further, "latitude", "longitude")
        return array.values.reshape(array.shape[0], prod(shape), *array.shape[-2:])

    for lead in range(leads):
        sums = ScoreSums(prod(shape), latitude, with_climatology=climatology is not None)
        for start in range(0, times, 16):  # bounds what is read at once
            block = slice(start, start + 16)
            sums.update(
                fields(forecast, positions.forecast),
                fields(truth, positions.truth),
                None if climatology is None else fields(climatology, positions.climatology),
            )
        result = sums.result(metrics)
        values[:, lead] = [result[metric].reshape(shape) for metric in metrics]
        missing += int(sums.totals["missing_cells"].sum())
    coords = {dim: forecast[dim] for dim in further if dim in forecast.coords}
    attrs = {"missing_cells": missing}
    return xr.DataArray(values, coords, ("metric", "lead_time", *further), attrs=attrs)


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
