"""The linear step that a forecaster may start from, and departures from the daily cycle."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from sciml_dchag.channels import ChannelSet
from sciml_dchag.config import from_mapping
from sciml_dchag.files.arrays import from_text, to_text
from sciml_dchag.objectives.linear_step import LinearStep
from sciml_dchag.training.checkpoint import read_checkpoint
from sciml_dchag.training.export import export
from sciml_dchag.training.trainer import train as train_task
from sciml_dchag.weather.baselines.normal_equations import NormalEquations
from sciml_dchag.weather.baselines.stencil import on_stencil
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.forecast.forecaster import Forecaster
from sciml_dchag.weather.forecast.linear_step import fit_linear_step, linear_step_of, neighbours
from sciml_dchag.weather.forecast.task import ForecastTask
from sciml_dchag.weather.forecast.training import check_departures
from sciml_dchag.weather.store.cycles import Cycle
from sciml_dchag.weather.store.statistics import compute_statistics
from sciml_dchag.weather.store.store import Store
from sciml_dchag.weather.windows import ForecastWindows


def advected(series: Callable[..., xr.DataArray], channels: str, times: int = 40) -> xr.DataArray:
    """States that a linear rule moves on: a turn by one column, damped, fed by the first channel.

    With fresh noise at each step, so that there is something to learn at every time.
    """
    state = series(times=times, channels=channels, rows=4)
    values, noise = state.values.astype(np.float64), np.random.default_rng(1)
    values[0] = noise.normal(size=values.shape[1:])
    for t in range(1, times):
        turned = np.roll(values[t - 1], 1, axis=-1)
        values[t] = 0.8 * turned + 0.3 * noise.normal(size=turned.shape)
        if values.shape[1] <= 4:
            values[t, 1:] += 0.4 * values[t - 1, :1]
    return state.copy(data=(280 + values).astype(np.float32))


def windows_of(store: Store, **options: Any) -> ForecastWindows:
    statistics = compute_statistics(store.path)
    names = store.channels.names
    settings: dict[str, Any] = {
        "mean": statistics.mean, "std": statistics.std, "targets": names, "lead_hours": (6, 6),
    }  # fmt: skip
    return ForecastWindows(store, (None, None), **{**settings, **options})


@pytest.mark.parametrize("channels", ["t2m", "t2m,msl", "t2m,msl,u10,v10,z500"])
def test_a_linear_rule_is_found(
    channels: str, series: Callable[..., xr.DataArray], write: Callable[..., Path], tmp_path: Path
) -> None:
    """What is left is the noise: of one channel, of few from all, of many each from itself."""
    store = Store.open(write(advected(series, channels, 400), tmp_path / "s.zarr"))
    windows = windows_of(store)
    weights = fit_linear_step(windows)
    count = len(store.channels)
    assert weights.shape == (count, count if count <= 4 else 1, 1, 35, 4)
    step = linear_step_of(store, weights, range(count))
    left, change = [], []
    for index in range(300, 399):
        sample = windows.sample(index, 1)
        truth = sample.targets[:, 0] - sample.now
        left.append((truth - step(sample.now[:, :, None])).numpy())
        change.append(truth.numpy())
    std = compute_statistics(store.path).std
    noise = np.std(left, axis=(0, 1, 3, 4)) * std
    np.testing.assert_allclose(noise, 0.3, rtol=0.06)
    assert (np.std(change, axis=(0, 1, 3, 4)) * std > 0.5).all()


def test_the_step_is_the_stencil_of_the_baselines() -> None:
    """Against the definition, on a global grid, whose neighbours lie across date line and poles."""
    rng = np.random.default_rng(0)
    latitude, longitude = np.array([-67.5, -22.5, 22.5, 67.5]), np.arange(8) * 45.0
    numbers = np.arange(32.0).reshape(1, 1, 1, 4, 8)
    cells = on_stencil(numbers, latitude, longitude)[0].transpose(2, 0, 1).astype(np.int64)
    weights = rng.normal(size=(2, 3, 2, 35, 4)).astype(np.float32)
    states = rng.normal(size=(5, 3, 2, 4, 8)).astype(np.float32)
    found = LinearStep(weights, cells, np.array([0, 2]))(torch.from_numpy(states))
    around = on_stencil(states.transpose(0, 2, 1, 3, 4), latitude, longitude)  # (B,H,W,T C S)
    around = around.reshape(5, 4, 8, 2, 3, 35)
    expected = np.einsum("bhwtcs,octsh->bohw", around, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    own = LinearStep(weights[:, :1], cells, np.array([0, 2]))(torch.from_numpy(states))
    expected = np.einsum("bhwtos,otsh->bohw", around[..., [0, 2], :], weights[:, 0])
    np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-4)
    turned = LinearStep(weights, cells, np.array([0, 2]))(torch.from_numpy(states).roll(3, -1))
    torch.testing.assert_close(turned, found.roll(3, -1))
    with torch.autocast("cpu", torch.bfloat16):
        assert LinearStep(weights, cells, np.array([0, 2]))(
            torch.from_numpy(states)
        ).dtype == torch.float32  # fmt: skip


def test_rows_that_share_samples_are_the_weighted_sum_of_their_equations() -> None:
    rng = np.random.default_rng(0)
    sums, latitude = NormalEquations(), np.array([-30.0, 0.0, 30.0])
    x, y = rng.normal(size=(3, 50, 2)), rng.normal(size=(3, 50, 1))
    sums.add(x, y)
    far = sums.pooled(latitude, 1.0)  # 30 degrees are out of reach
    np.testing.assert_allclose(far.solve(0.0), sums.solve(0.0))
    near = sums.pooled(latitude, 1e6)
    alone = np.linalg.lstsq(x.reshape(-1, 2), y.reshape(-1, 1), rcond=None)[0]
    np.testing.assert_allclose(near.solve(0.0)[0], alone, rtol=1e-6)


@pytest.fixture
def own_store(msl_store: Path, tmp_path: Path) -> Path:
    """A copy whose statistics are of the days that are trained on."""
    path = tmp_path / "own.zarr"
    shutil.copytree(msl_store, path)
    compute_statistics(path, ("2025-12-01", "2025-12-24"))
    return path


def test_departures_are_from_the_mean_of_their_hour(own_store: Path) -> None:
    store = Store.open(own_store)
    cycle = Cycle.of(store, (None, None))
    windows = windows_of(store, expected=cycle, memory_mebibytes=100)
    raw = store.read(slice(None))[:, 0].astype(np.float64)
    std = store.statistics().std[0]
    for index in (5, 6):
        mean = raw[index % 4 :: 4].mean(0)
        np.testing.assert_allclose(
            windows.sample(index, 1).now[0, 0], (raw[index] - mean) / std, atol=1e-5
        )
    with pytest.raises(ValueError, match=r"hours \[0, 6, 12, 18\], and 3 h is needed"):
        cycle.at(np.array(["2025-12-01T03"], "datetime64[ns]"), [0])


def recipe(store: Path, **task: Any) -> ForecastRecipe:
    return from_mapping(
        ForecastRecipe,
        {
            "name": "linear",
            "data": {"store": str(store), "train": ["2025-12-01", "2025-12-24"],
                     "history_hours": [-6], "departures": True, "rotate": True},
            "model": {"embed_dim": 8, "depth": 1, "heads": 4, "patch": 8, "partitions": 1},
            "task": {"linear_step": True, **task},
            "training": {"steps": 2, "batch": 2, "warmup_steps": 1, "log_every": 1},
        },
    )  # fmt: skip


def test_a_forecast_is_the_linear_step_and_what_the_model_adds(
    own_store: Path, tmp_path: Path
) -> None:
    """From the checkpoint alone, rolled out, in physical units; an exported file has it all."""
    store = Store.open(own_store)
    run = tmp_path / "run"
    train_task(ForecastTask(recipe(own_store)), run)
    forecaster = Forecaster(run, store)
    with torch.no_grad():
        for parameter in forecaster.model.head.parameters():
            parameter.zero_()  # the model adds nothing
    windows = forecaster.windows((None, None))
    found = dict(forecaster.forecast(windows, [101, 102], (6, 12)))
    cycle = Cycle.of(store, ("2025-12-01", "2025-12-24"))
    std = store.statistics().std[0]

    def departure(indices: list[int]) -> np.ndarray:
        return (store.read(indices) - cycle.at(store.times[indices], [0])) / std

    weights = from_text(read_checkpoint(run).data["linear_step"], (1, 1, 2, 35, 32))
    step = LinearStep(weights, neighbours(store), np.array([0]))
    now, before = departure([101, 102]), departure([100, 101])
    for lead in (6, 12):
        states = torch.from_numpy(np.stack([now, before], axis=2))
        now, before = now + step(states).numpy(), now
        valid = store.times[[101, 102]] + np.timedelta64(lead, "h")
        np.testing.assert_allclose(found[lead], now * std + cycle.at(valid, [0]), rtol=1e-6)
    file = export(run, tmp_path / "model.safetensors")
    again = Forecaster(file, store)
    whole = Forecaster(run, store)
    one, other = (
        dict(f.forecast(f.windows((None, None)), [50], (12,)))[12] for f in (again, whole)
    )
    np.testing.assert_array_equal(one, other)


def test_what_a_linear_step_does_not_go_with_is_refused(msl_store: Path) -> None:
    for task in ({"output": "direct"}, {"lead_hours": [6, 24]}):
        with pytest.raises(ValueError, match=r"task\.linear_step forecasts the change over one"):
            recipe(msl_store, **task)


def test_a_daily_cycle_too_large_for_a_checkpoint_is_refused(msl_store: Path) -> None:
    with pytest.raises(ValueError, match=r"80 channels on 721 x 1440 cells .* at most 256 MiB"):
        check_departures(recipe(msl_store), Dates(), (721, 1440))
    check_departures(recipe(msl_store), Dates(), (32, 64))


class Dates:
    """What a store of 80 channels will be."""

    channels = ChannelSet.of("era5_80")
    times = np.arange("2025-12-01", "2025-12-25", 6, "datetime64[h]").astype("datetime64[ns]")
    step_hours = 6

    def time_indices(self, period: object) -> np.ndarray:
        return np.arange(len(self.times))


def test_an_array_as_text_comes_back_or_is_refused() -> None:
    array = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    text = to_text(array)
    np.testing.assert_array_equal(from_text(text, (2, -1)), array)
    for wrong, shape in ((text[:-2], (2, 3)), (text, (2, 4)), ("?" + text[1:], (2, 3))):
        with pytest.raises(ValueError, match="cannot be read from its text"):
            from_text(wrong, shape)
