"""Fields that lie in files, read block by block of times as Dask asks for them.

The graph has one task a block, whatever the number of channels and files, so that years of hours
open in seconds. Which file holds what is decided in `sources`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import annotate
from dask.delayed import delayed
from numpy.typing import NDArray

from sciml_dchag.files.remote import in_short, is_remote
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.prepare.valid_range import within

CHUNK_BYTES = 32 * 2**20
"""Most of what is read at once, where a file stores more than one time together."""

VERTICAL = ("level", "channel", "static_channel")
"""Dimensions along which a field holds channels."""


@dataclass(frozen=True, eq=False)
class RawField:
    """One variable of one file, not read yet, without coordinates, which a cluster need not get."""

    variable: xr.Variable
    source: str
    factor: float
    """Multiplies the file's values to give ours."""
    name: str = ""
    """Our name of the variable."""
    valid: tuple[float, float] | None = None
    """Least and greatest value that is not missing, in the file's units."""
    copies: tuple[tuple[int, int, int], ...] = ()
    """Levels that are there again: the first position, another, and the level in hPa."""

    def read(self, times: NDArray[np.int64], levels: Sequence[int]) -> NDArray[np.float32]:
        """Read some times and positions on the vertical axis: (T, C, H, W).

        Raises:
            ValueError: the file cannot be read, or a level that is there twice with other values.
            OSError: a remote one cannot, which may be the network's fault.
        """
        values = self._read(times, levels)
        for first, again, hpa in self.copies:
            if first not in levels:
                continue
            taken = values[:, list(levels).index(first)]
            if not np.array_equal(self._read(times, [again])[:, 0], taken, equal_nan=True):
                raise ValueError(
                    f"{self.source} holds {self.name} at {hpa} hPa twice with different values: "
                    f"remove one of the two."
                )
        return values

    def _read(self, times: NDArray[np.int64], levels: Sequence[int]) -> NDArray[np.float32]:
        chosen: dict[str, Any] = {}
        for dim in self.variable.dims:
            if dim == "time":
                chosen["time"] = _as_slice(times)
            elif dim in VERTICAL:
                chosen[str(dim)] = list(levels)
        try:
            variable = self.variable.isel(chosen).load()
        except MemoryError:
            raise
        except Exception as error:  # every backend has exceptions of its own
            if is_remote(self.source):
                raise OSError(
                    f"{self.source} cannot be read ({in_short(error)}): check the network and "
                    f"repeat the command, which resumes where it stopped."
                ) from error
            raise ValueError(
                f"{self.source} cannot be read ({in_short(error)}): it is truncated or damaged, so "
                f"download it again."
            ) from error
        if "expver" in variable.dims:
            variable = _merge_expver(variable)
        leading = [dim for dim in ("time", *VERTICAL) if dim in variable.dims]
        values = variable.transpose(*leading, "latitude", "longitude").values
        if self.valid is not None:
            values = within(values, self.valid)
        if self.factor != 1:
            values = values * self.factor
        shape = (len(times), max(1, len(levels)), *values.shape[-2:])
        return values.reshape(shape).astype(np.float32, copy=False)

    @property
    def packed_range(self) -> float | None:
        """By how much, in our units, values differ that wrapped integers take for neighbours."""
        encoding = self.variable.encoding
        dtype = np.dtype(encoding.get("dtype", np.float32))
        scale = float(np.ravel(encoding.get("scale_factor", 0.0))[0])
        if dtype.kind not in "iu" or dtype.itemsize > 2 or not scale:
            return None
        return abs(scale * self.factor) * 2.0 ** (8 * dtype.itemsize)

    @property
    def scaled_floats(self) -> tuple[float, float] | None:
        """Scale and offset of a field that is stored as floating-point numbers; None without."""
        encoding = self.variable.encoding
        scale, offset = (
            float(np.ravel(encoding.get(key, neutral))[0])
            for key, neutral in (("scale_factor", 1.0), ("add_offset", 0.0))
        )
        packed = np.dtype(encoding.get("dtype", np.float32)).kind != "f"
        return None if packed or (scale, offset) == (1.0, 0.0) else (scale, offset)

    @property
    def times_together(self) -> int:
        """How many times the file stores in one chunk, which is read as a whole."""
        if "time" not in self.variable.dims:
            return 1
        chunks = self.variable.encoding.get("preferred_chunks", {})
        return int(next((n for dim, n in chunks.items() if "time" in str(dim)), 1))


Judge = Callable[[NDArray[np.float32], NDArray[np.datetime64], tuple[str, ...], RawField], None]
"""Called with a block (T, C, H, W) as a file has it, its times and channels, and the field that it
is of; raises to refuse it."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some channels of a state at all its times: which file holds each time, and where in it."""

    channels: tuple[str, ...]
    fields: tuple[RawField, ...]
    levels: tuple[tuple[int, ...], ...]
    """By field, the positions of the channels on its vertical axis."""
    times: NDArray[np.datetime64]
    field_of_time: NDArray[np.int64]
    """(T, N): the N fields that are summed for each time; one, but for accumulations."""
    place_in_field: NDArray[np.int64]
    """(T, N): where in its file each is."""

    def at(self, positions: NDArray[np.int64]) -> Part:
        """Keep some of the times."""
        return replace(
            self,
            times=self.times[positions],
            field_of_time=self.field_of_time[positions],
            place_in_field=self.place_in_field[positions],
        )

    def read(self, first: int, last: int, judge: Judge | None = None) -> NDArray[np.float32]:
        """Read the times from `first` to before `last`: (T, C, H, W).

        Raises:
            ValueError: as `RawField.read`, or of `judge`.
        """
        fields = self.field_of_time[first:last].reshape(-1)
        places = self.place_in_field[first:last].reshape(-1)
        summed = self.field_of_time.shape[1]
        times = np.repeat(self.times[first:last], summed)
        runs = np.flatnonzero(np.diff(fields)) + 1
        blocks = []
        for run, place, when in zip(
            np.split(fields, runs), np.split(places, runs), np.split(times, runs), strict=True
        ):
            field = self.fields[run[0]]
            blocks.append(field.read(place, self.levels[run[0]]))
            if judge is not None:
                judge(blocks[-1], when, self.channels, field)
        block = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        if summed == 1:
            return block
        return (
            block.reshape(-1, summed, *block.shape[1:])
            .sum(axis=1, dtype=np.float64)
            .astype(np.float32)
        )


def lazy_state(
    parts: Sequence[Part], names: Sequence[str], grid: Grid, judge: Judge | None = None
) -> xr.DataArray:
    """Put parts of equal times together: `state(time, channel, latitude, longitude)`, float32.

    A chunk is one time, or as many as a file stores together within `CHUNK_BYTES`.
    """
    times = parts[0].times
    bytes_a_time = 4 * len(names) * grid.size
    together = max(field.times_together for part in parts for field in part.fields)
    step = max(1, min(together, CHUNK_BYTES // bytes_a_time, len(times)))
    starts = range(0, len(times), step)
    dask_array: Any = da  # untyped
    # An annotated layer is not merged with what follows. Dask would merge reading and regridding,
    # and then write down the tasks of all times for every block of them that is computed.
    with annotate(retries=1):
        data = dask_array.map_blocks(
            _read,
            # One node of the graph, so that a cluster is sent it once and not per chunk.
            reader=delayed(
                _Reader(tuple(parts), tuple(names), step, judge), pure=False, traverse=False
            ),
            chunks=(
                tuple(min(step, len(times) - start) for start in starts),
                (len(names),),
                *((size,) for size in grid.shape),
            ),
            dtype=np.float32,
            meta=np.empty((0, 0, 0, 0), np.float32),
        )
    return xr.DataArray(
        data,
        dims=("time", "channel", "latitude", "longitude"),
        coords={
            "time": times,
            "channel": list(names),
            "latitude": grid.latitude,
            "longitude": grid.longitude,
        },
        name="state",
    )


@dataclass(frozen=True, eq=False)
class _Reader:
    parts: tuple[Part, ...]
    names: tuple[str, ...]
    step: int
    judge: Judge | None


def _read(reader: _Reader, block_id: tuple[int, ...]) -> NDArray[np.float32]:
    """Read all channels at the times of a chunk."""
    first = block_id[0] * reader.step
    last = min(first + reader.step, len(reader.parts[0].times))
    where = {name: position for position, name in enumerate(reader.names)}
    blocks = {part.channels: part.read(first, last, reader.judge) for part in reader.parts}
    cells = next(iter(blocks.values())).shape[2:]
    state = np.empty((last - first, len(where), *cells), np.float32)
    for channels, block in blocks.items():
        state[:, [where[name] for name in channels]] = block
    return state


def _as_slice(times: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Neighbouring positions in ascending order as a slice, which every backend reads at once."""
    if (np.diff(times) == 1).all():
        return slice(int(times[0]), int(times[-1]) + 1)
    return times


def _merge_expver(variable: xr.Variable) -> xr.Variable:
    """Fill ERA5 (expver 1) with the preliminary ERA5T (expver 5) where it is not there yet."""
    merged = variable.isel(expver=0)
    for position in range(1, variable.sizes["expver"]):
        later = variable.isel(expver=position).values
        merged = merged.copy(data=np.where(np.isnan(merged.values), later, merged.values))
    return merged
