"""The recipe of a forecaster that ranks train in several tests."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from sciml_dchag.weather.store.statistics import compute_statistics
from sciml_dchag.weather.store.store import Store


@pytest.fixture(scope="module")
def recipe(simulated_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All 80 channels, uneven partitions (163 inputs), averaged weights, validation, dropout."""
    store = Store.open(simulated_store)
    first, middle, last = (str(store.times[i])[:16] for i in (0, 7, -1))
    after = str(store.times[8])[:16]
    copied = tmp_path_factory.mktemp("ranks") / "simulated.zarr"
    shutil.copytree(simulated_store, copied)
    compute_statistics(copied, (first, middle))
    return {
        "name": "ranks",
        "data": {
            "store": str(copied), "train": [first, middle], "validation": [after, last],
            "history_hours": [-6], "forcings": ["cos_latitude", "insolation", "sin_solar_time"],
        },
        "model": {"embed_dim": 16, "depth": 2, "heads": 4, "patch": 8, "partitions": 4},
        "task": {"lead_hours": [6, 6]},
        "training": {
            "steps": 8, "batch": 4, "warmup_steps": 2, "log_every": 1, "checkpoint_every": 4,
            "validate_every": 4, "ema_decay": 0.5, "learning_rate": 1e-3,
        },
    }  # fmt: skip
