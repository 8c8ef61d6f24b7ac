"""Statistics by channel: against a plain two-pass computation, and what they refuse."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciml_dchag.channels import ChannelSet
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.store import layout
from sciml_dchag.weather.store.statistics import compute_statistics, require_normalisable
from sciml_dchag.weather.store.store import Store

Series = Callable[..., xr.DataArray]
Write = Callable[..., Path]


def two_pass(values: np.ndarray, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and standard deviation of (T, C, H, W), the textbook way."""
    weights = np.broadcast_to(latitude_weights(latitude)[:, None], values.shape)
    weights = np.where(np.isnan(values), 0.0, weights)
    filled = np.nan_to_num(values)
    mean = (weights * filled).sum((0, 2, 3)) / weights.sum((0, 2, 3))
    squares = weights * (filled - mean[:, None, None]) ** 2
    return mean, np.sqrt(squares.sum((0, 2, 3)) / weights.sum((0, 2, 3)))


@pytest.mark.parametrize("times_a_block", [3, 50])
def test_agrees_with_two_passes_over_everything(
    tmp_path: Path,
    series: Series,
    monkeypatch: pytest.MonkeyPatch,
    times_a_block: int,
    write: Write,
) -> None:
    monkeypatch.setattr(layout, "BLOCK_BYTES", times_a_block * 2 * 4 * 8 * 4)
    state = series(times=20)
    state[3, 0, 1, 2:5] = np.nan
    state[:, 1] += 1e6  # a naive sum of squares would lose all digits
    path = write(state, tmp_path / "a.zarr")
    got = compute_statistics(path, ("2001-01-01T06", "2001-01-05T06"))
    values = state.values[1:18].astype(np.float64)
    latitude = state["latitude"].values
    mean, std = two_pass(values, latitude)
    # Both are float64 sums of about 500 terms.
    np.testing.assert_allclose(got.mean, mean, rtol=1e-13)
    np.testing.assert_allclose(got.std, std, rtol=1e-9)
    np.testing.assert_allclose(
        got.step_difference_std, two_pass(np.diff(values, axis=0), latitude)[1], rtol=1e-9
    )
    np.testing.assert_array_equal(got.minimum, np.nanmin(values, axis=(0, 2, 3)))
    np.testing.assert_array_equal(got.maximum, np.nanmax(values, axis=(0, 2, 3)))
    np.testing.assert_array_equal(got.count, np.isfinite(values).sum(axis=(0, 2, 3)))
    assert got.period == ("2001-01-01T06:00", "2001-01-05T06:00")


def test_is_kept_in_the_store(tmp_path: Path, series: Series, write: Write) -> None:
    path = write(series(), tmp_path / "a.zarr")
    with pytest.raises(FileNotFoundError, match="has no statistics"):
        Store.open(path).statistics()
    first = compute_statistics(path, ("2001-01-01", "2001-01-01"))
    second = compute_statistics(path)  # replaces the first
    kept = Store.open(path).statistics()
    np.testing.assert_array_equal(kept.mean, second.mean)
    assert (kept.mean != first.mean).all()
    assert kept.channels == Store.open(path).channels
    with xr.open_zarr(path, group="statistics") as dataset:
        assert dataset["mean"].sel(channel="msl") == second.mean[1]
        assert dataset.attrs["period_end"] == second.period[1]


def test_refuses_another_period_grid_or_channels(
    tmp_path: Path, series: Series, write: Write
) -> None:
    path = write(series(times=12), tmp_path / "a.zarr")
    store = Store.open(path)
    statistics = compute_statistics(path, ("2001-01-01", "2001-01-02"))
    statistics.require(
        period=store.period(("2001-01-01", "2001-01-02T23")),
        grid_sha256=store.grid_sha256,
        channels=store.channels,
    )
    with pytest.raises(ValueError, match="2001-01-01T00:00 to 2001-01-03T18:00 is needed"):
        statistics.require(period=store.period())
    with pytest.raises(ValueError, match="grid deadbeef is used"):
        statistics.require(grid_sha256="deadbeef")
    with pytest.raises(ValueError, match="'msl' is needed where 't2m' stands"):
        statistics.require(channels=ChannelSet.of("msl,t2m"))
    with pytest.raises(ValueError, match="1 are needed where there are 2"):
        statistics.require(channels=ChannelSet.of("t2m"))
    chosen = statistics.select(["msl"])
    chosen.require(channels=ChannelSet.of("msl"))
    assert chosen.mean.tolist() == [statistics.mean[1]]


def test_channels_that_cannot_be_normalised_are_refused(
    tmp_path: Path, series: Series, write: Write
) -> None:
    empty, constant = series(), series()
    empty[:, 1] = np.nan
    constant[:, 0] = 273.15
    with pytest.raises(ValueError, match="Channel msl has no value"):
        compute_statistics(write(empty, tmp_path / "empty.zarr"))
    with pytest.raises(ValueError, match="Channel t2m has one value"):
        compute_statistics(write(constant, tmp_path / "constant.zarr"))
    assert not (tmp_path / "constant.zarr" / "statistics").exists()


def test_uneven_steps_have_no_step_difference(tmp_path: Path, series: Series, write: Write) -> None:
    path = write(series().isel(time=[0, 1, 3]), tmp_path / "a.zarr")
    assert np.isnan(compute_statistics(path).step_difference_std).all()


def test_simulated_channels_have_believable_statistics(simulated_store: Path) -> None:
    statistics = Store.open(simulated_store).statistics()
    where = statistics.channels.index
    assert 5.2e4 < statistics.mean[where("z500")] < 5.8e4  # m2 s-2
    assert 270 < statistics.mean[where("t2m")] < 300  # K; cells by area, or the poles weigh it down
    assert (statistics.step_difference_std < 2 * statistics.std).all()
    assert (statistics.minimum < statistics.mean).all()
    assert (statistics.mean < statistics.maximum).all()


@pytest.mark.parametrize("what", ["one cell", "one time"])
def test_a_training_sample_of_1e30_is_named_before_training(
    tmp_path: Path, series: Series, write: Write, what: str
) -> None:
    state = series(times=20)
    state[(3, 1, 2, 5) if what == "one cell" else (3, 1)] = 1e30
    path = write(state, tmp_path / "s.zarr")
    name = Store.open(path).channels.names[1]
    with pytest.raises(ValueError, match=rf"Channel {name} has values of up to 1e\+30") as refused:
        compute_statistics(path)
    assert "\n" not in str(refused.value) and not (path / "statistics").exists()
    compute_statistics(path, ("2001-01-03", None))  # not of this period


def test_statistics_that_normalise_nothing_are_refused_where_they_are_read(
    tmp_path: Path, series: Series, write: Write
) -> None:
    path = write(series(times=20), tmp_path / "s.zarr")
    statistics = compute_statistics(path)
    require_normalisable(statistics)
    for values in ([1.0, 0.0], [np.nan, 1.0]):
        broken = dataclasses.replace(statistics, std=np.array(values))
        with pytest.raises(ValueError, match="with which nothing can be normalised"):
            require_normalisable(broken)
