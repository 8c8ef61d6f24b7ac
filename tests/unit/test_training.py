"""Training on the embedded sample: determinism, resuming, what is kept and what is refused."""

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from sciml_dchag.checking import check_recipe
from sciml_dchag.config import TrainingConfig, from_mapping
from sciml_dchag.files.checksums import LIST, seal
from sciml_dchag.files.zarr_groups import open_to_write
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import build_model
from sciml_dchag.pipeline import train
from sciml_dchag.training.checkpoint import (
    RECORD,
    find_checkpoint,
    last_checkpoint,
    load_tensors,
    read_checkpoint,
    tensors_of,
)
from sciml_dchag.training.export import export, from_pretrained
from sciml_dchag.training.logbook import read_log
from sciml_dchag.training.optim import build_optimizer, decays, learning_rate
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.forecast.forecaster import Forecaster
from sciml_dchag.weather.forecast.training import ForecastTrainingData
from sciml_dchag.weather.store.statistics import compute_statistics
from sciml_dchag.weather.store.store import Store
from sciml_dchag.weather.windows import ForecastBatch


def recipe(store: Path, **changes: dict[str, object]) -> ForecastRecipe:
    sections: dict[str, dict[str, object]] = {
        "data": {
            "store": str(store),
            "train": ["2025-12-01", "2025-12-24"],
            "validation": ["2025-12-25", "2025-12-27"],
            "test": ["2025-12-28", "2025-12-31"],
            "forcings": ["cos_latitude"],
        },
        "model": {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 8, "partitions": 2,
                  "dropout": 0.1},
        "training": {"steps": 6, "batch": 2, "warmup_steps": 2, "log_every": 1,
                     "checkpoint_every": 3, "ema_decay": 0.5},
        "evaluation": {"lead_hours": [6, 12]},
    }  # fmt: skip
    for name, change in changes.items():
        sections[name] = {**sections.get(name, {}), **change}
    return from_mapping(ForecastRecipe, {"name": "test", **sections})


def weights(run: Path) -> dict[str, torch.Tensor]:
    saved = read_checkpoint(run)
    tensors = tensors_of(build_model(from_mapping(ModelConfig, saved.model_config), seed=99))
    load_tensors(find_checkpoint(run), {"average" if saved.averaged else "model": tensors})
    return tensors


def stored(run: Path, kind: str) -> dict[str, torch.Tensor]:
    """Read every tensor of a kind from a run's last checkpoint."""
    path = last_checkpoint(run / "checkpoints")
    assert path is not None
    every = FileSystemReader(path).read_metadata().state_dict_metadata
    found = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in every.items()
        if name.startswith(f"{kind}.") and isinstance(entry, TensorStorageMetadata)
    }
    load_tensors(path, found)
    return found


def assert_same_weights(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0)


def test_one_seed_gives_one_model(msl_store: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(recipe(msl_store), tmp_path / name)
    assert_same_weights(tmp_path / "a", tmp_path / "b")


def test_a_resumed_run_equals_an_uninterrupted_one(msl_store: Path, tmp_path: Path) -> None:
    whole = recipe(msl_store)
    train(whole, tmp_path / "whole")

    class StopError(Exception):
        pass

    def interrupt(done: int, total: int, what: str) -> None:
        if done == 5:  # after the checkpoint of step 3
            raise StopError

    with pytest.raises(StopError):
        train(whole, tmp_path / "parts", progress=interrupt)
    assert read_checkpoint(tmp_path / "parts").step == 3
    assert not read_checkpoint(tmp_path / "parts").complete
    train(whole, tmp_path / "parts")
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    steps = [r["step"] for r in read_log(tmp_path / "parts" / "log.jsonl")]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert read_checkpoint(tmp_path / "parts").complete


def test_recomputing_blocks_changes_nothing(msl_store: Path, tmp_path: Path) -> None:
    """Dropout included: what is computed again is drawn again."""
    train(recipe(msl_store), tmp_path / "kept")
    again = recipe(msl_store, parallel={"activation_checkpointing": "blocks"})
    train(again, tmp_path / "again")
    assert_same_weights(tmp_path / "kept", tmp_path / "again")


def test_training_lowers_the_loss(msl_store: Path, tmp_path: Path) -> None:
    learnt = recipe(
        msl_store,
        data={"history_hours": [-6]},
        model={"dropout": 0.0, "embed_dim": 32, "patch": 4},
        training={"steps": 80, "batch": 4, "learning_rate": 3e-3, "ema_decay": 0.0},
    )
    train(learnt, tmp_path / "run")
    losses = [r["loss"] for r in read_log(tmp_path / "run" / "log.jsonl")]
    assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:5])


def test_validation_keeps_the_best_and_can_stop_early(msl_store: Path, tmp_path: Path) -> None:
    watched = recipe(
        msl_store,
        # So high a rate ruins the model, so that validation soon stops improving.
        training={"steps": 40, "validate_every": 2, "patience": 2, "learning_rate": 1.0,
                  "ema_decay": 0.0, "checkpoint_every": 40},
    )  # fmt: skip
    result = train(watched, tmp_path / "run")
    assert result.stopped_early and result.steps < 40
    assert result.checkpoint.name == "best"
    records = read_log(tmp_path / "run" / "log.jsonl")
    validations = {r["step"]: r["validation_loss"] for r in records if "validation_loss" in r}
    best = min(validations, key=validations.__getitem__)
    assert read_checkpoint(tmp_path / "run").step == best


def test_the_change_of_a_channel_is_its_unit(msl_store: Path, tmp_path: Path) -> None:
    train(recipe(msl_store), tmp_path / "run")
    saved = read_checkpoint(tmp_path / "run")
    statistics = Store.open(msl_store).statistics()
    expected = statistics.step_difference_std[0] / statistics.std[0]
    assert saved.data["change_std"][0] == pytest.approx(expected, rel=0.02)  # all 95 of 95 changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"train": ["2025-12-01", "2025-12-20"]}}, "statistics"),
        ({"data": {"validation": ["2025-12-24", "2025-12-27"]}}, "share 2025-12-24T00:00"),
        ({"data": {"test": ["2025-12-27", "2025-12-31"]}}, "data.validation and data.test share"),
        ({"model": {"patch": 5}}, "does not divide the image of 32 x 64"),
        ({"model": {"partitions": 3}}, "cannot fill 3 partitions"),
        ({"task": {"targets": ["z500"]}}, "'z500' is not among msl"),
    ],
)
def test_a_recipe_that_does_not_fit_the_store_is_refused(
    msl_store: Path, tmp_path: Path, changes: dict[str, dict[str, object]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(recipe(msl_store, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_recipe_does_not_go_on_from_a_run(msl_store: Path, tmp_path: Path) -> None:
    train(recipe(msl_store), tmp_path / "run")
    with pytest.raises(ValueError, match="other settings in 'model'"):
        train(recipe(msl_store, model={"depth": 2}), tmp_path / "run")
    with pytest.raises(FileExistsError, match="already holds a trained run"):
        train(recipe(msl_store), tmp_path / "run", resume=False)


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
            match="no longer finite at step 6.*training.learning_rate.*resumes from .*step-0000003",
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


def test_batches_reach_the_device_in_micro_batches(
    msl_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[int] = []
    to = ForecastBatch.to

    def counted(self: ForecastBatch, device: torch.device) -> ForecastBatch:
        moved.append(len(self))
        return to(self, device)

    monkeypatch.setattr(ForecastBatch, "to", counted)
    small = {"steps": 2, "batch": 4, "micro_batch": 1, "validate_every": 2, "warmup_steps": 1}
    train(recipe(msl_store, training=small), tmp_path / "run")
    validation = -(-11 // 4) * 4  # 12 times of which the last has no target; full batches
    assert moved == [1] * (2 * 4 + validation)


def test_a_tree_of_one_group_resumes(msl_store: Path, tmp_path: Path) -> None:
    one = recipe(
        msl_store,
        data={"forcings": ["cos_latitude"]},
        model={"aggregation": "dchag-l", "tree": 1},
        training={"steps": 2, "checkpoint_every": 1, "warmup_steps": 1},
    )
    train(one, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-0000002")
    train(one, tmp_path / "run")
    assert read_checkpoint(tmp_path / "run").step == 2


def test_a_region_is_not_turned(
    write: Callable[..., Path], series: Callable[..., xr.DataArray], tmp_path: Path
) -> None:
    world = series(times=12)
    region = world.isel(longitude=slice(2, 6))
    found = {}
    for name, state in (("world", world), ("region", region)):
        path = write(state, tmp_path / f"{name}.zarr", finish=lambda p: compute_statistics(p))
        turned = from_mapping(
            ForecastRecipe,
            {
                "name": name,
                "data": {"store": str(path), "rotate": True},
                "model": {"embed_dim": 8, "depth": 1, "heads": 2, "patch": 2, "partitions": 1},
                "training": {"steps": 1, "warmup_steps": 0, "batch": 1},
            },
        )
        found[name] = [f.what for f in check_recipe(turned, tmp_path) if f.verdict == "fails"]
        if name == "region":
            with pytest.raises(ValueError, match="set data.rotate to false"):
                train(turned, tmp_path / name)
        else:
            train(turned, tmp_path / name)
    assert not any("rotate" in what for what in found["world"])
    assert any(
        "4 columns from" in what and "do not go once around" in what for what in found["region"]
    )


def test_damaged_and_absent_checkpoints(msl_store: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        find_checkpoint(tmp_path)
    train(recipe(msl_store), tmp_path / "run")
    path = last_checkpoint(tmp_path / "run" / "checkpoints")
    assert path is not None
    (path / LIST).unlink()
    for shard in path.glob("*.distcp"):
        shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        weights(path)
    record = (path / RECORD).read_text()
    (path / RECORD).write_text(record[:100])
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        read_checkpoint(path)
    (path / RECORD).write_text("{}")
    with pytest.raises(ValueError, match="has format None where a checkpoint of this package"):
        read_checkpoint(path)


def test_a_checkpoint_that_was_being_written_is_none(msl_store: Path, tmp_path: Path) -> None:
    train(recipe(msl_store), tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == ["step-0000003", "step-0000006"]
    (folder / "step-0000003").rename(folder / "step-0000008.partial")
    (folder / "step-0000006").rename(folder / "step-0000009.partial")
    assert last_checkpoint(folder) is None
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        read_checkpoint(tmp_path / "run")


def test_a_store_of_other_channels_is_refused(
    msl_store: Path, simulated_store: Path, tmp_path: Path
) -> None:
    train(recipe(msl_store), tmp_path / "run")
    with pytest.raises(ValueError, match="lacks 'msl'"):
        Forecaster(tmp_path / "run", Store.open(simulated_store))


def test_a_rollout_is_repeated_single_steps(msl_store: Path, tmp_path: Path) -> None:
    train(recipe(msl_store), tmp_path / "run")
    store = Store.open(msl_store)
    forecaster = Forecaster(tmp_path / "run", store)
    windows = forecaster.windows((None, None))
    leads = dict(forecaster.forecast(windows, [100, 101], (6, 18)))
    assert sorted(leads) == [6, 18] and leads[18].shape == (2, 1, 32, 64)
    statistics = store.statistics()
    now = torch.from_numpy(store.read([100, 101]) - statistics.mean.astype(np.float32)[0])
    now /= statistics.std[0]
    for step in range(3):
        times = store.times[[100, 101]] + np.timedelta64(6 * step, "h")
        inputs = torch.cat([now, torch.from_numpy(windows.constants(times))], dim=1)
        with torch.no_grad():
            forecast = forecaster.task.step(forecaster.model, inputs, now, torch.full((2,), 6.0))
        now = forecast
    physical = forecast.numpy() * statistics.std[0] + statistics.mean[0]
    np.testing.assert_allclose(leads[18], physical, rtol=1e-5)
    with pytest.raises(ValueError, match="multiples of 6"):
        forecaster.check_leads([9])


def test_no_decay_on_embeddings_norms_biases_and_queries() -> None:
    config = ModelConfig(
        size="tiny", aggregation="dchag-l", tree=2, partitions=2, image_size=(8, 8),
        input_channels=tuple("abcdefgh"), output_channels=("a",),
    )  # fmt: skip
    for kind in ("dchag-l", "dchag-c"):
        model = build_model(dataclasses.replace(config, aggregation=kind))
        for name, parameter in model.named_parameters():
            plain = parameter.ndim >= 2 and not any(
                word in name for word in ("embedding", "bias", "partial.weight", "group_weight")
            ) and not name.endswith(".query")  # fmt: skip
            assert decays(name) == plain, name
        groups = build_optimizer(model, TrainingConfig(weight_decay=0.1)).param_groups
        assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
        assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


def test_the_learning_rate_rises_then_falls_as_a_cosine() -> None:
    config = TrainingConfig(
        steps=100, warmup_steps=10, learning_rate=1e-3, final_learning_rate=1e-8
    )
    rates = [learning_rate(config, step) for step in range(101)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) * 1e-4)
    assert rates[55] == pytest.approx(5e-4, rel=1e-3)
    assert rates[100] == pytest.approx(1e-8)


def test_an_exported_model_is_the_one_that_forecasts(msl_store: Path, tmp_path: Path) -> None:
    train(recipe(msl_store), tmp_path / "run")
    file = export(tmp_path / "run", tmp_path / "model.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "run"]
    model, saved = from_pretrained(file)
    assert saved == read_checkpoint(tmp_path / "run") and saved.data["channels"] == ["msl"]
    forecaster = Forecaster(tmp_path / "run", Store.open(msl_store))
    for name, parameter in forecaster.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], parameter.cpu(), rtol=0, atol=0)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export(tmp_path / "run", file)
    with pytest.raises(ValueError, match="must end in .safetensors"):
        export(tmp_path / "run", tmp_path / "model.pt")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="is no safetensors file"):
        from_pretrained(file)
    with pytest.raises(FileNotFoundError, match="make one with `export`"):
        from_pretrained(tmp_path / "none.safetensors")
