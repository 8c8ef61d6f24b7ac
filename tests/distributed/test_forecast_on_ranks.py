"""Scores and forecasts made by several ranks are those of one process, on any mesh."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_workers as workers
import xarray as xr
from click.testing import CliRunner
from rank_launcher import on_ranks

from sciml_dchag.cli import main
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.training.export import export
from sciml_dchag.weather.store.climatology import compute_climatology
from sciml_dchag.weather.store.statistics import compute_statistics
from sciml_dchag.weather.store.store import Store

CHANNELS = ["z500", "z850", "t850", "t2m", "u10", "q700", "v10", "u500", "t500"]
TRAIN, TEST = ("2000-04-10T06", "2000-04-11T06"), ("2000-04-11T12", "2000-04-13T00")
# Three batches of initial times, the last one smaller, and drawings of two channels.
EVALUATION = {"lead_hours": [6, 12], "batch": 2, "map_channels": ["t2m", "t500"]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, simulated_state: xr.DataArray, write) -> Path:  # type: ignore[no-untyped-def]
    """Nine channels, one of which has no values below ground."""
    state = simulated_state.sel(channel=CHANNELS).copy(deep=True)
    state[:, CHANNELS.index("t850"), 10:14, 20:30] = np.nan
    path = write(state, tmp_path_factory.mktemp("forecasts") / "nine.zarr")
    compute_statistics(path, TRAIN)
    compute_climatology(path, TRAIN)
    return path


def recipe(store: Path, name: str, **sections: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "data": {
            "store": str(store), "train": list(TRAIN), "test": list(TEST), "history_hours": [-6],
            "forcings": ["cos_latitude", "insolation"], "rotate": False,
        },
        "model": {"embed_dim": 16, "depth": 2, "heads": 4, "patch": 8, "partitions": 4},
        "training": {"steps": 2, "batch": 2, "warmup_steps": 1, "learning_rate": 1e-2},
        "evaluation": EVALUATION,
        **sections,
    }  # fmt: skip


@pytest.fixture(scope="module")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forecasters trained on two ranks: one is rolled out, two are asked directly.

    The first one starts from a linear step, the last one from a chain of regressions, both on
    departures from the daily cycle.
    """
    folder = tmp_path_factory.mktemp("forecasts") / "runs"
    two = {"parallel": {"tp": 2}}
    rolled = recipe(store, "rolled", task={"lead_hours": [6, 6], "linear_step": True}, **two)
    rolled["data"]["departures"] = True
    chain = {"chain_hours": [6, 12], "chain_channels": ["t500", "u10", "v10", "t2m"]}
    chained = recipe(
        store, "chained", task={"lead_hours": [6, 12], "targets": ["t2m", "t500"], **chain}, **two
    )
    chained["data"]["departures"] = True
    mappings = [
        rolled,
        recipe(store, "direct", task={"lead_hours": [6, 12], "output": "direct"}, **two),
        chained,
    ]
    on_ranks(2, workers.train_runs, mappings, str(folder))
    return folder


@pytest.fixture(scope="module")
def alone(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[workers.Found]]:
    """What one process makes of both, whatever the mesh of the training."""
    folder = tmp_path_factory.mktemp("alone") / "runs"
    shutil.copytree(runs, folder)
    runs_of = {str(folder / name): changes for name, changes in OVERRIDES.items()}
    return folder, workers.score_and_forecast(runs_of, {})


OVERRIDES: dict[str, list[str]] = {
    "rolled": ["evaluation.objects=[lows,highs]", "evaluation.objects_channel=z500"],
    "direct": ["evaluation.channels=[t500,t2m]"],  # fewer than four ranks of tp
    "chained": [],
}
NAMES = tuple(OVERRIDES)


def assert_same_scores(ours: workers.Scores, theirs: workers.Scores) -> None:
    assert ours.keys() == theirs.keys() and ours
    for (channel, lead, metric), expected in theirs.items():
        # A bias may be near zero; it is small or not beside the error. A correlation is beside 1.
        size = np.abs(theirs[channel, lead, "rmse" if metric == "bias" else metric])
        size = 1.0 if metric.startswith("acc") else size
        difference = np.abs(np.subtract(ours[channel, lead, metric], expected)) / size
        where = channel, lead, metric
        assert np.isnan(ours[where]).tolist() == np.isnan(expected).tolist(), where
        assert np.nanmax(difference) < 1e-6, (where, ours[where], expected)


def assert_same_forecasts(out: xr.Dataset, expected: xr.Dataset, store: Path) -> None:
    assert list(out) == list(expected) and len(expected.data_vars) in (2, 9)
    for name in expected.data_vars:
        assert_same_fields(out[name].values, expected[name].values, str(name), store)


def assert_same_fields(ours: np.ndarray, theirs: np.ndarray, name: str, store: Path) -> None:
    """To 1e-6 of the standard deviation, and one rounding of values that are large beside it."""
    statistics = Store.open(store).statistics()
    of_variable = [
        name in (c.long_name, c.name, f"{c.long_name}_{c.level_hpa}hpa")
        for c in statistics.channels
    ]
    largest = np.nanmax(np.abs(theirs))
    tolerance = 1e-6 * statistics.std[of_variable].min() + np.spacing(largest)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(
    ("world", "meshes"),
    [
        (2, [({"tp": 2}, NAMES[1:]), ({}, NAMES[:1])]),
        pytest.param(
            2, [({"tp": 2}, NAMES), ({}, NAMES), ({"fsdp": 2}, NAMES)], marks=pytest.mark.full
        ),
        pytest.param(
            4,
            [({"tp": 2, "dp": 2}, NAMES), ({"tp": 4}, NAMES), ({}, NAMES)],
            marks=pytest.mark.full,
        ),
    ],
)
def test_any_mesh_scores_and_forecasts_as_one_process(
    runs: Path,
    alone: tuple[Path, list[workers.Found]],
    store: Path,
    tmp_path: Path,
    world: int,
    meshes: list[tuple[dict[str, int], tuple[str, ...]]],
) -> None:
    whole, expected = alone
    for number in range(len(meshes)):
        shutil.copytree(runs, tmp_path / str(number))
    calls = [
        ({str(tmp_path / str(n) / name): OVERRIDES[name] for name in names}, mesh)
        for n, (mesh, names) in enumerate(meshes)
    ]
    answers = on_ranks(world, workers.each_scored_and_forecast, calls)
    for number, (_, names) in enumerate(meshes):
        for place, name in enumerate(names):
            scores, drawn, lows = expected[NAMES.index(name)]
            assert lows.any() == (name == "rolled")
            for answer in answers:
                assert_same_scores(answer[number][place][0], scores)
                np.testing.assert_allclose(answer[number][place][2], lows, rtol=1e-4, atol=1e-4)
            found = answers[0][number][place][1]
            assert drawn.keys() == found.keys() and drawn
            for key, fields in found.items():
                assert_same_fields(fields, drawn[key], key[1], store)
            ours = xr.open_zarr(tmp_path / str(number) / name / "forecasts.zarr")
            assert_same_forecasts(ours, xr.open_zarr(whole / name / "forecasts.zarr"), store)
    left = [*tmp_path.rglob("*.partial"), *tmp_path.rglob("progress.json")]
    assert left == []


def test_an_interrupted_call_goes_on_on_any_number_of_ranks(
    runs: Path, store: Path, tmp_path: Path
) -> None:
    run, whole, begun = str(runs / "rolled"), tmp_path / "whole.zarr", tmp_path / "begun.zarr"
    workers.predict_on_ranks(run, str(whole))
    # The second rank fails in its second batch, which the first has finished by then or not.
    with pytest.raises(RuntimeError, match="stopped on purpose"):
        on_ranks(2, workers.predict_until_rank_1_fails, run, str(begun), 1)
    partial = tmp_path / "begun.zarr.partial"
    assert not begun.exists()
    assert json.loads((partial / "progress.json").read_text())["done"] == 4
    with pytest.raises(RuntimeError, match="begun with other settings"):
        on_ranks(2, workers.predict_on_ranks, run, str(begun), 1)
    shutil.copytree(partial, tmp_path / "other.zarr.partial")
    on_ranks(3, workers.predict_on_ranks, run, str(begun))
    workers.predict_on_ranks(run, str(tmp_path / "other.zarr"))
    for out in (begun, tmp_path / "other.zarr"):
        assert not (out / "progress.json").exists()
        assert_same_forecasts(xr.open_zarr(out), xr.open_zarr(whole), store)


@pytest.mark.full
def test_torchrun_scores_and_forecasts_and_speaks_once(
    runs: Path, alone: tuple[Path, list[workers.Found]], store: Path, tmp_path: Path
) -> None:
    run = tmp_path / "rolled"
    shutil.copytree(runs / "rolled", run)
    for words in (
        ["evaluate", "rolled", "--set", "parallel.tp=2", "--set", "evaluation.map_channels=[t500]"],
        ["predict", "rolled", str(store), "forecasts.nc", "--lead-hours", "6,12", "--batch", "2"],
    ):
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        done = subprocess.run(
            [*launch, "-m", "sciml_dchag", *words], cwd=tmp_path, capture_output=True, text=True,
            timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("Report:") + done.stdout.count("Forecasts:") == 1, done.stdout
    scores = {
        (r.channel, r.lead_hours, r.metric): (r.model, r.persistence, r.climatology)
        for r in Evaluation.read(run).table.itertuples()
    }
    assert_same_scores(scores, alone[1][0][0])
    for name in ("report.html", "scores.csv", "figures/map_t500_12h.png", "figures/training.png"):
        assert (run / "evaluation" / name).is_file(), name
    assert not (tmp_path / "forecasts.zarr").exists()
    with xr.open_dataset(tmp_path / "forecasts.nc") as ours:
        assert_same_forecasts(ours, xr.open_zarr(alone[0] / "rolled" / "forecasts.zarr"), store)


def test_degrees_must_fit_the_processes_that_are_there(
    runs: Path, store: Path, tmp_path: Path
) -> None:
    run = tmp_path / "rolled"
    shutil.copytree(runs / "rolled", run)
    assert "tp: 2" in (run / "recipe.yaml").read_text()  # of the training; one process is here
    for words in (
        ["evaluate", str(run), "--set", "parallel.tp=2"],
        ["predict", str(run), str(store), str(tmp_path / "f.zarr"), "--tp", "2"],
    ):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 2 and "does not make 1 rank" in result.output, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["rolled"]
    assert not (run / "evaluation").exists()
    with pytest.raises(RuntimeError, match="parallel.tp 3 does not divide model.partitions 4"):
        on_ranks(3, workers.score_and_forecast, {str(run): []}, {"tp": 3})


def test_plain_commands_take_one_process(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = str(runs / "rolled")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for words in (["inspect", run], ["run", "a.yaml"], ["evaluate", run, "--against", run]):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 2 and "works on one process" in result.output, result.output


def test_an_exported_model_is_shared_out_over_ranks(
    runs: Path, store: Path, tmp_path: Path
) -> None:
    exported = export(runs / "rolled", tmp_path / "rolled.safetensors")
    one, two = tmp_path / "one.zarr", tmp_path / "two.zarr"
    workers.predict_exported(str(exported), str(store), str(one), 1)
    on_ranks(2, workers.predict_exported, str(exported), str(store), str(two), 2)
    ours, theirs = (xr.open_zarr(out, decode_timedelta=True) for out in (two, one))
    assert_same_forecasts(ours, theirs, store)
