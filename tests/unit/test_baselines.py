"""Baselines recover the processes that made the data, from the training period alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.baselines.baselines import BASELINES, fit_baselines
from sciml_dchag.weather.baselines.stencil import COLUMNS, ROWS, on_stencil
from sciml_dchag.weather.store.climatology import compute_climatology
from sciml_dchag.weather.store.statistics import compute_statistics
from sciml_dchag.weather.store.store import Store

Series = Callable[..., xr.DataArray]
Write = Callable[..., Path]
STEPS = 240
TRAIN = ("2001-01-01T00", "2001-02-19T18")  # 200 steps of 6 hours
CYCLE = np.array([0.0, 3.0, 1.0, -4.0])
"""Added at 00, 06, 12 and 18 h."""


@pytest.fixture
def prepared(series: Series, write: Write, tmp_path: Path) -> Callable[[np.ndarray], Store]:
    """Make a store of anomalies (T, C, H, W) of t2m and msl about a daily cycle."""

    def make(anomalies: np.ndarray) -> Store:
        state = series(times=STEPS, rows=8)
        hours = np.arange(STEPS) % 4
        values = 280 + CYCLE[hours][:, None, None, None] + anomalies
        path = write(state.copy(data=values.astype(np.float32)), tmp_path / "s.zarr")
        compute_statistics(path, TRAIN)
        compute_climatology(path, TRAIN, kind="mean")
        return Store.open(path)

    return make


def first_order(seed: int = 0, kept: float = 0.8) -> np.ndarray:
    """Noise that keeps a fraction of itself at every step."""
    rng = np.random.default_rng(seed)
    made = np.zeros((STEPS, 2, 8, 16))
    for step in range(1, STEPS):
        made[step] = kept * made[step - 1] + rng.normal(size=made.shape[1:])
    return made


def moving() -> np.ndarray:
    """Waves that move a column eastward and lose a tenth at every step, and are made anew."""
    rng = np.random.default_rng(1)
    made = np.zeros((STEPS, 2, 8, 16))
    for step in range(STEPS):
        if step % 20 == 0:
            made[step] = rng.normal(size=made.shape[1:])
        else:
            made[step] = 0.9 * np.roll(made[step - 1], 1, axis=-1)
    return made


def turning() -> np.ndarray:
    """Two patterns that turn into each other once in 30 steps."""
    rng = np.random.default_rng(2)
    one, other = rng.normal(size=(2, 1, 2, 8, 16))
    angle = 2 * np.pi * np.arange(STEPS)[:, None, None, None] / 30
    return np.asarray(np.cos(angle) * one + np.sin(angle) * other)


def test_the_simple_ones_are_their_formulas(prepared: Callable[[np.ndarray], Store]) -> None:
    store = prepared(first_order())
    _, found = fit_baselines(store, TRAIN, [1], [6, 12])
    assert list(found) == list(BASELINES)
    initial, lead = np.array([205, 210]), 12
    values = store.read(slice(None)).astype(np.float64)[:, [1]]
    inside = np.arange(200)
    cycle = np.stack([values[inside[inside % 4 == hour]].mean(0) for hour in range(4)])
    anomalies = values - cycle[np.arange(STEPS) % 4]
    expected = cycle[(initial + 2) % 4]
    np.testing.assert_allclose(found["persistence"].forecast(initial, lead), values[initial])
    np.testing.assert_allclose(found["climatology"].forecast(initial, lead), expected, rtol=1e-6)
    np.testing.assert_allclose(
        found["anomaly_persistence"].forecast(initial, lead), expected + anomalies[initial],
        rtol=1e-6,
    )  # fmt: skip
    weights = latitude_weights(store.latitude)[:, None]
    now, then = anomalies[:198], anomalies[2:200]
    kept = (weights * now * then).sum() / (weights * now * now).sum()
    assert kept == pytest.approx(0.64, abs=0.02)
    np.testing.assert_allclose(
        found["damped_persistence"].forecast(initial, lead), expected + kept * anomalies[initial],
        rtol=1e-6,
    )  # fmt: skip


def test_the_ridge_sees_what_comes_from_the_west(prepared: Callable[[np.ndarray], Store]) -> None:
    store = prepared(moving())
    _, found = fit_baselines(store, TRAIN, [0, 1], [6, 12, 24])
    initial = np.array([205, 206, 230])

    def error(name: str, lead: int) -> float:
        truth = store.read(initial + lead // 6)
        return float(np.sqrt(np.mean((found[name].forecast(initial, lead) - truth) ** 2)))

    # A column a step lies on the stencil, four do not. What is left at 6 h is what the waves that
    # are made anew every fifth day do to the fit, and to the mean of the training period.
    assert error("ridge", 6) < 0.25 * error("anomaly_persistence", 6)
    assert error("ridge", 12) < 0.25 * error("anomaly_persistence", 12)
    assert error("ridge", 24) > 0.6 * error("damped_persistence", 24)


def test_the_inverse_model_goes_on_with_what_turns(
    prepared: Callable[[np.ndarray], Store],
) -> None:
    store = prepared(turning())
    _, found = fit_baselines(store, TRAIN, [0, 1], [168])
    initial = np.array([203, 210])
    truth = store.read(initial + 28)
    forecast = found["inverse_model"].forecast(initial, 168)
    assert np.abs(forecast - truth).max() < 0.05
    assert np.abs(found["persistence"].forecast(initial, 168) - truth).max() > 0.5


def test_nothing_but_the_training_period_is_fitted(
    series: Series, write: Write, tmp_path: Path
) -> None:
    def forecasts(later: float, name: str) -> dict[str, np.ndarray]:
        state = series(times=STEPS, rows=8)
        state[200:] += later
        state[195:200] = series(times=STEPS, rows=8)[195:200]
        path = write(state, tmp_path / name)
        compute_statistics(path, TRAIN)
        compute_climatology(path, TRAIN, kind="mean")
        _, found = fit_baselines(Store.open(path), TRAIN, [0], [6], [-6])
        return {name: f.forecast(np.array([150, 198]), 6) for name, f in found.items()}

    one, other = forecasts(0.0, "a.zarr"), forecasts(50.0, "b.zarr")
    for name in BASELINES:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_missing_values_are_left_out(prepared: Callable[[np.ndarray], Store]) -> None:
    anomalies = first_order()
    anomalies[:, 0, 2, 3] = np.nan
    anomalies[50, 1, 4] = np.nan
    store = prepared(anomalies)
    _, found = fit_baselines(store, TRAIN, [0, 1], [6])
    for name, baseline in found.items():
        forecast = baseline.forecast(np.array([205]), 6)
        assert np.isnan(forecast[:, 0, 2, 3]).all(), name
        assert np.isfinite(forecast).sum() == forecast.size - 1, name


def test_a_period_without_pairs_has_no_fit(prepared: Callable[[np.ndarray], Store]) -> None:
    """At a lead time that is longer than the training period there is nothing to learn from."""
    store = prepared(first_order())
    short = ("2001-01-01T00", "2001-01-08T18")
    compute_statistics(store.path, short)
    compute_climatology(store.path, short, kind="mean")
    _, found = fit_baselines(store, short, [0], [6, 240])
    for name in ("damped_persistence", "ridge", "inverse_model"):
        assert np.isfinite(found[name].forecast(np.array([100]), 6)).all(), name
        assert np.isnan(found[name].forecast(np.array([100]), 240)).all(), name


def test_a_stencil_goes_around_the_globe_and_over_the_poles() -> None:
    latitude, longitude = np.linspace(78.75, -78.75, 8), 22.5 * np.arange(16)
    phi, theta = np.deg2rad(latitude)[:, None], np.deg2rad(longitude)[None]
    # A place's position in space is smooth everywhere, so that neighbours have neighbouring values.
    fields = np.stack([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta)])[None, None]
    cells = on_stencil(fields, latitude, longitude).reshape(8, 16, 2, 2 * ROWS + 1, -1)
    middle = cells[:, :, 0, ROWS, COLUMNS]
    np.testing.assert_array_equal(middle, fields[0, 0, 0])
    west = cells[:, :, 0, ROWS, COLUMNS - 1]
    np.testing.assert_array_equal(west, np.roll(fields[0, 0, 0], 1, axis=-1))
    # One row north of 78.75 is 78.75 on the other side; two rows north is 56.25 there.
    np.testing.assert_allclose(cells[0, :, 0, ROWS - 1, COLUMNS], -fields[0, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(cells[0, :, 0, ROWS - 2, COLUMNS], -fields[0, 0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(cells[-1, :, 0, ROWS + 1, COLUMNS], -fields[0, 0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(cells[-1, :, 0, ROWS + 2, COLUMNS], -fields[0, 0, 0, -2], atol=1e-12)
    turned = on_stencil(fields[..., ::-1, :], latitude[::-1], longitude)
    np.testing.assert_allclose(
        turned.reshape(8, 16, 2, 2 * ROWS + 1, -1)[::-1, :, :, ::-1], cells, atol=1e-12
    )


def test_a_stencil_of_a_region_repeats_its_edges() -> None:
    fields = np.arange(6.0 * 7).reshape(1, 1, 1, 6, 7)
    cells = on_stencil(fields, np.linspace(50, 45, 6), np.arange(7.0))
    corner = cells[0, 0, 0].reshape(2 * ROWS + 1, 2 * COLUMNS + 1)
    assert (corner[: ROWS + 1, : COLUMNS + 1] == 0).all()
    assert corner[ROWS + 1, COLUMNS + 1] == 8
