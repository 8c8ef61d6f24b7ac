"""What `inspect` shows of weather: raw files, a store, a store of forecasts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from sciml_dchag.files.checksums import require_whole
from sciml_dchag.files.samples import resolve_samples
from sciml_dchag.files.zarr_groups import open_zarr, read_attrs
from sciml_dchag.weather.store.layout import FORMAT, iso
from sciml_dchag.weather.store.store import Store


def describe(path: str) -> dict[str, Any] | None:
    """Describe a weather store, forecasts, or raw files.

    Raises:
        FileNotFoundError, ValueError: there is nothing, or nothing known.
    """
    from sciml_dchag.weather.prepare.contents import list_contents

    place = Path(path)
    if place.is_dir() and (place / "zarr.json").is_file():
        if read_attrs(place).get("format") == FORMAT:
            return describe_store(Store.open(place))
        require_whole(place)
        if "prediction_timedelta" in (dataset := open_zarr(place, decode_timedelta=True)).coords:
            return _describe_forecasts(dataset)
    return {"kind": "raw files", **list_contents(resolve_samples([path]))}


def in_short(store: Store) -> str:
    """Say in a line how large a store is."""
    times, channels, rows, columns = store.shape
    return f"{times} times, {channels} channels, {rows} x {columns}"


def describe_store(store: Store) -> dict[str, Any]:
    """What a store holds: times, channels, grid and origin."""
    step = store.step_hours
    return {
        "kind": "weather store" + (" (simulated, not observations)" if store.simulated else ""),
        "title": store.attrs.get("title", ""),
        "shape": in_short(store),
        "period": f"{iso(store.times[0])} to {iso(store.times[-1])}",
        "step": "uneven" if step is None else f"{step} h",
        "grid": f"{store.attrs['grid']} ({store.attrs['grid_kind']})",
        "channels": store.channels.names,
        "attribution": store.attribution,
    }


def _describe_forecasts(dataset: xr.Dataset) -> dict[str, Any]:
    times = dataset["time"].values
    hours = dataset["prediction_timedelta"].values.astype("timedelta64[h]").astype(int)
    return {
        "kind": "forecasts, WeatherBench 2 layout",
        "title": dataset.attrs.get("title", ""),
        "initial times": f"{len(times)}, {iso(times[0])} to {iso(times[-1])}",
        "lead hours": hours.tolist(),
        "variables": [str(name) for name in dataset.data_vars],
        "attribution": dataset.attrs.get("attribution", ""),
    }
