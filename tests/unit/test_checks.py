import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from raw_files import GAUSSIAN

from sciml_dchag.channels import ChannelSet
from sciml_dchag.weather.prepare.checks import (
    check_values,
    check_wind_rows,
    relative_vorticity,
    standard_geopotential,
)
from sciml_dchag.weather.prepare.sources import open_era5

DATA = Path(__file__).parents[1] / "data" / "weather"
TIMES = np.array(["2001-01-01T00", "2001-01-01T06"], dtype="datetime64[ns]")
CHANNELS = ChannelSet.of("t2m,msl")


def block() -> np.ndarray:
    values = np.random.default_rng(0).normal(0, 1, (2, 2, 4, 8)).astype(np.float32)
    return values + np.array([285.0, 101e3], np.float32)[:, None, None]


def test_ordinary_values_pass() -> None:
    check_values(block(), TIMES, CHANNELS)


@pytest.mark.parametrize(
    ("channel", "change", "message"),
    [
        (0, lambda x: x - 273.15, r"t2m has a mean of 11\.\d+ where 200 to 320 K is believable"),
        (1, lambda x: x / 100, "msl has a mean of 1010 where 90000 to 108000 Pa"),
        (1, lambda x: x * np.inf, "msl has infinite values at 2001-01-01T00:00"),
    ],
)
def test_wrong_magnitudes_are_named(channel: int, change, message: str) -> None:
    values = block()
    values[:, channel] = change(values[:, channel])
    with pytest.raises(ValueError, match=message):
        check_values(values, TIMES, CHANNELS)


def test_missing_values_are_counted_or_allowed() -> None:
    values = block()
    values[1, 0, :2, 3] = np.nan
    with pytest.raises(ValueError, match="t2m has 2 missing values .* first at 2001-01-01T06"):
        check_values(values, TIMES, CHANNELS)
    check_values(values, TIMES, CHANNELS, allow_missing=True)
    values[:, 0] = np.nan
    check_values(values, TIMES, CHANNELS, allow_missing=True)


def test_vorticity_of_solid_rotation() -> None:
    latitude, longitude = np.linspace(-85, 85, 35), np.arange(0, 360, 5.0)
    speed = 30.0
    u = speed * np.cos(np.deg2rad(latitude))[:, None] * np.ones(72)
    expected = 2 * speed * np.sin(np.deg2rad(latitude)) / 6.371e6
    curl = relative_vorticity(u, 0 * u, latitude, longitude)
    # Second order in a row spacing of 5 degrees.
    np.testing.assert_allclose(curl[1:-1, 1], expected[1:-1], rtol=0.02, atol=1e-8)


def test_winds_stored_upside_down_are_told_by_their_vorticity() -> None:
    with (
        xr.open_dataset(DATA / "era5_uv850_2025-12-01T00_2p5deg_rows_flipped.nc") as wind,
        xr.open_dataset(DATA / "era5_vo850_2025-12-01T00_2p5deg.nc") as curl,
    ):
        fields = [wind["u"].values, wind["v"].values, curl["vo"].values]
        grid = wind["latitude"].values, wind["longitude"].values
    with pytest.warns(UserWarning, match="wind.nc: the winds' rows run against"):
        check_wind_rows(*fields, *grid, source="wind.nc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_wind_rows(fields[0][::-1], fields[1][::-1], fields[2], *grid, source="wind.nc")


def test_winds_stored_upside_down_are_told_by_the_geopotential(tmp_path: Path) -> None:
    """Of files with no vorticity, as presets have none: a real state, and its winds turned."""
    with xr.open_dataset(GAUSSIAN) as raw:
        for name in ("u_component_of_wind", "v_component_of_wind"):
            raw[name] = raw[name].isel(latitude=slice(None, None, -1)).drop_vars("latitude")
        raw.to_netcdf(tmp_path / "turned.nc")
    with pytest.warns(UserWarning, match="turned.nc: .* geostrophic wind is .* flipped"):
        open_era5([str(tmp_path / "turned.nc")], ChannelSet.of("u500"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_era5([str(tmp_path / "turned.nc")], ChannelSet.of("t500"))  # not asked for


def test_nothing_is_said_of_winds_without_weather() -> None:
    still = np.zeros((8, 16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for known in ("vo", "z"):
            check_wind_rows(
                still, still, still, np.linspace(-70, 70, 8), np.arange(16) * 22.5,
                known=known, source="still.nc",
            )  # fmt: skip


@pytest.mark.parametrize(
    ("level", "geopotential"), [(1000, 1087), (850, 14291), (500, 54666), (226.32, 107873), (50, 201776)]
)  # fmt: skip
def test_the_standard_atmosphere(level: float, geopotential: float) -> None:
    """To the digits of the tabulated heights 110.9, 1457.3, 5574.4, 11000 and 20575.4 m, times 9.80665."""
    assert standard_geopotential(level) == pytest.approx(geopotential, rel=1e-3)


def test_geopotential_height_is_told_from_geopotential() -> None:
    with xr.open_dataset(GAUSSIAN) as raw:
        values = raw["geopotential"].transpose("level", "latitude", "longitude").values[None]
    channels = ChannelSet.of("z250,z500,z850")
    check_values(values, TIMES[:1], channels)
    with pytest.raises(ValueError, match="z250 has a mean of 1.027e"):
        check_values(values / np.float32(9.80665), TIMES[:1], channels)


def test_the_warning_comes_when_the_files_are_opened_together(tmp_path: Path) -> None:
    files = []
    for name in DATA.glob("era5_*850*.nc"):
        with xr.open_dataset(name) as dataset:
            timed = dataset.expand_dims(time=TIMES[:1], level=[850])
            timed["level"].attrs["units"] = "hPa"
            timed.to_netcdf(tmp_path / name.name)
        files.append(str(tmp_path / name.name))
    with pytest.warns(UserWarning, match="flip the rows of u and v"):
        open_era5(files, ChannelSet.of("u850,v850"))
