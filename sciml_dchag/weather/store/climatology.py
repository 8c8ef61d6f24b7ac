"""The climatology: what is expected of a place on a day of the year, from the training period.

Two are known: the plain mean over the period, always there, and WeatherBench 2's by hour and day
of year. Statistics by channel are in `data.statistics`, scores against these in `evaluation`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from sciml_dchag.channels import ChannelSet
from sciml_dchag.files.checksums import damage_named
from sciml_dchag.files.resumable import Progress
from sciml_dchag.files.zarr_groups import (
    CHUNK_CHANNELS,
    begun_group,
    install_group,
    open_to_write,
    write_zarr,
)
from sciml_dchag.weather.store.statistics import require_same
from sciml_dchag.weather.store.store import Period, Store

GROUP = "climatology"
"""The group's name in a store."""
DAYS = 366
"""Days of year; the last one only leap years have."""

_SUMS_BYTES = 256 * 2**20
_READ_BYTES = 64 * 2**20
_HELD_BYTES = 2**30
"""Up to this size an hourly climatology is kept in memory once read."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Climatology:
    """A store's climatology, opened; the hourly one is read day by day as it is asked for."""

    channels: ChannelSet
    """The channels."""
    latitude: NDArray[np.float64]
    """Row centres, degrees north."""
    longitude: NDArray[np.float64]
    """Column centres, degrees east."""
    mean: NDArray[np.float32]
    """Mean over the period, (C, H, W)."""
    hours: NDArray[np.int64] | None
    """Hours of day of the hourly climatology, ascending; None where there is only the mean."""
    period: tuple[str, str]
    """First and last time, ISO to the minute, as `Store.period` gives them."""
    grid_sha256: str
    """Hash of the grid."""
    hourly: zarr.Array[Any] | None
    """(hour, day of year, C, H, W), or None."""
    path: Path
    """The store's."""
    _held: dict[tuple[int, int, int], NDArray[np.float32]] = field(default_factory=dict, repr=False)

    def require(
        self,
        *,
        period: tuple[str, str] | None = None,
        grid_sha256: str | None = None,
        channels: ChannelSet | None = None,
    ) -> None:
        """Refuse to be used with another period, grid or channel set; see `Statistics.require`.

        Raises:
            ValueError: naming the first difference.
        """
        require_same("climatology", self, period, grid_sha256, channels)

    def at(
        self, times: NDArray[np.datetime64], channel_indices: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """Return what is expected at given times: (T, C, H, W), float32.

        Args:
            times: valid times.
            channel_indices: positions of the channels wanted; None is all.

        Raises:
            ValueError: an hour of day that the hourly climatology does not have.
        """
        channels = list(range(len(self.channels)) if channel_indices is None else channel_indices)
        out = np.empty((len(times), len(channels), *self.mean.shape[1:]), dtype=np.float32)
        if self.hourly is None or self.hours is None:
            out[:] = self.mean[channels]
            return out
        hours, days = hour_of_day(times), day_of_year(times)
        for position, (hour, day) in enumerate(zip(hours, days, strict=True)):
            where = np.flatnonzero(self.hours == hour)
            if where.size == 0:
                raise ValueError(
                    f"The hourly climatology has the hours {self.hours.tolist()} but {hour} h is "
                    "needed: prepare the store with that hour, or with `climatology=mean`."
                )
            for place, channel in enumerate(channels):
                first = channel // CHUNK_CHANNELS * CHUNK_CHANNELS
                out[position, place] = self._chunk(int(where[0]), int(day), first)[channel - first]
        return out

    def _chunk(self, hour: int, day: int, first: int) -> NDArray[np.float32]:
        """Fields of a day from one channel on; kept, as baselines ask for a day hundreds of times.

        Args:
            hour: its position among the hours.
            day: of the year, from 1.
            first: the first channel of a chunk.
        """
        found = self._held.get((hour, day, first))
        if found is None:
            assert self.hourly is not None
            with damage_named(self.path):
                found = np.asarray(self.hourly[hour, day - 1, first : first + CHUNK_CHANNELS])
            if self.hourly.nbytes <= _HELD_BYTES:
                self._held[hour, day, first] = found
        return found


def compute_climatology(
    store_path: str | os.PathLike[str],
    period: Period = (None, None),
    *,
    kind: Literal["auto", "mean", "hourly"] = "auto",
    window_days: int = 61,
    progress: Progress | None = None,
) -> Climatology:
    """Compute the climatology of a period and put it into the store.

    The hourly one is WeatherBench 2's (Rasp et al. 2024, section 2.3; `compute_rolling_stat` of its
    code): for each hour of day, the mean over all years and a window of `window_days` days of year,
    whose weights fall linearly from the middle to zero at its two ends, and which goes around the
    turn of the year. Day 366 of a common year takes the values of its day 365. Missing values
    count nothing.

    Args:
        store_path: the store.
        period: the training period, both ends included.
        kind: `mean` alone; `hourly` too; `auto` takes `hourly` for a period of a year or more.
        window_days: length of the window, odd.
        progress: called as the work goes on.

    Raises:
        ValueError: `hourly` for a period shorter than a year, or a window that is no odd number
            from 3 to 365.
    """
    store = Store.open(store_path)
    indices = store.time_indices(period)
    hourly = wants_hourly(store.times[indices], kind, window_days)
    beside = begun_group(store.path, GROUP)
    try:
        _write_metadata(store, indices, beside, window_days if hourly else None)
        mean = open_to_write(beside / "mean")
        for channels, fields in _means(store, indices, progress):
            mean[channels] = fields
        if hourly:
            array = open_to_write(beside / "hourly")
            for place, fields in _hourly_means(store, indices, window_days, array, progress):
                array[place] = fields
        install_group(store.path, GROUP, beside)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return open_climatology(store.path)


def wants_hourly(times: NDArray[np.datetime64], kind: str, window_days: int) -> bool:
    """Return whether an hourly climatology of these times is to be made.

    Raises:
        ValueError: as `compute_climatology` says.
    """
    if kind not in ("auto", "mean", "hourly"):
        raise ValueError(f"There is no climatology {kind!r}: choose auto, mean or hourly.")
    if not (3 <= window_days <= 365 and window_days % 2):
        raise ValueError(
            f"The climatology's window is {window_days} days: choose an odd number from 3 to 365."
        )
    step = np.diff(times).max() if len(times) > 1 else np.timedelta64(0, "h")
    covered = (times[-1] - times[0] + step) / np.timedelta64(1, "D")
    if kind == "hourly" and covered < 365:
        raise ValueError(
            f"The climatology by hour and day of year needs a year, but the period has "
            f"{covered:.0f} days: choose a longer training period, or `climatology=mean`."
        )
    return kind != "mean" and bool(covered >= 365)


def open_climatology(store_path: Path) -> Climatology:
    """Open a store's climatology.

    Raises:
        FileNotFoundError: it has none.
    """
    path = store_path / GROUP
    if not path.exists():
        raise FileNotFoundError(
            f"{store_path} has no climatology: prepare it again, or call `compute_climatology`."
        )
    with (
        damage_named(store_path),
        xr.open_zarr(store_path, group=GROUP, chunks=None) as dataset,
    ):
        hourly = "hourly" in dataset
        return Climatology(
            channels=ChannelSet(str(name) for name in dataset["channel"].values),
            latitude=dataset["latitude"].values.astype(np.float64),
            longitude=dataset["longitude"].values.astype(np.float64),
            mean=dataset["mean"].values.astype(np.float32),
            hours=dataset["hour"].values.astype(np.int64) if hourly else None,
            period=(dataset.attrs["period_start"], dataset.attrs["period_end"]),
            grid_sha256=dataset.attrs["grid_sha256"],
            hourly=zarr.open_array(path / "hourly", mode="r") if hourly else None,
            path=store_path,
        )


def hour_of_day(times: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """Return the hour of day, 0 to 23."""
    of_day = times.astype("datetime64[h]") - times.astype("datetime64[D]")
    return np.asarray(of_day.astype(np.int64))


def day_of_year(times: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """Return the day of year, 1 to 366."""
    of_year = times.astype("datetime64[D]") - times.astype("datetime64[Y]")
    return np.asarray(of_year.astype(np.int64) + 1)


def window_weights(window_days: int) -> NDArray[np.float64]:
    """Return the circulant matrix (366, 366) that smooths over days of year.

    Row d holds the weight of every day for day d: 1 for itself, falling linearly to zero half a
    window away, around the turn of the year.
    """
    half = window_days // 2
    days = np.arange(DAYS)
    apart = np.abs(days[:, None] - days[None, :])
    return np.asarray(np.maximum(0.0, 1.0 - np.minimum(apart, DAYS - apart) / half))


def _hourly_layout(store: Store) -> tuple[int, int]:
    """Channels and rows in a file of the hourly climatology, which is also what is held at once."""
    _, channels, rows, columns = store.shape
    cells = _SUMS_BYTES // (12 * DAYS)  # float64 sum and int32 count of every day
    many = min(CHUNK_CHANNELS, channels, max(1, cells // (rows * columns)))
    return many, min(rows, max(1, cells // (many * columns)))


def _write_metadata(
    store: Store, indices: NDArray[np.int64], beside: Path, window_days: int | None
) -> None:
    """Write coordinates and attributes; the fields follow."""
    _, channels, rows, columns = store.shape
    fields = ("channel", "latitude", "longitude")

    def announced(*shape: int) -> Any:
        import dask.array

        return dask.array.empty(shape, dtype=np.float32, chunks=-1)

    dataset = xr.Dataset(
        {"mean": (fields, announced(channels, rows, columns))},
        coords={
            "channel": np.array(store.channels.names, dtype=object),
            "latitude": ("latitude", store.latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", store.longitude, {"units": "degrees_east"}),
        },
    )
    dataset["mean"].attrs = {"long_name": "mean over the period", "cell_methods": "time: mean"}
    # Not compressed, for the reason that states are not.
    encoding: dict[str, Any] = {
        "mean": {"chunks": (min(CHUNK_CHANNELS, channels), rows, columns), "compressors": None}
    }
    if window_days is not None:
        hours = np.unique(hour_of_day(store.times[indices]))
        dataset = dataset.assign_coords(hour=hours, dayofyear=np.arange(1, DAYS + 1))
        shape = (len(hours), DAYS, channels, rows, columns)
        dataset["hourly"] = (("hour", "dayofyear", *fields), announced(*shape))
        dataset["hourly"].attrs = {
            "long_name": "mean by hour and day of year, smoothed over days of year",
            "window_days": window_days,
        }
        many, band = _hourly_layout(store)
        encoding["hourly"] = {
            "chunks": (1, 1, many, band, columns),
            "shards": (1, DAYS, many, band, columns),
            "compressors": None,
        }
    first, last = store.times[indices[[0, -1]]].astype("datetime64[m]")
    dataset.attrs = {
        "period_start": str(first), "period_end": str(last), "grid_sha256": store.grid_sha256,
    }  # fmt: skip
    write_zarr(dataset, beside, encoding=encoding, compute=False)


def _blocks(
    store: Store, indices: NDArray[np.int64], channels: list[int]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Read some channels at given times, a bounded number of bytes at a time."""
    count = max(1, _READ_BYTES // (4 * len(channels) * int(np.prod(store.shape[2:]))))
    for start in range(0, len(indices), count):
        some = indices[start : start + count]
        yield some, store.read(some, channels)


def _means(
    store: Store, indices: NDArray[np.int64], progress: Progress | None
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Mean over the period for one group of channels after the other."""
    total = store.shape[1]
    for first in range(0, total, CHUNK_CHANNELS):
        channels = list(range(first, min(first + CHUNK_CHANNELS, total)))
        sums = np.zeros((len(channels), *store.shape[2:]))
        counts = np.zeros(sums.shape, dtype=np.int32)
        for _, block in _blocks(store, indices, channels):
            for state in block:
                _add(sums, counts, state)
        yield slice(first, channels[-1] + 1), _ratio(sums, counts)
        if progress is not None:
            progress(channels[-1] + 1, total, "mean climatology")


def _hourly_means(
    store: Store,
    indices: NDArray[np.int64],
    window_days: int,
    array: zarr.Array[Any],
    progress: Progress | None,
) -> Iterator[tuple[tuple[int | slice, ...], NDArray[np.float32]]]:
    """Smoothed mean by day of year, for one hour and one file of the array after the other."""
    _, total, rows, columns = store.shape
    many, band = _hourly_layout(store)
    smooth = window_weights(window_days)
    hours = hour_of_day(store.times[indices])
    parts = [
        (hour, channel, row)
        for hour in np.unique(hours).tolist()
        for channel in range(0, total, many)
        for row in range(0, rows, band)
    ]
    for done, (hour, channel, row) in enumerate(parts, start=1):
        channels = list(range(channel, min(channel + many, total)))
        some_rows = slice(row, min(row + band, rows))
        sums = np.zeros((DAYS, len(channels), some_rows.stop - row, columns))
        counts = np.zeros(sums.shape, dtype=np.int32)
        for some, block in _blocks(store, indices[hours == hour], channels):
            for days, state in zip(_days_filled(store.times[some]), block, strict=True):
                for day in days:
                    _add(sums[day - 1], counts[day - 1], state[:, some_rows])
        smoothed = _ratio(np.tensordot(smooth, sums, axes=1), np.tensordot(smooth, counts, axes=1))
        position = int(np.searchsorted(np.unique(hours), hour))
        place = (position, slice(None), slice(channel, channels[-1] + 1), some_rows)
        yield place, smoothed
        if progress is not None:
            progress(done, len(parts), "hourly climatology")


def _days_filled(times: NDArray[np.datetime64]) -> list[list[int]]:
    """Days of year that times count for: their own, and 366 too on the last of a common year."""
    days = day_of_year(times)
    turns = day_of_year(times + np.timedelta64(1, "D")) == 1
    filled = turns & (days < DAYS)
    return [[day, DAYS] if fill else [day] for day, fill in zip(days, filled, strict=True)]


def _add(sums: NDArray[np.float64], counts: NDArray[np.int32], state: NDArray[np.float32]) -> None:
    present = np.isfinite(state)
    np.add(sums, state, out=sums, where=present)
    counts += present


def _ratio(
    sums: NDArray[np.float64], counts: NDArray[np.int32] | NDArray[np.float64]
) -> NDArray[np.float32]:
    """Mean, NaN where nothing was counted."""
    mean = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=mean, where=counts > 0)
    return mean.astype(np.float32)
