"""What a weather store looks like on disk: its format, chunks, attributes, and added groups.

The blocks of states are written by `data.writing` and read by `data.store`.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pandas as pd
import xarray as xr
import zarr
import zarr.errors
from numpy.typing import NDArray

from sciml_dchag.channels import ChannelSet

FORMAT = "sciml-dchag-weather-1"
"""Value of the root attribute `format`; a reader refuses any other."""

PROGRESS_FILE = "progress.json"
"""Lies in a store while it grows; absent, or complete, in a store that may be read."""
PICTURES_FOLDER = "quicklooks"
"""Holds a picture of each image of a plant store."""
FINISHED_FOLDER = "finished"
"""Holds what is known of each finished image while a plant store grows."""

MOST_NAME_BYTES = 200
"""Longest name of an image or column: file systems take 255, with a suffix."""

DIMENSIONS = ("time", "channel", "latitude", "longitude")
REQUIRED_ATTRS = ("title", "attribution", "simulated", "grid", "grid_kind", "grid_sha256")

CHUNK_CHANNELS = 16
"""Most channels in one chunk, the least that is read: a rank of many reads little else."""
BLOCK_BYTES = 64 * 2**20
"""About the size of a file of the store, and of the block of times that is held in memory."""


def partial_path(path: Path) -> Path:
    """Return where a store lies while it is being written: beside its place."""
    return path.with_name(f"{path.name}.partial")


def iso(time: np.datetime64) -> str:
    """Return a time as ISO 8601 to the minute."""
    return str(time.astype("datetime64[m]"))


def step_hours(times: NDArray[np.datetime64]) -> int | None:
    """Return the hours between neighbouring times, or None where they differ or are not whole."""
    steps = np.unique(np.diff(times))
    if len(steps) != 1 or steps[0] % np.timedelta64(1, "h") != np.timedelta64(0):
        return None
    return int(steps[0] // np.timedelta64(1, "h"))


def require_there(path: Path, command: str) -> None:
    """Refuse a store that is not there, saying whether one was begun.

    Raises:
        FileNotFoundError: there is nothing at `path`; `command` writes what belongs there.
    """
    if path.exists():
        return
    partial = partial_path(path)
    begun = (
        f"; {partial} was begun, so repeat the command that writes it"
        if partial.exists()
        else f": write it with `sciml-dchag {command}`"
    )
    raise FileNotFoundError(f"There is no store at {path}{begun}.")


def read_attrs(path: Path) -> dict[str, Any]:
    """Read a Zarr group's attributes.

    Raises:
        ValueError: `path` is no Zarr group.
    """
    try:
        return dict(zarr.open_group(path, mode="r").attrs)
    except (zarr.errors.GroupNotFoundError, zarr.errors.ContainsArrayError, OSError) as error:
        raise ValueError(
            f"{path} is no Zarr group: give a store written by `sciml-dchag prepare era5`."
        ) from error


def require_format(
    path: Path, attrs: Mapping[str, Any], store_format: str, kind: str, command: str
) -> None:
    """Refuse a store of another format.

    Raises:
        ValueError: the format that was found, and which is needed.
    """
    if attrs.get("format") != store_format:
        raise ValueError(
            f"{path} has format {attrs.get('format', 'unknown')!r} where a {kind} store "
            f"({store_format}) is needed: write one with `sciml-dchag {command}`."
        )


def require_plain_name(name: str, what: str) -> None:
    """Refuse a name that is not one file's or folder's, which foreign data may hold.

    Raises:
        ValueError: a name with a separator or a control character, `.`, `..`, or one too long.
    """
    plain = name.isprintable() and not set("/\\") & set(name) and name not in ("", ".", "..")
    if not plain or len(name.encode("utf-8", "replace")) > MOST_NAME_BYTES:
        shown = name if len(name) <= 60 else f"{name[:60]}..."
        raise ValueError(
            f"{what} is called {shown!r}, which is no name of a file: use up to "
            f"{MOST_NAME_BYTES} letters, digits, '.', '_' and '-'."
        )


def text(values: Iterable[Any]) -> NDArray[np.object_]:
    """Variable-length strings, the kind that Zarr v3 specifies; nothing where nothing is said."""
    return np.array(["" if pd.isna(value) else str(value) for value in values], dtype=object)


def read_progress(path: Path) -> dict[str, Any] | None:
    """Read how far the writing of a store has come; None where that is not known."""
    try:
        found = json.loads((path / PROGRESS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    # A file of that name may be anybody's.
    known = isinstance(found, dict) and {"fingerprint", "done", "total"} <= found.keys()
    return found if known and isinstance(found["done"], int) else None


def write_group(path: Path, name: str, dataset: xr.Dataset) -> None:
    """Put a group into a store, in place of one of the same name, all of it or nothing."""
    beside = begun_group(path, name)
    try:
        write_zarr(dataset, beside)
        install_group(path, name, beside)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def begun_group(path: Path, name: str) -> Path:
    """Return where a group of a store grows, inside the store, with nothing there."""
    beside = path / f".{name}.partial"
    shutil.rmtree(beside, ignore_errors=True)
    return beside


def install_group(path: Path, name: str, beside: Path) -> None:
    """Give a finished group its name; one of that name is removed once the new one is there."""
    former = path / f".{name}.former"
    shutil.rmtree(former, ignore_errors=True)
    if (path / name).exists():
        (path / name).rename(former)
    beside.rename(path / name)
    shutil.rmtree(former, ignore_errors=True)
    consolidate(path)


def write_zarr(
    dataset: xr.Dataset, path: Path, *, consolidated: bool = True, **options: Any
) -> None:
    """Write a Dataset as Zarr v3, its metadata consolidated unless more is to be put beside it."""
    with _consolidation_unremarked():
        dataset.to_zarr(path, mode="w", zarr_format=3, consolidated=consolidated, **options)


def consolidate(path: Path) -> None:
    """Gather the metadata of all groups at the root, which spares `xarray.open_zarr` a search."""
    with _consolidation_unremarked():
        zarr.consolidate_metadata(path, zarr_format=3)


@contextmanager
def _consolidation_unremarked() -> Iterator[None]:
    with warnings.catch_warnings():
        # The v3 specification has no text yet for consolidated metadata; xarray relies on it.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        for name in (PROGRESS_FILE, FINISHED_FOLDER, PICTURES_FOLDER):
            warnings.filterwarnings("ignore", message=f"Object at {name}")
        yield


def block_times(state: xr.DataArray) -> int:
    """Number of times in a block, which is also a file of the store."""
    bytes_a_time = 4 * int(np.prod(state.shape[1:]))
    return max(1, min(BLOCK_BYTES // bytes_a_time, state.sizes["time"]))


def even_chunk(size: int, most: int = CHUNK_CHANNELS) -> int:
    """Split a dimension into the fewest chunks allowed, as even as they come."""
    return -(-size // -(-size // most))


def write_metadata(
    state: xr.DataArray,
    static: xr.DataArray | None,
    attrs: Mapping[str, Any],
    partial: Path,
    times_a_block: int,
) -> None:
    """Write coordinates, attributes and static fields; the states themselves are left out."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    dataset = _described(state, static, attrs)
    chunk_channels = even_chunk(state.sizes["channel"])
    cells = state.shape[2:]
    whole = -(-state.sizes["channel"] // chunk_channels) * chunk_channels
    encoding = {
        # Not compressed: float32 weather shrinks by a quarter and takes twice as long to read.
        "state": {
            "chunks": (1, chunk_channels, *cells),
            "shards": (times_a_block, whole, *cells),
            "compressors": None,
        },
        "time": {
            "units": "hours since 1900-01-01",
            "calendar": "proleptic_gregorian",
            "dtype": "int64",
        },
    }
    write_zarr(dataset, partial, encoding=encoding, compute=False)


def _described(
    state: xr.DataArray, static: xr.DataArray | None, attrs: Mapping[str, Any]
) -> xr.Dataset:
    """Build the store's Dataset with CF attributes around a state that is only announced."""
    channels = ChannelSet(str(name) for name in state["channel"].values)
    levels = [float(c.level_hpa) if c.level_hpa is not None else np.nan for c in channels]

    announced = dask.array.empty(state.shape, dtype=np.float32, chunks=-1)
    dataset = xr.Dataset(
        {"state": (DIMENSIONS, announced)},
        coords={
            "time": state["time"].values.astype("datetime64[ns]"),
            "channel": text(channels.names),
            "latitude": state["latitude"].values.astype(np.float64),
            "longitude": state["longitude"].values.astype(np.float64),
            "variable": ("channel", text([c.variable for c in channels])),
            "units": ("channel", text([c.units for c in channels])),
            "kind": ("channel", text([c.kind for c in channels])),
            "level_hpa": ("channel", np.array(levels)),
        },
    )
    dataset["state"].attrs = {
        "long_name": "state of the atmosphere by channel",
        "comment": "The units of each channel are in the coordinate units.",
        "cell_methods": "time: point",
    }
    dataset["time"].attrs = {"standard_name": "time", "axis": "T"}
    dataset["latitude"].attrs = {
        "standard_name": "latitude", "units": "degrees_north", "axis": "Y",
    }  # fmt: skip
    dataset["longitude"].attrs = {
        "standard_name": "longitude", "units": "degrees_east", "axis": "X",
    }  # fmt: skip
    dataset["level_hpa"].attrs = {
        "standard_name": "air_pressure", "units": "hPa", "positive": "down",
    }  # fmt: skip
    dataset["variable"].attrs = {"long_name": "quantity"}
    dataset["units"].attrs = {"long_name": "units of the channel"}
    dataset["kind"].attrs = {"long_name": "kind of channel"}
    if static is not None:
        names = ChannelSet(str(name) for name in static["static_channel"].values)
        fields = static.values.astype(np.float32)
        dataset["static"] = (("static_channel", "latitude", "longitude"), fields)
        dataset = dataset.assign_coords(
            static_channel=text(names.names),
            static_units=("static_channel", text([c.units for c in names])),
        )
        dataset["static"].attrs = {"long_name": "fields that do not change with time"}
    step = step_hours(dataset["time"].values)
    dataset.attrs = {
        "Conventions": "CF-1.11",
        "format": FORMAT,
        **{k: json.dumps(v) if isinstance(v, Mapping | list) else v for k, v in attrs.items()},
        **({} if step is None else {"step_hours": step}),
    }
    return dataset
