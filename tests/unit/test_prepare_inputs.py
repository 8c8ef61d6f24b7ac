"""Names, units, times and places of raw files beyond the common: read, warned of, or refused."""

import sys
import warnings
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from raw_files import DATA, MEMBERS, read, saved, surface, times

from sciml_dchag.channels import ChannelSet
from sciml_dchag.cli import main
from sciml_dchag.files.samples import sample_path
from sciml_dchag.weather.prepare.contents import list_contents
from sciml_dchag.weather.prepare.era5 import prepare_era5
from sciml_dchag.weather.prepare.sources import open_static
from sciml_dchag.weather.store.store import Store

WIND = DATA / "era5_uv850_2025-12-01T00_2p5deg_rows_flipped.nc"
VORTICITY = DATA / "era5_vo850_2025-12-01T00_2p5deg.nc"


def test_flipped_winds_without_time_or_level_are_warned_of_and_refused(tmp_path: Path) -> None:
    arguments = ["prepare", "era5", str(WIND), str(VORTICITY), str(tmp_path / "a.zarr")]
    result = CliRunner().invoke(main, [*arguments, "--channels", "u850,v850"])
    assert result.exit_code == 2
    lines = result.stderr.strip().splitlines()
    assert lines[0].startswith("Warning: ") and "rows run against their latitude" in lines[0]
    assert (
        len(lines) == 2
        and "on which level u is, nor at which time" in lines[1]
        and "assign_coords" in lines[1]
    )
    assert list(tmp_path.iterdir()) == []


def test_the_cure_that_the_refusal_names_works(tmp_path: Path) -> None:
    """The vorticity stays without level and time, and still tells."""
    with xr.open_dataset(WIND) as wind:
        when = np.datetime64("2025-12-01T00", "ns")
        fixed = saved(wind.assign_coords(level=850, time=when), tmp_path / "wind.nc")
    with pytest.warns(UserWarning, match="flip the rows of u and v"):
        state = read([fixed, str(VORTICITY)], "u850,v850")
    assert state.shape == (1, 2, 73, 144)


def test_a_field_without_time_is_refused_with_the_cure(tmp_path: Path) -> None:
    file = saved(surface().isel(time=0, drop=True), tmp_path / "a.nc")
    with pytest.raises(ValueError, match="t2m of .*a.nc has no time.*assign_coords") as refused:
        read([file], "t2m")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "units", "channel"),
    [
        ("u850", "m s-1", "u850"), ("U850", "m/s", "u850"), ("z500", "m**2 s**-2", "z500"),
        ("Z500", "m2 s-2", "z500"), ("T", "K", "t500"), ("T2M", "K", "t2m"), ("U10", "m/s", "u10"),
        ("vo850", "s**-1", "vo850"), ("u10hpa", "m s-1", "u10hpa"), ("temperature_500", "K", "t500"),
        ("ta500", "K", "t500"), ("geopotential_500hPa", "m2 s-2", "z500"), ("MSL", "Pa", "msl"),
    ],
)  # fmt: skip
def test_levels_in_names_and_capital_letters(
    tmp_path: Path, name: str, units: str, channel: str
) -> None:
    dataset = surface(name, units)
    if name == "T":
        dataset = dataset.assign_coords(level=500)
    state = read([saved(dataset, tmp_path / "a.nc")], channel)
    np.testing.assert_array_equal(state[:, 0].values, dataset[name].values)


def test_many_levels_in_names_in_one_file(tmp_path: Path) -> None:
    parts = [surface(f"U{level}", "m/s", seed=level) for level in (250, 500, 850)]
    file = saved(xr.merge([*parts, surface("T2M")]), tmp_path / "a.nc")
    state = read([file], "u850,t2m,u250")
    for position, part in (
        (0, parts[2]["U850"]),
        (1, surface("T2M")["T2M"]),
        (2, parts[0]["U250"]),
    ):
        np.testing.assert_array_equal(state[:, position].values, part.values)
    assert "u on 3 level(s): 250, 500, 850 hPa" in list_contents([file])["variables"]  # type: ignore[operator]


@pytest.mark.parametrize("name", ["u100", "v100", "t2", "q2", "T2"])
def test_names_that_may_mean_metres_are_not_read_as_levels(tmp_path: Path, name: str) -> None:
    """ERA5's u100 is the wind 100 m above the ground."""
    channel = name.lower()
    with pytest.raises(ValueError, match="The sources lack"):
        read([saved(surface(name, ChannelSet.of(channel)[0].units), tmp_path / "a.nc")], channel)
    told = surface(name, ChannelSet.of(channel)[0].units)
    told[name].attrs["long_name"] = f"field at {channel[1:]} hPa"
    assert read([saved(told, tmp_path / "b.nc")], channel).shape == (4, 1, 5, 8)


def test_a_level_in_the_name_must_not_contradict_the_coordinate(tmp_path: Path) -> None:
    file = saved(surface("u850", "m/s").assign_coords(level=500), tmp_path / "a.nc")
    with pytest.raises(ValueError, match="u850 .* 500 hPa"):
        read([file], "u850")


@pytest.mark.parametrize(
    ("name", "units"),
    [("gh", "gpm"), ("gh", "m"), ("geopotential_height", "m"), ("zg", "m"), ("z", "m"),
     ("z", "gpm"), ("zg500", "m"), ("GH", "metres")],
)  # fmt: skip
def test_geopotential_height_becomes_geopotential(tmp_path: Path, name: str, units: str) -> None:
    dataset = surface(name, units).assign_coords(level=500)
    state = read([saved(dataset, tmp_path / "a.nc")], "z500")
    np.testing.assert_allclose(state[:, 0], 9.80665 * dataset[name].values, rtol=1e-6)


@pytest.mark.parametrize("units", [None, "dam", "km"])
def test_geopotential_height_in_other_units_is_refused_where_it_is_asked_for(
    tmp_path: Path, units: str | None
) -> None:
    height = surface("gh", units or "m").assign_coords(level=500)
    if units is None:
        del height["gh"].attrs["units"]
    both = xr.merge([height, surface()])
    file = saved(both, tmp_path / "a.nc")
    with pytest.raises(ValueError, match="where 'm2 s-2' is needed|without units"):
        read([file], "z500")
    assert read([file], "t2m").shape == (4, 1, 5, 8)  # what is not asked for need not fit


def test_geopotential_comes_before_its_height(tmp_path: Path) -> None:
    geopotential = surface("z", "m2 s-2")
    height = surface("gh", "gpm", seed=1)
    both = xr.merge([height, geopotential]).assign_coords(level=500)
    state = read([saved(both, tmp_path / "a.nc")], "z500")
    np.testing.assert_array_equal(state[:, 0].values, geopotential["z"].values)


def test_static_z_on_the_ground_is_orography_whatever_its_units(tmp_path: Path) -> None:
    height = surface("z", "m", when=times(1))
    fields = open_static([saved(height, tmp_path / "a.nc")], ["orography"])
    np.testing.assert_allclose(fields[0], 9.80665 * height["z"].values[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("period", "warned"),
    [
        (("2000-12", None), True), ((None, "2001-01-06"), True), (("2000", "2002"), True),
        (("2001-01-01", "2001-01-05"), False), (("2001-01-02T06", "2001-01-03"), False),
        ((None, None), False), (("2001-01-01T00", "2001-01-05T23"), False),
        (("2001-01-05T12", "2001-01-06T00"), True),
    ],
)  # fmt: skip
def test_a_period_partly_outside_the_data_is_said(
    tmp_path: Path, period: tuple[str | None, str | None], warned: bool
) -> None:
    file = saved(surface(when=times(20)), tmp_path / "a.nc")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        state = read([file], "t2m", period=period)
    texts = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    assert len(texts) == int(warned), texts
    if warned:
        first, last = (str(t)[:16] for t in state["time"].values[[0, -1]])
        for part in (*filter(None, period), first, last):
            assert part in texts[0]


def test_a_training_period_partly_outside_the_data_is_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="training period .*2025-11-01"):
        prepare_era5(
            ["sample:era5_msl"], tmp_path / "a.zarr", channels="msl", grid="8x16",
            statistics_period=("2025-11-01", "2025-12-24"),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("step", "hours"), [(5, [0, 5, 10, 15, 20, 25]), (7, [0, 7, 14, 21, 28]), (48, [0])]
)
def test_steps_that_do_not_divide_a_day_count_from_the_first_time(
    tmp_path: Path, step: int, hours: list[int]
) -> None:
    file = saved(surface(when=times(30, hours=1, start="2001-01-01T01")), tmp_path / "a.nc")
    state = read([file], "t2m", step_hours=step)
    found = (state["time"].values - np.datetime64("2001-01-01T01", "ns")) / np.timedelta64(1, "h")
    assert found.tolist() == hours


def test_what_an_extra_brings_is_asked_for_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("cfgrib", "xesmf", "gcsfs", "jcm"):
        monkeypatch.setitem(sys.modules, package, None)
    out = str(tmp_path / "a.zarr")
    for arguments, extra in (
        (["prepare", "era5", str(MEMBERS), out, "--channels", "z500"], "sciml-dchag[grib]"),
        (["inspect", str(MEMBERS)], "sciml-dchag[grib]"),
        (["prepare", "era5", "gs://bucket/era5.zarr", out], "sciml-dchag[cloud]"),
        (["prepare", "era5", "gs://bucket/*.nc", out], "sciml-dchag[cloud]"),
        (["prepare", "era5", str(sample_path("era5_msl")), out, "--channels", "msl",
          "--engine", "xesmf"], "environment.yml"),
        (["simulate", "weather", out], "sciml-dchag[simulate]"),
    ):  # fmt: skip
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2, result.output
        assert extra in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_grib_without_its_library_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cfgrib imports, and then does not find ecCodes: no reason to download the file again."""
    (tmp_path / "cfgrib.py").write_text("raise RuntimeError('Cannot find the ecCodes library')")
    for name in [name for name in sys.modules if name.split(".")[0] == "cfgrib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"sciml-dchag\[grib\]"):
        read([str(MEMBERS)], "z500")


@pytest.fixture
def bucket() -> str:
    memory = fsspec.filesystem("memory")
    for number in range(2):
        content = surface(when=times(2, f"2001-01-0{number + 1}"), seed=number)
        memory.pipe(f"/inputs/t2m_{number}.nc", bytes(content.to_netcdf(engine="h5netcdf")))
    memory.pipe("/inputs/readme.txt", b"words")
    return "memory://inputs"


@pytest.mark.parametrize("pattern", ["*.nc", "t2m_[01].nc", "**/*.nc"])
def test_remote_patterns(bucket: str, pattern: str) -> None:
    state = read([f"{bucket}/{pattern}"], "t2m")
    expected = [surface(when=times(2, f"2001-01-0{n + 1}"), seed=n)["t2m"].values for n in range(2)]
    np.testing.assert_array_equal(state[:, 0].values, np.concatenate(expected))
    assert all("://" in source for source in state.attrs["sources"])


def test_remote_patterns_that_match_nothing(bucket: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"memory://inputs/\*.grib"):
        read([f"{bucket}/*.grib"], "t2m")
    result = CliRunner().invoke(main, ["inspect", f"{bucket}/nothing*.nc"])
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1


def test_a_remote_store_of_many_files_is_prepared(bucket: str, tmp_path: Path) -> None:
    store = Store.open(
        prepare_era5([f"{bucket}/*.nc"], tmp_path / "a.zarr", channels="t2m", grid="native")
    )
    assert store.shape == (4, 1, 5, 8)
