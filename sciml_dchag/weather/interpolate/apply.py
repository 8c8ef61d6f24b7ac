"""The command `interpolate`: a weather store or forecasts, written again on a finer step.

States that are there are copied as they are; those between come from the model. Written lazily,
block by block, beside the place and renamed when complete.

Shapes: T times, L lead times, B windows, n times of a window (its start, then those within), C
channels, H x W grid.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import dask.array
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag._version import __version__
from sciml_dchag.files.checksums import seal
from sciml_dchag.files.digests import sampled_digest
from sciml_dchag.files.places import check_place, held, install, remove
from sciml_dchag.files.resumable import Progress, full_disk_explained
from sciml_dchag.files.zarr_groups import partial_path, read_attrs, write_zarr
from sciml_dchag.weather.forecast.output import encoding_of
from sciml_dchag.weather.forecast.predict import FORECASTS
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.interpolate.interpolator import Fields, Interpolator
from sciml_dchag.weather.scores.layouts import open_forecasts
from sciml_dchag.weather.store.layout import FORMAT
from sciml_dchag.weather.store.store import Period, Store, times_within
from sciml_dchag.weather.store.writing import WEATHER_STORE, write_store
from sciml_dchag.weather.variables import labelled_variables

AT_ONCE = 16
"""Windows that are interpolated at once."""
HOUR = np.timedelta64(1, "h")


@dataclass(frozen=True)
class ForecastGrid:
    """Where forecasts are and their grid."""

    path: Path
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    grid_sha256: str


@dataclass(frozen=True)
class Gap:
    """Two neighbouring times of a source."""

    place: int
    """Position of the first among those that are taken."""
    hours: int
    """From it to the next."""


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
    is_store = is_zarr and read_attrs(source).get("format") == FORMAT
    if not is_zarr and source.suffix != ".nc":
        raise ValueError(f"{source} is neither a weather store nor forecasts: name one.")
    check_place(out, WEATHER_STORE if is_store else FORECASTS, overwrite)
    wanted = _Wanted(Path(model), every_hours, window_hours, period, device, note)
    if is_store:
        return _store(wanted, Store.open(source), out, overwrite, progress)
    return _forecasts(wanted, source, open_forecasts(source), out, overwrite)


@dataclass(frozen=True)
class _Wanted:
    """What is asked for."""

    model: Path
    every: int
    window: int | None
    period: Period
    device: str | None
    note: Callable[[str], None]

    def taken(self, hours: Sequence[int]) -> list[int]:
        """Which of ascending times are taken, by position.

        Raises:
            ValueError: fewer than two.
        """
        apart = self.window or 1
        found = [place for place, hour in enumerate(hours) if (hour - hours[0]) % apart == 0]
        if len(found) < 2:
            raise ValueError(
                f"Of {len(hours)} time(s) {len(found)} are taken, and there is nothing between: "
                f"give two or more that are a window apart."
            )
        return found

    def gaps(self, hours: Sequence[int], interpolator: Interpolator) -> list[Gap]:
        """All pairs of neighbouring times that are taken.

        Raises:
            ValueError: a distance that was not trained, or that the step asked for does not divide.
        """
        found = [Gap(k, b - a) for k, (a, b) in enumerate(itertools.pairwise(hours))]
        for gap in found:
            if gap.hours == self.every:
                continue
            if gap.hours not in interpolator.window_hours:
                trained = " or ".join(f"{h} h" for h in interpolator.window_hours)
                raise ValueError(
                    f"Two times of the source are {gap.hours} h apart, and {interpolator.path} was "
                    f"trained on windows of {trained}: take times so far apart (window_hours), or "
                    f"train with task.window_hours."
                )
            if gap.hours % self.every:
                raise ValueError(
                    f"Steps of {self.every} h do not divide a window of {gap.hours} h: choose a "
                    f"step that does, such as {gap.hours // 2} h."
                )
        if all(gap.hours == self.every for gap in found):
            raise ValueError(
                f"The times taken are {self.every} h apart already: ask for a shorter step."
            )
        if self.every % interpolator.step_hours:
            self.note(
                f"times every {self.every} h were never scored: the model was trained on a store "
                f"of {interpolator.step_hours} h"
            )
        return found

    def said(self, interpolator: Interpolator, gaps: list[Gap]) -> dict[str, str]:
        """Attributes that say what was done, and by which model to the bit."""
        windows = sorted({gap.hours for gap in gaps if gap.hours != self.every})
        name, step = interpolator.recipe.name, interpolator.checkpoint.step
        return {
            "interpolated": f"every {self.every} h, within windows of "
            f"{', '.join(f'{hours} h' for hours in windows)} by {name}, step {step} "
            f"({sampled_digest(interpolator.path)[:16]}), sciml_dchag {__version__}; trained and "
            f"scored on times every {interpolator.step_hours} h",
        }


def _filled(
    interpolator: Interpolator,
    read: Callable[[NDArray[np.int64]], Fields],
    places: NDArray[np.int64],
    times: NDArray[np.datetime64],
    window: int,
    every: int,
) -> Fields:
    """Starts of windows of one length as they are, and the states within: (B n, C, H, W)."""
    first = read(places)
    fields = [first]
    if window > every:
        last = read(places + 1)
        for tau in range(every, window, every):
            fields.append(interpolator.between(first, last, times, window, tau)["model"])
    whole = np.stack(fields, axis=1)
    return whole.reshape(-1, *whole.shape[2:])


def _groups(gaps: list[Gap]) -> list[list[Gap]]:
    """Neighbouring gaps of one length, at most `AT_ONCE` of them."""
    runs = (list(run) for _, run in itertools.groupby(gaps, key=lambda gap: gap.hours))
    return [run[k : k + AT_ONCE] for run in runs for k in range(0, len(run), AT_ONCE)]


def _lazy(shape: tuple[int, ...], function: Callable[..., Fields], *arguments: Any) -> Any:
    made = dask.delayed(function, pure=False)(*arguments)  # type: ignore[attr-defined]
    return dask.array.from_delayed(made, shape, np.float32)  # type: ignore[no-untyped-call]


def _store(
    wanted: _Wanted, store: Store, out: Path, overwrite: bool, progress: Progress | None
) -> Path:
    """Write a store of all times."""
    interpolator = Interpolator(wanted.model, store, wanted.device)
    channels = _positions(interpolator, store.channels.names, store.path)
    inside = store.time_indices(wanted.period)
    hours = _hours(store.times[inside])
    taken = wanted.taken(hours)
    positions, hours = inside[taken], [hours[k] for k in taken]
    gaps = wanted.gaps(hours, interpolator)
    times, cells = store.times[positions], store.shape[2:]

    def read(places: NDArray[np.int64]) -> Fields:
        return store.read(positions[places], channels)

    blocks = []
    for group in _groups(gaps):
        places, window = np.array([gap.place for gap in group]), group[0].hours
        count = len(places) * (window // wanted.every)
        arguments = (interpolator, read, places, times[places], window, wanted.every)
        blocks.append(_lazy((count, len(channels), *cells), _filled, *arguments))
    blocks.append(_lazy((1, len(channels), *cells), read, np.array([len(times) - 1])))
    state = xr.DataArray(
        dask.array.concatenate(blocks),  # type: ignore[no-untyped-call]
        dims=("time", "channel", "latitude", "longitude"),
        coords={
            "time": times[0] + np.arange(0, hours[-1] - hours[0] + 1, wanted.every) * HOUR,
            "channel": interpolator.channels.names,
            "latitude": store.latitude,
            "longitude": store.longitude,
        },
    )
    attrs = {key: value for key, value in store.attrs.items() if key != "step_hours"}
    attrs["title"] = f"{attrs.get('title', store.path.name)}, every {wanted.every} h"
    return write_store(
        state, out, attrs={**attrs, **wanted.said(interpolator, gaps)}, overwrite=overwrite,
        progress=progress,
    )  # fmt: skip


def _forecasts(
    wanted: _Wanted, path: Path, forecasts: xr.Dataset, out: Path, overwrite: bool
) -> Path:
    """Write forecasts of all lead times."""
    if not {"time", "prediction_timedelta", "latitude", "longitude"} <= set(forecasts.dims):
        raise ValueError(
            f"{path} has the dimensions {', '.join(map(str, forecasts.dims))}, and forecasts have "
            f"time, prediction_timedelta, latitude and longitude: name a store or forecasts that "
            f"`sciml-dchag predict` wrote."
        )
    grid = Grid(forecasts["latitude"].values, forecasts["longitude"].values)
    where = ForecastGrid(path, grid.latitude, grid.longitude, grid.content_hash)
    interpolator = Interpolator(wanted.model, where, wanted.device)
    initial = forecasts["time"].values.astype("datetime64[ns]")
    forecasts = forecasts.isel(time=times_within(initial, wanted.period, str(path)))
    initial = forecasts["time"].values.astype("datetime64[ns]")
    all_leads = (forecasts["prediction_timedelta"].values / HOUR).astype(int).tolist()
    taken = wanted.taken(all_leads)
    leads = [all_leads[k] for k in taken]
    gaps = wanted.gaps(leads, interpolator)
    states = _by_channel(interpolator, forecasts.isel(prediction_timedelta=taken), path)
    shape = (len(interpolator.channels), *grid.shape)

    def block(rows: slice, gap: Gap) -> Fields:
        def read(places: NDArray[np.int64]) -> Fields:
            (lead,) = set(places.tolist())
            return states(rows, lead)

        times = initial[rows] + leads[gap.place] * HOUR
        places = np.full(len(times), gap.place)
        whole = _filled(interpolator, read, places, times, gap.hours, wanted.every)
        return whole.reshape(len(times), -1, *shape)

    rows_of = [slice(k, min(k + AT_ONCE, len(initial))) for k in range(0, len(initial), AT_ONCE)]
    lines = []
    for rows in rows_of:
        count, last = rows.stop - rows.start, len(leads) - 1
        line = [_lazy((count, gap.hours // wanted.every, *shape), block, rows, gap) for gap in gaps]
        line.append(_lazy((count, 1, *shape), lambda r, k: states(r, k)[:, None], rows, last))
        lines.append(dask.array.concatenate(line, axis=1))  # type: ignore[no-untyped-call]
    fields = dask.array.concatenate(lines)  # type: ignore[no-untyped-call]
    template = _labelled(wanted, interpolator, forecasts, fields, leads, gaps)
    partial = partial_path(out)
    with held(out, FORECASTS, overwrite), full_disk_explained(out):
        remove(partial)
        partial.parent.mkdir(parents=True, exist_ok=True)
        write_zarr(template, partial, encoding=encoding_of(template))
        seal(partial)
        install(partial, out)
    return out


def _labelled(
    wanted: _Wanted,
    interpolator: Interpolator,
    forecasts: xr.Dataset,
    fields: Any,
    leads: list[int],
    gaps: list[Gap],
) -> xr.Dataset:
    """The dataset to write: `fields` (T, L, C, H, W) as the variables of the forecasts."""
    finer = np.arange(leads[0], leads[-1] + 1, wanted.every) * HOUR
    coords = {name: forecasts[name] for name in ("time", "latitude", "longitude")}
    if "level" in forecasts.coords:
        coords["level"] = forecasts["level"]
    finer_leads = ("prediction_timedelta", finer.astype("timedelta64[ns]"))
    found = xr.Dataset(coords=coords).assign_coords(prediction_timedelta=finer_leads)
    found["prediction_timedelta"].attrs = dict(forecasts["prediction_timedelta"].attrs)
    for variable in labelled_variables(interpolator.channels):
        places = [interpolator.channels.index(channel.name) for channel in variable.channels]
        values = fields[:, :, places] if variable.on_levels else fields[:, :, places[0]]
        level = ("level",) if variable.on_levels else ()
        dims = ("time", "prediction_timedelta", *level, "latitude", "longitude")
        rows = (min(AT_ONCE, values.shape[0]), 1, *values.shape[2:])
        attrs = dict(forecasts[variable.name].attrs)
        found[variable.name] = (dims, values.rechunk(rows), attrs)
    title = f"{forecasts.attrs.get('title', 'Forecasts')}, every {wanted.every} h"
    found.attrs = {**forecasts.attrs, "title": title, **wanted.said(interpolator, gaps)}
    return found.drop_encoding()


def _by_channel(
    interpolator: Interpolator, forecasts: xr.Dataset, path: Path
) -> Callable[[slice, int], Fields]:
    """What reads all channels of some initial times at a lead time, (B, C, H, W).

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
            order = ("time", "prediction_timedelta", "latitude", "longitude")
            fields[channel.name] = field.transpose(*order)

    def read(rows: slice, lead: int) -> Fields:
        parts = [
            fields[name][rows, lead].compute(scheduler="synchronous").values
            for name in interpolator.channels.names
        ]
        return np.stack(parts, axis=1).astype(np.float32)

    return read


def _positions(interpolator: Interpolator, names: list[str], path: Path) -> list[int]:
    """Where a store has the model's channels."""
    if missing := [name for name in interpolator.channels.names if name not in names]:
        raise ValueError(
            f"{path} lacks {missing[0]!r}, which {interpolator.path} interpolates with the others: "
            f"prepare it too, or train an interpolator of the channels that are there."
        )
    return [names.index(name) for name in interpolator.channels.names]


def _hours(times: NDArray[np.datetime64]) -> list[int]:
    """Hours of each time since the first."""
    found: list[int] = ((times - times[0]) // HOUR).astype(int).tolist()
    return found
