"""Sums over time that run on from time to time, as ERA5-Land's do each day."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from raw_files import read, saved

HOURS = np.datetime64("2020-01-01", "ns") + np.arange(49) * np.timedelta64(1, "h")
LONGITUDE = 11.25 * np.arange(32)


def rain(times: int) -> NDArray[np.float32]:
    """Rain in half of the cells at each time, in m."""
    rng = np.random.default_rng(0)
    wet = rng.random((times, 16, 32)) > 0.5
    return (wet * rng.random(wet.shape) * 1e-3).astype(np.float32)


def sun(times: int) -> NDArray[np.float32]:
    """Radiation where the sun is up, in J m-2."""
    angle = (
        np.deg2rad(LONGITUDE)[None, None] + 2 * np.pi * (np.arange(times) - 12)[:, None, None] / 24
    )
    return (np.clip(np.cos(angle), 0, None) * np.ones((times, 16, 32)) * 1e6).astype(np.float32)


def running(sums: NDArray[np.float32], every: int) -> NDArray[np.float32]:
    """Add up since a start, anew after each `every` times."""
    added = sums.copy()
    for place in range(1, len(added)):
        if place % every != 1 % every:
            added[place] += added[place - 1]
    return added


def file(
    path: Path, name: str, units: str, sums: NDArray[np.float32], step: int = 1, columns: int = 32
) -> Path:
    start = HOURS[0] + np.arange(len(sums)) * np.timedelta64(step, "h")
    field = xr.Dataset(
        {name: (("time", "latitude", "longitude"), sums[:, :, :columns], {"units": units})},
        coords={
            "time": start,
            "latitude": -84.375 + 11.25 * np.arange(16),
            "longitude": LONGITUDE[:columns],
        },
    )
    return saved(field, path)


@pytest.mark.parametrize("columns", [32, 8])
@pytest.mark.parametrize("every_hours", [1, 6])
@pytest.mark.parametrize(("name", "units", "of"), [("tp", "m", rain), ("ssrd", "J m**-2", sun)])
def test_sums_since_midnight_are_refused(
    tmp_path: Path, name: str, units: str, of: object, every_hours: int, columns: int
) -> None:
    assert callable(of)
    sums = running(of(49), 24)[::every_hours]
    path = file(tmp_path / "land.nc", name, units, sums, every_hours, columns)
    with pytest.raises(ValueError, match=rf"land.nc holds {name} as sums that run on.*ERA5-Land"):
        read([path], name)


def test_forecasts_of_two_steps_are_refused(tmp_path: Path) -> None:
    sums = rain(8)
    sums[1::2] += sums[::2]
    with pytest.raises(ValueError, match=r"take the differences between times"):
        read([file(tmp_path / "steps.nc", "tp", "m", sums, 12)], "tp")


@pytest.mark.parametrize("columns", [32, 4])
@pytest.mark.parametrize("first", [0, 5])
def test_sums_of_each_hour_are_read(tmp_path: Path, first: int, columns: int) -> None:
    for name, units, sums in (("tp", "m", rain(40)), ("ssrd", "J m**-2", sun(40))):
        some = sums[first : first + 9 if first else None]
        if name == "ssrd" and columns == 4:
            some = some + np.linspace(1, 9, 16, dtype=np.float32)[:, None]  # no uniform nights
        path = file(tmp_path / f"{name}.nc", name, units, some, columns=columns)
        assert np.allclose(read([path], name)[:, 0], some[:, :, :columns])
