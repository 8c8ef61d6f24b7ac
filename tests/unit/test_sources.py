"""Raw files joined to one state: what is spread over files, and what does not fit."""

import pickle
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from raw_files import (
    GAUSSIAN,
    on_levels,
    read,
    saved,
    surface,
    times,
)

from sciml_dchag.files.samples import sample_path
from sciml_dchag.weather.prepare.contents import list_contents
from sciml_dchag.weather.prepare.sources import open_static
from sciml_dchag.weather.regrid.regrid import regrid


def test_the_embedded_sample_in_the_new_layout() -> None:
    state = read([str(sample_path("era5_msl"))], "msl")
    assert state.dims == ("time", "channel", "latitude", "longitude")
    assert state.shape == (124, 1, 73, 144) and state.dtype == np.float32
    assert state.chunks is not None  # nothing is read yet
    assert "Copernicus" in state.attrs["attribution"] and "2025" in state.attrs["attribution"]
    assert state.attrs["simulated"] == 0
    with xr.open_dataset(sample_path("era5_msl")) as raw:
        np.testing.assert_array_equal(state[7, 0].values, raw["msl"][7].values[::-1])  # northward


def test_variables_levels_and_times_may_be_spread_over_files(tmp_path: Path) -> None:
    saved(surface(when=times(2)), tmp_path / "t2m_a.nc")
    saved(surface(when=times(2, "2001-01-01T12"), seed=1), tmp_path / "t2m_b.nc")
    saved(on_levels([500]), tmp_path / "z500.nc")
    saved(on_levels([850]), tmp_path / "z850.nc")
    state = read([str(tmp_path / "*.nc")], "z850,t2m,z500")
    assert state.shape == (4, 3, 5, 8)
    assert state["channel"].values.tolist() == ["z850", "t2m", "z500"]
    np.testing.assert_array_equal(
        state.sel(channel="t2m")[2:].values,
        surface(when=times(2, "2001-01-01T12"), seed=1)["t2m"].values,
    )


def test_hourly_data_are_thinned_to_the_step(tmp_path: Path) -> None:
    file = saved(surface(when=times(30, hours=1, start="2001-01-01T01")), tmp_path / "hourly.nc")
    state = read([file], "t2m", step_hours=6)
    hours = state["time"].values.astype("datetime64[h]").astype(int) % 24
    assert hours.tolist() == [6, 12, 18, 0, 6]
    short = read([file], "t2m", period=("2001-01-01T03", "2001-01-01T05"))
    assert short.sizes["time"] == 3


def test_a_store_of_ours_is_a_source(simulated_store: Path) -> None:
    state = read([str(simulated_store)], "z500,t2m")
    assert state.attrs["simulated"] == 1 and "Simulated" in state.attrs["attribution"]
    assert state["channel"].values.tolist() == ["z500", "t2m"]


def test_static_fields(tmp_path: Path) -> None:
    height = surface("z", "m**2 s**-2", when=times(1))
    land = surface("lsm", "(0 - 1)", when=times(1)) / 600
    land["lsm"].attrs["units"] = "(0 - 1)"
    files = [saved(height, tmp_path / "z.nc"), saved(land, tmp_path / "lsm.nc")]
    fields = open_static(files, ["lsm", "orography"])
    assert fields.dims == ("static_channel", "latitude", "longitude")
    np.testing.assert_array_equal(fields[1].values, height["z"].values[0])
    with pytest.raises(ValueError, match="'lsm' is not in .* which hold orography"):
        open_static(files[:1], ["lsm"])
    percent = saved(land * 100, tmp_path / "percent.nc")
    with pytest.raises(ValueError, match="lsm has a mean of"):
        open_static([percent], ["lsm"])


@pytest.mark.parametrize(
    ("datasets", "channels", "message"),
    [
        ([surface()], "u10", "lack the variable 'u10' .* and hold t2m"),
        ([on_levels([500, 850])], "z300", "lack z at 300 hPa and hold it at 500, 850"),
        ([surface(), surface(when=times(2, "2001-01-01T18"))], "t2m", "both hold t2m at 2001-01-01T18"),
        ([surface(), surface("u10", "m/s").isel(latitude=slice(0, 5, 2))], "t2m,u10", "has a grid of"),
        ([surface(), surface("u10", "m/s", when=times(3))], "t2m,u10", "t2m is there at 2001-01-01T18:00 and u10 is not"),
        ([surface().expand_dims(number=[0, 1])], "t2m", "holds 2 ensemble members"),
        ([surface().isel(time=0, drop=True)], "t2m", "no time coordinate"),
        ([surface()], "orography", "is static, no state"),
        ([surface()], "t2m@-6h", "is history, no state of the atmosphere"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    tmp_path: Path, datasets: list[xr.Dataset], channels: str, message: str
) -> None:
    files = [saved(d, tmp_path / f"{i}.nc") for i, d in enumerate(datasets)]
    with pytest.raises(ValueError, match=message) as refused:
        read(files, channels)
    assert "\n" not in str(refused.value)


def test_gaps_and_periods(tmp_path: Path) -> None:
    file = saved(surface(when=np.delete(times(6), 3)), tmp_path / "gap.nc")
    with pytest.raises(ValueError, match="After 2001-01-01T12:00 the next time comes 12 h later"):
        read([file], "t2m", step_hours=6)
    with pytest.raises(ValueError, match="Period 2005 to None holds none of the 5 times"):
        read([file], "t2m", period=("2005", None))


def test_contents_are_listed_without_reading_values(tmp_path: Path) -> None:
    files = [saved(surface(), tmp_path / "a.nc"), saved(on_levels([500, 850]), tmp_path / "b.nc")]
    contents = list_contents(files)
    assert contents["variables"] == ["t2m", "z on 2 level(s): 500, 850 hPa"]
    assert contents["times"] == 4 and str(contents["grid"]).startswith("5 x 8")


def test_a_real_state_on_a_gaussian_grid_under_long_names() -> None:
    """Dimensions (level, longitude, latitude), a scalar time, rows ascending."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # its winds are the right way up
        state = read([GAUSSIAN], "u500,v850,t850")
    assert state.shape == (1, 3, 32, 64) and str(state["time"].values[0])[:10] == "1959-01-02"
    with xr.open_dataset(GAUSSIAN) as raw:
        expected = raw["temperature"].sel(level=850).transpose("latitude", "longitude").values
    np.testing.assert_array_equal(state[0, 2].values, expected)
    assert list_contents([GAUSSIAN])["grid"] == "32 x 64, gaussian"


def test_a_gaussian_grid_labelled_regular(tmp_path: Path) -> None:
    with xr.open_dataset(GAUSSIAN) as raw:
        even = np.linspace(*raw["latitude"].values[[0, -1]], 32)
        relabelled = saved(raw.assign_coords(latitude=even), tmp_path / "even.nc")
        named = raw[["temperature"]].load()
        named["temperature"].attrs["GRIB_gridType"] = "regular_ll"
        called_regular = saved(named, tmp_path / "named.nc")
    with pytest.raises(ValueError, match="a Gaussian grid labelled regular"):
        read([relabelled], "t500")
    with pytest.raises(ValueError, match='labelled "regular_ll" but .* gaussian'):
        read([called_regular], "t500")


def test_what_is_not_asked_for_need_not_fit(tmp_path: Path) -> None:
    other = surface("sst", "degC").isel(latitude=slice(0, 3))
    members = surface("u10", "m/s").expand_dims(number=[0, 1])
    files = [saved(d, tmp_path / f"{i}.nc") for i, d in enumerate((surface(), other, members))]
    assert read(files, "t2m").shape == (4, 1, 5, 8)


def test_coordinates_rounded_to_float32_are_the_same_grid(tmp_path: Path) -> None:
    rows, columns = np.linspace(-80.1, 80.1, 5), np.arange(8) * 45.1
    fine = surface().assign_coords(latitude=rows, longitude=columns)
    coarse = surface("u10", "m/s").assign_coords(
        latitude=rows.astype(np.float32), longitude=columns.astype(np.float32)
    )
    files = [saved(fine, tmp_path / "a.nc"), saved(coarse, tmp_path / "b.nc")]
    state = read(files, "u10,t2m")
    np.testing.assert_array_equal(state.sel(channel="t2m").values, fine["t2m"].values)


def test_periods_come_before_comparing_times(tmp_path: Path) -> None:
    long = saved(surface(when=times(20, hours=1)), tmp_path / "t2m.nc")
    short = saved(surface("u10", "m/s", when=times(2)), tmp_path / "u10.nc")
    state = read([long, short], "t2m,u10", step_hours=6, period=(None, "2001-01-01T08"))
    assert state["time"].values.tolist() == times(2).tolist()
    with pytest.raises(ValueError, match="t2m is there at no multiple of 6 h"):
        odd = surface(when=times(2, "2001-01-01T01", hours=1))
        read([saved(odd, tmp_path / "odd.nc")], "t2m", step_hours=6)
    with pytest.raises(ValueError, match="time step of 0 h"):
        read([long], "t2m", step_hours=0)


def archive(path: Path, count: int) -> str:
    """Metadata of an hourly archive of 37 levels whose values are all the same."""
    levels = [1, 2, 3, *range(50, 1050, 50), 1005, 1006]
    group = zarr.open_group(path, mode="w", zarr_format=3)
    axes = {
        "time": np.arange(count), "level": np.array(levels),
        "latitude": np.linspace(87.5, -87.5, 8), "longitude": np.arange(16) * 22.5,
    }  # fmt: skip
    for name, values in axes.items():
        group.create_array(name, data=values, dimension_names=[name])
    group["level"].attrs["units"] = "hPa"
    group["time"].attrs["units"] = "hours since 1979-01-01"
    for name in ("geopotential", "temperature", "u_component_of_wind", "v_component_of_wind"):
        shape = (count, len(levels), 8, 16)
        group.create_array(
            name, shape=shape, chunks=(1, *shape[1:]), dtype="f4", fill_value=1,
            dimension_names=list(axes), attributes={"_FillValue": "AAAAAAAA+H8="},
        )  # fmt: skip
    return str(path)


def test_forty_years_of_hours_open_in_seconds(tmp_path: Path) -> None:
    """Neither opening nor a block of times may cost more the more times there are."""
    source = archive(tmp_path / "archive.zarr", 350_000)
    names = ",".join(f"{v}{level}" for v in "ztuv" for level in range(50, 1050, 50))
    began = time.perf_counter()
    state = read([source], names)
    assert state.shape == (350_000, 80, 8, 16)
    regridded = regrid(state, "4x8", engine="native")
    opened = time.perf_counter()
    for first in (0, 200_000):
        block = regridded.isel(time=slice(first, first + 10)).compute(scheduler="threads")
        np.testing.assert_allclose(block.values, 1.0, rtol=1e-6)
    read_two = time.perf_counter() - opened
    # About 1 s and 0.3 s here; a graph written down for all times takes minutes.
    assert opened - began < 20 and read_two < 10


def test_what_a_cluster_is_sent_is_small(tmp_path: Path) -> None:
    """Coordinates stay behind; a Dask worker gets the lazy variables and the places of times."""
    state = read([archive(tmp_path / "archive.zarr", 2_000)], "z500,t850")
    assert len(pickle.dumps(state.data.__dask_graph__())) < 200_000


def test_files_of_one_grid_join_in_whatever_order_they_hold_it(tmp_path: Path) -> None:
    northward, other = surface(), surface("u10", "m/s", seed=1)
    southward = other.isel(latitude=slice(None, None, -1))
    westward = southward.roll(longitude=4, roll_coords=True)
    westward = westward.assign_coords(longitude=(westward["longitude"] + 180) % 360 - 180)
    assert westward["longitude"].values[0] == -180 and westward["latitude"].values[0] == 90
    for number, turned in enumerate((southward, westward)):
        files = [
            saved(northward, tmp_path / f"{number}a.nc"),
            saved(turned, tmp_path / f"{number}b.nc"),
        ]
        state = read(files, "u10,t2m")
        np.testing.assert_array_equal(state[:, 0].values, other["u10"].values)
        np.testing.assert_array_equal(state[:, 1].values, northward["t2m"].values)
        np.testing.assert_array_equal(read(files[::-1], "u10")[:, 0].values, other["u10"].values)


def test_a_time_off_the_step_is_named_where_it_leaves_a_gap(tmp_path: Path) -> None:
    odd = times(4).copy()
    odd[2] += np.timedelta64(1, "h")  # 0, 6, 13, 18
    file = saved(surface(when=odd), tmp_path / "odd.nc")
    with pytest.raises(ValueError, match="2001-01-01T13:00 is no multiple of 6 h, and between"):
        read([file], "t2m", step_hours=6)
