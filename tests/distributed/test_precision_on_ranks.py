"""Training on ranks in 16 bits, and what is watched of it: as one process does."""

from pathlib import Path
from typing import Any

import pytest
import run_workers as workers
from rank_launcher import on_ranks
from run_workers import assert_same_curve

from sciml_dchag.training.logbook import WATCHED


@pytest.mark.slow
def test_mixed_precision_over_ranks_follows_that_of_one_process(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    mixed = workers.changed(recipe, training={"precision": "bfloat16", "steps": 4})
    one, two = tmp_path / "one", tmp_path / "two"
    workers.train_run(mixed, str(one))
    on_ranks(4, workers.train_run, workers.changed(mixed, parallel={"tp": 2, "fsdp": 2}), str(two))
    # Sums in another order round differently at eight bits; exact ones would agree to 1e-5.
    assert_same_curve(two, one, tolerance=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "parallel",
    [
        {"tp": 2, "activation_checkpointing": "blocks"},
        pytest.param({"dp": 2}, marks=pytest.mark.full),
        pytest.param(
            {"tp": 2, "fsdp": 2, "activation_checkpointing": "blocks"}, marks=pytest.mark.full
        ),
    ],
    ids=str,
)
def test_half_precision_overflows_and_scales_alike_on_ranks(
    recipe: dict[str, Any], tmp_path: Path, parallel: dict[str, Any]
) -> None:
    """All ranks skip the same steps at the same scale; modules in float32 are gathered so."""
    half = workers.changed(
        recipe,
        training={
            "precision": "float16", "loss_scale": 2.0**32, "loss_scale_steps": 2, "steps": 8,
            "micro_batch": 1, "validate_every": 0,
            "float32_modules": ["backbone.blocks.1", "backbone.blocks.0.mlp_out", "backbone.norm"],
        },
    )  # fmt: skip
    del half["data"]["validation"]
    one, two = tmp_path / "one", tmp_path / "two"
    workers.train_run(half, str(one))
    ranks = parallel.get("dp", 1) * parallel.get("tp", 1) * parallel.get("fsdp", 1)
    on_ranks(ranks, workers.train_run, workers.changed(half, parallel=parallel), str(two))
    a, b = (workers.read_log(run / "log.jsonl") for run in (one, two))
    skipped = [[r["step"] for r in run if "gradient_norm" not in r] for run in (a, b)]
    assert skipped[0] == skipped[1] and 0 < len(skipped[0]) < 7
    assert [r["loss_scale"] for r in a] == [r["loss_scale"] for r in b]
    # Sums in another order round differently at eleven bits.
    assert_same_curve(two, one, tolerance=5e-3, keys=("loss",))
    assert_same_curve(two, one, tolerance=2e-2, keys=("gradient_norm",))


@pytest.mark.slow
@pytest.mark.parametrize(
    "parallel",
    [{"tp": 2}, pytest.param({"tp": 2, "fsdp": 2}, marks=pytest.mark.full)],
    ids=str,
)
def test_any_mesh_sees_the_same_of_a_step(
    recipe: dict[str, Any], tmp_path: Path, parallel: dict[str, int]
) -> None:
    watched = workers.changed(
        recipe,
        model={"dropout": 0.0},
        training={"steps": 3, "watch_every": 3, "validate_every": 0, "epsilon": 1e-6},
    )
    del watched["data"]["validation"]
    workers.train_run(watched, str(tmp_path / "one"))
    ranks = parallel.get("tp", 1) * parallel.get("fsdp", 1)
    on_ranks(
        ranks, workers.train_run, workers.changed(watched, parallel=parallel), str(tmp_path / "two")
    )
    one, two = (workers.read_log(tmp_path / run / WATCHED) for run in ("one", "two"))
    assert [record["step"] for record in one] == [record["step"] for record in two] == [2, 3]
    compared = 0
    for a, b in zip(one, two, strict=True):
        for kind in ("modules", "parameters"):
            assert list(a[kind]) == list(b[kind])
            for name, values in a[kind].items():
                for key, value in values.items():
                    if isinstance(value, float) and key not in ("elements", "live"):  # of copies
                        close = pytest.approx(value, rel=2e-3, abs=2e-3)
                        assert b[kind][name][key] == close, (name, key)
                        compared += 1
    assert compared > 300
