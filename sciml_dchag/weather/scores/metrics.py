"""Scores of a deterministic forecast: a streaming accumulator, and `score`.

Which metrics there are, and their formulas, is in `formulas`. The checks that two data sets belong
together are in `alignment`; the baselines that a score stands beside, running a model, and pictures
are not here.
"""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.scores.alignment import Positions, align, doubt_units
from sciml_dchag.weather.scores.formulas import (
    METRICS,
    Floats,
    Totals,
    anomaly_statistics,
    error_statistics,
)
from sciml_dchag.weather.scores.layouts import as_forecast, as_reference


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
            return {name: METRICS[name].value(self.totals) for name in names}

    def _add(self, statistics: Totals) -> None:
        for name, value in statistics.items():
            self.totals[name] = self.totals.get(name, 0.0) + value


def check_metrics(metrics: Sequence[str] | None, *, with_climatology: bool) -> tuple[str, ...]:
    """The metrics asked for, or where None is given every one that can be had.

    Raises:
        ValueError: an unknown metric, or one that needs a climatology where there is none.
    """
    if metrics is None:
        return tuple(
            name for name, m in METRICS.items() if with_climatology or not m.needs_climatology
        )
    if isinstance(metrics, str):
        metrics = (metrics,)
    for metric in metrics:
        if metric not in METRICS:
            raise ValueError(f"unknown metric {metric!r}: the metrics are {', '.join(METRICS)}.")
        if METRICS[metric].needs_climatology and not with_climatology:
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
            dimension (`level`, `channel`), which is kept; or WeatherBench 2's layout, which
            `predict` writes.
        truth: the same variables on `time` or `valid_time`, or on the forecast's `init_time` and
            `lead_time`; or a weather store's Dataset. It may hold more times, levels and variables
            than are needed.
        climatology: the same variables on `hour` and `dayofyear`, on one of them, or on neither
            (a plain mean over time); or a weather store's. Needed by the anomaly correlations.
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
    forecast = as_forecast(forecast)
    truth = as_reference(truth, forecast)
    climatology = None if climatology is None else as_reference(climatology, forecast)
    positions = align(forecast, truth, climatology)
    needed = any(METRICS[name].needs_climatology for name in names)
    scored = {
        str(name): _score_variable(
            str(name), forecast, truth, climatology if needed else None, names, positions
        )
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
            ours, theirs = fields(forecast, positions.forecast), fields(truth, positions.truth)
            if lead == start == 0:
                doubt_units(name, ours, theirs)
            sums.update(
                ours,
                theirs,
                None if climatology is None else fields(climatology, positions.climatology),
            )
        result = sums.result(metrics)
        values[:, lead] = [result[metric].reshape(shape) for metric in metrics]
        missing += int(sums.totals["missing_cells"].sum())
    coords = {dim: forecast[dim] for dim in further if dim in forecast.coords}
    attrs = {"missing_cells": missing}
    return xr.DataArray(values, coords, ("metric", "lead_time", *further), attrs=attrs)
