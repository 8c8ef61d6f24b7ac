"""Forecasts, written again with the lead times between.

Shapes: T initial times, L lead times, C channels, H x W grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag.files.checksums import seal
from sciml_dchag.files.places import held, install, remove
from sciml_dchag.files.resumable import full_disk_explained
from sciml_dchag.files.zarr_groups import partial_path, write_zarr
from sciml_dchag.weather.forecast.output import FORMAT, encoding_of
from sciml_dchag.weather.forecast.predict import FORECASTS
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.interpolate.interpolator import Fields, Interpolator
from sciml_dchag.weather.interpolate.steps import HOUR, Gap, Steps, filled
from sciml_dchag.weather.store.store import times_within
from sciml_dchag.weather.variables import labelled_variables

AT_ONCE = 16
"""Windows that are interpolated at once."""
DIMENSIONS = ("time", "prediction_timedelta", "latitude", "longitude")


@dataclass(frozen=True)
class ForecastGrid:
    """Where forecasts are and their grid."""

    path: Path
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    grid_sha256: str


def interpolate_forecasts(
    steps: Steps, path: Path, forecasts: xr.Dataset, out: Path, overwrite: bool
) -> Path:
    """Write forecasts of all lead times.

    Args:
        steps: what is asked for; its period is of initial times.
        path: where the forecasts are, for messages.
        forecasts: as `predict` wrote them.
        out: where to.
        overwrite: replace forecasts that are there.

    Raises:
        ValueError: other dimensions, ensembles, or what `Steps.gaps` refuses.
    """
    _require_forecasts(forecasts, path)
    grid = Grid(forecasts["latitude"].values, forecasts["longitude"].values)
    where = ForecastGrid(path, grid.latitude, grid.longitude, grid.content_hash)
    interpolator = Interpolator(steps.model, where, steps.device)
    initial = forecasts["time"].values.astype("datetime64[ns]")
    forecasts = forecasts.isel(time=times_within(initial, steps.period, str(path)))
    initial = forecasts["time"].values.astype("datetime64[ns]")
    leads = (forecasts["prediction_timedelta"].values / HOUR).astype(int).tolist()
    gaps = steps.gaps([lead - leads[0] for lead in leads], interpolator)
    gaps = [Gap(leads[0] + gap.start, gap.hours) for gap in gaps]
    read = _reader(interpolator, forecasts, leads, path)
    cells, lines = (len(interpolator.channels), *grid.shape), []
    for first in range(0, len(initial), AT_ONCE):
        rows = slice(first, min(first + AT_ONCE, len(initial)))
        count, last = rows.stop - first, gaps[-1].start + gaps[-1].hours
        line = [
            lazy(
                (count, gap.hours // steps.every, *cells),
                partial(_block, interpolator, read, rows, initial[rows], gap, steps.every),
            )
            for gap in gaps
        ]
        line.append(lazy((count, 1, *cells), partial(_last, read, rows, last)))
        lines.append(dask.array.concatenate(line, axis=1))
    fields = dask.array.concatenate(lines)
    _write(_labelled(steps, interpolator, forecasts, fields, gaps), out, overwrite)
    return out


def _require_forecasts(forecasts: xr.Dataset, path: Path) -> None:
    """Refuse what has other dimensions than forecasts of one member.

    Raises:
        ValueError: which it has.
    """
    if not set(DIMENSIONS) <= set(forecasts.dims):
        raise ValueError(
            f"{path} has the dimensions {', '.join(map(str, forecasts.dims))}, and forecasts have "
            f"time, prediction_timedelta, latitude and longitude: name a weather store or "
            f"forecasts that `sciml-dchag predict` wrote."
        )
    if "number" in forecasts.dims:
        raise ValueError(
            f"{path} is an ensemble of {forecasts.sizes['number']} members: select one along "
            f"`number` with xarray, and interpolate it by itself."
        )


def _block(
    interpolator: Interpolator,
    read: Callable[[slice, int], Fields],
    rows: slice,
    initial: NDArray[np.datetime64],
    gap: Gap,
    every: int,
) -> Fields:
    """Forecasts of some initial times from one lead time on, without the next: (B, n, C, H, W)."""

    def frame(shift: int) -> Fields:
        return read(rows, gap.start + shift * gap.hours)

    return filled(interpolator, frame, initial + gap.start * HOUR, gap.hours, every)


def _last(read: Callable[[slice, int], Fields], rows: slice, lead: int) -> Fields:
    return read(rows, lead)[:, None]


def lazy(shape: tuple[int, ...], made: Callable[[], Fields]) -> Any:
    """A block that is computed when it is written."""
    block = dask.delayed(made, pure=False)()
    return dask.array.from_delayed(block, shape, np.float32)


def _reader(
    interpolator: Interpolator, forecasts: xr.Dataset, leads: list[int], path: Path
) -> Callable[[slice, int], Fields]:
    """What reads all channels of some initial times at a lead time, (B, C, H, W); NaN without one.

    Raises:
        ValueError: a channel of the model that the forecasts lack.
    """
    fields: dict[str, xr.DataArray] = {}
    for variable in labelled_variables(interpolator.channels):
        if variable.name not in forecasts:
            raise ValueError(
                f"{path} has no {variable.name}, which {interpolator.path} interpolates with the "
                f"others: forecast it too, or train an interpolator of the channels that are there."
            )
        for channel in variable.channels:
            field = forecasts[variable.name]
            if variable.on_levels:
                if channel.level_hpa not in field["level"].values:
                    raise ValueError(
                        f"{path} has no {variable.name} at {channel.level_hpa} hPa, which "
                        f"{interpolator.path} interpolates with the others: forecast it too."
                    )
                field = field.sel(level=channel.level_hpa)
            fields[channel.name] = field.transpose(*DIMENSIONS)

    def read(rows: slice, lead: int) -> Fields:
        found = [fields[name][rows] for name in interpolator.channels.names]
        if lead not in leads:
            shape = (len(found[0]), len(found), *found[0].shape[2:])
            return np.full(shape, np.nan, np.float32)
        at = leads.index(lead)
        parts = [field[:, at].compute(scheduler="synchronous").values for field in found]
        return np.stack(parts, axis=1).astype(np.float32)

    return read


def _labelled(
    steps: Steps, interpolator: Interpolator, forecasts: xr.Dataset, fields: Any, gaps: list[Gap]
) -> xr.Dataset:
    """The dataset to write: `fields` (T, L, C, H, W) as the variables of the forecasts."""
    last = gaps[-1].start + gaps[-1].hours
    finer = (np.arange(gaps[0].start, last + 1, steps.every) * HOUR).astype("timedelta64[ns]")
    kept = [name for name in ("time", "latitude", "longitude", "level") if name in forecasts.coords]
    found = xr.Dataset(coords={name: forecasts[name] for name in kept})
    found = found.assign_coords(prediction_timedelta=("prediction_timedelta", finer))
    found["prediction_timedelta"].attrs = dict(forecasts["prediction_timedelta"].attrs)
    for variable in labelled_variables(interpolator.channels):
        places = [interpolator.channels.index(channel.name) for channel in variable.channels]
        values = fields[:, :, places] if variable.on_levels else fields[:, :, places[0]]
        level = ("level",) if variable.on_levels else ()
        dims = ("time", "prediction_timedelta", *level, "latitude", "longitude")
        rows = (min(AT_ONCE, values.shape[0]), 1, *values.shape[2:])
        found[variable.name] = (dims, values.rechunk(rows), dict(forecasts[variable.name].attrs))
    found.attrs = {
        **forecasts.attrs,
        "format": FORMAT,
        "title": f"{forecasts.attrs.get('title', 'Forecasts')}, every {steps.every} h",
        "interpolated": steps.in_words(interpolator, gaps),
    }
    return found.drop_encoding()


def _write(forecasts: xr.Dataset, out: Path, overwrite: bool) -> None:
    """Compute and write forecasts beside their place, then put them there."""
    partial_result = partial_path(out)
    with held(out, FORECASTS, overwrite), full_disk_explained(out):
        remove(partial_result)
        partial_result.parent.mkdir(parents=True, exist_ok=True)
        write_zarr(forecasts, partial_result, encoding=encoding_of(forecasts))
        seal(partial_result)
        install(partial_result, out)
