"""Runs that diverge, have nothing to score or are killed keep weights that are worth keeping."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import recipe, stored, weights

from sciml_dchag.files.checksums import LIST, seal
from sciml_dchag.files.zarr_groups import open_to_write
from sciml_dchag.pipeline import train
from sciml_dchag.training.checkpoint import (
    RECORD,
    read_checkpoint,
)
from sciml_dchag.training.logbook import read_log
from sciml_dchag.weather.forecast.training import ForecastTrainingData
from sciml_dchag.weather.store.store import Store
from sciml_dchag.weather.windows import ForecastBatch


def test_an_exploding_loss_is_named(msl_store: Path, tmp_path: Path) -> None:
    wild = recipe(
        msl_store,
        training={"learning_rate": 1e30, "clip_norm": 0.0, "ema_decay": 0.0, "warmup_steps": 0},
    )
    with pytest.raises(FloatingPointError, match="lower training.learning_rate"):
        train(wild, tmp_path / "run")


def spoil(
    monkeypatch: pytest.MonkeyPatch, calls: dict[int, Callable[[torch.Tensor], object]]
) -> list[int]:
    """Change the errors of some calls, counted from 1; return how many samples each call had."""
    error, seen = ForecastTrainingData.error, []

    def spoilt(
        self: ForecastTrainingData, model: torch.nn.Module, batch: ForecastBatch
    ) -> torch.Tensor:
        seen.append(len(batch))
        value = error(self, model, batch)
        return calls[len(seen)](value) if len(seen) in calls else value

    monkeypatch.setattr(ForecastTrainingData, "error", spoilt)
    return seen


def test_weights_that_are_not_finite_replace_no_checkpoint(
    msl_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = {"steps": 9, "log_every": 10}
    with monkeypatch.context() as patch:
        spoil(patch, {5: lambda error: error * math.nan})
        with pytest.raises(
            FloatingPointError,
            match="loss is nan at step 5.*training.learning_rate.*resumes from .*step-0000003",
        ):
            train(recipe(msl_store, training=often), tmp_path / "run")
    assert all(bool(t.isfinite().all()) for t in weights(tmp_path / "run").values())
    assert read_checkpoint(tmp_path / "run").step == 3
    lower = recipe(msl_store, training={**often, "learning_rate": 1e-5})
    train(lower, tmp_path / "run")  # as the error says
    assert read_checkpoint(tmp_path / "run").complete
    # Once it has ended, another rate is another run.
    with pytest.raises(ValueError, match="other settings in 'training'"):
        train(recipe(msl_store, training=often), tmp_path / "run")


def test_a_run_resumes_at_the_rate_that_is_asked_for(msl_store: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def interrupt(done: int, total: int, what: str) -> None:
        if done == 5:
            raise StopError

    with pytest.raises(StopError):
        train(recipe(msl_store), tmp_path / "run", progress=interrupt)
    before = weights(tmp_path / "run")
    still = recipe(msl_store, training={"learning_rate": 1e-30, "final_learning_rate": 1e-30})
    train(still, tmp_path / "run")
    for name, value in weights(tmp_path / "run").items():  # the average moves on to the weights
        assert (value - before[name]).abs().max() < 2e-3, name
    rates = [r["learning_rate"] for r in read_log(tmp_path / "run" / "log.jsonl")]
    assert rates[2] > 1e-5 and max(rates[3:]) <= 1e-30


def test_a_kill_while_the_best_is_replaced_is_survived(msl_store: Path, tmp_path: Path) -> None:
    watched = recipe(
        msl_store, training={"validate_every": 1, "ema_decay": 0.0, "checkpoint_every": 1}
    )
    train(watched, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    best = read_checkpoint(folder / "best")
    # Killed while the former best is removed: its rest is in the way of the next one.
    shutil.copytree(folder / "best", folder / "best.old")
    (folder / "best.old" / RECORD).unlink()
    more = recipe(
        msl_store,
        training={"validate_every": 1, "ema_decay": 0.0, "steps": 12, "learning_rate": 5e-4},
    )
    train(more, tmp_path / "run")
    assert read_checkpoint(folder / "best").step > best.step
    assert not (folder / "best.old").exists()
    # Killed between two renames: the former best has its name again.
    (folder / "best").rename(folder / "best.old")
    train(more, tmp_path / "run")
    assert (folder / "best" / RECORD).is_file() and not (folder / "best.old").exists()


def without_values(store: Path, folder: Path, first: str, last: str) -> Path:
    """Copy a store and take away its states from `first` to `last`."""
    copied = folder / "holes.zarr"
    shutil.copytree(store, copied)
    states = open_to_write(copied / "state")
    index = Store.open(copied).time_indices((first, last))
    states[int(index[0]) : int(index[-1]) + 1] = np.nan
    (copied / LIST).unlink()
    seal(copied)
    return copied


def test_a_batch_with_nothing_to_score_changes_nothing(msl_store: Path, tmp_path: Path) -> None:
    # The targets of most of the samples are missing; their inputs, too, which a mask says.
    store = without_values(msl_store, tmp_path, "2025-12-03", "2025-12-22")
    holes = recipe(store, training={"steps": 12, "batch": 1, "checkpoint_every": 1, "log_every": 1})

    class StopError(Exception):
        pass

    result = train(holes, tmp_path / "run")
    records = read_log(tmp_path / "run" / "log.jsonl")
    skipped = [r["step"] for r in records if "loss" not in r]
    assert 0 < len(skipped) < 12 and result.skipped_steps == len(skipped)
    assert records[-1]["skipped_steps"] == len(skipped)
    assert read_checkpoint(tmp_path / "run").skipped_steps == len(skipped)
    assert all(bool(t.isfinite().all()) for t in weights(tmp_path / "run").values())
    # A run that ends right before a skipped step has the same weights, moments and average.
    step = next(s for s in skipped if s > 1)
    for name, steps in (("before", step - 1), ("after", step)):

        def stop(done: int, total: int, what: str, steps: int = steps) -> None:
            if done == steps + 1:
                raise StopError

        shorter = recipe(store, training={"steps": 12, "batch": 1, "checkpoint_every": steps})
        with pytest.raises(StopError):
            train(shorter, tmp_path / name, progress=stop)
    for kind in ("model", "average", "optimizer"):
        one, other = (stored(tmp_path / name, kind) for name in ("before", "after"))
        assert one.keys() == other.keys() and one
        for key in one:
            torch.testing.assert_close(one[key], other[key], rtol=0, atol=0, msg=key)
