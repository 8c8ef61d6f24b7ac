"""Runs with a control branch: the base stays, is named by its hash, and is used without its file."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from click.testing import CliRunner

import sciml_dchag as sd
from sciml_dchag.checking import check_recipe
from sciml_dchag.cli.main import main
from sciml_dchag.models.transformer import build_model
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.pipeline import train
from sciml_dchag.planning.layouts import demand_of
from sciml_dchag.planning.step import simulate_step
from sciml_dchag.tasks import recipe_from_mapping, task_of
from sciml_dchag.training.checkpoint import tensors_of
from sciml_dchag.training.export import export, from_pretrained
from sciml_dchag.weather.store.statistics import compute_statistics


def mapping(store: Path, name: str, **sections: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": name,
        "data": {"store": str(store), "train": ["2025-12-01", "2025-12-24"]},
        "model": {"embed_dim": 16, "depth": 2, "heads": 2, "patch": 8, "partitions": 1},
        "task": {"kind": "forecast"},
        "training": {
            "steps": 4, "batch": 2, "warmup_steps": 1, "log_every": 1, "checkpoint_every": 2,
        },
    }  # fmt: skip
    return {key: {**value, **sections.get(key, {})} if isinstance(value, dict) else value
            for key, value in made.items()}  # fmt: skip


@pytest.fixture(scope="module")
def base(msl_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("base") / "base"
    train(recipe_from_mapping(mapping(msl_store, "base")), run)
    return run


def controlled(store: Path, base: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    control = {"base": str(base), "channels": ["msl@-6h"], "blocks": 1}
    made = mapping(store, "control", model={"control": control}, data={"history_hours": [-6]})
    for key, values in sections.items():
        made[key] = {**made[key], **values}
    return made


@pytest.fixture(scope="module")
def run(msl_store: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("control") / "control"
    rates = {"ema_decay": 0.5, "learning_rate": 1e-2}
    train(recipe_from_mapping(controlled(msl_store, base, training=rates)), folder)
    return folder


@torch.no_grad()
def test_the_base_stays_and_answers_with_the_branch_off(run: Path, base: Path) -> None:
    before, after = from_pretrained(base)[0].eval(), from_pretrained(run)[0].eval()
    kept, found = tensors_of(before), tensors_of(after)
    assert all(torch.equal(kept[name], found[name]) for name in kept)
    assert all(name.startswith("control.") for name in found.keys() - kept.keys())
    x = torch.randn(2, 2, *before.config.image_size)
    hours = torch.full((2,), 6.0)
    assert not torch.equal(after(x, hours), before(x[:, :1], hours))
    after.control.on = False
    assert torch.equal(after(x, hours), before(x[:, :1], hours))


def test_a_checkpoint_names_its_base_and_needs_it_no_more(
    run: Path, base: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    model, saved = from_pretrained(export(copied, tmp_path / "m.safetensors"))
    assert model.config.control.base_sha256 == saved.model_config["control"]["base_sha256"]
    assert len(model.config.control.base_sha256) == 64


def test_a_run_resumes_with_its_base_and_no_other(
    run: Path, base: Path, msl_store: Path, tmp_path: Path
) -> None:
    settings = {"training": {"ema_decay": 0.5, "learning_rate": 1e-2}}
    part, here = tmp_path / "part", tmp_path / "base"
    shutil.copytree(run, part)
    shutil.rmtree(part / "checkpoints" / "step-0000004")
    train(recipe_from_mapping(controlled(msl_store, base, **settings)), part)
    one, other = (tensors_of(from_pretrained(r)[0]) for r in (run, part))
    assert all(torch.equal(one[name], other[name]) for name in one)
    # Another base at the same place, of the same architecture.
    train(recipe_from_mapping(mapping(msl_store, "base", training={"steps": 3})), here)
    recipe = recipe_from_mapping(controlled(msl_store, here, **settings))
    fresh = tmp_path / "fresh"
    train(recipe, fresh)
    shutil.rmtree(here)
    shutil.copytree(base, here)
    with pytest.raises(ValueError, match="was trained on another base than"):
        train(recipe, fresh)


def test_bases_that_do_not_fit_are_refused(
    base: Path, run: Path, msl_store: Path, tmp_path: Path
) -> None:
    for sections, message in (
        ({"model": {"control": {"base": str(tmp_path), "channels": ["msl@-6h"]}}}, "no checkpoint"),
        ({"model": {"control": {"base": str(run), "channels": ["msl@-6h"]}}}, "branch of its own"),
        ({"task": {"lead_hours": [12, 12]}}, r"task.lead_hours \(6, 6\) and this recipe has"),
        ({"task": {"output": "direct"}}, "task.output residual"),
        ({"data": {"departures": True}}, "with data.departures False and this recipe has True"),
        ({"task": {"linear_step": True}}, "task.linear_step does not go with model.control"),
        ({"data": {"test": ["2025-12-24", "2025-12-31"]}}, "share 2025-12-24T00"),
        ({"data": {"history_hours": [-6, -12]}}, "has the inputs msl, and without"),
    ):
        recipe = recipe_from_mapping(
            {**controlled(msl_store, base, **sections), "evaluation": {"lead_hours": [12]}}
        )
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            train(recipe, tmp_path / "none")
        assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="leave training.start_from out"):
        recipe_from_mapping(controlled(msl_store, base, training={"start_from": str(base)}))


def test_check_and_plan_know_what_is_trained(base: Path, msl_store: Path, tmp_path: Path) -> None:
    recipe = recipe_from_mapping(controlled(msl_store, base))
    found = [f for f in check_recipe(recipe, tmp_path) if f.what.startswith("control of")]
    assert [f.verdict for f in found] == ["ok"] and "1 new inputs" in found[0].what
    demand = demand_of(task_of(recipe))
    assert "head.weight" in demand.frozen
    assert not any(name.startswith("control.") for name in demand.frozen)
    branch = build_model(demand.model).control
    step = simulate_step(
        demand.model, ParallelConfig(fsdp=1), loss=demand.loss, samples=1,
        precision=torch.float32, frozen=demand.frozen,
    )  # fmt: skip
    assert step.stored(1, trained=True) == sum(p.numel() for p in branch.parameters())
    bad = recipe_from_mapping(controlled(msl_store, base, data={"departures": True}))
    said = [f.what for f in check_recipe(bad, tmp_path) if f.verdict != "ok"]
    assert any("data.departures False and this recipe has True" in what for what in said)


@pytest.fixture
def other_days(msl_store: Path, tmp_path: Path) -> Path:
    """The same store with statistics of fewer days."""
    copied = tmp_path / "other.zarr"
    shutil.copytree(msl_store, copied)
    compute_statistics(copied, ("2025-12-11", "2025-12-22"))
    return copied


@pytest.mark.parametrize("departures", [False, True])
def test_the_base_forecasts_what_it_did_whatever_the_new_training_period(
    msl_store: Path, other_days: Path, tmp_path: Path, departures: bool
) -> None:
    """Its statistics, unit of change and daily cycle are its own; the files say which is off."""
    train(recipe_from_mapping(mapping(msl_store, "base", data={"departures": departures})),
          base := tmp_path / "base")  # fmt: skip
    days = {"train": ["2025-12-11", "2025-12-22"], "departures": departures}
    train(recipe_from_mapping(controlled(other_days, base, data=days)), run := tmp_path / "run")
    shutil.move(base, tmp_path / "moved")  # a trained branch needs it no more
    asked: dict[str, Any] = {"leads": [6], "period": ("2025-12-26T12", "2025-12-27T00")}
    expected = sd.open(tmp_path / "moved").forecast(msl_store, **asked)
    trained = sd.open(run)
    off, on = (trained.forecast(other_days, control=c, **asked) for c in (False, True))
    name = "mean_sea_level_pressure"
    np.testing.assert_array_equal(off[name], expected[name])
    assert not np.array_equal(on[name], expected[name])
    assert (off.attrs["control"], on.attrs["control"]) == ("off", "on: msl@-6h")
    members = trained.forecast(other_days, members=2, **asked)  # reads the training store alone
    assert members.sizes["number"] == 2
    with pytest.raises(ValueError, match="has no control branch that could be off"):
        sd.open(tmp_path / "moved").forecast(msl_store, control=False, **asked)


def test_predict_without_the_branch_and_scores_of_the_base_beside_it(
    run: Path, base: Path, msl_store: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(
        main, ["predict", *map(str, (run, msl_store, tmp_path / "off.nc")), "--control", "off",
               "--lead-hours", "6", "--start-time", "2025-12-26T12", "--end-time", "2025-12-27T00"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    alone = sd.open(base).forecast(msl_store, leads=[6], period=("2025-12-26T12", "2025-12-27T00"))
    with xr.open_dataset(tmp_path / "off.nc", decode_timedelta=True) as written:
        np.testing.assert_array_equal(
            written["mean_sea_level_pressure"], alone["mean_sea_level_pressure"]
        )
    test = {"data": {"test": ["2025-12-26", "2025-12-28"]}, "evaluation": {"lead_hours": [6]}}
    scores = sd.evaluate(run, sd.open(run).recipe.replace(**test)).to_frame()
    of_base = sd.evaluate(base, sd.open(base).recipe.replace(**test)).to_frame()
    columns = list(scores.columns)
    assert columns[columns.index("model") + 1] == "base"
    np.testing.assert_array_equal(scores["base"], of_base["model"])
    assert "base" not in of_base and (scores["model"] != scores["base"]).any()


def test_a_base_that_has_seen_the_test_is_refused(
    base: Path, other_days: Path, tmp_path: Path
) -> None:
    days = {"train": ["2025-12-11", "2025-12-22"], "test": ["2025-12-23", "2025-12-28"]}
    recipe = recipe_from_mapping(controlled(other_days, base, data=days))
    with pytest.raises(ValueError, match=r"data.test has 2025-12-23T00.*has seen in training"):
        train(recipe, tmp_path / "none")


def test_a_plain_forecaster_starts_from_the_base_within(
    run: Path, base: Path, msl_store: Path, tmp_path: Path
) -> None:
    started = mapping(msl_store, "started", training={"start_from": str(run), "steps": 1})
    said: list[str] = []
    train(recipe_from_mapping(started), tmp_path / "started", console=said.append)
    assert ", 0 new, " in said[0] and "dropped (control." in said[0]
    assert "1 input channels loaded, 0 new, 1 dropped (msl@-6h)" in said[0]


def test_a_missing_base_is_named_when_a_run_resumes(
    base: Path, msl_store: Path, tmp_path: Path
) -> None:
    here, part = tmp_path / "base", tmp_path / "run"
    shutil.copytree(base, here)
    train(recipe_from_mapping(controlled(msl_store, here)), part)
    shutil.rmtree(part / "checkpoints" / "step-0000004")
    shutil.rmtree(here)
    with pytest.raises(FileNotFoundError, match=str(here)):
        train(recipe_from_mapping(controlled(msl_store, here)), part)
