"""Rows and columns of raw files in any order: one state, one store, one match of static fields."""

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from raw_files import COLUMNS, GAUSSIAN, ROWS, read, saved, surface, times

from sciml_dchag.weather.prepare.era5 import prepare_era5
from sciml_dchag.weather.store.store import Store


def turned(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.isel(latitude=slice(None, None, -1))


def westward(dataset: xr.Dataset) -> xr.Dataset:
    """Columns from -180 instead of from 0."""
    shifted = dataset.assign_coords(longitude=(dataset["longitude"] + 180) % 360 - 180)
    return shifted.sortby("longitude")


@pytest.mark.parametrize(
    "change", [turned, westward, lambda d: turned(westward(d))], ids=["rows", "columns", "both"]
)
def test_files_of_one_grid_in_another_order_join(
    tmp_path: Path, change: Callable[[xr.Dataset], xr.Dataset]
) -> None:
    first, second = surface(), surface("msl", "Pa", seed=1)
    later = surface(when=times(2, "2001-01-02"), seed=2)
    plain = [saved(d, tmp_path / f"{i}.nc") for i, d in enumerate((first, second))]
    odd = [saved(change(second), tmp_path / "odd.nc")]
    expected, joined = read(plain, "t2m,msl"), read([plain[0], *odd], "t2m,msl")
    for name in ("latitude", "longitude"):
        np.testing.assert_array_equal(joined[name].values, expected[name].values)
    np.testing.assert_array_equal(joined.values, expected.values)
    pair = [plain[0], saved(change(later), tmp_path / "later.nc")]
    both = read(pair, "t2m")
    expected = xr.concat([first["t2m"], later["t2m"]], "time")
    np.testing.assert_array_equal(
        both[:, 0].sel(latitude=ROWS, longitude=COLUMNS).values, expected.values
    )


def test_other_grids_are_still_refused(tmp_path: Path) -> None:
    second = surface("msl", "Pa")
    for change in (
        {"latitude": ROWS * 0.9}, {"longitude": COLUMNS + 22.5}, {"latitude": -ROWS * 0.9},
    ):  # fmt: skip
        files = [
            saved(surface(), tmp_path / "a.nc"),
            saved(second.assign_coords(change), tmp_path / "b.nc"),
        ]
        with pytest.raises(ValueError, match="has a grid of"):
            read(files, "t2m,msl")


def test_a_region_across_greenwich_stays_together(tmp_path: Path) -> None:
    """Turned to begin at 0, it would look as if it went once around."""
    region = surface().assign_coords(longitude=np.arange(-20.0, 20.0, 5.0))
    other = region.rename(t2m="msl").assign_coords(longitude=region["longitude"].values % 360)
    other["msl"].attrs["units"] = "Pa"
    files = [saved(region, tmp_path / "a.nc"), saved(other, tmp_path / "b.nc")]
    state = read(files[::-1], "t2m,msl")
    np.testing.assert_array_equal(state["longitude"].values, region["longitude"].values)
    np.testing.assert_array_equal(state[:, 0].values, region["t2m"].values)
    with pytest.raises(ValueError, match="cover"):
        prepare_era5(files[:1], tmp_path / "a.zarr", channels="t2m", grid="8x16")
    store = Store.open(prepare_era5(files[:1], tmp_path / "a.zarr", channels="t2m", grid="native"))
    np.testing.assert_array_equal(store.read(slice(None))[:, 0], region["t2m"].values)


def test_an_axis_without_coordinates_is_no_axis_of_degrees(tmp_path: Path) -> None:
    for name in ("longitude", "latitude"):
        file = saved(surface().drop_vars(name), tmp_path / f"{name}.nc")
        with pytest.raises(ValueError, match=f"without {name}"):
            read([file], "t2m")


def test_winds_in_files_of_opposite_rows_are_not_taken_for_flipped(tmp_path: Path) -> None:
    """u is stored from the south and v from the north, each under its true labels."""
    with xr.open_dataset(GAUSSIAN) as state:
        u = saved(state[["u_component_of_wind"]], tmp_path / "u.nc")
        v = saved(turned(state[["v_component_of_wind"]]), tmp_path / "v.nc")
        z = saved(westward(state[["geopotential"]]), tmp_path / "z.nc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read([u, v, z], "u500,v500,z500")


def test_static_fields_in_another_order_are_matched_by_their_coordinates(tmp_path: Path) -> None:
    land = surface("lsm", "1", when=times(1)) * 0.0
    land["lsm"][0, -1] = 1.0  # the northernmost row
    land["lsm"][0, 2, 4] = 0.5  # 180 degrees east
    land["lsm"].attrs["units"] = "1"
    file = saved(surface(), tmp_path / "a.nc")
    for number, change in enumerate((lambda d: d, turned, westward)):
        fields = saved(change(land), tmp_path / f"land{number}.nc")
        store = Store.open(
            prepare_era5(
                [file], tmp_path / f"{number}.zarr", channels="t2m", grid="native",
                static=["lsm"], static_sources=[fields],
            )
        )  # fmt: skip
        static = store.static(["lsm"])[0]
        assert (static[store.latitude == 90] == 1).all() and static.sum() == 8.5
        assert static[store.latitude == 0, store.longitude == 180] == 0.5


def test_static_fields_of_another_grid_of_equal_shape_are_refused(tmp_path: Path) -> None:
    file = saved(surface(), tmp_path / "a.nc")
    land = surface("lsm", "1", when=times(1)) * 0.0
    land["lsm"].attrs["units"] = "1"
    other = saved(land.assign_coords(longitude=COLUMNS + 22.5), tmp_path / "land.nc")
    with pytest.raises(ValueError, match="static fields .* grid") as refused:
        prepare_era5(
            [file], tmp_path / "a.zarr", channels="t2m", grid="native",
            static=["lsm"], static_sources=[other],
        )  # fmt: skip
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.glob("*.zarr*"))


def archive(path: Path, count: int) -> str:
    """Metadata of an hourly archive, rows from the north, columns from -180."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    axes = {
        "time": np.arange(count), "latitude": np.linspace(87.5, -87.5, 8),
        "longitude": np.arange(16) * 22.5 - 180,
    }  # fmt: skip
    for name, values in axes.items():
        group.create_array(name, data=values, dimension_names=[name])
    group["time"].attrs["units"] = "hours since 1979-01-01"
    group.create_array(
        "t2m", shape=(count, 8, 16), chunks=(1, 8, 16), dtype="f4", fill_value=1,
        dimension_names=list(axes), attributes={"_FillValue": "AAAAAAAA+H8="},
    )  # fmt: skip
    return str(path)


def test_blocks_on_the_native_grid_cost_the_same_however_many_times_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and columns are turned where they are read: a graph of all times costs seconds a block."""
    from sciml_dchag.weather.prepare import era5

    states: list[xr.DataArray] = []

    def look(state: xr.DataArray, *_: object, **__: object) -> None:
        states.append(state)
        raise InterruptedError

    monkeypatch.setattr(era5, "write_store", look)
    source = archive(tmp_path / "archive.zarr", 350_000)
    with pytest.raises(InterruptedError):
        prepare_era5(
            [source], tmp_path / "a.zarr", channels="t2m", grid="native", climatology="mean"
        )
    (state,) = states
    assert state["latitude"].values[0] < 0 and state["longitude"].values[0] == 0
    state.isel(time=slice(0, 10)).compute(scheduler="threads")
    began = time.perf_counter()
    for first in (0, 100_000, 200_000):
        state.isel(time=slice(first, first + 10)).compute(scheduler="threads")
    # 0.07 s on an idle machine, and 2.2 s with the reordering in the graph.
    assert time.perf_counter() - began < 1.5
    assert len(state.data.__dask_graph__().layers) == 2  # reading, and what to read
