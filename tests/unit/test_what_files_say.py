"""What files say of their values and axes and xarray leaves to the reader: each is heeded."""

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from raw_files import times

from sciml_dchag.channels import ChannelSet
from sciml_dchag.weather.prepare.cells import Believable
from sciml_dchag.weather.prepare.era5 import prepare_era5
from sciml_dchag.weather.prepare.sources import open_era5
from sciml_dchag.weather.prepare.valid_range import valid_range
from sciml_dchag.weather.store.store import Store

LATITUDE = -78.75 + 22.5 * np.arange(8)
LONGITUDE = 22.5 * np.arange(16)


def field(
    name: str, units: str, mean: float, spread: float, level: int | None = None
) -> xr.Dataset:
    values = np.random.default_rng(0).normal(mean, spread, (4, 8, 16)).astype(np.float32)
    dataset = xr.Dataset(
        {name: (("time", "latitude", "longitude"), values, {"units": units})},
        coords={
            "time": times(),
            "latitude": ("latitude", LATITUDE, {"units": "degrees_north"}),
            "longitude": ("longitude", LONGITUDE, {"units": "degrees_east"}),
        },
    )
    return dataset if level is None else dataset.assign_coords(level=((), level, {"units": "hPa"}))


def stored(dataset: xr.Dataset, folder: Path, channels: str, **options: Any) -> np.ndarray:
    """What a store of a file holds of one channel: (T, H, W)."""
    path = folder / "raw.nc"
    dataset.to_netcdf(path, **({"engine": "h5netcdf"} | options.pop("to_netcdf", {})))
    return prepared(path, folder / "s.zarr", channels, **options)


def prepared(path: Path, out: Path, channels: str, **options: Any) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The training period|no training period")
        prepare_era5(
            [str(path)], out, channels=channels, grid="native", climatology="mean", **options
        )
    return Store.open(out).read(slice(None))[:, 0]


SPEED, NORTH = {"long_name": "10m wind speed"}, {"standard_name": "northward_wind"}
OTHERS: dict[str, tuple[tuple[Any, ...], dict[str, str], str]] = {
    "U10 of CESM is a speed": (("U10", "m/s", 8.0, 2.0), SPEED, "u10"),
    "a speed by standard name": (("u", "m s-1", 8.0, 2.0, 500), {"standard_name": "wind_speed"}, "u500"),
    "u and v exchanged": (("u", "m s-1", 8.0, 2.0, 500), NORTH, "u500"),
    "a meridional u": (("ua", "m s-1", 8.0, 2.0, 500), {"long_name": "Meridional wind"}, "u500"),
    "a daily maximum": (("tas", "K", 290.0, 5.0), {"long_name": "Daily Maximum Near-Surface Air Temperature"}, "t2m"),
    "skin temperature": (("t2m", "K", 280.0, 5.0), {"standard_name": "surface_temperature"}, "t2m"),
    "pressure at the ground": (("slp", "Pa", 1e5, 500.0), {"standard_name": "surface_air_pressure"}, "msl"),
    "pressure at the sea": (("ps", "Pa", 1e5, 500.0), {"long_name": "Sea Level Pressure"}, "sp"),
    "relative humidity": (("q", "1", 0.02, 0.001, 1000), {"long_name": "Relative humidity"}, "q1000"),
    "a standard error": (("u10", "m s-1", 0.0, 2.0), {"standard_name": "eastward_wind standard_error"}, "u10"),
    "an increment": (("u10", "m s-1", 0.0, 2.0), {"long_name": "Analysis increment of 10 m u wind"}, "u10"),
    "absolute vorticity": (("vo", "s-1", 1e-4, 1e-5, 500), {"standard_name": "atmosphere_absolute_vorticity"}, "vo500"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_another_quantity_under_the_name_of_ours(case: str, tmp_path: Path) -> None:
    made, attrs, channel = OTHERS[case]
    dataset = field(*made)
    dataset[made[0]].attrs |= attrs
    with pytest.raises(ValueError, match="which is another quantity: name files of"):
        stored(dataset, tmp_path, channel)
    assert not (tmp_path / "s.zarr").exists()


def test_means_over_many_years_are_states_of_no_time(tmp_path: Path) -> None:
    by_time = field("t2m", "K", 280.0, 5.0)
    by_time["time"].attrs["climatology"] = "climatology_bnds"
    by_field = field("t2m", "K", 280.0, 5.0)
    by_field["t2m"].attrs["cell_methods"] = "time: mean within years time: mean over years"
    for dataset in (by_time, by_field):
        with pytest.raises(ValueError, match="that it is a mean over many years"):
            stored(dataset, tmp_path, "t2m")


@pytest.mark.parametrize(
    ("made", "attrs", "channel", "factor"),
    [
        (("u", "m s-1", 8.0, 2.0, 500), {"standard_name": "eastward_wind"}, "u500", 1.0),
        (("uas", "m s-1", 8.0, 2.0), {"long_name": "Eastward Near-Surface Wind"}, "u10", 1.0),
        (("u10", "m s-1", 8.0, 2.0), {"long_name": "10 metre U wind component"}, "u10", 1.0),
        (("v10", "m s-1", 8.0, 2.0), {"standard_name": "y_wind"}, "v10", 1.0),
        (("tas", "K", 280.0, 5.0), {"standard_name": "air_temperature"}, "t2m", 1.0),
        (("z", "m2 s-2", 55e3, 900.0, 500), {"standard_name": "geopotential"}, "z500", 1.0),
        (("zg", "m", 5600.0, 90.0, 500), {"standard_name": "geopotential_height"}, "z500", 9.80665),
        (("sst", "K", 290.0, 5.0), {"long_name": "Sea surface temperature"}, "sst", 1.0),
    ],
)  # fmt: skip
def test_the_quantity_itself_under_names_that_centres_write(
    made: tuple[Any, ...], attrs: dict[str, str], channel: str, factor: float, tmp_path: Path
) -> None:
    dataset = field(*made)
    dataset[made[0]].attrs |= attrs
    found = stored(dataset, tmp_path, channel)
    np.testing.assert_allclose(found, dataset[made[0]].values * factor, rtol=1e-6)


HEIGHTS: dict[str, tuple[str, float | None, dict[str, str], str | None]] = {
    "1.5 m of HadGEM": ("tas", 1.5, {}, None),
    "2 m twice": ("t2m", 2.0, {"long_name": "2 metre temperature"}, None),
    "10 m by name": ("u10", None, {"long_name": "10 metre U wind component"}, None),
    "50 m": ("tas", 50.0, {}, "50 m"),
    "100 m by coordinate": ("uas", 100.0, {}, "100 m"),
    "100 m by name": ("u10", None, {"long_name": "100 metre U wind component"}, "100 m"),
    "80 m by name": ("v10", None, {"long_name": "V-wind at 80m"}, "80 m"),
}


@pytest.mark.parametrize("case", HEIGHTS)
def test_heights_above_the_ground(case: str, tmp_path: Path) -> None:
    name, height, attrs, refused = HEIGHTS[case]
    is_wind = name[0] in "uv"
    units, mean = ("m s-1", 3.0) if is_wind else ("K", 280.0)
    channel = f"{name[0]}10" if is_wind else "t2m"
    dataset = field(name, units, mean, 2.0)
    dataset[name].attrs |= attrs
    if height is not None:
        dataset = dataset.assign_coords(
            height=((), height, {"units": "m", "standard_name": "height"})
        )
    if refused is None:
        np.testing.assert_array_equal(stored(dataset, tmp_path, channel), dataset[name].values)
        return
    with pytest.raises(ValueError, match=f"says that it is {refused} above the ground"):
        stored(dataset, tmp_path, channel)


GFS: dict[str, tuple[str, str, str, float, float]] = {
    # name in the file, units, channel, mean, factor
    "TMP_500mb": ("TMP_500mb", "K", "t500", 255.0, 1.0),
    "HGT_500mb": ("HGT_500mb", "gpm", "z500", 5600.0, 9.80665),
    "TMP_2maboveground": ("TMP_2maboveground", "K", "t2m", 280.0, 1.0),
    "UGRD_10maboveground": ("UGRD_10maboveground", "m/s", "u10", 3.0, 1.0),
    "PRMSL_meansealevel": ("PRMSL_meansealevel", "Pa", "msl", 101e3, 1.0),
    "tmp2m of GrADS": ("tmp2m", "K", "t2m", 280.0, 1.0),
    "THREDDS": ("Pressure_reduced_to_MSL_msl", "Pa", "msl", 101e3, 1.0),
}


@pytest.mark.parametrize("case", GFS)
def test_names_of_gfs_and_times_of_wgrib2(case: str, tmp_path: Path) -> None:
    name, units, channel, mean, factor = GFS[case]
    dataset = field(name, units, mean, mean / 100)
    seconds = (times() - np.datetime64("1970-01-01")) / np.timedelta64(1, "s")
    since = {"units": "seconds since 1970-01-01 00:00:00.0 0:00"}
    found = stored(dataset.assign_coords(time=("time", seconds, since)), tmp_path, channel)
    np.testing.assert_allclose(found, dataset[name].values * factor, rtol=1e-6)
    assert (Store.open(tmp_path / "s.zarr").times == times()).all()


@pytest.mark.parametrize(
    ("name", "axis", "levels", "attrs"),
    [
        ("tmpprs", "lev", [850.0, 500.0], {"units": "millibar", "long_name": "altitude"}),
        ("Temperature_isobaric", "isobaric1", [85000.0, 50000.0], {"units": "Pa"}),
    ],
)
def test_levels_of_gfs(
    name: str, axis: str, levels: list[float], attrs: dict[str, str], tmp_path: Path
) -> None:
    low, high = field("t", "K", 280.0, 2.0), field("t", "K", 255.0, 3.0)
    both = xr.concat([low, high], axis).transpose("time", axis, "latitude", "longitude")
    both = both.assign_coords({axis: (axis, levels, attrs)}).rename(t=name)
    np.testing.assert_array_equal(stored(both, tmp_path, "t500"), high["t"].values)


@pytest.mark.parametrize(
    "limits",
    [
        {"valid_range": np.array([200, 330], np.float32)},
        {"valid_min": np.float32(200)},
        {"valid_min": 200.0, "valid_max": 330.0},
    ],
)
def test_values_that_are_not_valid_are_missing(limits: dict[str, Any], tmp_path: Path) -> None:
    dataset = field("t2m", "K", 280.0, 5.0)
    right = dataset["t2m"].values.copy()
    dataset["t2m"].values[:, 0, :2], right[:, 0, :2] = 160.0, np.nan
    dataset["t2m"].attrs |= limits
    np.testing.assert_array_equal(stored(dataset, tmp_path, "t2m", allow_missing=True), right)
    with pytest.raises(
        ValueError, match=r"other than the 200 .* is valid, in 2 of 128 cells .*valid_range"
    ):
        prepared(tmp_path / "raw.nc", tmp_path / "other.zarr", "t2m")


@pytest.mark.parametrize(
    ("limits", "valid"),
    [
        ({"valid_min": np.int16(-10)}, (-np.inf, 285.0)),
        ({"valid_max": np.int16(20)}, (270.0, np.inf)),
        ({"valid_range": np.array([-10, 20], np.int16)}, (270.0, 285.0)),
        ({"valid_min": 270.0}, (270.0, np.inf)),
    ],
)
def test_a_negative_scale_exchanges_packed_limits(
    limits: dict[str, Any], valid: tuple[float, float]
) -> None:
    packed = {"dtype": np.dtype("i2"), "scale_factor": -0.5, "add_offset": 280.0}
    found = valid_range(xr.Variable("x", [280.0], limits, packed))
    assert found == pytest.approx(valid, abs=1e-3)


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("packed_limits", [True, False])
def test_limits_of_packed_values(unsigned: bool, packed_limits: bool, tmp_path: Path) -> None:
    dataset = field("t2m", "K", 280.0, 5.0)
    offset, scale = (240.0, 0.001) if unsigned else (280.0, 0.002)
    numbers = np.round((dataset["t2m"].values - offset) / scale)
    right = (numbers * scale + offset).astype(np.float32)
    stored_as = numbers.astype("u2").view("i2") if unsigned else numbers.astype("i2")
    coldest = 275.0
    limits = np.array([(coldest - offset) / scale, (320 - offset) / scale])
    kind = np.uint16 if unsigned else np.int16
    attrs: dict[str, Any] = {
        "units": "K", "scale_factor": scale, "add_offset": offset,
        "valid_range": (
            np.clip(np.round(limits), 0 if unsigned else -32768, 65535 if unsigned else 32767)
            .astype(kind).view(np.int16)
            if packed_limits else np.array([coldest, 320.0])
        ),
        **({"_Unsigned": "true"} if unsigned else {}),
    }  # fmt: skip
    packed = dataset.assign(t2m=(dataset["t2m"].dims, stored_as, attrs))
    right[right < coldest - 1e-3] = np.nan
    found = stored(
        packed, tmp_path, "t2m", allow_missing=True,
        to_netcdf={"engine": "scipy", "format": "NETCDF3_64BIT"},
    )  # fmt: skip
    assert 0 < np.isnan(right).mean() < 0.5
    np.testing.assert_allclose(found, right, atol=2e-3)


def test_limits_that_all_values_keep_change_nothing(tmp_path: Path) -> None:
    dataset = field("t2m", "K", 280.0, 5.0)
    low, high = dataset["t2m"].values.min(), dataset["t2m"].values.max()
    dataset["t2m"].attrs["valid_range"] = np.array([low, high], np.float32)
    np.testing.assert_array_equal(stored(dataset, tmp_path, "t2m"), dataset["t2m"].values)


@pytest.mark.parametrize(
    ("made", "mark", "channel"),
    [
        (("z", "m2 s-2", 900.0, 300.0, 1000), -9999.0, "z1000"),
        (("w", "Pa s-1", 0.0, 0.3, 500), -99.0, "w500"),
    ],
)
def test_marks_of_missing_values_within_the_bounds_of_a_cell(
    made: tuple[Any, ...], mark: float, channel: str, tmp_path: Path
) -> None:
    dataset = field(*made)
    dataset[made[0]].values[:, 0, :1] = mark
    with pytest.raises(ValueError, match=rf"exactly {mark:g} in 1 of 128 cells"):
        stored(dataset, tmp_path, channel)


def test_unpacked_values_that_kept_their_scale(tmp_path: Path) -> None:
    path = tmp_path / "raw.nc"
    field("t2m", "K", 280.0, 5.0).to_netcdf(path, engine="h5netcdf")
    with h5py.File(path, "a") as file:
        file["t2m"].attrs["scale_factor"], file["t2m"].attrs["add_offset"] = 0.0021, 265.3
    with pytest.raises(ValueError, match=r"make 265\.9 of 28.* both believable: if it is unpacked"):
        prepared(path, tmp_path / "s.zarr", "t2m")


def test_floating_point_numbers_that_need_their_scale_are_read(tmp_path: Path) -> None:
    path, dataset = tmp_path / "raw.nc", field("msl", "Pa", 1010.0, 5.0)
    dataset.to_netcdf(path, engine="h5netcdf")
    with h5py.File(path, "a") as file:
        file["msl"].attrs["scale_factor"] = 100.0
    right = dataset["msl"].values * np.float32(100)
    np.testing.assert_allclose(prepared(path, tmp_path / "s.zarr", "msl"), right, rtol=1e-6)


@pytest.mark.parametrize("in_coordinates", [True, False])
@pytest.mark.parametrize("names", [("y", "x"), ("nlat", "nlon")])
def test_latitudes_along_a_dimension_of_another_name(
    names: tuple[str, str], in_coordinates: bool, tmp_path: Path
) -> None:
    values = field("t2m", "K", 280.0, 5.0)["t2m"].values
    rows, columns = names
    places = {
        "lat": (rows, LATITUDE[::-1], {"units": "degrees_north"}),
        "lon": (columns, LONGITUDE, {"units": "degrees_east"}),
    }
    fields = {"t2m": (("time", rows, columns), values[:, ::-1], {"units": "K"})}
    dataset = xr.Dataset(
        fields | ({} if in_coordinates else places),
        coords={"time": times(), **(places if in_coordinates else {})},
    )
    np.testing.assert_array_equal(stored(dataset, tmp_path, "t2m"), values)
    assert Store.open(tmp_path / "s.zarr").latitude.tolist() == LATITUDE.tolist()


def test_cells_of_an_unstructured_grid_are_no_rows(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(280, 5, (4, 30)).astype(np.float32)
    places = {name: ("cell", np.linspace(-80, 80, 30)) for name in ("lat", "lon")}
    fields = {"t2m": (("time", "cell"), values, {"units": "K"})}
    with pytest.raises(ValueError, match=r"no latitude axis \(its axes are time, cell\)"):
        stored(xr.Dataset(fields, {"time": times(), **places}), tmp_path, "t2m")


def test_a_scaled_field_without_any_value_is_missing(tmp_path: Path) -> None:
    dataset = field("t2m", "K", 280.0, 5.0)
    right = dataset["t2m"].values - np.float32(273.15)
    right[1] = np.nan
    dataset["t2m"].values[:] = right
    path = tmp_path / "raw.nc"
    dataset.to_netcdf(path, engine="h5netcdf")
    with h5py.File(path, "a") as file:
        file["t2m"].attrs["add_offset"] = 273.15
    found = prepared(path, tmp_path / "s.zarr", "t2m", allow_missing=True)
    np.testing.assert_allclose(found, right + 273.15, rtol=1e-6)


def absolute(dtype: str = "f8", first: float = 20200228.75) -> xr.Dataset:
    """Times as CDO writes them: 28 February 18 h, 29 February 0 h and 6 h, 1 March 0 h."""
    days = np.array([first, 20200229.0, 20200229.25, 20200301.0]).astype(dtype)
    attrs = {"units": "day as %Y%m%d.%f", "calendar": "proleptic_gregorian"}
    return field("t2m", "K", 280.0, 5.0).assign_coords(time=("time", days, attrs))


def test_absolute_times_of_cdo(tmp_path: Path) -> None:
    path = tmp_path / "raw.nc"
    absolute().to_netcdf(path)
    judge = Believable()
    found = open_era5([str(path)], ChannelSet.of("t2m"), judge=judge)
    assert [str(time)[:16] for time in found["time"].values] == [
        "2020-02-28T18:00", "2020-02-29T00:00", "2020-02-29T06:00", "2020-03-01T00:00",
    ]  # fmt: skip
    np.testing.assert_array_equal(found.values[:, 0], field("t2m", "K", 280.0, 5.0)["t2m"].values)


@pytest.mark.parametrize(
    ("dataset", "why"),
    [(absolute("f4"), "in single precision"), (absolute(first=20200230.0), "which is no date")],
)
def test_absolute_times_that_are_none(dataset: xr.Dataset, why: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=why):
        stored(dataset, tmp_path, "t2m")


def test_variables_in_groups_are_named(tmp_path: Path) -> None:
    dataset = field("t2m", "K", 280.0, 5.0)
    dataset.to_netcdf(tmp_path / "raw.nc", engine="h5netcdf", group="surface")
    with pytest.raises(ValueError, match=r"no variables but groups \(surface\): copy .* ncks"):
        prepared(tmp_path / "raw.nc", tmp_path / "s.zarr", "t2m")
    for version in (2, 3):
        store = tmp_path / f"raw{version}.zarr"
        dataset.to_zarr(store, group="surface", zarr_format=version, consolidated=False)
        with pytest.raises(ValueError, match=r"name the one that is meant as .*zarr/surface"):
            prepared(store, tmp_path / "s.zarr", "t2m")
        found = prepared(store / "surface", tmp_path / f"s{version}.zarr", "t2m")
        np.testing.assert_array_equal(found, dataset["t2m"].values)


def test_height_of_a_pressure_level_is_no_orography(tmp_path: Path) -> None:
    rows, columns = -87.5 + 5.0 * np.arange(36), 5.0 * np.arange(72)
    values = np.random.default_rng(0).normal(5600, 200, (36, 72)).astype(np.float32)
    grid = {
        "latitude": ("latitude", rows, {"units": "degrees_north"}),
        "longitude": ("longitude", columns, {"units": "degrees_east"}),
    }
    t2m = np.random.default_rng(1).normal(280, 5, (4, 36, 72)).astype(np.float32)
    xr.Dataset(
        {
            "hgt": (("latitude", "longitude"), values, {"units": "m"}),
            "t2m": (("time", "latitude", "longitude"), t2m, {"units": "K"}),
        },
        coords={"time": times(), **grid},
    ).to_netcdf(tmp_path / "raw.nc")
    source = str(tmp_path / "raw.nc")
    with pytest.raises(ValueError, match="is geopotential of a pressure level"):
        prepared(
            tmp_path / "raw.nc", tmp_path / "s.zarr", "t2m", static=["orography"],
            static_sources=[source],
        )  # fmt: skip
