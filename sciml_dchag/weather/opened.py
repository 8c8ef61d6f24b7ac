"""Weather as it is opened in Python: a store, a trained forecaster, forecasts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from sciml_dchag.channels import Channel
from sciml_dchag.files.checksums import require_whole
from sciml_dchag.files.facts import Described
from sciml_dchag.files.resumable import Progress
from sciml_dchag.files.samples import Sources
from sciml_dchag.files.zarr_groups import open_zarr, read_attrs
from sciml_dchag.training.trained import TrainedModel
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.forecast.describing import describe_store
from sciml_dchag.weather.forecast.ensemble_factor import calibrated
from sciml_dchag.weather.forecast.forecaster import Forecaster
from sciml_dchag.weather.forecast.initial_times import initial_positions
from sciml_dchag.weather.forecast.output import forecast_in_memory
from sciml_dchag.weather.forecast.predict import (
    Source,
    initial_states,
    predict_period,
)
from sciml_dchag.weather.prepare.era5 import prepare_era5
from sciml_dchag.weather.scores import metrics as scores
from sciml_dchag.weather.scores.layouts import open_forecasts
from sciml_dchag.weather.store.layout import FORMAT
from sciml_dchag.weather.store.store import Period, Store

Labelled = TypeVar("Labelled", xr.Dataset, xr.DataArray)
Fields = xr.Dataset | Store | str | os.PathLike[str]
"""Labelled fields, or a store or file that holds them."""


class WeatherStore(Described, Store):
    """A weather store: `store["t2m"]` is a channel as labelled xarray, read when it is used."""

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __getitem__(self, name: str) -> xr.DataArray:
        """A channel by name, (time, latitude, longitude), with its units."""
        channel: Channel = self.channels[name]
        field = self.dataset()["state"].isel(channel=self.channels.index(name))
        attrs = {"units": channel.units, "long_name": channel.label}
        return field.reset_coords(drop=True).rename(name).assign_attrs(attrs)

    def facts(self) -> dict[str, Any]:
        """Times, channels, grid and origin."""
        return {"path": str(self.path), **describe_store(self)}


class ForecastModel(TrainedModel[ForecastRecipe]):
    """A trained forecaster."""

    kind = "forecaster"
    recipe_type = ForecastRecipe

    def facts(self) -> dict[str, Any]:
        """What was trained, and what it forecasts."""
        from sciml_dchag.weather.forecast.task import ForecastTask

        more = ForecastTask.describe(self.saved.checkpoint, self.saved.path)
        history = [f"{hours} h" for hours in self.recipe.data.history_hours]
        return {**super().facts(), **more, "history": history or "none"}

    def forecast(
        self,
        data: Source,
        leads: Sequence[int] | None = None,
        *,
        period: Period = (None, None),
        every_hours: int = 0,
        batch: int = 16,
        members: int = 0,
        seed: int = 0,
        control: bool = True,
        out: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> xr.Dataset:
        """Forecast from each time of some states that has the history that the model needs.

        Args:
            data: a Dataset with the model's channels under any names, units and levels that
                `prepare` knows, on the model's grid, earlier times included where the model needs
                history; or a weather store, or the path of either.
            leads: lead times in hours, or time differences; None takes those of the recipe's
                evaluation.
            period: first and last initial time, both included.
            every_hours: between initial times; 0 takes all.
            batch: initial times that are forecast at once, or members.
            members: of an ensemble from each initial time, 2 and more, on the dimension `number`;
                0 forecasts once. They differ by what the model missed on days of its training
                period, which is read from the store that it was trained on.
            seed: another one gives other members.
            control: False leaves the model's control branch out, so that its base forecasts.
            out: write there, as `.zarr` or `.nc`; None keeps the forecasts in memory.
            overwrite: replace what is at `out`.
            progress: called as forecasts are written.

        Returns:
            Variables in physical units on `time` (the initial time), `prediction_timedelta`,
            `latitude`, `longitude` and, where there are any, `level` (hPa), as in WeatherBench 2.
            What is forecast on a level that other variables lack is a variable of its own, such as
            `temperature_20hpa`.

        Raises:
            FileNotFoundError: there is nothing at the path.
            FileExistsError: `out` exists and `overwrite` is off.
            ValueError: a channel, the history, the grid or units that the model needs are not
                there, or lead times out of its reach; the message says which.

        Example:
            >>> sd.open("runs/demo-weather").forecast(state, leads=[6, 24])  # doctest: +SKIP
        """
        hours = _in_hours(self.recipe.evaluation.lead_hours if leads is None else leads)
        if out is not None:
            written = predict_period(
                self.saved.path, out, store=data, period=period, every_hours=every_hours,
                lead_hours=hours, batch=batch, members=members, seed=seed, control=control,
                overwrite=overwrite, progress=progress,
            )  # fmt: skip
            return open_forecasts(written)
        states = initial_states(self.saved, data)
        initial = initial_positions(states, period, every_hours, self.recipe.data.history_hours)
        if "_forecaster" not in self.__dict__:
            self._forecaster = Forecaster(self.saved.path, states)
        forecaster = self._forecaster.on(states)
        if not control:
            forecaster = forecaster.base()
        if not members:
            return forecast_in_memory(forecaster, initial, hours, batch)
        forecaster.check_leads(hours)
        ensemble = calibrated(forecaster, members, hours, seed=seed, at_once=batch)
        at_once = ensemble.initial_times_at_once
        return forecast_in_memory(forecaster, initial, hours, at_once, ensemble)


def _in_hours(leads: Sequence[int]) -> list[int]:
    """Lead times as whole hours, whether given as numbers or as time differences.

    Raises:
        ValueError: one that is neither.
    """
    hours: list[int] = []
    for lead in leads:
        try:
            # NumPy would take a number for one of nanoseconds.
            apart = isinstance(lead, (np.timedelta64, timedelta))
            length = np.timedelta64(lead) / np.timedelta64(1, "h") if apart else float(lead)
        except (TypeError, ValueError):
            length = np.nan
        if not np.isfinite(length) or length != int(length):
            raise ValueError(
                f"Lead time {lead!r} is no whole number of hours: give numbers such as 6 and 24."
            )
        hours.append(int(length))
    return hours


def prepare(
    sources: Sources,
    out: str | os.PathLike[str],
    **settings: Any,
) -> WeatherStore:
    """Prepare a weather store from raw files and open it.

    Args:
        sources: one or several files, patterns, Zarr directories, URLs, or `sample:NAME`.
        out: the store's place.
        settings: as of `weather.prepare.era5.prepare_era5`: `channels`, `grid`, `period`,
            `statistics_period` and others.

    Raises:
        ValueError, OSError: as `prepare_era5`.
    """
    return WeatherStore.open(prepare_era5(sources, out, **settings))


def score(
    forecast: xr.Dataset | str | os.PathLike[str],
    truth: Fields,
    climatology: Fields | None = None,
    metrics: Sequence[str] | None = None,
) -> xr.Dataset:
    """Score forecasts by variable and lead time; see `weather.scores.metrics.score`.

    Args:
        forecast: a Dataset or the path of one: WeatherBench 2's layout, which `predict` writes, or
            `init_time` and `lead_time`.
        truth: a Dataset on `time`, a weather store, or the path of either.
        climatology: a Dataset, or a weather store, whose climatology is taken; None leaves out the
            anomaly correlations.
        metrics: names; None takes all that can be had.

    Raises:
        ValueError: data that do not belong together; the first difference is named.
    """
    given = {"forecast": forecast, "truth": truth, "climatology": climatology}
    for whose, data in given.items():
        if whose == "climatology" and data is None:
            continue
        if not isinstance(data, (xr.Dataset, Store, str, os.PathLike)):
            raise ValueError(
                f"The {whose} is a {type(data).__name__}, where a Dataset or the path of one is "
                f"needed: make one of a DataArray with its to_dataset(name=...)."
            )
    opened = forecast if isinstance(forecast, xr.Dataset) else open_forecasts(Path(forecast))
    expected = None if climatology is None else _dataset(climatology, "climatology")
    return scores.score(opened, _dataset(truth, None), expected, metrics)


def area_mean(data: Labelled) -> Labelled:
    """Average over latitude and longitude, where a row counts by the area of its cells.

    Args:
        data: a Dataset or DataArray on `latitude` and `longitude`.
    """
    weights = xr.DataArray(latitude_weights(data["latitude"].values), dims="latitude")
    return data.weighted(weights).mean(["latitude", "longitude"])


def open_store(path: Path) -> WeatherStore | xr.Dataset | None:
    """Open a weather store or forecasts; None where there is neither."""
    if not (path / "zarr.json").is_file():
        return open_forecasts(path) if path.suffix == ".nc" else None
    attrs = read_attrs(path)
    if attrs.get("format") == FORMAT:
        return WeatherStore.open(path)
    dataset = open_forecasts(path)
    return dataset if "prediction_timedelta" in dataset.dims else None


def _dataset(data: Fields, group: str | None) -> xr.Dataset:
    """Open a store's states or climatology, or a file, reading nothing yet."""
    if isinstance(data, xr.Dataset):
        return data
    path = data.path if isinstance(data, Store) else Path(data)
    if path.suffix == ".nc":
        return xr.open_dataset(path, engine="h5netcdf")
    if isinstance(data, Store) or read_attrs(path).get("format") == FORMAT:
        store = Store.open(path)
        if group is not None:
            store.climatology()  # says what is to be done where there is none
        return open_zarr(path, group=group, chunks=None)
    require_whole(path)
    return open_zarr(path, chunks=None)
