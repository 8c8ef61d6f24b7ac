"""Scores by region, and the intervals that they could lie in."""

import numpy as np
import pytest
from numpy.typing import NDArray

from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.scores.intervals import block_length, interval, resampled
from sciml_dchag.weather.scores.regional import RegionalErrors
from sciml_dchag.weather.scores.regions import REGIONS, region_weights

LATITUDE, LONGITUDE = np.arange(-87.1875, 90, 5.625), np.arange(64) * 5.625


def test_regions_hold_the_cells_whose_centres_lie_within() -> None:
    weights = region_weights(LATITUDE, LONGITUDE)
    assert list(weights) == list(REGIONS)
    europe = weights["Europe"] > 0
    rows, columns = europe.any(1), europe.any(0)
    assert (LATITUDE[rows].min(), LATITUDE[rows].max()) == (36.5625, 70.3125)
    assert sorted(LONGITUDE[columns]) == [*np.arange(8) * 5.625, 348.75, 354.375]
    area = latitude_weights(LATITUDE)[:, None]
    np.testing.assert_array_equal(weights["globe"], np.repeat(area, 64, axis=1))
    parts = sum(weights[n] for n in ("northern extratropics", "tropics", "southern extratropics"))
    np.testing.assert_array_equal(parts, weights["globe"])
    west_of_zero = region_weights(LATITUDE, LONGITUDE - 180)["Europe"]
    np.testing.assert_array_equal(np.roll(west_of_zero, -32, axis=1), weights["Europe"])


def test_a_grid_has_the_regions_that_it_reaches_and_land_where_that_is_known() -> None:
    latitude, longitude = np.arange(40.0, 60, 2), np.arange(0.0, 20, 2)
    land = np.zeros((10, 10))
    land[:, :3] = 0.5
    found = region_weights(latitude, longitude, land)
    assert list(found) == ["globe", "northern extratropics", "Europe", "land", "sea"]
    np.testing.assert_array_equal(found["land"] + found["sea"], found["globe"])
    assert (found["land"] > 0).sum() == 30


def errors(
    times: int, generator: np.random.Generator
) -> tuple[RegionalErrors, NDArray[np.float64]]:
    weights = region_weights(LATITUDE, LONGITUDE)
    sums = RegionalErrors(("model", "one", "two"), (6,), weights, 2, times)
    error = generator.normal(size=(3, times, 2, 32, 64)) * np.array([0.8, 1.0, 1.5])[:, None, None, None, None]  # fmt: skip
    error[:, 0, 0, 3, :] = np.nan  # never scored at that time
    truth = generator.normal(size=error.shape[1:])
    for name, own in zip(sums.forecasts, error, strict=True):
        for start in range(0, times, 4):  # in batches, as they are evaluated
            block = np.arange(start, min(start + 4, times))
            sums.update(name, 6, np.arange(2), block, truth[block] + own[block], truth[block])
    return sums, error


def test_rmse_by_region_is_that_of_its_cells() -> None:
    sums, error = errors(10, np.random.default_rng(0))
    table = sums.table({"msl": "Pa", "a": "K"}, 6.0).set_index(["channel", "region"])
    assert list(dict.fromkeys(table.index.get_level_values("channel"))) == ["msl", "a"]
    inside = np.abs(LATITUDE) <= 20
    area = latitude_weights(LATITUDE)[inside][:, None]
    for c, channel in enumerate(("msl", "a")):
        squares = error[0, :, c][:, inside] ** 2
        expected = np.sqrt((squares * area).mean() / area.mean())
        assert table.loc[(channel, "tropics"), "model"] == pytest.approx(expected)
    south = error[1, :, 0][:, LATITUDE <= -20]
    weights = np.broadcast_to(latitude_weights(LATITUDE)[LATITUDE <= -20][:, None], south.shape)
    known = np.isfinite(south)
    expected = np.sqrt((south[known] ** 2 * weights[known]).sum() / weights[known].sum())
    assert table.loc[("msl", "southern extratropics"), "one"] == pytest.approx(expected)
    row = table.loc[("msl", "globe")]
    assert row["best_baseline"] == "one"
    assert row["gain_percent"] == pytest.approx(100 * (1 - row["model"] / row["one"]))
    assert row["gain_low"] < row["gain_percent"] < row["gain_high"]
    assert row["model_low"] < row["model"] < row["model_high"]


def test_an_interval_of_independent_times_is_that_of_theory() -> None:
    """1.96 standard errors of a mean, where times are drawn one by one."""
    values = np.random.default_rng(0).normal(size=400)
    counts = resampled(400, 1)
    assert (counts.sum(1) == 400).all()
    low, high = interval(counts @ values / 400)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_intervals_of_times_that_resemble_each_other_are_wider() -> None:
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=100), 8)  # eight neighbours are one
    alone, together = (np.ptp(interval(resampled(800, n) @ values / 800)) for n in (1, 8))
    assert 2 < together / alone < 3.5  # the square root of 8


def test_blocks_are_as_long_as_the_lead_and_leave_something_to_draw() -> None:
    assert block_length(400, 24, 6) == 8  # 48 h
    assert block_length(400, 240, 6) == 40
    assert block_length(48, 240, 6) == 12  # a quarter of the times
    assert block_length(3, 6, 6) == 1
