"""Training on ranks: the same curve as one process, on any mesh, across a change of mesh."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_workers as workers
import xarray as xr
import yaml
from rank_launcher import on_ranks
from run_workers import assert_same_curve

from sciml_dchag.weather.forecast.forecaster import Forecaster
from sciml_dchag.weather.store.statistics import compute_statistics
from sciml_dchag.weather.store.store import Store


@pytest.fixture(scope="module")
def alone(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "ranks"
    workers.train_run(recipe, str(run))
    return run


@pytest.fixture(scope="module")
def bytes_of_one(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> int:
    """What a rank reads that has no others beside it."""
    run = tmp_path_factory.mktemp("one") / "ranks"
    (read,) = on_ranks(1, workers.train_run, recipe, str(run))
    return int(read)


@pytest.mark.slow
@pytest.mark.parametrize(
    "parallel",
    [
        {"tp": 2, "fsdp": 2},
        *(
            pytest.param(m, marks=pytest.mark.full)
            for m in ({"tp": 2}, {"fsdp": 2}, {"dp": 2}, {"tp": 4})
        ),
    ],
    ids=str,
)
def test_the_curve_of_a_mesh_is_that_of_one_process(
    recipe: dict[str, Any],
    alone: Path,
    bytes_of_one: int,
    tmp_path: Path,
    parallel: dict[str, int],
) -> None:
    world = int(np.prod(list(parallel.values())))
    run = tmp_path / "ranks"
    read = on_ranks(world, workers.train_run, workers.changed(recipe, parallel=parallel), str(run))
    assert_same_curve(run, alone)
    # Each rank reads the channels that it works on, as inputs or as targets; 163 inputs and 80
    # targets are not cut at the very same channels.
    for bytes_read in read:
        assert bytes_read < 1.2 * bytes_of_one / parallel.get("tp", 1)
    store = Store.open(recipe["data"]["store"])
    forecasts = [
        dict(f.forecast(f.windows((None, None)), [5], (6,)))[6]
        for f in (Forecaster(path, store) for path in (alone, run))
    ]
    std = store.statistics().std[:, None, None]
    assert np.abs((forecasts[0] - forecasts[1]) / std).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "meshes", [({"tp": 4}, {}), pytest.param(({"fsdp": 4},), marks=pytest.mark.full)], ids=str
)
def test_a_run_goes_on_on_another_mesh(
    recipe: dict[str, Any], alone: Path, tmp_path: Path, meshes: tuple[dict[str, int], ...]
) -> None:
    begun = tmp_path / "begun"
    stopped = workers.changed(recipe, parallel={"tp": 2, "fsdp": 2})
    with pytest.raises(RuntimeError, match="stopped on purpose"):
        on_ranks(4, workers.train_until_step_6, stopped, str(begun))
    assert [p.name for p in (begun / "checkpoints").glob("step-*[0-9]")] == ["step-0000004"]
    for number, parallel in enumerate(meshes):
        run = tmp_path / str(number) / "ranks"
        shutil.copytree(begun, run)
        rest = workers.changed(recipe, parallel=parallel)
        if parallel:
            on_ranks(4, workers.train_run, rest, str(run))
        else:
            workers.train_run(rest, str(run))
        assert_same_curve(run, alone)


@pytest.fixture(scope="module")
def nine_channels(
    recipe: dict[str, Any], simulated_state: xr.DataArray, write: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:  # fmt: skip
    """A regression on 80 channels takes many times what the rest of a test does."""
    path = tmp_path_factory.mktemp("nine") / "nine.zarr"
    write(simulated_state[:, ::9], path)
    compute_statistics(path, recipe["data"]["train"])
    return path


@pytest.mark.slow
@pytest.mark.parametrize("linear", [False, True])
def test_micro_batches_and_rollouts_change_nothing(
    recipe: dict[str, Any], nine_channels: Path, tmp_path: Path, linear: bool
) -> None:
    """Nor do they where each step starts from a linear one, on departures."""
    store = {"store": str(nine_channels)} if linear else {}
    rolled = workers.changed(
        recipe, task={"rollout_steps": 2, "linear_step": linear},
        data={"departures": linear, **store}, training={"steps": 4, "validate_every": 0},
    )  # fmt: skip
    del rolled["data"]["validation"]
    one, two = tmp_path / "one", tmp_path / "two"
    workers.train_run(rolled, str(one))
    parallel = workers.changed(rolled, parallel={"tp": 2}, training={"micro_batch": 1})
    on_ranks(2, workers.train_run, parallel, str(two))
    a, b = workers.curve(one), workers.curve(two)
    np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
    np.testing.assert_allclose(a["gradient_norm"], b["gradient_norm"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["dchag-c", *(pytest.param(k, marks=pytest.mark.full) for k in ("dchag-l", "single"))]
)
def test_a_rollout_is_learnt_alike_with_every_channel_stage(
    recipe: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    """The gradient through time as well: its norm is that of one process."""
    rolled = workers.changed(
        recipe,
        task={"rollout_steps": 3},
        training={"steps": 3, "validate_every": 0, "warmup_steps": 1},
        model={"aggregation": kind, "implementation": "materialised", "depth": 1},
    )
    del rolled["data"]["validation"]
    workers.train_run(rolled, str(tmp_path / "one"))
    stages = ("dchag", "distributed-tokens", "tp-only")
    on_ranks(
        2,
        workers.train_runs,
        [
            {**workers.changed(rolled, parallel={"tp": 2, "channel_stage": stage}), "name": stage}
            for stage in stages
        ],
        str(tmp_path),
    )
    for stage in stages:
        assert_same_curve(tmp_path / stage, tmp_path / "one", keys=("loss", "gradient_norm"))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [{"tp": 2}, {"dp": 2}], ids=str)
def test_a_step_of_ranks_with_nothing_to_score_changes_nothing(
    recipe: dict[str, Any], tmp_path: Path, parallel: dict[str, int]
) -> None:
    """All of a batch is missing in one step, one rank's samples or channels in another."""
    holes = workers.changed(recipe, training={"validate_every": 0, "log_every": 1, "steps": 5})
    del holes["data"]["validation"]
    workers.train_with_holes(holes, str(tmp_path / "one"))
    spread = workers.changed(holes, parallel=parallel)
    on_ranks(2, workers.train_with_holes, spread, str(tmp_path / "two"))
    assert_same_curve(tmp_path / "two", tmp_path / "one", keys=("loss", "gradient_norm"))
    for run in ("one", "two"):
        records = workers.read_log(tmp_path / run / "log.jsonl")
        assert [r["step"] for r in records if "loss" not in r] == [3]
        assert records[-1]["skipped_steps"] == 1


@pytest.mark.slow
def test_one_rank_that_is_not_finite_keeps_all_from_saving(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    broken = workers.changed(
        recipe,
        parallel={"tp": 2},
        training={"validate_every": 0, "steps": 6, "log_every": 10, "checkpoint_every": 2},
    )
    del broken["data"]["validation"]
    said = on_ranks(2, workers.train_until_rank_1_breaks, broken, str(tmp_path / "run"))
    assert said[0] == said[1]
    assert "no longer finite at step 4" in said[0] and "resumes from" in said[0]
    kept = sorted(p.name for p in (tmp_path / "run" / "checkpoints").glob("step-*[0-9]"))
    assert kept == ["step-0000002"]


@pytest.mark.slow
def test_a_rank_may_have_nothing_to_predict(recipe: dict[str, Any], tmp_path: Path) -> None:
    few = workers.changed(recipe, task={"targets": ["z500", "t2m", "u10"]}, training={"steps": 4})
    one, four = tmp_path / "one", tmp_path / "four"
    workers.train_run(few, str(one))
    on_ranks(4, workers.train_run, workers.changed(few, parallel={"tp": 4}), str(four))
    assert_same_curve(four, one)


@pytest.mark.full
def test_torchrun_trains_and_speaks_once(
    recipe: dict[str, Any], alone: Path, tmp_path: Path
) -> None:
    (tmp_path / "ranks.yaml").write_text(yaml.safe_dump(recipe))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "sciml_dchag",
        "train", "ranks.yaml", "--set", "parallel.tp=2",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_curve(tmp_path / "runs" / "ranks", alone)
    assert done.stdout.count("step      8  loss") == 1, done.stdout
    assert done.stdout.count("Score it:") == 1, done.stdout


def test_degrees_that_do_not_fit_are_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    for parallel, message in (
        ({"tp": 2}, "does not make 1 rank"),
        ({"dp": 0}, "parallel.dp is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            workers.train_run(workers.changed(recipe, parallel=parallel), str(tmp_path / "run"))
    with pytest.raises(RuntimeError, match="parallel.tp 2 does not divide model.partitions 3"):
        on_ranks(
            2, workers.train_run, workers.changed(recipe, parallel={"tp": 2}, model={"partitions": 3}),
            str(tmp_path / "run"),
        )  # fmt: skip
    with pytest.raises(RuntimeError, match="training.batch 3 cannot be dealt to 2 rank"):
        on_ranks(
            2, workers.train_run, workers.changed(recipe, parallel={"fsdp": 2}, training={"batch": 3}),
            str(tmp_path / "run"),
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ranks_mask_weather_and_start_from_it_as_one_process_does(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    """States by own channels; then a forecaster that starts from those weights, on ranks."""
    kept = ("store", "train", "validation")
    masked = {
        **recipe, "data": {key: recipe["data"][key] for key in kept},
        "task": {"kind": "masked-weather", "channel_mask_ratio": 0.25},
    }  # fmt: skip
    workers.train_run(masked, str(tmp_path / "one"))
    on_ranks(
        2, workers.train_run, workers.changed(masked, parallel={"tp": 2}), str(tmp_path / "two")
    )
    assert_same_curve(tmp_path / "two", tmp_path / "one")
    started = workers.changed(recipe, training={"start_from": str(tmp_path / "one"), "steps": 3})
    workers.train_run(started, str(tmp_path / "forecast"))
    for parallel in ({"tp": 2}, {"fsdp": 2}):
        run = tmp_path / f"forecast {parallel}"
        on_ranks(2, workers.train_run, workers.changed(started, parallel=parallel), str(run))
        assert_same_curve(run, tmp_path / "forecast", keys=("loss", "gradient_norm"))


@pytest.mark.slow
def test_frozen_parts_and_rates_are_those_of_one_process(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    """A whole block, a part of the channel stage, one bias; resumed on another mesh."""
    parts = workers.changed(
        recipe,
        training={
            "steps": 4, "checkpoint_every": 2, "validate_every": 0,
            "freeze": ["backbone.blocks.0.*", "aggregation.tokenizer.*", "head.bias"],
            "rates": [{"parameters": "head.*", "factor": 0.3}],
        },
    )  # fmt: skip
    del parts["data"]["validation"]
    workers.train_run(parts, str(tmp_path / "one"))
    run = tmp_path / "ranks"
    for parallel in ({"tp": 2}, {"fsdp": 2}):
        on_ranks(2, workers.train_run, workers.changed(parts, parallel=parallel), str(run))
        assert_same_curve(run, tmp_path / "one", keys=("loss", "gradient_norm"))
        shutil.rmtree(run / "checkpoints" / "step-0000004")


@pytest.mark.slow
def test_a_control_branch_is_learnt_on_ranks_as_on_one_process(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    """New inputs are all channels 6 h before; through a rollout, so that these have a gradient."""
    short = {"steps": 3, "checkpoint_every": 3, "validate_every": 0}
    base = workers.changed(
        recipe,
        data={"history_hours": []},
        training={**short, "steps": 1, "checkpoint_every": 1, "warmup_steps": 0},
    )
    del base["data"]["validation"]
    workers.train_run(base, str(tmp_path / "base"))
    new = [f"{name}@-6h" for name in Store.open(recipe["data"]["store"]).channels.names]
    control = {
        "base": str(tmp_path / "base"), "channels": new, "blocks": 1, "with_base": True,
    }  # fmt: skip
    branch = workers.changed(
        recipe, training={**short, "learning_rate": 1e-2, "warmup_steps": 1},
        model={"control": control}, task={"rollout_steps": 2},
    )  # fmt: skip
    del branch["data"]["validation"]
    workers.train_run(branch, str(tmp_path / "one"))
    for parallel in ({"tp": 2}, {"fsdp": 2}):
        run = tmp_path / str(parallel)
        on_ranks(2, workers.train_run, workers.changed(branch, parallel=parallel), str(run))
        assert_same_curve(run, tmp_path / "one", keys=("loss", "gradient_norm"))
