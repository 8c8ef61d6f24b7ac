"""The command `interpolate`: a weather store or forecasts, written again on a finer step.

States that are there are copied as they are; those between come from the model. Written lazily,
block by block, beside the place and renamed when complete.

Shapes: B windows, C channels, H x W grid.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import dask.array
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag.files.places import check_place
from sciml_dchag.files.resumable import Progress
from sciml_dchag.files.zarr_groups import read_attrs
from sciml_dchag.weather.forecast.predict import FORECASTS
from sciml_dchag.weather.interpolate.forecasts import AT_ONCE, interpolate_forecasts, lazy
from sciml_dchag.weather.interpolate.interpolator import Fields, Interpolator
from sciml_dchag.weather.interpolate.steps import HOUR, Gap, Steps, filled
from sciml_dchag.weather.scores.layouts import open_forecasts
from sciml_dchag.weather.store.layout import FORMAT
from sciml_dchag.weather.store.store import Period, Store
from sciml_dchag.weather.store.writing import WEATHER_STORE, write_store


def interpolate(
    model: str | os.PathLike[str],
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    every_hours: int,
    window_hours: int | None = None,
    period: Period = (None, None),
    device: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    note: Callable[[str], None] = lambda said: None,
) -> Path:
    """Write a weather store or forecasts again, with the times between.

    Args:
        model: a run, a checkpoint or an exported file of an interpolator.
        source: a weather store, or forecasts that `predict` wrote, on the model's grid and with
            its channels.
        out: the store or forecasts to write, `.zarr`.
        every_hours: hours between the times of `out`; it divides those between the times taken.
        window_hours: take times of `source` so far apart, from the first one on; None takes all.
        period: first and last time (of forecasts: initial time), both included.
        device: where to compute; None is the run's parallel.device.
        overwrite: replace what is at `out`.
        progress: called as a store is written.
        note: called with a sentence that is worth knowing.

    Returns:
        `out`.

    Raises:
        FileNotFoundError: there is no model, or nothing at `source`.
        FileExistsError: `out` exists, and `overwrite` is off or it is of another kind.
        ValueError: times whose distance was not trained or that `every_hours` does not divide,
            channels or a grid that are not the model's, or a source of another kind.
    """
    source, out = Path(source), Path(out)
    if out.suffix != ".zarr":
        raise ValueError(
            f"{out} must end in .zarr, as a store or forecasts are written: rename it."
        )
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist: name a weather store or forecasts.")
    if out.resolve() == source.resolve():
        raise ValueError(f"{out} is what is interpolated: choose another name for the result.")
    is_zarr = (source / "zarr.json").is_file()
    if not is_zarr and source.suffix != ".nc":
        raise ValueError(f"{source} is neither a weather store nor forecasts: name one.")
    is_store = is_zarr and read_attrs(source).get("format") == FORMAT
    check_place(out, WEATHER_STORE if is_store else FORECASTS, overwrite)
    steps = Steps(
        model=Path(model), every=every_hours, window=window_hours, period=period, device=device,
        note=note,
    )  # fmt: skip
    if is_store:
        return _interpolate_store(steps, Store.open(source), out, overwrite, progress)
    return interpolate_forecasts(steps, source, open_forecasts(source), out, overwrite)


def _interpolate_store(
    steps: Steps, store: Store, out: Path, overwrite: bool, progress: Progress | None
) -> Path:
    """Write a store of all times."""
    interpolator = Interpolator(steps.model, store, steps.device)
    channels = _positions(interpolator, store)
    times = store.times[store.time_indices(steps.period)]
    gaps = steps.gaps(((times - times[0]) // HOUR).astype(int).tolist(), interpolator)
    cells = (len(channels), *store.shape[2:])
    blocks = []
    for group in _groups(gaps):
        starts = times[0] + np.array([gap.start for gap in group]) * HOUR
        window = group[0].hours
        made = partial(_block, interpolator, store, channels, starts, window, steps.every)
        blocks.append(lazy((len(starts) * (window // steps.every), *cells), made))
    last = times[0] + (gaps[-1].start + gaps[-1].hours) * HOUR
    blocks.append(lazy((1, *cells), partial(_read, store, channels, np.array([last]))))
    state = xr.DataArray(
        dask.array.concatenate(blocks),
        dims=("time", "channel", "latitude", "longitude"),
        coords={
            "time": np.arange(times[0], last + HOUR, steps.every * HOUR),
            "channel": interpolator.channels.names,
            "latitude": store.latitude,
            "longitude": store.longitude,
        },
    )
    attrs = {key: value for key, value in store.attrs.items() if key != "step_hours"}
    attrs["title"] = f"{attrs.get('title', store.path.name)}, every {steps.every} h"
    attrs["interpolated"] = steps.in_words(interpolator, gaps)
    return write_store(state, out, attrs=attrs, overwrite=overwrite, progress=progress)


def _groups(gaps: list[Gap]) -> list[list[Gap]]:
    """Neighbouring gaps of one length, at most `AT_ONCE` of them."""
    runs = (list(run) for _, run in itertools.groupby(gaps, key=lambda gap: gap.hours))
    return [run[k : k + AT_ONCE] for run in runs for k in range(0, len(run), AT_ONCE)]


def _block(
    interpolator: Interpolator,
    store: Store,
    channels: list[int],
    starts: NDArray[np.datetime64],
    window: int,
    every: int,
) -> Fields:
    """The states of windows of one length, without their ends: (B n, C, H, W)."""

    def frame(shift: int) -> Fields:
        return _read(store, channels, starts + shift * window * HOUR)

    found = filled(interpolator, frame, starts, window, every)
    return found.reshape(-1, *found.shape[2:])


def _read(store: Store, channels: list[int], times: NDArray[np.datetime64]) -> Fields:
    """States at some times, (B, C, H, W); NaN at times that the store does not have."""
    found = np.full((len(times), len(channels), *store.shape[2:]), np.nan, np.float32)
    there = np.isin(times, store.times)
    found[there] = store.read(np.searchsorted(store.times, times[there]), channels)
    return found


def _positions(interpolator: Interpolator, store: Store) -> list[int]:
    """Where a store has the model's channels.

    Raises:
        ValueError: it lacks one.
    """
    names = store.channels.names
    if missing := [name for name in interpolator.channels.names if name not in names]:
        raise ValueError(
            f"{store.path} lacks {missing[0]!r}, which {interpolator.path} interpolates with the "
            f"others: prepare it too, or train an interpolator of the channels that are there."
        )
    return [names.index(name) for name in interpolator.channels.names]
