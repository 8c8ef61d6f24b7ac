"""Raw files of every common layout, written for real or cut from real ones, and bad ones."""

import pickle
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from sciml_dchag.channels import ChannelSet
from sciml_dchag.data.samples import sample_path
from sciml_dchag.prepare.layouts import open_raw
from sciml_dchag.prepare.regrid import regrid
from sciml_dchag.prepare.sources import list_contents, open_era5, open_static

DATA = Path(__file__).parents[1] / "data" / "weather"
GAUSSIAN = str(DATA / "era5_state_1959-01-02T00_gaussian_3levels.nc")
MEMBERS = DATA / "era5_z_t_2members.grib"
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


def to_zarr(dataset: xr.Dataset, path: Path, **options: object) -> str:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        dataset.to_zarr(path, **options)  # type: ignore[call-overload]
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
    percent = saved(land * 100, tmp_path / "percent.nc")
    with pytest.raises(ValueError, match="lsm has a mean of"):
        open_static([percent], ["lsm"])


def test_grib(tmp_path: Path) -> None:
    pytest.importorskip("cfgrib")
    eccodes = pytest.importorskip("eccodes")
    path, expected = tmp_path / "member.grib", {}
    with MEMBERS.open("rb") as members, path.open("wb") as file:
        while (message := eccodes.codes_grib_new_from_file(members)) is not None:
            keys = [eccodes.codes_get(message, key) for key in ("shortName", "level", "dataTime")]
            if eccodes.codes_get(message, "number") == 1:
                eccodes.codes_write(message, file)
                expected[tuple(keys)] = eccodes.codes_get_values(message).reshape(61, 120)
            eccodes.codes_release(message)
    state = read([str(path)], "z500,t850,t500")
    assert state.shape == (2, 3, 61, 120) and state["latitude"].values[0] == 90
    for keys, position in {
        ("z", 500, 1200): (1, 0), ("t", 850, 0): (0, 1), ("t", 500, 1200): (1, 2),
    }.items():  # fmt: skip
        np.testing.assert_allclose(state[position].values, expected[keys], rtol=1e-7)
    assert list(tmp_path.iterdir()) == [path]  # no index is left beside it
    with pytest.raises(ValueError, match="holds 2 ensemble members of z"):
        read([str(MEMBERS)], "z500")
    assert list_contents([str(MEMBERS)])["variables"] == [
        "z on 2 level(s): 500, 850 hPa", "t on 2 level(s): 500, 850 hPa",
    ]  # fmt: skip


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
    (half / "progress.json").write_text('{"fingerprint": "", "times_done": 3, "times": 12}')
    with pytest.raises(ValueError, match="half written"):
        read([str(half)], "t2m")


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


def test_what_is_not_asked_for_need_not_fit(tmp_path: Path) -> None:
    other = surface("sst", "degC").isel(latitude=slice(0, 3))
    members = surface("u10", "m/s").expand_dims(number=[0, 1])
    files = [saved(d, tmp_path / f"{i}.nc") for i, d in enumerate((surface(), other, members))]
    assert read(files, "t2m").shape == (4, 1, 5, 8)


def test_coordinates_rounded_to_float32_are_the_same_grid(tmp_path: Path) -> None:
    rows, columns = np.linspace(80.1, -80.1, 5), np.arange(8) * 45.1
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["time"].attrs.clear() or d, "times without units"),
        (lambda d: d["time"].attrs.update(units="fortnights") or d, "times in 'fortnights'"),
        (lambda d: d["time"].attrs.update(units="days since 2001-02-01", calendar="360_day") or d,
         "calendar '360_day'"),
        (lambda d: d.expand_dims(level=[1, 2]).assign_coords(level=("level", [1, 2], {"units": "m"})),
         "levels in 'm'"),
        (lambda d: d.rename(latitude="row"), "no latitude axis"),
        (lambda d: d.assign_coords(longitude=COLUMNS[::-1]), "Longitudes must run eastward"),
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


@pytest.mark.parametrize("scheme", ["gs", "s3", "https"])
def test_clouds_need_an_extra(scheme: str) -> None:
    fsspec = pytest.importorskip("fsspec")
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError:
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'sciml-dchag\[cloud\]'"):
            read([f"{scheme}://bucket/era5.zarr"], "t2m")
    else:
        pytest.skip(f"{scheme}:// is installed here")


def test_urls(tmp_path: Path) -> None:
    to_zarr(surface(), tmp_path / "a.zarr", zarr_format=2)
    saved(surface(), tmp_path / "a.nc")
    for name in ("a.zarr", "a.nc"):
        state = read([f"file://{tmp_path / name}"], "t2m")
        np.testing.assert_array_equal(state[:, 0].values, surface()["t2m"].values)
    with pytest.raises(ValueError, match="Protocol not known: nowhere"):
        read(["nowhere://a.zarr"], "t2m")


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
