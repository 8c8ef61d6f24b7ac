"""A detector learns on ranks what it learns on one process."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import run_workers as workers
import xarray as xr
from rank_launcher import on_ranks

from sciml_dchag.weather.detect.detector import Detector
from sciml_dchag.weather.store.statistics import compute_statistics
from sciml_dchag.weather.store.store import Store

CHANNELS = ["z500", "t850", "t2m", "u10", "q700"]
TRAIN = ("2000-04-10T06", "2000-04-13T00")


@pytest.mark.parametrize(
    ("world", "parallel"),
    [
        (2, {"tp": 2}),
        (2, {"tp": 2, "channel_stage": "tp-only"}),
        pytest.param(2, {"fsdp": 2}, marks=pytest.mark.full),
        pytest.param(4, {"tp": 2, "fsdp": 2, "sequence_parallel": True}, marks=pytest.mark.full),
    ],
)
def test_ranks_learn_as_one_process(
    world: int,
    parallel: dict[str, Any],
    simulated_state: xr.DataArray,
    write: Any,
    tmp_path: Path,
) -> None:
    """Each rank maps its own channels' pixels, and adds up the errors of its own samples."""
    path = write(simulated_state.sel(channel=CHANNELS), tmp_path / "five.zarr")
    compute_statistics(path, TRAIN)
    store, draw = Store.open(path), np.random.default_rng(0)
    rows = [
        {"time": time, "latitude": draw.uniform(-60, 60), "longitude": draw.uniform(0, 360),
         "depth": draw.uniform(4, 20)}
        for time in store.times for _ in range(int(draw.integers(1, 5)))
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "objects.csv", index=False)
    recipe = {
        "name": "objects",
        "data": {"store": str(path), "train": list(TRAIN), "forcings": ["insolation"],
                 "objects": str(tmp_path / "objects.csv")},
        "model": {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 8, "partitions": 2,
                  "pyramid_dim": 8},
        "task": {"kind": "detect", "radius_km": 2000, "attributes": ["depth"], "max_objects": 6},
        "training": {"steps": 3, "batch": 4, "warmup_steps": 1, "log_every": 1},
    }  # fmt: skip
    one, many = tmp_path / "one", tmp_path / "many"
    workers.train_run(recipe, str(one))
    on_ranks(world, workers.train_run, workers.changed(recipe, parallel=parallel), str(many))
    curves = workers.curve(one), workers.curve(many)
    for key in ("loss", "gradient_norm"):
        assert len(curves[0][key]) == 3
        np.testing.assert_allclose(curves[1][key], curves[0][key], rtol=1e-5, err_msg=key)
    found = [Detector(run, store).find([3])[0] for run in (one, many)]
    np.testing.assert_allclose(found[1].scores, found[0].scores, rtol=1e-4)
    np.testing.assert_allclose(found[1].latitude, found[0].latitude, atol=1e-3)
