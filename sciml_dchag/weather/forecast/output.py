"""The dataset that forecasts come in: WeatherBench 2's layout, which its tools read as it is.

Variables by their long names on `time` (the initial time), `prediction_timedelta`, `level` (hPa),
`latitude` and `longitude`; `weather.variables` says which channels make which. Ensembles have their
members on `number`, as ECMWF's do, which WeatherBench-X takes for members by default.

Shapes: B initial times, T lead times, M members, O target channels, H x W grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag._version import __version__
from sciml_dchag.channels import ChannelSet, variables
from sciml_dchag.weather.forecast.ensemble import Ensemble
from sciml_dchag.weather.forecast.forecaster import Forecaster
from sciml_dchag.weather.variables import LabelledVariable, labelled_variables, shared_levels

FORMAT = "sciml-dchag-forecasts-1"
"""Value of the attribute `format`, by which forecasts that may be replaced are recognised."""


def announced(
    forecaster: Forecaster,
    times: NDArray[np.datetime64],
    leads: Sequence[int],
    batch: int,
    ensemble: Ensemble | None = None,
) -> xr.Dataset:
    """Build the Dataset that is to be written, its fields only announced.

    Args:
        forecaster: whose channels and grid.
        times: initial times, (B,).
        leads: lead times in hours, (T,).
        batch: initial times in a chunk.
        ensemble: whose members are forecast; None for one forecast from each initial time.
    """
    import dask.array

    store, channels = forecaster.store, forecaster.target_channels
    dataset = xr.Dataset(
        coords={
            "time": times,
            "prediction_timedelta": np.array(leads, dtype="timedelta64[h]").astype(
                "timedelta64[ns]"
            ),
            "latitude": store.latitude,
            "longitude": store.longitude,
        }
    )
    members: tuple[str, ...] = ()
    if ensemble is not None:
        members = ("number",)
        dataset = dataset.assign_coords(number=np.arange(1, ensemble.members + 1, dtype=np.int32))
        dataset["number"].attrs = {"standard_name": "realization", "units": "1"}
    if levels := shared_levels(channels):
        dataset = dataset.assign_coords(level=np.array(levels, dtype=np.int32))
        dataset["level"].attrs = {"standard_name": "air_pressure", "units": "hPa"}
    for variable in labelled_variables(channels):
        on_levels = ("level",) if variable.on_levels else ()
        dims = ("time", "prediction_timedelta", *members, *on_levels, "latitude", "longitude")
        shape = tuple(dataset.sizes[dim] for dim in dims)
        chunks = (min(batch, len(times)), 1, *shape[2:])
        empty = dask.array.empty(shape, dtype=np.float32, chunks=chunks)
        dataset[variable.name] = (dims, empty, _attributes(variable))
    dataset["time"].attrs = {"standard_name": "forecast_reference_time"}
    dataset["prediction_timedelta"].attrs = {"standard_name": "forecast_period"}
    dataset["latitude"].attrs = {"standard_name": "latitude", "units": "degrees_north"}
    dataset["longitude"].attrs = {"standard_name": "longitude", "units": "degrees_east"}
    dataset.attrs = {
        "Conventions": "CF-1.11",
        "format": FORMAT,
        "title": f"Forecasts of {forecaster.recipe.name}",
        "attribution": store.attribution,
        "simulated": int(store.simulated),
        "source": f"sciml_dchag {__version__}, {forecaster.path.name}, step {forecaster.step}",
        **({} if ensemble is None else {"ensemble": ensemble.in_words()}),
        **forecaster.branch_in_words(),
    }
    return dataset


def _attributes(variable: LabelledVariable) -> dict[str, Any]:
    channel = variable.channels[0]
    standard = variables()[channel.variable].standard_name
    level = None if variable.on_levels else channel.level_hpa
    return {
        "units": channel.units,
        **({"standard_name": standard} if standard else {}),
        **({"level_hpa": level} if level is not None else {}),
    }


def encoding_of(template: xr.Dataset) -> dict[str, dict[str, Any]]:
    """How the Dataset is written: times in hours, chunks as announced."""
    encoding: dict[str, dict[str, Any]] = {
        "time": {
            "units": "hours since 1900-01-01",
            "calendar": "proleptic_gregorian",
            "dtype": "int64",
        },
        "prediction_timedelta": {"units": "hours", "dtype": "int64"},
    }
    for name, variable in template.data_vars.items():
        encoding[str(name)] = {"chunks": tuple(c[0] for c in variable.chunks or ())}
    return encoding


def by_variable(
    channels: ChannelSet, forecast: NDArray[np.float32], share: tuple[int, int] = (0, 1)
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Split the forecasts (B, O, H, W) of one lead time into variables.

    Args:
        channels: the O channels.
        forecast: from B initial times.
        share: number of this rank and how many ranks share out the variables.

    Yields:
        The name of each variable and its values, (B, level, H, W) or (B, H, W).
    """
    number, count = share
    for variable in labelled_variables(channels)[number::count]:
        fields = forecast[:, channels.indices(c.name for c in variable.channels)]
        yield variable.name, fields if variable.on_levels else fields[:, 0]


def forecast_in_memory(
    forecaster: Forecaster,
    initial_indices: NDArray[np.int64],
    lead_hours: Sequence[int],
    batch: int = 16,
    ensemble: Ensemble | None = None,
) -> xr.Dataset:
    """Forecast from initial times into a Dataset in memory.

    Args:
        forecaster: the model on its states.
        initial_indices: positions of the initial times in the states, (B,).
        lead_hours: lead times.
        batch: initial times that are forecast at once.
        ensemble: whose members are forecast; None for one forecast from each initial time.

    Raises:
        ValueError: lead times out of the forecaster's reach.
    """
    leads = sorted(set(lead_hours))
    forecaster.check_leads(leads)
    times = forecaster.store.times[initial_indices]
    dataset = announced(forecaster, times, leads, batch, ensemble)
    for name, variable in list(dataset.data_vars.items()):
        dataset[name] = variable.copy(data=np.empty(variable.shape, np.float32))
    windows = forecaster.windows()
    for start in range(0, len(initial_indices), batch):
        rows = slice(start, start + batch)
        block = list(initial_indices[rows])
        for lead, forecast in forecaster.forecast(windows, block, leads, ensemble):
            for name, fields in by_variable(forecaster.target_channels, forecast):
                place = dataset[name].values[rows, leads.index(lead)]
                place[:] = fields.reshape(place.shape)
    return dataset
