"""Damage that libraries read without complaint: it must be refused or warned of."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from raw_files import saved, surface, times
from scipy.io import netcdf_file

from sciml_dchag.channels import ChannelSet
from sciml_dchag.weather.prepare.checks import check_values
from sciml_dchag.weather.prepare.contents import list_contents
from sciml_dchag.weather.prepare.era5 import prepare_era5
from sciml_dchag.weather.prepare.sources import open_era5

ROWS, COLUMNS = np.linspace(90, -90, 19), np.arange(0.0, 360.0, 10.0)


def old_climate_data_store_file(path: Path, unlimited: bool) -> None:
    """Write the old layout: classic format, coordinates first, packed int16."""
    generator = np.random.default_rng(0)
    with netcdf_file(path, "w", version=2) as file:
        file.createDimension("time", None if unlimited else 8)
        file.createDimension("longitude", COLUMNS.size)
        file.createDimension("latitude", ROWS.size)
        for name, values in (("longitude", COLUMNS), ("latitude", ROWS)):
            file.createVariable(name, "f4", (name,))[:] = values
        time = file.createVariable("time", "i4", ("time",))
        time.units = "hours since 1900-01-01 00:00:00.0"
        time[:] = 885000 + 6 * np.arange(8)
        packed = file.createVariable("t2m", "i2", ("time", "latitude", "longitude"))
        packed.scale_factor, packed.add_offset, packed.units = 0.001, 280.0, "K"
        packed._FillValue = np.int16(-32767)
        packed[:] = np.rint(generator.normal(0, 5000, (8, ROWS.size, COLUMNS.size)))


@pytest.mark.parametrize("unlimited", [False, True])
def test_a_truncated_file_of_the_classic_format(tmp_path: Path, unlimited: bool) -> None:
    path = tmp_path / "old.nc"
    old_climate_data_store_file(path, unlimited)
    state = open_era5([str(path)], ChannelSet.of("t2m"))
    assert state.shape == (8, 1, 19, 36) and 4 < float(state.std()) < 6
    whole = path.read_bytes()
    # netCDF reads the lost end as zeros, which are packed 280 K: nothing else would tell.
    path.write_bytes(whole[: int(0.7 * len(whole))])
    with pytest.raises(ValueError, match=r"old.nc cannot be read .*truncated") as refused:
        open_era5([str(path)], ChannelSet.of("t2m"))
    assert "\n" not in str(refused.value)


def on_levels(levels: list[float]) -> xr.Dataset:
    values = np.broadcast_to(
        240 + np.array(levels, np.float32)[:, None, None] / 32, (len(levels), 19, 36)
    ).copy()
    return xr.Dataset(
        {"t": (("time", "level", "latitude", "longitude"), values[None], {"units": "K"})},
        coords={
            "time": np.array(["2001-01-01"], "datetime64[ns]"),
            "level": levels,
            "latitude": ROWS,
            "longitude": COLUMNS,
        },
    )


def test_levels_between_whole_hpa_are_not_rounded(tmp_path: Path) -> None:
    on_levels([0.5, 1.0, 1.5, 2.0]).to_netcdf(tmp_path / "t.nc")
    state = open_era5([str(tmp_path / "t.nc")], ChannelSet.of("t2,t1"))
    np.testing.assert_array_equal(state[0, :, 0, 0].values, [240 + 2 / 32, 240 + 1 / 32])


def test_a_level_that_is_there_twice(tmp_path: Path) -> None:
    data = on_levels([500.0, 850.0, 500.0])
    data["t"][0, 2, 3, 4] += 1
    path = saved(data, tmp_path / "t.nc")
    whole = open_era5([path], ChannelSet.of("t850"))  # nothing speaks against the others
    np.testing.assert_array_equal(whole[0, 0].values, data["t"][0, 1].values)
    assert "t at 500 hPa is there twice" in list_contents([path])["notes"]
    with pytest.raises(ValueError, match="t at 500 hPa twice with different values: remove one"):
        open_era5([path], ChannelSet.of("t850,t500")).load()
    data["t"][0, 2, 3, 4] -= 1
    same = open_era5([saved(data, tmp_path / "same.nc")], ChannelSet.of("t850,t500")).load()
    np.testing.assert_array_equal(same[0, 1].values, data["t"][0, 0].values)


def test_a_time_that_is_there_twice_and_not_asked_for(tmp_path: Path) -> None:
    data = surface()
    path = saved(xr.concat([data, data.isel(time=[3])], "time"), tmp_path / "a.nc")
    with pytest.raises(ValueError, match="t2m at 2001-01-01T18:00 twice"):
        open_era5([path], ChannelSet.of("t2m"))
    for asked in ({"period": (None, "2001-01-01T12")}, {"step_hours": 12}):
        state = open_era5([path], ChannelSet.of("t2m"), **asked)
        np.testing.assert_array_equal(state[0, 0].values, data["t2m"][0].values)


def test_levels_none_of_which_is_whole_are_named(tmp_path: Path) -> None:
    path = saved(on_levels([0.5, 0.7]), tmp_path / "a.nc")
    with pytest.raises(
        ValueError, match="t of .* lies on level .0.5, 0.7 hPa, none of them a whole"
    ):
        open_era5([path], ChannelSet.of("t1"))


TIMES = np.datetime64("2001-01-01", "ns") + np.arange(100) * np.timedelta64(6, "h")


def pressure() -> np.ndarray:
    values = np.random.default_rng(0).normal(101e3, 500, (100, 1, 19, 36))
    return values.astype(np.float32)


def test_one_time_in_other_units_among_many() -> None:
    block = pressure()
    block[50] /= 100  # hPa; the mean over all times stays believable
    with pytest.raises(ValueError, match="msl has a mean of 10.* at 2001-01-13T12:00"):
        check_values(block, TIMES, ChannelSet.of("msl"))


def test_a_constant_field_is_warned_of() -> None:
    block = pressure()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_values(block, TIMES, ChannelSet.of("msl"))
    block[7] = 100e3
    with pytest.warns(UserWarning, match="one value everywhere in 1 of 100 .*2001-01-02T18:00"):
        check_values(block, TIMES, ChannelSet.of("msl"))


def test_a_channel_constant_in_many_blocks_is_warned_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sciml_dchag.weather.store.layout.BLOCK_BYTES", 4 * 5 * 8 * 4)
    data = surface(when=times(16))
    data["t2m"][4:12] = 280.0
    with pytest.warns(
        UserWarning, match="t2m has one value everywhere in 8 of 16 .*-02T00"
    ) as said:
        prepare_era5(
            saved(data, tmp_path / "a.nc"), tmp_path / "s.zarr", channels="t2m", grid="native"
        )
    assert len([w for w in said if "one value" in str(w.message)]) == 1
