"""The weather store: opening it and reading samples from it.

A store is a Zarr v3 group `NAME.zarr/` with `state(time, channel, latitude, longitude)`, its
coordinates, attributes that say where it came from (`data.layout`), and the groups
`statistics` and `climatology`, each computed in the module of its name. `data.writing` writes
stores; its `write_store` is offered here too.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import pandas as pd
import xarray as xr
import zarr
import zarr.errors
from numpy.typing import NDArray

from sciml_dchag.channels import OWN_CHANNELS, ChannelSet, declare_records
from sciml_dchag.files import checksums
from sciml_dchag.files.shards import ShardReader
from sciml_dchag.files.zarr_groups import (
    read_attrs,
    read_progress,
    require_format,
    require_there,
    write_group,
)
from sciml_dchag.weather.store.layout import FORMAT, iso, step_hours
from sciml_dchag.weather.store.writing import write_store

if TYPE_CHECKING:
    from sciml_dchag.weather.store.climatology import Climatology
    from sciml_dchag.weather.store.statistics import Statistics

Period = tuple[str | None, str | None]
"""First and last time as ISO strings, both inclusive; `2017` as an end means all of 2017."""


class Store:
    """A weather store, opened for reading; cheap to open, safe to pickle and to fork."""

    path: Path
    """Where it lies."""
    times: NDArray[np.datetime64]
    """Valid times, datetime64[ns], ascending, shape (time,)."""
    channels: ChannelSet
    """The channels, in the order of the axis."""
    latitude: NDArray[np.float64]
    """Row centres in degrees north, shape (row,)."""
    longitude: NDArray[np.float64]
    """Column centres in degrees east, shape (column,)."""
    attrs: dict[str, Any]
    """Root attributes."""

    def __init__(self, path: Path, dataset: xr.Dataset, array: zarr.Array[Any]) -> None:
        self.path = path
        self.times = dataset["time"].values.astype("datetime64[ns]")
        declare_records(json.loads(dataset.attrs.get(OWN_CHANNELS, "[]")))
        self.channels = ChannelSet(str(name) for name in dataset["channel"].values)
        self.latitude = dataset["latitude"].values.astype(np.float64)
        self.longitude = dataset["longitude"].values.astype(np.float64)
        self.attrs = dict(dataset.attrs)
        self._array = array
        self._shards = ShardReader.of(path / "state", array)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a finished store.

        Raises:
            FileNotFoundError: there is nothing at `path`.
            ValueError: what is there is no weather store, or one that is not finished.
        """
        path = Path(path)
        require_there(path, "prepare era5")
        _require_finished(path)
        require_format(path, read_attrs(path), FORMAT, "weather", "prepare era5")
        checksums.require_whole(path)
        with checksums.damage_named(path), xr.open_zarr(path, chunks=None) as dataset:
            return cls(path, dataset, zarr.open_array(path / "state", mode="r"))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Numbers of times, channels, rows and columns."""
        return cast(tuple[int, int, int, int], self._array.shape)

    @property
    def step_hours(self) -> int | None:
        """Hours from each time to the next, or None where they are uneven."""
        return step_hours(self.times)

    @property
    def attribution(self) -> str:
        """One sentence to print on every picture made from this store."""
        return str(self.attrs.get("attribution", ""))

    @property
    def simulated(self) -> bool:
        """Whether this is a model's climate, neither observation nor reanalysis."""
        return bool(self.attrs.get("simulated", 0))

    @property
    def grid_sha256(self) -> str:
        """Hash of the grid, equal for equal grids."""
        return str(self.attrs["grid_sha256"])

    @property
    def block_times(self) -> int:
        """Number of times in one file of the store: the block to stream by."""
        return int((self._array.shards or self._array.chunks)[0])

    def read(
        self,
        time_indices: Sequence[int] | NDArray[np.integer[Any]] | slice,
        channel_indices: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    ) -> NDArray[np.float32]:
        """Read states in the order asked, and nothing else from the disk.

        Args:
            time_indices: positions along time, in any order, or a slice.
            channel_indices: positions along channel, in any order; None is all of them.

        Returns:
            Shape (T, C, H, W), float32, NaN where missing.

        Raises:
            IndexError: a position outside the store.
            ValueError: a file of the store is damaged.
        """
        times = _positions(time_indices, self.shape[0], "time")
        channels = _positions(
            slice(None) if channel_indices is None else channel_indices, self.shape[1], "channel"
        )
        out = np.empty((len(times), len(channels), *self.shape[2:]), dtype=np.float32)
        channel_runs = _runs(channels)
        if self._shards is not None:
            for position, time in enumerate(times.tolist()):
                for start, stop in channel_runs:
                    self._shards.read_into(out[position, start:stop], time, int(channels[start]))
            return out
        for time_start, time_stop in _runs(times):
            span = slice(int(times[time_start]), int(times[time_stop - 1]) + 1)
            for start, stop in channel_runs:
                some = slice(int(channels[start]), int(channels[stop - 1]) + 1)
                with checksums.damage_named(self.path):
                    out[time_start:time_stop, start:stop] = self._array[span, some]
        return out

    def dataset(self) -> xr.Dataset:
        """Return the store as a Dataset: coordinates read, a Dask chunk for each file of states."""
        dataset: xr.Dataset = xr.open_zarr(self.path, chunks={"time": self.block_times})
        with checksums.damage_named(self.path):
            coords = {name: c.compute() for name, c in dataset.coords.items()}
        return dataset.assign_coords(coords)

    @property
    def static_names(self) -> list[str]:
        """Names of the static fields."""
        return _static_names(self.dataset())

    def static(self, names: Iterable[str]) -> NDArray[np.float32]:
        """Read static fields (orography, land-sea mask), shape (S, H, W).

        Raises:
            ValueError: a field that the store does not hold.
        """
        if not (names := list(names)):
            return np.empty((0, *self.shape[2:]), dtype=np.float32)
        dataset: xr.Dataset = xr.open_zarr(self.path, chunks=None)  # Dask takes long to load
        present = _static_names(dataset)
        if missing := [name for name in names if name not in present]:
            raise ValueError(
                f"{self.path} has the static fields {present or 'none'} but {missing[0]!r} is "
                "needed: prepare it again with `static_sources`."
            )
        with checksums.damage_named(self.path):
            fields = dataset["static"].values
        return fields[[present.index(name) for name in names]].astype(np.float32)

    def time_indices(self, period: Period) -> NDArray[np.int64]:
        """Return the positions of the times within a period, both ends included.

        Raises:
            ValueError: an end that is no date, or a period that holds no time of the store.
        """
        return times_within(self.times, period, str(self.path))

    def with_history(self, history_hours: Sequence[int]) -> NDArray[np.int64]:
        """Return the positions of the times that have some history, such as (-6, -12), before them.

        Raises:
            ValueError: there are none.
        """
        earliest = np.timedelta64(min(history_hours, default=0), "h")
        found = np.flatnonzero(self.times + earliest >= self.times[0])
        if not len(found):
            raise ValueError(
                f"No time of {self.path}, which holds {iso(self.times[0])} to "
                f"{iso(self.times[-1])}, has {-min(history_hours)} h of history before it, which "
                f"the model needs: prepare earlier times too."
            )
        return found

    def period(self, period: Period = (None, None)) -> tuple[str, str]:
        """Return the first and last time within a period, as ISO strings to the minute.

        Statistics and climatologies carry this, so that `2017` and `2017-01-01` to `2017-12-31`
        count as the same period.
        """
        found = self.time_indices(period)
        return iso(self.times[found[0]]), iso(self.times[found[-1]])

    def statistics(self) -> Statistics:
        """Read the statistics.

        Raises:
            FileNotFoundError: the store has none.
        """
        from sciml_dchag.weather.store.statistics import read_statistics

        with checksums.damage_named(self.path):
            return read_statistics(self.path)

    def climatology(self) -> Climatology:
        """Open the climatology.

        Raises:
            FileNotFoundError: the store has none.
        """
        from sciml_dchag.weather.store.climatology import open_climatology

        with checksums.damage_named(self.path):
            return open_climatology(self.path)


_ISO = re.compile(
    r"\d{4}(-\d{1,2}(-\d{1,2}([T ]\d{1,2}(:\d{2}(:\d{2}(\.\d+)?)?)?)?)?)?|\d{6}|\d{8}(T\d{2,6})?"
)


def taken_every(times: NDArray[np.datetime64], every_hours: int, what: str) -> NDArray[np.bool_]:
    """Return which times lie a multiple of some hours after the first one.

    Args:
        times: ascending.
        every_hours: 0 takes all.
        what: what messages call `every_hours`.

    Raises:
        ValueError: times of even steps of which `every_hours` is no multiple, so that others than
            those asked for would be taken.
    """
    if not every_hours:
        return np.ones(len(times), bool)
    step = step_hours(times)
    if step and every_hours % step:
        raise ValueError(f"{what} is {every_hours} and times are {step} h apart: give a multiple.")
    since = (times - times[0]) / np.timedelta64(1, "h")
    return np.asarray(since % every_hours == 0)


def times_within(times: NDArray[np.datetime64], period: Period, where: str) -> NDArray[np.int64]:
    """Return the positions of the times within a period, both ends included.

    Args:
        times: ascending.
        period: first and last time; a year, month or day as an end means all of it.
        where: what messages call the place of the times.

    Raises:
        ValueError: an end that is no date, or a period that holds none of the times.
    """
    try:
        if any(isinstance(end, str) and not _ISO.fullmatch(end.strip()) for end in period):
            raise ValueError(period)  # pandas would read 01/02/2001 as 2 January
        found = np.arange(len(times))[pd.DatetimeIndex(times).slice_indexer(*period)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # the last of NaT
        raise ValueError(
            f"Period {period[0]} to {period[1]} cannot be read: give ISO dates such as "
            "2017-01-01 or 2017-01-01T06."
        ) from error
    if found.size == 0:
        first, last = ("" if end is None else str(end) for end in period)
        shorter = min(len(first), len(last))
        if first[:shorter] > last[:shorter]:
            raise ValueError(f"Period {first} to {last} ends before it begins: exchange the two.")
        raise ValueError(
            f"Period {period[0]} to {period[1]} holds none of the {len(times)} times of {where}, "
            f"which run from {iso(times[0])} to {iso(times[-1])}: choose a period within them."
        )
    return np.asarray(found)


def _require_finished(path: Path) -> None:
    progress = read_progress(path)
    if progress is None and path.name.endswith(".partial"):
        raise ValueError(
            f"{path} was only begun: repeat the command that writes it, which finishes it."
        )
    if progress is not None and progress["done"] < progress["total"]:
        raise ValueError(
            f"{path} is half written ({progress['done']} of {progress['total']} times): "
            "repeat the command that writes it, which finishes it."
        )


def _positions(
    indices: Sequence[int] | NDArray[np.integer[Any]] | slice, size: int, axis: str
) -> NDArray[np.int64]:
    if isinstance(indices, slice):
        return np.arange(size)[indices]
    positions = np.asarray(indices, dtype=np.int64).reshape(-1)
    if positions.size and not (positions.min() >= 0 and positions.max() < size):
        wrong = positions[(positions < 0) | (positions >= size)][0]
        raise IndexError(f"Position {wrong} lies outside the {size} of the axis {axis}.")
    return positions


def _runs(positions: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Split into stretches of consecutive positions, as (start, stop) into `positions`."""
    if positions.size == 0:
        return []
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    edges = [0, *breaks.tolist(), positions.size]
    return list(itertools.pairwise(edges))


__all__ = ["FORMAT", "Period", "Store", "iso", "step_hours", "write_group", "write_store"]


def _static_names(dataset: xr.Dataset) -> list[str]:
    return [str(name) for name in dataset["static_channel"].values] if "static" in dataset else []
