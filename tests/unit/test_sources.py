"""Raw files of every common layout, written for real, and what is wrong with bad ones."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciml_dchag.channels import ChannelSet
from sciml_dchag.data.samples import sample_path
from sciml_dchag.prepare.layouts import open_raw
from sciml_dchag.prepare.sources import list_contents, open_era5, open_static

ROWS, COLUMNS = np.linspace(90, -90, 5), np.arange(0.0, 360.0, 45.0)


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
    values = np.random.default_rng(1).normal(5e4, 1e3, (4, len(levels), 5, 8))
    return xr.Dataset(
        {name: (("time", "level", "latitude", "longitude"), values, {"units": units})},
        coords={"time": times(), "level": levels, "latitude": ROWS, "longitude": COLUMNS},
    )


def saved(dataset: xr.Dataset, path: Path, **options: object) -> str:
    dataset.to_netcdf(path, **options)
    return str(path)


def read(sources: list[str], channels: str, **options: object) -> xr.DataArray:
    return open_era5(sources, ChannelSet.of(channels), **options)  # type: ignore[arg-type]


def test_the_embedded_sample_in_the_new_layout() -> None:
    state = read([str(sample_path("era5_msl"))], "msl")
    assert state.dims == ("time", "channel", "latitude", "longitude")
    assert state.shape == (124, 1, 73, 144) and state.dtype == np.float32
    assert state.chunks is not None  # nothing is read yet
    assert "Copernicus" in state.attrs["attribution"] and "2025" in state.attrs["attribution"]
    assert state.attrs["simulated"] == 0
    with xr.open_dataset(sample_path("era5_msl")) as raw:
        np.testing.assert_array_equal(state[7, 0].values, raw["msl"][7].values)


def test_layouts_of_one_field_are_one_state(tmp_path: Path) -> None:
    plain = surface()
    expected = plain["t2m"].values
    new = plain.rename(time="valid_time").assign_coords(number=0, expver=("valid_time", ["1"] * 4))
    packed = {"t2m": {"dtype": "int16", "scale_factor": 1e-3, "add_offset": 280.0,
                      "_FillValue": -32767}}  # fmt: skip
    twice = xr.concat(
        [plain.where(plain["time"] < times()[2]), plain.where(plain["time"] >= times()[2])],
        dim=xr.Variable("expver", [1, 5]),
    )
    files = {
        "plain": saved(plain, tmp_path / "plain.nc"),
        "new": saved(new, tmp_path / "new.nc"),
        "packed": saved(plain, tmp_path / "packed.nc", encoding=packed),
        "names": saved(
            plain.rename(t2m="2m_temperature", latitude="lat", longitude="lon"),
            tmp_path / "names.nc",
        ),
        "member": saved(plain.expand_dims(number=[0]), tmp_path / "member.nc"),
        "expver": saved(twice, tmp_path / "expver.nc"),
        "order": saved(plain.transpose("longitude", "time", "latitude"), tmp_path / "order.nc"),
        "classic": saved(plain, tmp_path / "classic.nc", format="NETCDF3_64BIT"),
    }
    for version in (2, 3):
        plain.to_zarr(tmp_path / f"v{version}.zarr", zarr_format=version)
        files[f"zarr{version}"] = str(tmp_path / f"v{version}.zarr")
    for name, file in files.items():
        state = read([file], "t2m")
        tolerance = 1e-3 if name == "packed" else 0
        np.testing.assert_allclose(state[:, 0].values, expected, rtol=0, atol=tolerance)
        assert state["time"].values[0] == times()[0], name


def test_times_in_hours_whose_units_stand_in_the_attributes(tmp_path: Path) -> None:
    hours = np.array([755880, 755887, 755894, 755902])
    indexed = surface().rename(time="time_index").assign_coords(time_index=hours)
    indexed.attrs["time_units"] = "hours since 1940-01-01 00:00 (proleptic_gregorian)"
    indexed.to_zarr(tmp_path / "indexed.zarr")
    state = read([str(tmp_path / "indexed.zarr")], "t2m")
    assert str(state["time"].values[0])[:13] == "2026-03-25T00"
    with pytest.raises(ValueError, match="After 2026-03-25T00:00 the next time comes 7 h later"):
        read([str(tmp_path / "indexed.zarr")], "t2m", step_hours=6)


@pytest.mark.parametrize(
    ("levels", "units"), [([500, 850], "hPa"), ([50000, 85000], "Pa"), ([50000, 85000], "")]
)
def test_levels_in_hpa_or_pa(tmp_path: Path, levels: list[int], units: str) -> None:
    dataset = on_levels(levels)
    dataset["level"].attrs["units"] = units
    state = read([saved(dataset, tmp_path / "z.nc")], "z850,z500")
    assert state["channel"].values.tolist() == ["z850", "z500"]
    np.testing.assert_allclose(state[2, 1].values, dataset["z"].values[2, 0], rtol=1e-6)


def test_levels_that_can_only_be_pa(tmp_path: Path) -> None:
    dataset = on_levels([50000, 85000])
    dataset["level"].attrs["units"] = "hPa"
    with pytest.raises(ValueError, match="level 85000 labelled hPa"):
        read([saved(dataset, tmp_path / "z.nc")], "z500")


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


def test_units_are_converted_where_there_is_no_doubt(tmp_path: Path) -> None:
    pressure = surface("msl", "hPa") + 720
    pressure["msl"].attrs["units"] = "hPa"
    state = read([saved(pressure, tmp_path / "p.nc")], "msl")
    np.testing.assert_allclose(state[:, 0].values, 100 * pressure["msl"].values, rtol=1e-6)
    height = on_levels([500], units="gpm") / 9
    height["z"].attrs["units"] = "gpm"
    state = read([saved(height, tmp_path / "z.nc")], "z500")
    np.testing.assert_allclose(state[:, 0], 9.80665 * height["z"].values[:, 0], rtol=1e-6)
    with pytest.raises(ValueError, match="t2m in 'degC' where 'K' is needed"):
        read([saved(surface(units="degC"), tmp_path / "c.nc")], "t2m")


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


def test_grib(tmp_path: Path) -> None:
    pytest.importorskip("cfgrib")
    eccodes = pytest.importorskip("eccodes")
    path = tmp_path / "t.grib"
    with path.open("wb") as file:
        for step, hour in enumerate((0, 6)):
            handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
            settings = {
                "dataDate": 20010101, "dataTime": hour * 100, "shortName": "t", "level": 500,
                "Ni": 8, "Nj": 5, "iDirectionIncrementInDegrees": 45,
                "jDirectionIncrementInDegrees": 45, "latitudeOfFirstGridPointInDegrees": 90,
                "latitudeOfLastGridPointInDegrees": -90, "longitudeOfFirstGridPointInDegrees": 0,
                "longitudeOfLastGridPointInDegrees": 315,
            }  # fmt: skip
            for key, value in settings.items():
                eccodes.codes_set(handle, key, value)
            eccodes.codes_set_values(handle, 250.0 + step + np.arange(40.0))
            eccodes.codes_write(handle, file)
            eccodes.codes_release(handle)
    state = read([str(path)], "t500")
    assert state.shape == (2, 1, 5, 8)
    np.testing.assert_allclose(state[1, 0].values.ravel(), 251.0 + np.arange(40.0), atol=0.01)
    assert list(tmp_path.iterdir()) == [path]  # no index is left beside it


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
        ([surface()], "t2m@-6h", "no state of the atmosphere"),
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


def test_unreadable_files(tmp_path: Path) -> None:
    whole = saved(surface(), tmp_path / "whole.nc")
    for name, content in {
        "truncated.nc": Path(whole).read_bytes()[:3000],
        "empty.nc": b"",
        "text.nc": b"not a data file",
        "short.grib": b"GRIB\x00\x00",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            open_raw(str(tmp_path / name))
    for absent in ("absent.nc", "absent*.nc"):
        with pytest.raises(FileNotFoundError, match="There is no file"):
            read([str(tmp_path / absent)], "t2m")


def test_contents_are_listed_without_reading_values(tmp_path: Path) -> None:
    files = [saved(surface(), tmp_path / "a.nc"), saved(on_levels([500, 850]), tmp_path / "b.nc")]
    contents = list_contents(files)
    assert contents["variables"] == ["t2m", "z on 2 level(s): 500, 850 hPa"]
    assert contents["times"] == 4 and str(contents["grid"]).startswith("5 x 8")
