"""The chain of regressions that a forecast may start from, and departures from the seasons."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from sciml_dchag.channels import ChannelSet
from sciml_dchag.checking import check_recipe
from sciml_dchag.config import from_mapping
from sciml_dchag.training.checkpoint import read_checkpoint
from sciml_dchag.training.export import export
from sciml_dchag.training.trainer import train as train_task
from sciml_dchag.weather.baselines.predictors import Advected
from sciml_dchag.weather.baselines.training_pairs import thinned_by
from sciml_dchag.weather.forecast.chain import RegressionChain, fit_chain
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.forecast.forecaster import Forecaster
from sciml_dchag.weather.forecast.task import ForecastTask
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.store.cycles import Cycle, season_terms, terms_at
from sciml_dchag.weather.store.statistics import compute_statistics
from sciml_dchag.weather.store.store import Store

NAMES = "u500,v500,t500,t2m"


def carried(series: Callable[..., xr.DataArray], times: int = 160) -> xr.DataArray:
    """Temperatures that a wind of its own at each time carries along, as no linear rule can.

    The wind blows eastward on the whole globe, and t2m follows t500; there is fresh noise at each
    step, so that there is something to carry.
    """
    state = series(times=times, channels=NAMES, rows=8)
    noise = np.random.default_rng(2)
    values = np.zeros(state.shape)
    grid = Grid.named("8x16")
    turn = np.deg2rad(360 / 16) * 6.371e6 * np.cos(np.deg2rad(grid.latitude))
    for t in range(times):
        around = np.cos(np.deg2rad(grid.latitude))[:, None]  # a turn as of a solid body
        values[t, 0] = noise.uniform(-2.4, 2.4) * around
        values[t, 1] = 0.01 * noise.normal()
        smooth = noise.normal(size=(8, 16))
        smooth += np.roll(smooth, 1, -1) + np.roll(smooth, -1, -1)
        values[t, 2] = 0.3 * smooth
        if t:
            before = values[t - 1, 2]
            slope = (np.roll(before, -1, -1) - np.roll(before, 1, -1)) / (2 * turn[:, None])
            values[t, 2] += 0.7 * before - 1e6 * values[t - 1, 0] * slope
        values[t, 3] = values[t, 2] + 0.1 * noise.normal(size=(8, 16))
    values[:, 2:] += 280
    return state.copy(data=values.astype(np.float32))


@pytest.fixture(scope="module")
def own_store(tmp_path_factory: pytest.TempPathFactory, write: Callable[..., Path]) -> Path:
    grid = Grid.named("8x16")

    def series(*, times: int, channels: str, rows: int) -> xr.DataArray:
        step = np.arange(times) * np.timedelta64(6, "h")
        coords = {
            "time": np.datetime64("2001-01-01", "ns") + step, "channel": channels.split(","),
            "latitude": grid.latitude, "longitude": grid.longitude,
        }  # fmt: skip
        shape = (times, len(channels.split(",")), *grid.shape)
        return xr.DataArray(np.zeros(shape, np.float32), dims=tuple(coords), coords=coords)

    path = write(carried(series), tmp_path_factory.mktemp("chain") / "s.zarr")
    compute_statistics(path, TRAIN)
    return path


TRAIN = ("2001-01-01", "2001-01-30")


def recipe(store: Path, task: dict[str, Any] | None = None, **sections: Any) -> ForecastRecipe:
    return from_mapping(
        ForecastRecipe,
        {
            "name": "chain",
            "data": {"store": str(store), "train": list(TRAIN), "departures": True},
            "model": {"embed_dim": 16, "depth": 1, "heads": 4, "patch": 4, "partitions": 2},
            "task": {
                "targets": ["t500", "t2m"], "lead_hours": [6, 24], "chain_hours": [6, 12, 24],
                "chain_channels": NAMES.split(","), **(task or {}),
            },
            "training": {"steps": 2, "batch": 2, "warmup_steps": 1},
            "evaluation": {"lead_hours": [6, 24]},
            **sections,
        },
    )  # fmt: skip


def test_what_the_wind_carries_is_found(own_store: Path) -> None:
    """A product of two fields, which the same chain without winds cannot have."""
    store = Store.open(own_store)
    cycle = Cycle.of(store, TRAIN)
    late = np.arange(125, 155)
    left = {}
    for names in (["u500", "v500", "t500"], ["t500", "t2m"]):
        chain = fit_chain(store, TRAIN, cycle, (6,), names)
        (_, states), *_ = chain.forecast(store, late, 6)
        place = names.index("t500")
        truth = chain.departures(store, late + 1)[:, chain.places[place]]
        left[len(chain.advected)] = float(np.std(truth - states[:, place]))
    assert left[3] < 0.9 * left[0]


def test_stages_are_fitted_on_forecasts_and_shrink(own_store: Path) -> None:
    """A chain read back from its text forecasts the same, and less the farther ahead."""
    store = Store.open(own_store)
    cycle = Cycle.of(store, TRAIN)
    chain = fit_chain(store, TRAIN, cycle, (6, 12, 24), NAMES.split(","))
    found = dict(chain.forecast(store, [130, 140], 24))
    assert list(found) == [6, 12, 24] and found[6].shape == (2, 4, 8, 16)
    sizes = [float(np.std(found[lead][:, 2])) for lead in found]
    assert sizes[0] > sizes[1] > sizes[2] > 0
    assert list(dict(chain.forecast(store, [130], 12))) == [6, 12]
    empty = np.ones(4, np.float32)
    again = RegressionChain((6, 12, 24), store.channels, NAMES.split(","), cycle, empty)
    same = dict(again.load(chain.to_text(), (8, 16)).forecast(store, [130, 140], 24))
    for lead, states in found.items():
        np.testing.assert_array_equal(same[lead], states)
    with pytest.raises(ValueError, match="cannot be read from its text"):
        again.load(chain.to_text()[:-8], (8, 16))


def test_advection_of_a_wave_is_its_formula() -> None:
    grid = Grid.named("32x64")
    channels = ChannelSet(["t2m", "u10", "v10", "z500", "u500", "v850"])
    advected = Advected.of(channels)
    assert advected == Advected((0, 1, 2), (1, 1, 1), (2, 2, 2))
    angle = np.deg2rad(grid.longitude)[None, :] + 0 * grid.latitude[:, None]
    fields = np.zeros((1, 6, 32, 64), np.float32)
    fields[0, 0], fields[0, 1] = np.sin(angle), 10.0
    change = advected.change(fields, grid.latitude, grid.longitude)[0, 0]
    circle = 6.371e6 * np.cos(np.deg2rad(grid.latitude))[:, None]
    np.testing.assert_allclose(change, 10 * np.cos(angle) / circle, rtol=3e-3, atol=1e-9)
    fields[0, 0], fields[0, 1], fields[0, 2] = grid.latitude[:, None], 0.0, 5.0
    change = advected.change(fields, grid.latitude, grid.longitude)[0, 0]
    np.testing.assert_allclose(change, 5 / np.deg2rad(6.371e6), rtol=1e-5)


def test_a_forecast_is_the_chain_and_what_the_model_adds(own_store: Path, tmp_path: Path) -> None:
    """From the checkpoint alone, in physical units; an exported file has it all."""
    store = Store.open(own_store)
    run = tmp_path / "run"
    train_task(ForecastTask(recipe(own_store)), run)
    data = read_checkpoint(run).data
    assert np.all(
        np.diff(np.reshape(data["change_std"], (3, 2)), axis=0) > 0
    )  # more is left, the farther ahead
    forecaster = Forecaster(run, store)
    file = export(run, tmp_path / "model.safetensors")
    leads, initial = (6, 24), [130, 140]
    with torch.no_grad():
        whole, exported = (
            dict(f.forecast(f.windows((None, None)), initial, leads))
            for f in (forecaster, Forecaster(file, store))
        )
        for parameter in forecaster.model.head.parameters():
            parameter.zero_()  # the model adds nothing
        found = dict(forecaster.forecast(forecaster.windows((None, None)), initial, leads))
    cycle = Cycle.of(store, TRAIN)
    chain = fit_chain(store, TRAIN, cycle, (6, 12, 24), NAMES.split(","))
    for lead, states in chain.forecast(store, initial, 24):
        if lead == 12:
            continue
        np.testing.assert_array_equal(exported[lead], whole[lead])
        assert np.abs(whole[lead] - found[lead]).max() > 0
        valid = store.times[initial] + np.timedelta64(lead, "h")
        expected = states[:, 2:] * chain.scale[2:, None, None] + cycle.at(valid, [2, 3])
        np.testing.assert_allclose(found[lead], expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"18 h is none of those .* \[6, 12, 24\]"):
        forecaster.check_leads([18])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"chain_channels": []}, "task.chain_channels is empty"),
        ({"chain_hours": []}, "task.chain_hours is empty"),
        ({"chain_hours": [12, 6, 24]}, "ascending, each once"),
        ({"lead_hours": [6, 48]}, r"set task.lead_hours to \[6, 24\]"),
        ({"output": "direct"}, "task.output to residual"),
        ({"targets": ["z500"]}, "add it to task.chain_channels"),
        ({"targets": []}, "needs task.targets"),
        ({"chain_channels": ["t500", "t2m", "t2m"]}, "repeats t2m"),
        ({"lead_hours": [6, 6], "chain_hours": [6]}, "has one lead time"),
    ],
)
def test_what_a_chain_does_not_go_with_is_refused(
    own_store: Path, task: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(own_store, task)


def test_a_chain_needs_departures_its_own_leads_and_a_long_period(own_store: Path) -> None:
    whole = recipe(own_store)
    with pytest.raises(ValueError, match="set data.departures to true"):
        dataclasses.replace(whole, data=dataclasses.replace(whole.data, departures=False))
    with pytest.raises(ValueError, match=r"has 18, which is none of task.chain_hours"):
        recipe(own_store, evaluation={"lead_hours": [6, 18]})
    store = Store.open(own_store)
    short = ("2001-01-01", "2001-01-02")
    with pytest.raises(ValueError, match="has 0 initial time"):
        fit_chain(store, short, Cycle.of(store, short), (48,), ["t500"])


def test_seasons_are_fitted_where_a_year_is_there(
    series: Callable[..., xr.DataArray], write: Callable[..., Path], tmp_path: Path
) -> None:
    state = series(times=2 * 4 * 366, channels="t2m", rows=4)
    hours = (state.time.values - state.time.values[0]) / np.timedelta64(1, "h")
    wave = 9 * np.cos(2 * np.pi * hours / (365.2425 * 24)) + 3 * np.sin(2 * np.pi * hours / 24)
    values = 280 + wave[:, None, None, None] + 0.01 * (state.values - 280)
    values[:, 0, 0, 0] = np.nan  # never known
    values[hours > 24 * 60, 0, 1, 1] = np.nan  # known in one season alone
    store = Store.open(write(state.copy(data=values.astype(np.float32)), tmp_path / "s.zarr"))
    cycle = Cycle.of(store, (None, None))
    assert cycle.mean.shape == (4, 9, 1, 4, 8) and "season" in cycle.in_words()
    left = store.read(slice(None)) - cycle.at(store.times, [0])
    assert np.isnan(left[:, 0, 0, 0]).all() and np.isfinite(left[0, 0, 1, 1])
    assert not cycle.mean[:, 1:, 0, 1, 1].any()
    assert np.nanstd(left[:, 0, 2:]) == pytest.approx(0.1, rel=0.05)
    month = Cycle.of(store, ("2001-01-01", "2001-01-31"))
    assert month.mean.shape == (4, 1, 1, 4, 8) and "season" not in month.in_words()
    assert season_terms(store.times[:4]) == 1
    np.testing.assert_allclose(terms_at(store.times[:1], 5)[0], [1, 1, 0, 1, 0], atol=0.05)


@pytest.mark.parametrize(("count", "most"), [(4000, 1000), (4380, 1000), (10, 100), (35064, 500)])
def test_thinning_leaves_no_hour_of_the_day_out(count: int, most: int) -> None:
    every = thinned_by(count, most)
    taken = np.arange(count)[::every]
    assert len(taken) <= most
    for a_day in (4, 24):
        assert len(set(taken % a_day)) == min(a_day, len(taken))


@pytest.mark.parametrize(
    ("task", "data", "message"),
    [
        ({}, {"train": ["2001-01-01", "2001-01-01T18"]}, "has 0 initial time"),
        ({"chain_channels": ["t500", "t2m", "u10"]}, {}, "u10"),
        ({"lead_hours": [6, 15], "chain_hours": [6, 15]}, {}, "has 15 h, no multiple of the time"),
    ],
)
def test_check_says_what_training_would_refuse(
    own_store: Path, task: dict[str, Any], data: dict[str, Any], message: str, tmp_path: Path
) -> None:
    whole = recipe(own_store, task, evaluation={"lead_hours": [6]})
    changed = dataclasses.replace(whole, data=dataclasses.replace(whole.data, **data))
    failed = [f.what for f in check_recipe(changed, tmp_path) if f.verdict == "fails"]
    assert any(message in text for text in failed), failed
