"""Runs with a control branch: the base stays, is named by its hash, and is used without its file."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sciml_dchag.checking import check_recipe
from sciml_dchag.pipeline import train
from sciml_dchag.planning.layouts import demand_of
from sciml_dchag.tasks import recipe_from_mapping, task_of
from sciml_dchag.training.checkpoint import tensors_of
from sciml_dchag.training.export import export, from_pretrained
from sciml_dchag.weather.forecast.training import ForecastRecord, with_those_of_base
from sciml_dchag.weather.store.store import Store


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
        ({"data": {"departures": True}}, "data.departures does not go with model.control"),
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
    frozen = demand_of(task_of(recipe)).frozen
    assert "head.weight" in frozen and not any(n.startswith("control.") for n in frozen)


def test_the_base_keeps_its_statistics(msl_store: Path) -> None:
    statistics = Store.open(msl_store).statistics()
    base = ForecastRecord(
        channels=("z500", "msl"), mean=(1.0, 2.0), std=(3.0, 4.0), grid_sha256="",
        statistics_period=("", ""), change_std=None, step_hours=6,
    )  # fmt: skip
    changed = with_those_of_base(statistics, base)
    assert (changed.mean[0], changed.std[0]) == (2.0, 4.0)
    other = with_those_of_base(statistics, dataclasses.replace(base, channels=("z500", "t2m")))
    np.testing.assert_array_equal(other.mean, statistics.mean)
