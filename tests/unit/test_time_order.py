"""Every field stands under its own time, in whatever order a file holds its times."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from raw_files import on_levels, read, saved, surface, times, to_zarr

ORDERS = {
    "neighbours exchanged": [0, 2, 1, 3, 4, 6, 5, 7],
    "hour by hour": [0, 4, 1, 5, 2, 6, 3, 7],
    "backwards": [7, 6, 5, 4, 3, 2, 1, 0],
    "random": [3, 0, 7, 5, 1, 2, 6, 4],
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("kind", ["netcdf", "classic", "zarr"])
def test_times_in_any_order(tmp_path: Path, order: list[int], kind: str) -> None:
    field = surface(when=times(8))
    turned = field.isel(time=order)
    if kind == "netcdf":
        chunks = {"t2m": {"chunksizes": (4, 5, 8)}}
        source = saved(turned, tmp_path / "a.nc", engine="h5netcdf", encoding=chunks)
    elif kind == "classic":
        source = saved(turned, tmp_path / "a.nc", format="NETCDF3_64BIT")
    else:
        source = to_zarr(turned.chunk(time=4), tmp_path / "a.zarr")
    state = read([source], "t2m")
    np.testing.assert_array_equal(state["time"].values, field["time"].values)
    np.testing.assert_array_equal(state[:, 0].values, field["t2m"].values)


def test_times_and_levels_in_any_order(tmp_path: Path) -> None:
    field = on_levels([300, 500, 850])
    turned = field.isel(time=[2, 0, 3, 1], level=[1, 2, 0])
    chunks = {"z": {"chunksizes": (2, 3, 5, 8)}}
    source = saved(turned, tmp_path / "a.nc", engine="h5netcdf", encoding=chunks)
    state = read([source], "z850,z300,z500")
    expected = field["z"].sel(level=[850, 300, 500]).values.astype(np.float32)
    np.testing.assert_array_equal(state.values, expected)


def test_times_of_several_files_that_interleave(tmp_path: Path) -> None:
    field = surface(when=times(8))
    parts = [field.isel(time=[4, 0, 6]), field.isel(time=[5, 7, 1, 2, 3])]
    files = [
        saved(part, tmp_path / f"{i}.nc", engine="h5netcdf",
              encoding={"t2m": {"chunksizes": (part.sizes["time"], 5, 8)}})
        for i, part in enumerate(parts)
    ]  # fmt: skip
    np.testing.assert_array_equal(read(files, "t2m")[:, 0].values, field["t2m"].values)
    joined = xr.concat(parts, "time")
    np.testing.assert_array_equal(
        read([saved(joined, tmp_path / "all.nc")], "t2m", step_hours=12)[:, 0].values,
        field["t2m"].values[::2],
    )
