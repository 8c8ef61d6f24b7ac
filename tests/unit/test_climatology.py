"""Climatologies: against the definition written out, and what they refuse."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciml_dchag.weather.store import climatology
from sciml_dchag.weather.store.climatology import compute_climatology, day_of_year, window_weights
from sciml_dchag.weather.store.store import Store

Series = Callable[..., xr.DataArray]
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def three_years(tmp_path_factory: pytest.TempPathFactory, write: Write) -> Path:
    """Twelve-hourly, two channels on 2 x 4, with an annual cycle and some missing values."""
    times = np.arange("1999-01-01", "2002-01-01", np.timedelta64(12, "h"), "datetime64[h]")
    rng = np.random.default_rng(0)
    season = 10 * np.sin(2 * np.pi * (times - times[0]) / np.timedelta64(8766, "h"))
    values = 280 + season[:, None, None, None] + rng.normal(size=(len(times), 2, 2, 4))
    values[rng.random(values.shape) < 0.02] = np.nan
    values[:, 1, 0, 0] = np.nan  # land, where the sea has no temperature
    state = xr.DataArray(
        values.astype(np.float32),
        dims=("time", "channel", "latitude", "longitude"),
        coords={
            "time": times.astype("datetime64[ns]"), "channel": ["t2m", "sst"],
            "latitude": [-45.0, 45.0], "longitude": [0.0, 90.0, 180.0, 270.0],
        },
    )  # fmt: skip
    path = tmp_path_factory.mktemp("climatology") / "a.zarr"
    return write(state, path)


def by_definition(store: Store, hour: int, day: int, window: int) -> np.ndarray:
    """WeatherBench 2's: every value of that hour, weighted by its distance in days of year."""
    half = window // 2
    weights, total = np.zeros(store.shape[1:]), np.zeros(store.shape[1:])
    values = store.read(slice(None)).astype(np.float64)
    for time, state in zip(store.times, values, strict=True):
        if time.astype("datetime64[h]").astype(object).hour != hour:
            continue
        own = time.astype("datetime64[D]").astype(object).timetuple()
        days = [own.tm_yday]
        if (own.tm_mon, own.tm_mday, own.tm_yday) == (12, 31, 365):
            days.append(366)
        for candidate in days:
            apart = min(abs(candidate - day), 366 - abs(candidate - day))
            weight = max(0.0, 1 - apart / half)
            weights += weight * np.isfinite(state)
            total += weight * np.nan_to_num(state)
    with np.errstate(invalid="ignore"):
        return total / weights


def test_hourly_is_weatherbench2s(three_years: Path) -> None:
    made = compute_climatology(three_years)
    store = Store.open(three_years)
    assert made.hours is not None and made.hours.tolist() == [0, 12]
    wanted = ["2017-01-01T00", "2017-03-01T12", "2020-12-31T12", "2020-02-29T00", "2017-12-31T00"]
    days = [1, 60, 366, 60, 365]
    times = np.array(wanted, dtype="datetime64[ns]")
    got = store.climatology().at(times)
    for field, time, day in zip(got, times, days, strict=True):
        hour = time.astype("datetime64[h]").astype(object).hour
        # Stored as float32: half a unit in the last place of 300 is 1.5e-5.
        np.testing.assert_allclose(field, by_definition(store, hour, day, 61), atol=2e-5)
    assert np.isnan(got[:, 1, 0, 0]).all()
    np.testing.assert_array_equal(store.climatology().at(times, [1]), got[:, [1]])
    with pytest.raises(ValueError, match=r"hours \[0, 12\] but 6 h is needed"):
        store.climatology().at(np.array(["2017-01-01T06"], dtype="datetime64[ns]"))


def test_window_is_a_triangle_around_the_turn_of_the_year() -> None:
    weights = window_weights(61)
    assert weights[0, 0] == 1 and weights[0, 15] == weights[0, 366 - 15] == 0.5
    assert weights[0, 30] == 0 and weights[0, 29] == pytest.approx(1 / 30)
    np.testing.assert_allclose(weights.sum(axis=1), 30)


def test_bounded_slices_give_the_same(three_years: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compute_climatology(three_years, window_days=31)
    times = Store.open(three_years).times[::97]
    expected = whole.at(times)
    # One channel and one row at a time, and ten times a read.
    monkeypatch.setattr(climatology, "_SUMS_BYTES", 12 * 366 * 4)
    monkeypatch.setattr(climatology, "_READ_BYTES", 4 * 8 * 10)
    sliced = compute_climatology(three_years, window_days=31)
    np.testing.assert_array_equal(sliced.at(times), expected)
    np.testing.assert_array_equal(sliced.mean, whole.mean)


def test_mean_is_the_mean(tmp_path: Path, series: Series, write: Write) -> None:
    state = series(times=20)
    state[4:9, 1, 2] = np.nan
    path = write(state, tmp_path / "a.zarr")
    made = compute_climatology(path, (None, "2001-01-04"))
    values = state.values[:16].astype(np.float64)
    # Rounded to float32 at the end alone.
    np.testing.assert_allclose(made.mean, np.nanmean(values, axis=0), rtol=1e-7)
    assert made.hours is None and made.hourly is None  # shorter than a year
    at = Store.open(path).climatology().at(state["time"].values[17:], [1, 0])
    np.testing.assert_array_equal(at, np.broadcast_to(made.mean[[1, 0]], (3, 2, 4, 8)))
    assert made.period == ("2001-01-01T00:00", "2001-01-04T18:00")
    with xr.open_zarr(path, group="climatology") as dataset:
        np.testing.assert_array_equal(dataset["mean"].sel(channel="msl"), made.mean[1])


def test_refusals(tmp_path: Path, series: Series, three_years: Path, write: Write) -> None:
    state = series()
    path = write(state, tmp_path / "a.zarr")
    with pytest.raises(FileNotFoundError, match="has no climatology"):
        Store.open(path).climatology()
    with pytest.raises(ValueError, match="needs a year, but the period has 2 days"):
        compute_climatology(path, kind="hourly")
    with pytest.raises(ValueError, match="odd number"):
        compute_climatology(three_years, window_days=60)
    with pytest.raises(ValueError, match="choose auto, mean or hourly"):
        compute_climatology(path, kind="daily")  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
    made = compute_climatology(path)
    with pytest.raises(ValueError, match="climatology cover"):
        made.require(period=("1999-01-01T00:00", "2000-01-01T00:00"))


def test_days_of_year_are_those_of_the_calendar() -> None:
    times = np.array(["2000-12-31T18", "2001-12-31", "2000-03-01"], dtype="datetime64[ns]")
    assert day_of_year(times).tolist() == [366, 365, 61]
