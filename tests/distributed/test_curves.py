"""Training on real data: the loss of ranks that share out the channels is one process's.

`benchmarks/curves.py` is this with the demo's model, and draws it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_workers as workers
import torch
from plant_curves import alone, masked_losses_on_ranks
from rank_launcher import on_ranks

from sciml_dchag.training.logbook import read_log

STEPS = 50


def recipe(store: Path, kind: str, tp: int, steps: int) -> dict[str, Any]:
    """Eight input channels: the pressure now and three times before, and four forcings."""
    return {
        "name": kind,
        "data": {
            "store": str(store), "train": ["2025-12-01", "2025-12-24"],
            "history_hours": [-6, -12, -18], "rotate": True,
            "forcings": ["cos_latitude", "sin_solar_time", "cos_solar_time", "insolation"],
        },
        "model": {
            "embed_dim": 16, "depth": 1, "heads": 4, "patch": 8, "aggregation": kind,
            "partitions": 4,
        },
        "task": {"lead_hours": [6, 6]},
        "training": {
            "steps": steps, "batch": 4, "warmup_steps": steps // 5, "log_every": 1, "learning_rate": 5e-3,
            "weight_decay": 0.05,
        },
        "parallel": {"tp": tp},
    }  # fmt: skip


def losses(run: Path) -> np.ndarray:
    return np.array([r["loss"] for r in read_log(run / "log.jsonl") if "loss" in r])


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize(("kinds", "tp"), [(("dchag-c", "dchag-l"), 2), (("single",), 4)])
def test_steps_of_ranks_are_those_of_one_process(
    kinds: tuple[str, ...], tp: int, msl_store: Path, tmp_path: Path
) -> None:
    one, ranks = tmp_path / "one", tmp_path / "ranks"
    workers.train_runs([recipe(msl_store, kind, 1, STEPS) for kind in kinds], str(one))
    shared = [recipe(msl_store, kind, tp, STEPS) for kind in kinds]
    on_ranks(tp, workers.train_runs, shared, str(ranks))
    for kind in kinds:
        alone, together = losses(one / kind), losses(ranks / kind)
        assert len(alone) == len(together) == STEPS
        assert alone[-10:].mean() < 0.95 * alone[:10].mean()  # something is learnt on the way
        apart = np.abs(together / alone - 1).max()
        print(f"{kind}, tp {tp}: largest relative difference {apart:.1e}")
        # Rounding grows from step to step: at width 128, 7e-7 was measured at most.
        assert apart < 1e-5, kind


@pytest.mark.slow
@pytest.mark.full
# In float64 ranks agree to rounding. In float32 AdamW, whose update is a gradient over its own size,
# makes a whole step of a gradient that is rounding alone, in a direction
# that the order of a sum decides: 1.01e-5 was measured with one thread per process.
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-10), (torch.float32, 3e-5)],
)
def test_fifty_masked_steps_on_a_real_plant_are_those_of_one_process(
    dtype: torch.dtype, tolerance: float
) -> None:
    for kind in ("dchag-c", "dchag-l"):
        one = np.array(alone(kind, 16, dtype))
        for losses_of_rank in on_ranks(2, masked_losses_on_ranks, kind, 16, dtype):
            two = np.array(losses_of_rank)
            assert len(one) == len(two) == STEPS and one[-10:].mean() < 0.8 * one[:10].mean()
            assert np.abs(two / one - 1).max() < tolerance, kind
