"""An interpolator learns on ranks what it learns on one process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_workers as workers
import xarray as xr
from rank_launcher import on_ranks

from sciml_dchag.weather.interpolate.interpolator import Interpolator
from sciml_dchag.weather.store.statistics import compute_statistics
from sciml_dchag.weather.store.store import Store

CHANNELS = ["z500", "t850", "t2m", "u10", "q700", "v10"]
TRAIN = ("2000-04-10T06", "2000-04-13T00")


@pytest.mark.parametrize("start", ["ridge", pytest.param("linear", marks=pytest.mark.full)])
def test_two_ranks_of_tp_learn_as_one_process(
    start: str, simulated_state: xr.DataArray, write: Any, tmp_path: Path
) -> None:
    """The daily cycle, the ridge of more than few channels, units, and the network."""
    path = write(simulated_state.sel(channel=CHANNELS), tmp_path / "six.zarr")
    compute_statistics(path, TRAIN)
    recipe = {
        "name": "between",
        "data": {"store": str(path), "train": list(TRAIN), "forcings": ["insolation"]},
        "model": {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 8, "partitions": 2},
        "task": {"kind": "interpolate", "window_hours": [12], "start": start},
        "training": {"steps": 3, "batch": 2, "warmup_steps": 1, "log_every": 1},
    }
    one, two = tmp_path / "one", tmp_path / "two"
    workers.train_run(recipe, str(one))
    on_ranks(2, workers.train_run, workers.changed(recipe, parallel={"tp": 2}), str(two))
    curves = workers.curve(one), workers.curve(two)
    for key in ("loss", "gradient_norm"):
        assert len(curves[0][key]) == 3
        np.testing.assert_allclose(curves[1][key], curves[0][key], rtol=1e-5, err_msg=key)
    store, at = Store.open(path), np.array([3])
    frames = np.stack([store.read(at + 2 * shift) for shift in (-1, 0, 1, 2)], axis=1)
    found = [Interpolator(run, store).between(frames, store.times[at], 12, 6) for run in (one, two)]
    std = store.statistics().std[:, None, None]
    assert np.abs((found[1] - found[0]) / std).max() < 1e-5
