"""`task.kind: interpolate` end to end: training, scores, and the command on stores and forecasts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from click.testing import CliRunner, Result

from sciml_dchag.cli import main
from sciml_dchag.figures.tables import heading
from sciml_dchag.pipeline import train
from sciml_dchag.tasks import recipe_from_mapping, task_of
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.weather.interpolate.baselines import BASELINES
from sciml_dchag.weather.interpolate.interpolator import Interpolator
from sciml_dchag.weather.store.climatology import compute_climatology
from sciml_dchag.weather.store.statistics import compute_statistics
from sciml_dchag.weather.store.store import Store

TRAIN, TEST = ["2001-01-01", "2001-01-12"], ["2001-01-13", "2001-01-20"]


def command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def turning(times: int = 80) -> xr.DataArray:
    """Pressure that is turned eastward by a column every 6 h, and a temperature that follows it."""
    from sciml_dchag.weather.grid import Grid

    grid, draw = Grid.named("8x16"), np.random.default_rng(1)
    values = np.empty((times, 2, *grid.shape))
    values[0] = draw.normal(size=values.shape[1:])
    for t in range(1, times):
        values[t] = np.roll(values[t - 1], 1, axis=-1) + 0.1 * draw.normal(size=values.shape[1:])
    values[:, 1] = 1e5 + 500 * values[:, 0]
    values[:, 0] += 280
    start = np.datetime64("2001-01-01", "ns")
    return xr.DataArray(
        values.astype(np.float32),
        dims=("time", "channel", "latitude", "longitude"),
        coords={
            "time": start + np.arange(times) * np.timedelta64(6, "h"), "channel": ["t2m", "msl"],
            "latitude": grid.latitude, "longitude": grid.longitude,
        },
    )  # fmt: skip


def frames_at(store: Store, starts: np.ndarray, steps: int) -> np.ndarray:
    """The frames around windows of some steps that start at positions of a store."""
    return np.stack([store.read(starts + shift * steps) for shift in (-1, 0, 1, 2)], axis=1)


def mapping(store: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "between",
        "data": {"store": str(store), "train": TRAIN, "test": TEST, "rotate": True,
                 "forcings": ["cos_latitude"]},
        "model": {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 4, "partitions": 2},
        "task": {"kind": "interpolate"},
        "training": {"steps": 3, "batch": 4, "warmup_steps": 1, "learning_rate": 1e-3},
        "evaluation": {"objects": ["lows"]},
        **sections,
    }  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, write: Callable[..., Path]) -> Path:
    path = write(turning(), tmp_path_factory.mktemp("between") / "turning.zarr")
    compute_statistics(path, tuple(TRAIN))
    compute_climatology(path, tuple(TRAIN), kind="mean")
    return path


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("between") / "between"
    train(recipe_from_mapping(mapping(store)), folder)
    return folder


def test_a_run_is_scored_beside_every_baseline(run: Path, store: Path) -> None:
    done = command("evaluate", run)
    assert done.exit_code == 0, done.output
    found = Evaluation.read(run)
    table = found.table.set_index(["channel", "window_hours", "elapsed_hours"])
    assert list(table.index) == [
        (channel, window, tau) for channel in ("t2m", "msl") for window, tau in
        (("12", "6"), ("24", "6"), ("24", "12"), ("24", "18"))
    ]  # fmt: skip
    assert found.baselines == list(BASELINES)
    # What moves is found by the ridge, on which hardly trained weights change little.
    assert (table["ridge"] < 0.5 * table["linear_of_departures"]).all()
    assert (abs(table["model"] - table["ridge_of_four"]) < 0.2 * table["ridge_of_four"]).all()
    report = (run / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert all(heading(name) in report for name in BASELINES)
    lows = (run / "evaluation" / "objects.csv").read_text(encoding="utf-8").splitlines()
    assert len(lows) == 1 + 4 * 6 and "depth_bias" in lows[0]
    assert "window hours" in command("inspect", run).output


def test_states_between_are_those_that_are_scored(run: Path, store: Path) -> None:
    """The linear baseline by hand; and the answer at both ends is the state there."""
    opened = Store.open(store)
    model, starts = Interpolator(run, opened), np.array([50, 51])
    times = opened.times[starts]
    frames = frames_at(opened, starts, 2)
    for tau, end in ((0, 1), (12, 2)):
        found = model.between(frames, times, 12, tau)
        np.testing.assert_allclose(found, frames[:, end], rtol=1e-6)
    missing = frames.copy()
    missing[:, 1, 0, 0, 0] = np.nan
    found = model.between(missing, times, 12, 6)
    assert np.isnan(found).sum() == 2 and np.isnan(found[:, 0, 0, 0]).all()
    alone = frames.copy()
    alone[:, [0, 3]] = np.nan
    ridges, of_alone = model.ridges(frames, times, 12, 6), model.ridges(alone, times, 12, 6)
    assert np.array_equal(ridges["ridge"], of_alone["ridge"])
    assert np.array_equal(ridges["ridge"], of_alone["ridge_of_four"])
    assert not np.array_equal(ridges["ridge"], ridges["ridge_of_four"])
    assert np.isfinite(model.between(alone, times, 12, 6)).all()
    with pytest.raises(ValueError, match="A window of 18 h was not trained"):
        model.between(frames, times, 18, 6)


def test_a_store_gets_the_times_between(run: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "hourly.zarr"
    words = ("interpolate", run, store, out, "--every", "1h", "--window", "12h", "--start-time",
             "2001-01-14", "--end-time", "2001-01-15T12")  # fmt: skip
    done = command(*words)
    assert done.exit_code == 0, done.output
    assert "every 1 h were never scored" in done.output.replace("\n", " ")
    source, found = Store.open(store), Store.open(out)
    assert len(found.times) == 37 and found.step_hours == 1
    assert found.attribution == source.attribution
    assert "every 1 h, within windows of 12 h by between, step 3" in found.attrs["interpolated"]
    same = source.read(np.flatnonzero(np.isin(source.times, found.times[::12])))
    assert np.array_equal(found.read(slice(0, None, 12)), same)
    starts = np.flatnonzero(np.isin(source.times, found.times[[0, 12, 24]]))
    frames = frames_at(source, starts, 2)  # of times outside of the period, too
    by_hand = Interpolator(run, source).between(frames, source.times[starts], 12, 5)
    np.testing.assert_allclose(found.read(slice(5, None, 12)), by_hand, rtol=1e-6)
    again = command(*words)
    assert again.exit_code == 2 and "exists" in again.output
    assert command(*words, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--every", "1h"], "6 h apart, and"),
        (["--every", "1h", "--window", "18"], "trained on windows of 12 h or 24 h"),
        (["--every", "5h", "--window", "12"], "Steps of 5 h do not divide a window of 12 h"),
        (["--every", "12h", "--window", "12"], "are 12 h apart already"),
        (["--every", "1d"], "is no number of whole hours"),
        (["--every", "1h", "--start-time", "2001-01-14T00", "--end-time", "2001-01-14T00"],
         "nothing between"),
    ],
)  # fmt: skip
def test_what_was_not_trained_is_refused(
    run: Path, store: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    done = command("interpolate", run, store, tmp_path / "out.zarr", *words)
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split()), done.output
    assert not list(tmp_path.iterdir())


def test_forecasts_get_the_lead_times_between(run: Path, store: Path, tmp_path: Path) -> None:
    recipe = mapping(store)
    recipe |= {
        "name": "ahead",
        "task": {"lead_hours": [12, 12]},
        "evaluation": {"lead_hours": [12]},
    }
    train(recipe_from_mapping(recipe), tmp_path / "ahead")
    forecasts, out = tmp_path / "forecasts.zarr", tmp_path / "finer.zarr"
    done = command("predict", tmp_path / "ahead", store, forecasts, "--lead-hours", "12,24,48",
                   "--start-time", "2001-01-14", "--end-time", "2001-01-19")  # fmt: skip
    assert done.exit_code == 0, done.output
    done = command("interpolate", run, forecasts, out, "--every", "3h")
    assert done.exit_code == 0, done.output
    coarse, finer = (xr.open_zarr(path, decode_timedelta=True) for path in (forecasts, out))
    hours = finer["prediction_timedelta"].values / np.timedelta64(1, "h")
    assert hours.tolist() == list(range(12, 49, 3))
    assert list(finer.data_vars) == list(coarse.data_vars)
    for name in coarse.data_vars:
        there = finer[name].sel(prediction_timedelta=coarse["prediction_timedelta"])
        assert np.array_equal(there.values, coarse[name].values)
        assert finer[name].attrs == coarse[name].attrs and np.isfinite(finer[name].values).all()
    assert finer.attrs["attribution"] == coarse.attrs["attribution"]
    pair = [
        np.stack([coarse[name].values[:, k] for name in coarse.data_vars], axis=1) for k in (1, 2)
    ]
    nothing = np.full_like(pair[0], np.nan)  # forecasts of 0 h and 72 h are not there
    frames = np.stack([nothing, *pair, nothing], axis=1)
    at = coarse["time"].values + np.timedelta64(24, "h")
    by_hand = Interpolator(run, Store.open(store)).between(frames, at, 24, 9)
    np.testing.assert_allclose(finer["2m_temperature"].values[:, 7], by_hand[:, 0], rtol=1e-6)
    assert command("objects", out, tmp_path / "lows.csv").exit_code == 0
    refused = command("interpolate", run, forecasts, out, "--every", "3h")
    assert refused.exit_code == 2 and "exists" in refused.output
    wrong = command(
        "interpolate", tmp_path / "ahead", forecasts, tmp_path / "o.zarr", "--every", "3"
    )
    assert "is a model of task 'forecast'" in " ".join(wrong.output.split())


def test_a_region_and_an_ensemble_are_refused(
    run: Path, store: Path, write: Callable[..., Path], tmp_path: Path
) -> None:
    region = write(turning(8).isel(latitude=slice(2, 6)), tmp_path / "region.zarr")
    done = command("interpolate", run, region, tmp_path / "out.zarr", "--every=1", "--window=12")
    assert done.exit_code == 2 and "was trained on another grid" in " ".join(done.output.split())
    opened = Store.open(store)
    members = xr.Dataset(
        {"2m_temperature": (("time", "prediction_timedelta", "number", "latitude", "longitude"),
                            np.zeros((1, 2, 3, *opened.shape[2:]), np.float32))},
        {"time": opened.times[:1], "latitude": opened.latitude, "longitude": opened.longitude,
         "prediction_timedelta": np.array([12, 24]) * np.timedelta64(3600, "s")},
    )  # fmt: skip
    members.to_netcdf(tmp_path / "members.nc", engine="h5netcdf")
    done = command("interpolate", run, tmp_path / "members.nc", tmp_path / "out.zarr", "--every=1")
    assert done.exit_code == 2 and "is an ensemble of 3 members" in " ".join(done.output.split())
    assert not (tmp_path / "out.zarr").exists()


def test_check_and_plan_know_the_task(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "between.yaml"
    path.write_text(yaml.safe_dump(mapping(store)), encoding="utf-8")
    done = command("check", path)
    assert done.exit_code == 0 and "windows of 24 h with 3 time(s) between" in done.output
    assert command("plan", path, "--gpus", "1").exit_code == 0
    for override, said in (
        ("task.window_hours=[6]", "has windows of 12, 18"),
        ("evaluation.objects_channel=t2m", "t2m"),
        ("task.window_hours=[]", "is empty"),
        ("model.head=masked", "leave it out"),
    ):
        done = command("check", path, "--set", override)
        assert done.exit_code != 0 and said in " ".join(done.output.split()), done.output


def test_a_model_may_start_from_linear_interpolation(store: Path, tmp_path: Path) -> None:
    recipe = recipe_from_mapping(
        mapping(store, task={"kind": "interpolate", "window_hours": [12], "start": "linear"})
    )
    train(recipe, tmp_path / "between")
    table = task_of(recipe).evaluate(tmp_path / "between").table
    assert (abs(table["model"] / table["linear_of_departures"] - 1) < 0.3).all()
