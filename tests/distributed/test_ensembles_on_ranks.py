"""Ensembles made and scored by several ranks are those of one process, on any mesh."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ensemble_workers as workers
import numpy as np
import pytest
import xarray as xr
from rank_launcher import on_ranks

from sciml_dchag.pipeline import train
from sciml_dchag.tasks import recipe_from_mapping
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.store.climatology import compute_climatology
from sciml_dchag.weather.store.statistics import compute_statistics

CHANNELS = "z500,t850,t2m,u10"
TRAIN, VALIDATION = ["2001-01-01", "2001-01-10T18"], ["2001-01-11", "2001-01-12T18"]
TEST = ["2001-01-13", "2001-01-14T18"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write: Callable[..., Path]) -> Path:
    """Four channels of a red noise on 8 x 16, one of which has no values in some places."""
    folder = tmp_path_factory.mktemp("ensembles")
    grid, names = Grid.named("8x16"), CHANNELS.split(",")
    values = np.random.default_rng(0).normal(0, 10, (56, len(names), 8, 16)).astype(np.float32)
    for time in range(1, 56):
        values[time] = 0.8 * values[time - 1] + 0.6 * values[time]
    values[:, 1, 2:4, 5:9] = np.nan
    times = np.datetime64("2001-01-01", "ns") + np.arange(56) * np.timedelta64(6, "h")
    axes = {"time": times, "channel": names, "latitude": grid.latitude, "longitude": grid.longitude}
    state = xr.DataArray(280 + values, axes, tuple(axes))
    path = write(state, folder / "store.zarr")
    compute_statistics(path, TRAIN)
    compute_climatology(path, TRAIN)
    mapping: dict[str, Any] = {
        "name": "ensembles",
        "data": {"store": str(path), "train": TRAIN, "validation": VALIDATION, "test": TEST,
                 "history_hours": [-6], "forcings": ["cos_latitude"]},
        "task": {"lead_hours": [6, 6]},
        "model": {"embed_dim": 16, "depth": 1, "heads": 4, "patch": 4, "partitions": 4},
        "training": {"steps": 2, "batch": 2, "warmup_steps": 1, "learning_rate": 1e-2},
        "evaluation": {"lead_hours": [6, 12], "batch": 6, "members": 3},
    }  # fmt: skip
    train(recipe_from_mapping(mapping), folder / "run")
    return folder / "run"


def test_any_mesh_makes_and_scores_the_ensembles_of_one_process(run: Path, tmp_path: Path) -> None:
    meshes: list[dict[str, int]] = [{"tp": 2}, {}, {"fsdp": 2}]
    alone = workers.score_and_forecast(str(run), str(tmp_path / "alone.zarr"), {})
    calls = [(str(run), str(tmp_path / f"{n}.zarr"), mesh) for n, mesh in enumerate(meshes)]
    answers = on_ranks(2, workers.each, calls)
    expected = xr.open_zarr(tmp_path / "alone.zarr")
    for number, mesh in enumerate(meshes):
        for answer in answers:
            found = answer[number]
            assert found.keys() == alone.keys() and len(alone) == 28
            for where, values in alone.items():
                # Ranks may fall to the other side of a member that differs in its last digit.
                size = 1e-3 if where[2] == "ranks" or "brier" in where[2] else 1e-5 * np.max(values)
                np.testing.assert_allclose(
                    found[where], values, rtol=0, atol=size, err_msg=str((mesh, where))
                )
        ours = xr.open_zarr(tmp_path / f"{number}.zarr")
        assert ours.sizes == expected.sizes and ours.sizes["number"] == 3
        for name in expected.data_vars:
            # To 1e-5 of the standard deviation and a rounding of 280.
            np.testing.assert_allclose(
                ours[name].values, expected[name].values, rtol=0, atol=3e-4, err_msg=str(mesh)
            )
    spread = expected["2m_temperature"].std("number")
    assert float(spread.min()) > 0
