"""Files whose labels are not what they hold: units, quantities, levels, grids, times, numbers."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from raw_files import read, saved, times, to_zarr

from sciml_dchag.weather.prepare.checks import standard_geopotential
from sciml_dchag.weather.prepare.config import PrepareWeather
from sciml_dchag.weather.prepare.contents import list_contents
from sciml_dchag.weather.prepare.era5 import announce, prepare_era5
from sciml_dchag.weather.store.store import Store

LATITUDE = -87.5 + 5.0 * np.arange(36)
LONGITUDE = 5.0 * np.arange(72)


def field(
    name: str, units: str | None, mean: float, spread: float, level: float | None = None
) -> xr.Dataset:
    """Four times on a grid of the globe, on one level where one is given."""
    values = np.random.default_rng(0).normal(mean, spread, (4, 36, 72)).astype(np.float32)
    dataset = xr.Dataset(
        {name: (("time", "latitude", "longitude"), values)},
        coords={
            "time": times(),
            "latitude": ("latitude", LATITUDE, {"units": "degrees_north"}),
            "longitude": ("longitude", LONGITUDE, {"units": "degrees_east"}),
        },
    )
    if units is not None:
        dataset[name].attrs["units"] = units
    if level is not None:
        dataset = dataset.assign_coords(level=((), level, {"units": "hPa"}))
    return dataset


def prepared(dataset: xr.Dataset, channel: str, folder: Path, **options: object) -> np.ndarray:
    source = saved(dataset, folder / "source.nc")
    out = folder / "store.zarr"
    prepare_era5([source], out, channels=(channel,), grid="native", overwrite=True, **options)
    return Store.open(out).read(slice(None))[:, 0]


@pytest.mark.parametrize(
    ("channel", "level", "units", "mean", "spread", "factor"),
    [
        ("q50", 50, "kg kg-1", 2.5e-3, 1e-4, None),  # g kg-1
        ("q850", 850, "g kg-1", 6e-3, 1e-4, None),  # kg kg-1
        ("q850", 850, "g kg-1", 6.0, 0.1, 1e-3),
        ("r850", 850, "%", 0.5, 0.1, None),  # a fraction
        ("r850", 850, None, 0.5, 0.1, None),
        ("r850", 850, "1", 0.5, 0.1, 100.0),
        ("z1000", 1000, "m2 s-2", 90.0, 80.0, None),  # m
        ("z1000", 1000, "m", 90.0, 80.0, 9.80665),
    ],
)
def test_units_that_are_not_those_of_the_values(
    tmp_path: Path, channel: str, level: float, units: str | None, mean: float, spread: float,
    factor: float | None,
) -> None:  # fmt: skip
    dataset = field(channel[0], units, mean, spread, level)
    if factor is None:
        with pytest.raises(ValueError, match="set its units attribute to"):
            prepared(dataset, channel, tmp_path)
        return
    expected = dataset[channel[0]].values.astype(np.float64) * factor
    np.testing.assert_allclose(prepared(dataset, channel, tmp_path), expected, rtol=1e-6)


def test_metres_that_pass_for_geopotential_of_the_ground(tmp_path: Path) -> None:
    state = saved(field("msl", "Pa", 101e3, 300), tmp_path / "state.nc")
    ground = field("orography", "m2 s-2", 300, 500).isel(time=0, drop=True)
    settings = {"channels": ("msl",), "grid": "native", "static": ("orography",)}
    path = saved(abs(ground).assign(orography=lambda d: d.orography.assign_attrs(units="m2 s-2")), tmp_path / "a.nc")  # fmt: skip
    with pytest.raises(ValueError, match="which are metres: set its units attribute to m"):
        announce(PrepareWeather(sources=(state,), static_sources=(path,), **settings), (None, None))
    ground["orography"].attrs.clear()
    path = saved(ground, tmp_path / "b.nc")
    with pytest.raises(ValueError, match="orography as a height without units"):
        announce(PrepareWeather(sources=(state,), static_sources=(path,), **settings), (None, None))
    ground["orography"].attrs["units"] = "m"
    path = saved(ground, tmp_path / "c.nc")
    config = PrepareWeather(sources=(state,), static_sources=(path,), **settings)
    _, static = announce(config, (None, None))
    assert static is not None
    np.testing.assert_allclose(static[0], ground["orography"] * 9.80665, rtol=1e-6)


def test_sums_of_other_hours_or_units(tmp_path: Path) -> None:
    hourly = field("tp", "m", 1.2e-4, 1e-5)  # each sixth hour of sums over one
    with pytest.warns(UserWarning, match=r"of 0\.02 mm an hour .* over 6 h.* over 1 h .*tp_1h"):
        read([saved(hourly, tmp_path / "a.nc")], "tp")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        named = read([saved(hourly.rename(tp="tp_1h"), tmp_path / "b.nc")], "tp_1h")
    np.testing.assert_array_equal(named[:, 0], hourly["tp"])
    for name, units, mean in (("tp", "mm", 7e-4), ("ssrd", "J m-2", 190.0), ("strd", "J m-2", 340.0)):  # fmt: skip
        with pytest.raises(ValueError, match="correct its units attribute"):
            read([saved(field(name, units, mean, mean / 99), tmp_path / f"{name}.nc")], name)


@pytest.mark.parametrize(
    ("name", "attrs"),
    [
        ("t", {"standard_name": "air_potential_temperature"}),
        ("t", {"long_name": "Virtual temperature"}),
        ("u", {"long_name": "U wind anomaly"}),
        ("w", {"standard_name": "upward_air_velocity"}),
        ("q", {"standard_name": "humidity_mixing_ratio"}),
        ("t", {"long_name": "ensemble spread of temperature"}),
    ],
)
def test_another_quantity_under_the_name(tmp_path: Path, name: str, attrs: dict[str, str]) -> None:
    dataset = field(name, None, 0.01, 0.001, 500)
    path = saved(dataset.assign({name: dataset[name].assign_attrs(attrs)}), tmp_path / "a.nc")
    words = f"says by its {next(iter(attrs))} that it is"
    with pytest.raises(ValueError, match=words):
        read([path], f"{name}500")
    assert words in str(list_contents([path])["notes"])


@pytest.mark.parametrize(
    ("levels", "units", "refusal"),
    [
        ([1000, 925, 850, 500], "Pa", "level 925 labelled Pa, which would be 9.25 hPa"),
        ([1000, 700, 500, 100], "Pa", None),  # the stratosphere
        ([50, 85], "kPa", None),
        ([0.5, 0.85], "bar", None),
        (["500", "about 850"], "hPa", "no numbers"),
    ],
)
def test_levels_in_other_units(
    tmp_path: Path, levels: list[object], units: str, refusal: str | None
) -> None:
    low = refusal is None and units == "Pa"
    on_levels = xr.concat([field("u", "m s-1", 5, 3)] * len(levels), "level")
    on_levels["u"] = on_levels["u"] + xr.DataArray(np.arange(len(levels)), dims="level")
    on_levels["u"] = on_levels["u"].astype(np.float32).assign_attrs(units="m s-1")
    dataset = on_levels.assign_coords(level=("level", levels, {"units": units}))
    path = saved(dataset, tmp_path / "a.nc")
    if refusal is not None:
        with pytest.raises(ValueError, match=refusal):
            read([path], "u500")
        return
    channel, place = ("u10hpa", 0) if low else ("u850", 1)
    if low:  # the wind does not say whether it is of 10 or of 1000 hPa
        with pytest.warns(UserWarning, match="labelled Pa and taken for 10, 7, 5, 1 hPa, and no"):
            state = read([path], channel)
        np.testing.assert_array_equal(state[:, 0], dataset["u"][place])
        return
    np.testing.assert_array_equal(read([path], channel)[:, 0], dataset["u"][place])


@pytest.mark.parametrize(
    ("mapping", "attrs", "refusal"),
    [
        ("rotated_pole", None, r"rotated grid \(rotated_pole\)"),  # its variable is lost
        ("lcc: lon lat", {"grid_mapping_name": "lambert_conformal_conic"}, "lambert_conformal"),
        ("crs", {"crs_wkt": 'PROJCS["a",GEOGCS["b"]]'}, "by its crs_wkt"),
        ("crs", {"crs_wkt": 'GEOGCS["b"]'}, None),
        ("crs", {"grid_mapping_name": "latitude_longitude"}, None),
    ],
)
def test_projections_however_they_are_said(
    tmp_path: Path, mapping: str, attrs: dict[str, str] | None, refusal: str | None
) -> None:
    dataset = field("t2m", "K", 280, 5)
    dataset["t2m"].attrs["grid_mapping"] = mapping
    if attrs is not None:
        dataset[mapping.split(":")[0]] = ((), 0, attrs)
    path = saved(dataset, tmp_path / "a.nc")
    if refusal is None:
        np.testing.assert_array_equal(read([path], "t2m")[:, 0], dataset["t2m"])
        return
    with pytest.raises(ValueError, match=refusal):
        read([path], "t2m")


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (lambda d: d.isel(latitude=slice(0, 0)), "its axis latitude has length 0"),
        (lambda d: d.expand_dims(expver=[1, 5]).isel(expver=slice(0, 0)), "expver has length 0"),
        (lambda d: d.astype(str), "holds text or objects"),
        (lambda d: d > 0, "holds truth values"),
        (lambda d: d.assign_coords(latitude=[f"{y}N" for y in LATITUDE]), "no numbers"),
        (lambda d: d.assign(t2m=d.t2m.assign_attrs(units=np.array([1, 2]))), r"t2m in '\[1 2\]'"),
    ],
)  # fmt: skip
def test_what_holds_no_numbers(tmp_path: Path, change: object, refusal: str) -> None:
    dataset = change(field("t2m", "K", 280, 5))  # type: ignore[operator]
    with pytest.raises(ValueError, match=refusal):
        read([saved(dataset, tmp_path / "a.nc")], "t2m")


def test_complex_numbers_and_scales_that_are_none(tmp_path: Path) -> None:
    dataset = field("t2m", "K", 280, 5)
    with pytest.raises(ValueError, match="holds complex numbers"):
        read([to_zarr(dataset.astype(np.complex64), tmp_path / "a.zarr")], "t2m")
    for scale in ("0.01", 0.0, np.nan):
        odd = dataset.copy()
        odd["t2m"].attrs["scale_factor"] = scale
        with pytest.raises(ValueError, match="scale_factor of .*: correct it"):
            read([saved(odd, tmp_path / "b.nc")], "t2m")


@pytest.mark.parametrize(
    ("values", "units", "refusal"),
    [
        ([0, 6, 12, 18], "hours since 2001-01-01 00:00:00 EST", "whose date is not clear"),
        ([0, 6, 12, 18], "hours since 01/02/2001", "whose date is not clear"),
        ([0, 6, -9999, 18], "hours since 2001-01-01", "1 times of -9999, far from all others"),
        (["2001-01-01 00:00"] * 4, None, "times that are text, such as 2001-01-01"),
        ([6, 12, 18, 24], "hours since 2001-01-01 06:00:00 +06:00", "2001-01-01T06:00"),
        ([0, 6, 12, 18], "hours since 20010101", "2001-01-01T00:00"),
        ([0, 6, 12, 18], "hours since 2001-01-01T00:00:00.0Z", "2001-01-01T00:00"),
    ],
)
def test_times_that_are_not_clear(
    tmp_path: Path, values: list[object], units: str | None, refusal: str
) -> None:
    dataset = field("t2m", "K", 280, 5)
    attrs = {} if units is None else {"units": units}
    dataset = dataset.assign_coords(time=("time", np.array(values), attrs))
    path = saved(dataset, tmp_path / "a.nc")
    if refusal[0] == "2":
        assert str(read([path], "t2m")["time"].values[0]).startswith(refusal)
        return
    with pytest.raises(ValueError, match=refusal):
        read([path], "t2m")


@pytest.mark.parametrize(
    ("name", "step", "units"),
    [("lead", 6, "h"), ("fxx", 360, "min"), ("fhour", 0.25, "d"), ("lead_time", 21600, "second")],
)
@pytest.mark.parametrize("alone", [True, False])
def test_a_lead_time_by_other_names_and_units(
    tmp_path: Path, name: str, step: float, units: str, alone: bool
) -> None:
    dataset = field("t2m", "K", 280, 5).assign_coords({name: ((), step, {"units": units})})
    dataset = dataset if alone else dataset.expand_dims(name)
    state = read([saved(dataset, tmp_path / "a.nc")], "t2m")
    np.testing.assert_array_equal(state["time"], times() + np.timedelta64(6, "h"))
    np.testing.assert_array_equal(state[:, 0], dataset["t2m"].values.reshape(4, 36, 72))


def test_a_lost_piece_of_a_time_axis(tmp_path: Path) -> None:
    dataset = field("t2m", "K", 280, 5)
    dataset = dataset.assign_coords(time=("time", [6, 12, 18, 24], {"units": "hours since 1900-01-01"}))  # fmt: skip
    path = to_zarr(dataset, tmp_path / "a.zarr", zarr_format=2, encoding={"time": {"chunks": 2}})
    assert read([path], "t2m").sizes["time"] == 4
    (tmp_path / "a.zarr" / "time" / "1").unlink()
    with pytest.raises(ValueError, match="lacks the chunk 1 of time, which would read as 0"):
        read([path], "t2m")


def test_pipes_and_sources_of_no_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nc")
    with pytest.raises(ValueError, match="is no file but a pipe"):
        read([str(tmp_path / "a.nc")], "t2m")
    with pytest.raises(FileNotFoundError, match="No source files are given"):
        read([""], "t2m")


def test_geopotential_of_weather_is_believed(tmp_path: Path) -> None:
    standard = standard_geopotential(1000)
    dataset = field("z", "m2 s-2", standard, 700, 1000)
    np.testing.assert_array_equal(prepared(dataset, "z1000", tmp_path), dataset["z"])


def stacked(means: dict[int, float], name: str, units: str, spread: float) -> xr.Dataset:
    """A variable on levels labelled Pa, with a mean for each; beside it the wind."""
    one = field(name, units, 0.0, spread)[name]
    values = one + xr.DataArray(list(means.values()), dims="level")
    values = values.transpose("time", "level", ...).astype(np.float32).assign_attrs(units=units)
    wind = (values * 0 + one).astype(np.float32).assign_attrs(units="m s-1")
    axis = ("level", list(means), {"units": "Pa"})
    return xr.Dataset({name: values, "u": wind}).assign_coords(level=axis)


@pytest.mark.parametrize(
    ("means", "name", "units", "words"),
    [
        (
            {1000: 287.0, 500: 252.0},
            "t",
            "K",
            "t of 287 K on level 1000, labelled Pa, and at 10 hPa",
        ),
        ({500: 254.0, 300: 232.0}, "t", "K", "from 5 to 3 hPa it falls by 20 at most"),
        ({200: 218.0, 100: 208.0}, "t", "K", "t of 218 K on level 200, labelled Pa, and at 2 hPa"),
        ({1000: 1e3, 500: 5.5e4}, "z", "m2 s-2", "z of 99.* m2 s-2 on level 1000, labelled Pa"),
        ({1000: 1e-2, 500: 1e-3}, "q", "kg kg-1", "q of 0.01 kg kg-1 on level 1000, labelled Pa"),
    ],
)
def test_hectopascals_labelled_pascals(
    tmp_path: Path, means: dict[int, float], name: str, units: str, words: str
) -> None:
    spread = {"t": 0.5, "z": 200.0, "q": 1e-6}[name]
    path = saved(stacked(means, name, units, spread), tmp_path / "a.nc")
    for channel in ("u5", f"{name}5" if 500 in means else f"{name}1"):
        with pytest.raises(
            ValueError, match=f"a.nc has .*{words}.* units attribute of level to hPa"
        ):
            read([path], channel if 500 in means else channel.replace("u5", "u1"))


@pytest.mark.parametrize(
    "means",
    [
        {1000: 227.0, 500: 240.0, 100: 265.0},  # the globe
        {1000: 222.0, 700: 228.0, 300: 245.0, 200: 250.0},
    ],
)
def test_the_stratosphere_in_pascals_is_read_in_silence(
    tmp_path: Path, means: dict[int, float]
) -> None:
    path = saved(stacked(means, "t", "K", 0.5), tmp_path / "a.nc")
    low = min(means) // 100
    state = read([path], f"t10,u{low}")
    assert float(state[:, 0].mean()) == pytest.approx(means[1000], abs=0.1)


def test_a_sudden_warming_of_the_polar_stratosphere_is_read(tmp_path: Path) -> None:
    data = stacked({1000: 255.0, 500: 246.0, 100: 228.0}, "t", "K", 0.5)
    path = saved(data.sel(latitude=slice(55, 90)), tmp_path / "a.nc")
    assert read([path], "t10").shape == (4, 1, 7, 72)


def test_temperature_of_another_level_is_refused(tmp_path: Path) -> None:
    path = saved(field("t", "K", 228.0, 2.0, 1000), tmp_path / "a.nc")  # it is of 10 hPa
    with pytest.raises(ValueError, match="t1000 of 22.* K on the mean, where .* at 1000 hPa: corr"):
        prepare_era5([path], tmp_path / "s.zarr", channels=("t1000",), grid="native")
