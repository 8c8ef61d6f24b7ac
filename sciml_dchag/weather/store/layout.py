"""What a weather store looks like on disk: its format, chunks and attributes.

The blocks of states are written by `writing` and read by `store`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag.channels import OWN_CHANNELS, ChannelSet, own_records
from sciml_dchag.files.zarr_groups import even_chunk, text, write_zarr

FORMAT = "sciml-dchag-weather-1"
"""Value of the root attribute `format`; a reader refuses any other."""

DIMENSIONS = ("time", "channel", "latitude", "longitude")
REQUIRED_ATTRS = ("title", "attribution", "simulated", "grid", "grid_kind", "grid_sha256")
BLOCK_BYTES = 64 * 2**20
"""About the size of a file of the store, and of the block of times that is held in memory."""


def iso(time: np.datetime64) -> str:
    """Return a time as ISO 8601 to the minute."""
    return str(time.astype("datetime64[m]"))


def step_hours(times: NDArray[np.datetime64]) -> int | None:
    """Return the hours between neighbouring times, or None where they differ or are not whole."""
    steps = np.unique(np.diff(times))
    if len(steps) != 1 or steps[0] % np.timedelta64(1, "h") != np.timedelta64(0, "h"):
        return None
    return int(steps[0] // np.timedelta64(1, "h"))


def block_times(state: xr.DataArray) -> int:
    """Number of times in a block, which is also a file of the store."""
    bytes_a_time = 4 * int(np.prod(state.shape[1:]))
    return max(1, min(BLOCK_BYTES // bytes_a_time, state.sizes["time"]))


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
    encoding: dict[str, dict[str, Any]] = {
        # Not compressed: float32 weather shrinks by a quarter and takes twice as long to read.
        "state": {
            "chunks": (1, chunk_channels, *cells),
            "shards": (times_a_block, whole, *cells),
            "compressors": None,  # but for the checksum
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
    import dask.array

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
        **({OWN_CHANNELS: json.dumps(own)} if (own := own_records(channels.names)) else {}),
    }
    return dataset
