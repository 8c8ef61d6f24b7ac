"""Over which hours sums are, by bounds, ranges of steps, cell methods and names."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from raw_files import read, saved, surface, times

HOUR = np.timedelta64(1, "h").astype("timedelta64[ns]")


def rain(every: int = 6, **attrs: str) -> xr.Dataset:
    field = surface("tp", "m", when=times(12, hours=every)) * 1e-6
    field["tp"].attrs = {"units": "m", **attrs}
    return field


def bounded(data: xr.Dataset, hours: float | np.ndarray, ends_at: float = 0.0) -> xr.Dataset:
    """Add bounds of times, whose last is `ends_at` hours after the time."""
    ends = data["time"].values + (ends_at * HOUR.astype(float)).astype("timedelta64[ns]")
    begins = ends - (hours * HOUR.astype(float)).astype("timedelta64[ns]")
    data["time"].attrs["bounds"] = "time_bnds"
    data["time"].encoding["units"] = "minutes since 2001-01-01"  # which its bounds need
    return data.assign(time_bnds=(("time", "bnds"), np.stack([begins, ends], axis=1)))


@pytest.mark.parametrize(
    "data",
    [
        bounded(rain(), 1),
        rain(GRIB_stepRange="0-1"),
        rain(long_name="Total precipitation (1 Hour Accumulation) @ surface"),
    ],
    ids=["bounds", "stepRange", "long_name"],
)
def test_sums_over_an_hour_every_six_hours_are_no_sums_over_six(
    tmp_path: Path, data: xr.Dataset
) -> None:
    file = saved(data, tmp_path / "a.nc")
    for options in ({}, {"step_hours": 6}):
        with pytest.raises(ValueError, match="needs 6 sums over 1 h, of which .* lack some"):
            read([file], "tp", **options)
    np.testing.assert_array_equal(read([file], "tp_1h")[:, 0].values, data["tp"].values)


@pytest.mark.parametrize(
    "interval", ["(interval: 1 hour)", "(interval 1 hour)", "(interval: 60 min)"]
)
def test_an_interval_alone_does_not_say_the_span(tmp_path: Path, interval: str) -> None:
    method = f"area: mean time: sum {interval}"
    file = saved(rain(cell_methods=method), tmp_path / "a.nc")
    with pytest.raises(
        ValueError, match="tp every 6 h and says .* interval of 1 h, .* call it tp_1h"
    ):
        read([file], "tp", step_hours=6)
    named = saved(rain(cell_methods=method).rename(tp="tp_6h"), tmp_path / "b.nc")
    assert read([named], "tp").shape == (12, 1, 5, 8)
    certain = saved(bounded(rain(cell_methods=method), 6), tmp_path / "c.nc")
    assert read([certain], "tp").shape == (12, 1, 5, 8)  # six sums over an hour, added
    hourly = saved(rain(1, cell_methods=method), tmp_path / "d.nc")
    assert read([hourly], "tp").shape == (12, 1, 5, 8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bounded(rain(), 6, ends_at=6), "times at the start of the hours that time_bnds gives"),
        (bounded(rain(), 6, ends_at=3), "times at another time than the end of the hours"),
        (bounded(rain(), np.array([6.0, 12] * 6)), "summed over 6 to 12 h by time_bnds"),
        (bounded(rain(), 0.5), "summed over 0.5 h by time_bnds"),
        (bounded(rain(), 1).rename(tp="tp_6h"), "by its name .* over 6 h and by its time_bnds over 1 h"),
        (rain(cell_methods="time: mean"), "cell_methods that it is a mean over time"),
        (rain(GRIB_stepType="avgad"), "GRIB_stepType that it is a mean over time"),
    ],
)  # fmt: skip
def test_sums_that_are_not_over_the_hours_before_their_time_are_refused(
    tmp_path: Path, data: xr.Dataset, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read([saved(data, tmp_path / "a.nc")], "tp")


def test_sums_of_months_are_over_the_time_between(tmp_path: Path) -> None:
    ends = np.array(["2001-02-01", "2001-03-01", "2001-04-01"], "datetime64[ns]")
    begins = np.array(["2001-01-01", "2001-02-01", "2001-03-01"], "datetime64[ns]")
    data = rain().isel(time=[0, 1, 2]).assign_coords(time=("time", ends, {"bounds": "time_bnds"}))
    data["time"].encoding["units"] = "hours since 2001-01-01"
    data = data.assign(time_bnds=(("time", "bnds"), np.stack([begins, ends], axis=1)))
    assert read([saved(data, tmp_path / "a.nc")], "tp").shape == (3, 1, 5, 8)


def test_files_that_say_their_span_join_those_that_do_not(tmp_path: Path) -> None:
    data = rain(1)
    first = saved(bounded(data.isel(time=slice(0, 6)), 1), tmp_path / "a.nc")
    second = saved(data.isel(time=slice(6, None)), tmp_path / "b.nc")
    state = read([first, second], "tp")
    np.testing.assert_array_equal(state[:, 0].values, data["tp"].values)


def test_sums_of_half_an_hour_are_refused(tmp_path: Path) -> None:
    when = times()[0] + np.arange(12) * (HOUR // 2)
    file = saved(rain().assign_coords(time=when), tmp_path / "a.nc")
    with pytest.raises(ValueError, match="follow each other by 0.5 h"):
        read([file], "tp", step_hours=1)


def test_era5_of_a_region_every_six_hours_is_warned_of(tmp_path: Path) -> None:
    region = rain().sel(latitude=slice(0, 90)).assign_attrs(title="ERA5 hourly data")
    with pytest.warns(UserWarning, match="of ERA5, whose sums are over 1 h .* call it tp_1h"):
        read([saved(region, tmp_path / "a.nc")], "tp")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read([saved(region.rename(tp="total_precipitation_6hr"), tmp_path / "b.nc")], "tp")


@pytest.mark.parametrize(
    "attrs",
    [{"cell_methods": "time: maximum (interval: 1 hour)"}, {"GRIB_stepType": "min"},
     {"cell_methods": "time: sum"}],
)  # fmt: skip
def test_extremes_under_the_name_of_a_state_are_refused(
    tmp_path: Path, attrs: dict[str, str]
) -> None:
    data = surface()
    data["t2m"].attrs |= attrs
    with pytest.raises(ValueError, match="over time, which is another quantity"):
        read([saved(data, tmp_path / "a.nc")], "t2m")
    gusts = surface("i10fg", "m s-1")
    gusts["i10fg"].attrs["cell_methods"] = "time: maximum"
    assert read([saved(gusts / 20, tmp_path / "g.nc")], "i10fg").size
    data["t2m"].attrs = {"units": "K", "cell_methods": "time: mean"}
    assert read([saved(data, tmp_path / "m.nc")], "t2m").size  # daily means are states
