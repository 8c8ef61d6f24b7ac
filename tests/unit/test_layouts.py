"""What one raw file may look like: layouts, units, levels, damage, URLs."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import eccodes
import numpy as np
import pytest
import xarray as xr
from fsspec.registry import _registry
from raw_files import COLUMNS, MEMBERS, on_levels, read, saved, surface, times, to_zarr

from sciml_dchag.weather.prepare.contents import list_contents
from sciml_dchag.weather.prepare.layouts import open_raw
from sciml_dchag.weather.prepare.sources import open_era5


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
        "alone": saved(plain[["t2m"]].assign(soil=("depth", [1.0, 2.0])), tmp_path / "alone.nc"),
        "expvers turned": saved(twice.isel(expver=[1, 0]), tmp_path / "turned.nc"),
    }
    for version in (2, 3):
        to_zarr(plain, tmp_path / f"v{version}.zarr", zarr_format=version)
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
    to_zarr(indexed, tmp_path / "indexed.zarr")
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


def test_grib(tmp_path: Path) -> None:
    path, expected = tmp_path / "member.grib", {}
    with MEMBERS.open("rb") as members, path.open("wb") as file:
        while (message := eccodes.codes_grib_new_from_file(members)) is not None:
            keys = [eccodes.codes_get(message, key) for key in ("shortName", "level", "dataTime")]
            if eccodes.codes_get(message, "number") == 1:
                eccodes.codes_write(message, file)
                expected[tuple(keys)] = eccodes.codes_get_values(message).reshape(61, 120)
            eccodes.codes_release(message)
    state = read([str(path)], "z500,t850,t500")
    assert state.shape == (2, 3, 61, 120) and state["latitude"].values[0] == -90
    for keys, position in {
        ("z", 500, 1200): (1, 0), ("t", 850, 0): (0, 1), ("t", 500, 1200): (1, 2),
    }.items():  # fmt: skip
        np.testing.assert_allclose(state[position].values, expected[keys][::-1], rtol=1e-7)
    assert list(tmp_path.iterdir()) == [path]  # no index is left beside it
    with pytest.raises(ValueError, match="holds 2 ensemble members of z"):
        read([str(MEMBERS)], "z500")
    assert list_contents([str(MEMBERS)])["variables"] == [
        "z on 2 level(s): 500, 850 hPa", "t on 2 level(s): 500, 850 hPa",
    ]  # fmt: skip


def test_unreadable_files(tmp_path: Path) -> None:
    whole = saved(surface(), tmp_path / "whole.nc")
    classic = saved(surface(), tmp_path / "whole3.nc", format="NETCDF3_64BIT")
    for name, content in {
        "truncated.nc": Path(whole).read_bytes()[:3000],
        "truncated3.nc": Path(classic).read_bytes()[:-100],
        "archive.nc": b"PK\x03\x04",
        "truncated.grib": MEMBERS.read_bytes()[:20000],
        "empty.nc": b"",
        "rare.nc": b"CDF\x05",
        "text.nc": b"not a data file",
        "short.grib": b"GRIB\x00\x00",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            open_raw(str(tmp_path / name))
    for absent in ("absent.nc", "absent*.nc"):
        with pytest.raises(FileNotFoundError, match="There is no file"):
            read([str(tmp_path / absent)], "t2m")


def test_damage_in_the_middle_is_found_when_it_is_read(tmp_path: Path) -> None:
    path = Path(to_zarr(surface(), tmp_path / "a.zarr", zarr_format=3))
    chunk = path / "t2m" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:40])
    state = read([str(path)], "t2m")
    with pytest.raises(ValueError, match="a.zarr cannot be read .* truncated or damaged"):
        state.compute(scheduler="synchronous")


def test_a_half_written_store_is_no_source(tmp_path: Path, simulated_store: Path) -> None:
    half = tmp_path / "half.zarr.partial"
    shutil.copytree(simulated_store, half)
    (half / "progress.json").write_text(
        '{"fingerprint": "", "done": 3, "total": 12, "parts": "times"}'
    )
    with pytest.raises(ValueError, match="half written"):
        read([str(half)], "t2m")


def test_the_time_of_a_forecast_is_the_one_it_is_for(tmp_path: Path) -> None:
    six = np.timedelta64(6, "h").astype("timedelta64[ns]")
    forecast = surface().assign_coords(valid_time=("time", times() + six), step=six)
    assert read([saved(forecast, tmp_path / "f.nc")], "t2m")["time"].values[0] == times()[0] + six
    steps = surface().expand_dims(step=[1, 2])
    with pytest.raises(ValueError, match="holds 2 values of t2m .dimension step. where one"):
        read([saved(steps, tmp_path / "s.nc")], "t2m")


def test_precipitation_over_several_spans_is_the_shortest(tmp_path: Path) -> None:
    """WeatherBench 2's stores hold both, which must not keep anyone from reading the rest."""
    both = xr.merge([
        surface("total_precipitation_24hr", "m"), surface("total_precipitation_6hr", "m", seed=2),
        surface("2m_temperature"),
    ])  # fmt: skip
    state = read([saved(both, tmp_path / "tp.nc")], "t2m,tp")
    np.testing.assert_array_equal(state[:, 1].values, both["total_precipitation_6hr"].values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["time"].attrs.clear() or d, "times without units"),
        (lambda d: d["time"].attrs.update(units="fortnights") or d, "times in 'fortnights'"),
        (lambda d: d["time"].attrs.update(units="days since 2001-02-01", calendar="none") or d,
         "calendar 'none'"),
        (lambda d: d.expand_dims(level=[1, 2]).assign_coords(level=("level", [1, 2], {"units": "m"})),
         "levels in 'm'"),
        (lambda d: d.rename(latitude="row"), "no latitude axis"),
        (lambda d: d.assign_coords(longitude=COLUMNS[[1, 0, *range(2, len(COLUMNS))]]), "Longitudes must run eastward"),
    ],
)  # fmt: skip
def test_coordinates_without_meaning(
    tmp_path: Path, change: Callable[[xr.Dataset], xr.Dataset], message: str
) -> None:
    dataset = surface().assign_coords(time=[0, 1, 2, 3])
    dataset["time"].attrs["units"] = "days since 2001-01-01"
    with pytest.raises(ValueError, match=message) as refused:
        read([saved(change(dataset), tmp_path / "a.nc")], "t2m")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("scheme", "package"), [("gs", "gcsfs"), ("s3", "s3fs"), ("https", "aiohttp")]
)
def test_clouds_need_an_extra(scheme: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # not importable, installed or not
    # What another test may have loaded already would not be imported again.
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    monkeypatch.delitem(_registry, scheme, raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sciml-dchag\[cloud\]'"):
        read([f"{scheme}://bucket/era5.zarr"], "t2m")


def test_urls(tmp_path: Path) -> None:
    to_zarr(surface(), tmp_path / "a.zarr", zarr_format=2)
    saved(surface(), tmp_path / "a.nc")
    for name in ("a.zarr", "a.nc"):
        state = read([f"file://{tmp_path / name}"], "t2m")
        np.testing.assert_array_equal(state[:, 0].values, surface()["t2m"].values)
    with pytest.raises(ValueError, match="Protocol not known: nowhere"):
        read(["nowhere://a.zarr"], "t2m")


def test_two_names_of_one_variable_are_refused_where_neither_is_asked_for(tmp_path: Path) -> None:
    both = surface("2t").assign(tas=surface("tas", seed=1)["tas"], msl=surface("msl")["msl"] * 360)
    both["msl"].attrs["units"] = "Pa"
    file = saved(both, tmp_path / "a.nc")
    for asked in ("t2m", "t2m,msl"):
        with pytest.raises(ValueError, match="t2m of .*a.nc is in the file as 2t and tas, .* t2m"):
            read([file], asked)
    assert read([file], "msl")["channel"].values.tolist() == ["msl"]  # nothing speaks against it
    notes = list_contents([file])["notes"]
    assert any("2t and tas" in note for note in notes)


def test_the_name_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    both = surface("t2m").assign(tas=surface("tas", seed=1)["tas"])
    file = saved(both, tmp_path / "a.nc")
    np.testing.assert_array_equal(read([file], "t2m")[:, 0].values, both["t2m"].values)
    with pytest.raises(ValueError, match="t2m and tas, .* or name the channels"):
        open_era5([file], None)
