"""Small raw files for the tests of reading them."""

import warnings
from pathlib import Path

import numpy as np
import xarray as xr

from sciml_dchag.channels import ChannelSet
from sciml_dchag.files.samples import sample_path
from sciml_dchag.weather.prepare.checks import standard_geopotential
from sciml_dchag.weather.prepare.sources import open_era5

DATA = Path(__file__).parents[1] / "data" / "weather"
GAUSSIAN = str(sample_path("era5_state_1959"))
MEMBERS = DATA / "era5_z_t_2members.grib"
ROWS, COLUMNS = np.linspace(-90, 90, 5), np.arange(0.0, 360.0, 45.0)


def times(count: int = 4, start: str = "2001-01-01", hours: int = 6) -> np.ndarray:
    return np.datetime64(start, "ns") + np.arange(count) * np.timedelta64(hours, "h")


def surface(name: str = "t2m", units: str = "K", when: np.ndarray | None = None, seed: int = 0):
    when = times() if when is None else when
    values = np.random.default_rng(seed).normal(280, 5, (len(when), 5, 8)).astype(np.float32)
    return xr.Dataset(
        {name: (("time", "latitude", "longitude"), values, {"units": units})},
        coords={"time": when, "latitude": ROWS, "longitude": COLUMNS},
    )


def on_levels(levels: list[int], name: str = "z", units: str = "m**2 s**-2"):
    in_hpa = [level if max(levels) < 1100 else level / 100 for level in levels]
    means = [standard_geopotential(level) if name == "z" else 5e4 for level in in_hpa]
    values = np.random.default_rng(1).normal(0, 1e3, (4, len(levels), 5, 8))
    values += np.array(means)[:, None, None]
    axis = ("level", levels, {"units": "hPa" if max(levels) < 1100 else "Pa"})
    return xr.Dataset(
        {name: (("time", "level", "latitude", "longitude"), values, {"units": units})},
        coords={"time": times(), "level": axis, "latitude": ROWS, "longitude": COLUMNS},
    )


def saved(dataset: xr.Dataset, path: Path, **options: object) -> str:
    dataset.to_netcdf(path, **options)
    return str(path)


def to_zarr(dataset: xr.Dataset, path: Path, **options: object) -> str:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        dataset.to_zarr(path, **options)  # type: ignore[call-overload]
    return str(path)


def read(sources: list[str], channels: str, **options: object) -> xr.DataArray:
    return open_era5(sources, ChannelSet.of(channels), **options)  # type: ignore[arg-type]
