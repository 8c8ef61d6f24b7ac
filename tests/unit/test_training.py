"""Training on the embedded sample: determinism, resuming, what is kept and what is refused."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from training_runs import assert_same_weights, recipe, weights

from sciml_dchag.checking import check_recipe
from sciml_dchag.config import TrainingConfig, from_mapping
from sciml_dchag.files.checksums import LIST
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import build_model
from sciml_dchag.pipeline import train
from sciml_dchag.training.checkpoint import (
    RECORD,
    find_checkpoint,
    last_checkpoint,
    read_checkpoint,
)
from sciml_dchag.training.export import export, from_pretrained
from sciml_dchag.training.logbook import read_log
from sciml_dchag.training.optim import ShardedAdamW, decays, learning_rate
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.forecast.forecaster import Forecaster
from sciml_dchag.weather.store.statistics import compute_statistics
from sciml_dchag.weather.store.store import Store
from sciml_dchag.weather.windows import ForecastBatch


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
    train(recipe(msl_store, training={"precision": "float32"}), tmp_path / "run")
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
        given = (t.to(forecaster.ranks.device) for t in (inputs, now, torch.full((2,), 6.0)))
        with torch.no_grad():
            forecast = forecaster.task.step(forecaster.model, *given).cpu()
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
        groups = ShardedAdamW(model, TrainingConfig(weight_decay=0.1)).groups
        assert [group.weight_decay for group in groups] == [0.1, 0.0]
        assert sum(len(group.names) for group in groups) == len(list(model.parameters()))


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
