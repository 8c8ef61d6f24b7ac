"""Fields of forecasts stand under the time they are valid for; sums are those of the step."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from raw_files import COLUMNS, ROWS, read, saved, surface, times

HOUR = np.timedelta64(1, "h").astype("timedelta64[ns]")


def forecasts(name: str = "t2m", steps: tuple[int, ...] = (6,), every: int = 12) -> xr.Dataset:
    """(time, step, latitude, longitude); `time` is when a forecast begins."""
    began, since = times(4, hours=every), np.array(steps) * HOUR
    rng = np.random.default_rng(0)
    values = rng.normal(280, 5, (4, len(steps), 5, 8)).astype(np.float32)
    values = values * np.float32(1e-6) if name == "tp" else values
    return xr.Dataset(
        {name: (("time", "step", "latitude", "longitude"), values, {"units": "m" if name == "tp" else "K"})},
        coords={
            "time": ("time", began, {"standard_name": "forecast_reference_time"}),
            "step": ("step", since, {"standard_name": "forecast_period"}),
            "valid_time": (("time", "step"), began[:, None] + since),
            "latitude": ROWS, "longitude": COLUMNS,
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    ["with valid_time", "without", "scalar", "hours", "one time", "new names", "WeatherBench"],
)
def test_a_step_of_one_means_valid_time(tmp_path: Path, kind: str) -> None:
    data = forecasts()
    expected, valid = data["t2m"].values[:, 0], times(4, hours=12) + 6 * HOUR
    if kind not in ("with valid_time", "new names"):
        data = data.drop_vars("valid_time")
    if kind == "scalar":
        data = data.isel(step=0)
    if kind == "hours":
        data = data.assign_coords(step=("step", [6], {"units": "hours"}))
    if kind == "one time":
        data, expected, valid = data.isel(time=0), expected[:1], valid[:1]
    if kind == "new names":
        data = data.rename(time="forecast_reference_time", step="forecast_period")
    if kind == "WeatherBench":
        data = data.drop_attrs().rename(step="prediction_timedelta")
    state = read([saved(data, tmp_path / "a.nc")], "t2m")
    np.testing.assert_array_equal(state["time"].values, valid)
    np.testing.assert_array_equal(state[:, 0].values, expected)


def test_steps_that_do_not_overlap_are_flattened(tmp_path: Path) -> None:
    data = forecasts("tp", tuple(range(1, 13)))
    state = read([saved(data, tmp_path / "a.nc")], "tp")
    assert state.shape == (48, 1, 5, 8)
    np.testing.assert_array_equal(state["time"].values, times(48, hours=1) + HOUR)
    np.testing.assert_array_equal(state[:, 0].values, data["tp"].values.reshape(48, 5, 8))
    six = read([saved(data, tmp_path / "a6.nc")], "tp", step_hours=6)
    expected = data["tp"].values.reshape(8, 6, 5, 8).astype(np.float64).sum(axis=1)
    np.testing.assert_allclose(six[:, 0].values, expected, rtol=1e-6)


def test_steps_that_overlap_are_refused(tmp_path: Path) -> None:
    file = saved(forecasts(steps=(6, 18)), tmp_path / "a.nc")
    with pytest.raises(ValueError, match="holds t2m at .* twice: .*keep one step"):
        read([file], "t2m")


def test_a_step_without_units_is_refused(tmp_path: Path) -> None:
    data = forecasts().drop_vars("valid_time").assign_coords(step=[6])
    with pytest.raises(ValueError, match="step without units .*set the units attribute"):
        read([saved(data, tmp_path / "a.nc")], "t2m")


def test_a_time_that_says_to_be_valid_is_not_moved(tmp_path: Path) -> None:
    """As the Met Office's files have it: time, and beside it how the forecast came about."""
    data = surface().assign_coords(
        forecast_period=("time", [6.0] * 4, {"units": "hours"}),
        forecast_reference_time=("time", times() - 6 * HOUR),
    )
    state = read([saved(data, tmp_path / "a.nc")], "t2m")
    np.testing.assert_array_equal(state["time"].values, times())


def test_sums_since_the_start_of_a_forecast_are_refused(tmp_path: Path) -> None:
    data = forecasts("tp", (3, 6, 9, 12))
    data["tp"] = data["tp"].cumsum("step").assign_attrs(units="m")
    with pytest.raises(ValueError, match="sums since the start of each forecast"):
        read([saved(data, tmp_path / "a.nc")], "tp")


def rain(count: int = 24, hours: int = 1, name: str = "tp") -> xr.Dataset:
    field = surface(name, "m", when=times(count, hours=hours)) * 1e-6
    field[name].attrs["units"] = "m"
    return field


@pytest.mark.parametrize(("name", "units"), [("tp", "m"), ("ssrd", "J m**-2")])
def test_hourly_sums_are_added_over_the_step(tmp_path: Path, name: str, units: str) -> None:
    field = rain(name=name)
    field[name].attrs["units"] = units
    file = saved(field, tmp_path / "a.nc")
    with pytest.warns(UserWarning, match="2001-01-01T00:00 is left out, as the sources hold"):
        state = read([file], name, step_hours=6)
    expected = field[name].rolling(time=6).sum().sel(time=state["time"])
    assert state["time"].values.tolist() == times(4)[1:].tolist()
    np.testing.assert_allclose(state[:, 0].values, expected.values, rtol=1e-5)
    with pytest.warns(UserWarning, match="is left out"):  # of the other channels too
        both = read(
            [file, saved(surface(when=times(24, hours=1)), tmp_path / "t.nc")],
            f"t2m,{name}",
            step_hours=6,
        )
    assert both.shape == (3, 2, 5, 8)
    assert read([file], name).shape == (24, 1, 5, 8)


def test_sums_over_other_hours_are_other_variables(tmp_path: Path) -> None:
    six = saved(rain(4, 6, "total_precipitation_6hr"), tmp_path / "6.nc")
    day = saved(rain(4, 6, "total_precipitation_24hr"), tmp_path / "24.nc")
    assert read([six], "tp").shape == read([six], "tp_6h").shape == (4, 1, 5, 8)
    assert read([day], "tp_24h").shape == (4, 1, 5, 8)
    with pytest.raises(
        ValueError, match="sums over 24 h, which do not make .* 6 h: take .* tp_24h"
    ):
        read([day], "tp")
    later = rain(4, 6, "total_precipitation_24hr").assign_coords(time=times(4, "2001-01-02"))
    files = [six, saved(later, tmp_path / "later.nc")]
    assert read(files, "tp").shape == (4, 1, 5, 8)  # those of 6 h alone


def test_a_valid_time_that_is_not_time_and_step_is_refused(tmp_path: Path) -> None:
    data = forecasts(steps=(6, 12), every=24)
    said = data["valid_time"].values.copy()
    said[2, 1] += 6 * HOUR
    wrong = data.assign_coords(valid_time=(("time", "step"), said))
    place = (
        r"valid_time 2001-01-03T18:00 where time 2001-01-03T00:00 and step make 2001-01-03T12:00"
    )
    with pytest.raises(ValueError, match=place):
        read([saved(wrong, tmp_path / "a.nc")], "t2m")
    scalar = data.isel(step=0).assign_coords(valid_time=("time", data["time"].values + 5 * HOUR))
    with pytest.raises(ValueError, match="make 2001-01-01T06:00"):
        read([saved(scalar, tmp_path / "b.nc")], "t2m")
    by_cf = surface().assign_coords(
        time=("time", times(), {"standard_name": "time"}),
        forecast_period=("time", [6.0] * 4, {"units": "hours"}),
        forecast_reference_time=("time", times()),
    )
    with pytest.raises(ValueError, match="time 2001-01-01T00:00 where forecast_reference_time"):
        read([saved(by_cf, tmp_path / "c.nc")], "t2m")


def test_a_valid_time_that_time_repeats_is_taken(tmp_path: Path) -> None:
    data = surface().assign_coords(
        step=np.timedelta64(6, "h").astype("timedelta64[ns]"), valid_time=("time", times())
    )
    state = read([saved(data, tmp_path / "a.nc")], "t2m")
    np.testing.assert_array_equal(state["time"].values, times())


def test_steps_are_added_in_the_calendar_of_the_file(tmp_path: Path) -> None:
    """28 February 2000 18:00 and 12 h are 1 March where there are no leap years."""
    began = ("time", [58.75, 59.75], {"units": "days since 2000-01-01", "calendar": "noleap"})
    data = forecasts(steps=(12,)).isel(time=[0, 1]).drop_vars("valid_time")
    data = data.assign_coords(time=began, step=("step", [12], {"units": "hours"}))
    state = read([saved(data, tmp_path / "a.nc")], "t2m")
    assert [str(t)[:13] for t in state["time"].values] == ["2000-03-01T06", "2000-03-02T06"]
