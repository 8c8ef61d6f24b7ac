"""Batch inference: forecasts from many initial times into a Zarr store, resumable, or NetCDF.

The store has WeatherBench 2's layout, which its tools read as it is: variables by their long
names on `time` (the initial time), `prediction_timedelta`, `level` (hPa), `latitude` and
`longitude`. Ranks take initial times, a batch each, and ranks of tp the variables of a batch, so
that no chunk is written by two. Running the model is `forecaster`'s work.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from sciml_dchag._version import __version__
from sciml_dchag.channels import VARIABLES, Channel, ChannelSet
from sciml_dchag.config import from_mapping
from sciml_dchag.files.digests import sampled_digest
from sciml_dchag.files.places import Kind, check_place, held, install, zarr_kind
from sciml_dchag.files.resumable import Progress, resume, was_finished, write_progress
from sciml_dchag.files.zarr_groups import partial_path, write_zarr
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.parallel.runtime import joined, started_ranks
from sciml_dchag.training.checkpoint import read_checkpoint
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.forecast.forecaster import Forecaster
from sciml_dchag.weather.store.layout import iso
from sciml_dchag.weather.store.store import Period, Store

FORMAT = "sciml-dchag-forecasts-1"
"""Value of the attribute `format`, by which forecasts that may be replaced are recognised."""


def _objection_to_netcdf(path: Path) -> str | None:
    try:
        with xr.open_dataset(path, engine="h5netcdf", decode_cf=False) as dataset:
            found = dataset.attrs.get("format")
    except (OSError, ValueError):
        return "is no NetCDF file"
    return None if found == FORMAT else "has no format of this package"


FORECASTS = zarr_kind("a forecast store", FORMAT)
FORECASTS_NETCDF = Kind(name="a forecast file", objection=_objection_to_netcdf)


def predict(
    forecaster: Forecaster,
    out: Path,
    *,
    initial_indices: NDArray[np.int64],
    lead_hours: Sequence[int],
    batch: int = 16,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Forecast from initial times and write a store, going on where an interrupted call stopped.

    On several ranks each makes this call; any number of them goes on with what others began.

    Args:
        forecaster: the checkpoint on its store and ranks.
        out: where to; `.zarr` or `.nc`. While it grows it lies beside its place: `OUT.partial` or
            `.OUT.partial`.
        initial_indices: positions of the initial times in the forecaster's store.
        lead_hours: lead times.
        batch: initial times that are forecast at once.
        overwrite: replace finished forecasts, or such as were begun with other settings.
        progress: told of every batch, on the first rank.

    Raises:
        FileExistsError: `out` exists, and `overwrite` is off or it holds no forecasts.
        ValueError: lead times out of the forecaster's reach; the partial store was begun with
            another model, store or settings; another process is writing there.
    """
    leads = sorted(set(lead_hours))
    forecaster.check_leads(leads)
    netcdf = out.suffix == ".nc"
    # A private name, so that no store of the user's is taken for what is only on the way.
    partial = out.with_name(f".{out.name}.partial") if netcdf else partial_path(out)
    times = forecaster.store.times[initial_indices]
    ranks = forecaster.ranks
    with contextlib.ExitStack() as stack:

        def begin() -> tuple[str, int]:
            kind = FORECASTS_NETCDF if netcdf else FORECASTS
            stack.enter_context(held(out, kind, overwrite, partial))
            settings = {
                "checkpoint": sampled_digest(forecaster.path),
                "store": sampled_digest(forecaster.store.path),
                "initial_times": [iso(time) for time in times],
                "lead_hours": leads,
                "batch": batch,
                "package": __version__,
            }
            fingerprint = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
            if was_finished(out, fingerprint, overwrite):
                return fingerprint, -1
            template = _template(forecaster, times, leads, batch)
            done = resume(
                partial,
                fingerprint,
                overwrite,
                values=partial / str(next(iter(template.data_vars))) / "c",
                usable=lambda: _require_usable(partial, template),
            )
            if done is None:
                done = 0
                partial.parent.mkdir(parents=True, exist_ok=True)
                write_zarr(template, partial, encoding=_encoding(template), compute=False)
                write_progress(partial, fingerprint, 0, len(times), "initial times")
            return fingerprint, done

        fingerprint, done = ranks.from_first(begin)
        if done >= 0:
            _forecast_into(
                forecaster, partial, initial_indices, leads, batch, fingerprint, done, progress
            )
            if ranks.first and netcdf:
                write_netcdf(partial, out)
                shutil.rmtree(partial)
            elif ranks.first:
                install(partial, out)
    return out


def _require_usable(partial: Path, template: xr.Dataset) -> None:
    """Refuse a begun store that lacks a variable, or has another shape."""
    with xr.open_zarr(partial, chunks=None) as found:
        for name, variable in template.variables.items():
            if found[name].shape != variable.shape:
                raise ValueError(f"{partial} has {name} of another shape: begin again.")


def _forecast_into(
    forecaster: Forecaster,
    partial: Path,
    initial_indices: NDArray[np.int64],
    leads: list[int],
    batch: int,
    fingerprint: str,
    done: int,
    progress: Progress | None,
) -> None:
    """Forecast from the initial times after the first `done` and write them, on all ranks."""
    ranks, total = forecaster.ranks, len(initial_indices)
    windows = forecaster.windows((None, None))
    group = zarr.open_group(partial, mode="r+")
    for start, own in ranks.deal(range(done, total, batch)):
        indices = initial_indices[start : start + batch]
        for lead, forecast in forecaster.forecast(windows, list(indices), leads):
            if own:
                place = start, leads.index(lead)
                _write_fields(group, forecaster.target_channels, forecast, place, ranks.channels)
        # All have written their batch before any is noted, so that what is done has no gaps.
        ranks.wait()
        done = min(done + batch * ranks.data[1], total)
        if ranks.first:
            write_progress(partial, fingerprint, done, total, "initial times")
            if progress is not None:
                progress(done, total, "forecasting")


def predict_period(
    checkpoint: Path,
    out: Path,
    *,
    recipe: ForecastRecipe | None = None,
    store: Path | None = None,
    period: Period = (None, None),
    every_hours: int | None = None,
    lead_hours: Sequence[int] | None = None,
    batch: int | None = None,
    overwrite: bool = False,
    parallel: ParallelConfig | None = None,
    progress: Progress | None = None,
) -> Path:
    """Forecast from every initial time of a period into Zarr or, by the name's suffix, NetCDF.

    Under torchrun, as one of its processes.

    Args:
        checkpoint: a checkpoint file or a run folder.
        out: `.zarr` or `.nc`.
        recipe: what the defaults come from; None is the one that was trained.
        store: None is the recipe's.
        period: initial times; (None, None) is the test period, or all where there is none.
        every_hours: between initial times; None is the recipe's.
        lead_hours: None is the recipe's.
        batch: initial times at once; None is the recipe's.
        overwrite: replace forecasts that are there.
        parallel: degrees of `fsdp` and `tp`, `dp` takes the ranks that they leave; and the device.
            Of the recipe's the device alone is the default.
        progress: told of every batch, on the first rank.

    Raises:
        FileExistsError: `out` exists.
        ValueError: another suffix, or settings that the checkpoint or the ranks cannot meet.
    """
    if out.suffix not in (".zarr", ".nc"):
        raise ValueError(f"{out} must end in .zarr or .nc to say what to write: rename it.")
    if started_ranks() == 1:  # ranks ask the first one, which may hold the place by then
        check_place(out, FORECASTS if out.suffix == ".zarr" else FORECASTS_NETCDF, overwrite)
    recipe = recipe or from_mapping(ForecastRecipe, read_checkpoint(checkpoint).recipe)
    opened = Store.open(store or recipe.data.store)
    if period == (None, None) and recipe.data.test is not None and store is None:
        period = recipe.data.test
    every = every_hours or recipe.evaluation.initial_every_hours
    initial = _initial_indices(opened, period, every, recipe.data.history_hours)
    degrees = (parallel or recipe.parallel.elsewhere()).forecasting(started_ranks())
    with joined(degrees) as ranks:
        return predict(
            Forecaster(checkpoint, opened, ranks, degrees),
            out,
            initial_indices=initial,
            lead_hours=lead_hours or recipe.evaluation.lead_hours,
            batch=batch or recipe.evaluation.batch,
            overwrite=overwrite,
            progress=progress,
        )


def _initial_indices(
    store: Store, period: Period, every_hours: int, history_hours: Sequence[int]
) -> NDArray[np.int64]:
    inside = store.time_indices(period)
    history = np.timedelta64(min(history_hours, default=0), "h")
    inside = inside[store.times[inside] + history >= store.times[0]]
    if not len(inside):
        raise ValueError(
            f"No time of the period {period[0]} to {period[1]} has the history that the model "
            f"needs ({min(history_hours)} h) in {store.path}: start later."
        )
    if every_hours:
        since = (store.times[inside] - store.times[inside[0]]) / np.timedelta64(1, "h")
        inside = inside[since % every_hours == 0]
    return inside


def write_netcdf(store: Path, out: Path) -> None:
    """Copy a forecast store into one NetCDF file, all of it or nothing."""
    partial = out.with_name(f".{out.stem}.partial.nc")
    try:
        with xr.open_zarr(store) as dataset:
            packed = {name: {"zlib": True, "complevel": 1} for name in dataset.data_vars}
            plain = dataset.drop_encoding()
            plain.to_netcdf(partial, engine="h5netcdf", encoding=packed)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _by_variable(channels: ChannelSet) -> dict[str, list[Channel]]:
    """Group channels by variable, levels ascending."""
    groups: dict[str, list[Channel]] = {}
    for channel in channels:
        groups.setdefault(channel.long_name, []).append(channel)
    return {name: sorted(group, key=lambda c: c.level_hpa or 0) for name, group in groups.items()}


def _levels(channels: ChannelSet) -> list[int]:
    return sorted({c.level_hpa for c in channels if c.level_hpa is not None})


def _template(
    forecaster: Forecaster, times: NDArray[np.datetime64], leads: list[int], batch: int
) -> xr.Dataset:
    """Build the Dataset that is to be written, its fields only announced.

    All level variables share one `level` axis, as in WeatherBench 2; a variable that lacks a
    level is NaN there.
    """
    store, channels = forecaster.store, forecaster.target_channels
    grid = (len(store.latitude), len(store.longitude))
    levels = _levels(channels)
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
    if levels:
        dataset = dataset.assign_coords(level=np.array(levels, dtype=np.int32))
        dataset["level"].attrs = {"standard_name": "air_pressure", "units": "hPa"}
    for name, group in _by_variable(channels).items():
        on_levels = group[0].level_hpa is not None
        dims = ("time", "prediction_timedelta", *(["level"] if on_levels else []))
        shape = (len(times), len(leads), *([len(levels)] if on_levels else []), *grid)
        chunks = (min(batch, len(times)), 1, *shape[2:])
        empty = dask.array.empty(shape, dtype=np.float32, chunks=chunks)
        dataset[name] = ((*dims, "latitude", "longitude"), empty)
        standard = VARIABLES[group[0].variable].standard_name
        dataset[name].attrs = {
            "units": group[0].units,
            **({"standard_name": standard} if standard else {}),
        }
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
    }
    return dataset


def _encoding(template: xr.Dataset) -> dict[str, dict[str, Any]]:
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


def _write_fields(
    group: zarr.Group,
    channels: ChannelSet,
    forecast: NDArray[np.float32],
    place: tuple[int, int],
    share: tuple[int, int],
) -> None:
    """Write a rank's share of the variables of the forecasts (B, O, H, W) of one lead time.

    Args:
        group: the store.
        channels: the O channels.
        forecast: from B initial times.
        place: of the first initial time and of the lead time in the store.
        share: number of the rank and how many ranks share out the variables.
    """
    (start, lead), (number, count) = place, share
    rows = slice(start, start + len(forecast))
    levels = _levels(channels)
    for name, members in list(_by_variable(channels).items())[number::count]:
        array = group[name]
        assert isinstance(array, zarr.Array)
        fields = forecast[:, channels.indices(c.name for c in members)]
        if members[0].level_hpa is None:
            array[rows, lead] = fields[:, 0]
            continue
        on_levels = np.full((len(forecast), len(levels), *fields.shape[2:]), np.nan, np.float32)
        on_levels[:, [levels.index(c.level_hpa or 0) for c in members]] = fields
        array[rows, lead] = on_levels
