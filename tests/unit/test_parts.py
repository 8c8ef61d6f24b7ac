"""Frozen parameters and learning rates by part: what trains, what is kept, what is planned."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from sciml_dchag.checking import check_recipe
from sciml_dchag.config.parts import frozen_of, rates_of
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import build_model
from sciml_dchag.objectives.forecast import planned_loss
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.pipeline import train
from sciml_dchag.planning import step
from sciml_dchag.planning.layouts import MACHINES, Demand, Layout, demand_of, make_plan
from sciml_dchag.planning.step import StepCost, simulate_step
from sciml_dchag.tasks import recipe_from_mapping, task_of
from sciml_dchag.training.checkpoint import find_checkpoint, tensors_of
from sciml_dchag.training.export import from_pretrained
from sciml_dchag.training.safe_metadata import SafeReader

FROZEN = ["aggregation.tokenizer.*", "backbone.blocks.0.*"]


def mapping(store: Path, **training: Any) -> dict[str, Any]:
    return {
        "name": "parts",
        "data": {"store": str(store), "train": ["2025-12-01", "2025-12-24"]},
        "model": {"embed_dim": 16, "depth": 2, "heads": 2, "patch": 8, "partitions": 1},
        "task": {"kind": "forecast"},
        "training": {
            "steps": 4, "batch": 2, "warmup_steps": 1, "log_every": 1, "checkpoint_every": 2,
            "weight_decay": 0.1, **training,
        },
    }  # fmt: skip


def weights(run: Path) -> dict[str, torch.Tensor]:
    return tensors_of(from_pretrained(run)[0])


def test_frozen_parameters_stay_and_are_not_optimised(msl_store: Path, tmp_path: Path) -> None:
    recipe = recipe_from_mapping(mapping(msl_store, freeze=FROZEN, ema_decay=0.5))
    train(recipe, tmp_path / "run")
    after = weights(tmp_path / "run")
    before = tensors_of(build_model(from_pretrained(tmp_path / "run")[0].config, recipe.seed))
    frozen = frozen_of(list(before), recipe.training)
    assert {"aggregation.tokenizer.bias", "backbone.blocks.0.mlp_in.weight"} <= frozen
    for name in frozen:
        assert torch.equal(before[name], after[name]), name
    for name in (
        "head.bias",
        "backbone.blocks.1.mlp_in.weight",
        "aggregation.partial.value_weight",
    ):
        assert not torch.equal(before[name], after[name]), name
    kept = SafeReader(find_checkpoint(tmp_path / "run")).read_metadata().state_dict_metadata
    with_moments = {
        n.split(".", 2)[2].removesuffix(".exp_avg")
        for n in kept
        if "exp_avg_sq" not in n and n.endswith(".exp_avg")
    }
    assert with_moments == set(before) - frozen


def test_a_run_with_frozen_parameters_resumes(msl_store: Path, tmp_path: Path) -> None:
    settings = {"freeze": FROZEN, "rates": [{"parameters": "head.*", "factor": 0.5}]}
    whole = recipe_from_mapping(mapping(msl_store, **settings, ema_decay=0.5))
    train(whole, tmp_path / "whole")
    part = tmp_path / "part"
    shutil.copytree(tmp_path / "whole", part)
    shutil.rmtree(part / "checkpoints" / "step-0000004")
    train(whole, part)
    one, other = weights(tmp_path / "whole"), weights(part)
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(ValueError, match="other settings in 'training'"):
        train(recipe_from_mapping(mapping(msl_store, ema_decay=0.5)), part)


def test_a_checkpoint_from_before_these_keys_is_resumed(msl_store: Path, tmp_path: Path) -> None:
    recipe = recipe_from_mapping(mapping(msl_store))
    train(recipe, tmp_path / "run")
    record = find_checkpoint(tmp_path / "run") / "checkpoint.json"
    saved = json.loads(record.read_text())
    for key in ("freeze", "rates"):
        del saved["recipe"]["training"][key]
    record.write_text(json.dumps(saved))
    (record.parent / "checksums.txt").unlink()
    assert train(recipe, tmp_path / "run").steps == 4


def test_a_part_learns_at_its_own_rate(msl_store: Path, tmp_path: Path) -> None:
    """AdamW's first step is the learning rate in the gradient's direction, whatever its size."""
    settings = {"steps": 1, "warmup_steps": 0, "weight_decay": 0.0}
    rates = [{"parameters": "*", "factor": 0.25}, {"parameters": "head.*", "factor": 0.5}]
    plain = recipe_from_mapping(mapping(msl_store, **settings))
    train(plain, tmp_path / "plain")
    train(recipe_from_mapping(mapping(msl_store, **settings, rates=rates)), tmp_path / "rates")
    start = tensors_of(build_model(from_pretrained(tmp_path / "plain")[0].config, plain.seed))
    one, other = weights(tmp_path / "plain"), weights(tmp_path / "rates")
    for name in ("head.weight", "backbone.blocks.0.mlp_in.weight", "aggregation.tokenizer.weight"):
        factor = 0.5 if name.startswith("head") else 0.25
        moved = other[name] - start[name]
        torch.testing.assert_close(moved, factor * (one[name] - start[name]), rtol=1e-2, atol=1e-7)


def test_patterns_that_match_nothing_are_refused(msl_store: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"freeze": ["backbone"]}, r"training.freeze has 'backbone'.* nearest are backbone\.\*"),
        ({"freeze": ["backbone.block.0.*"]}, r"nearest are backbone\.blocks\.0\.\*"),
        ({"rates": [{"parameters": "heads.*", "factor": 2}]}, r"training.rates .*head\.\*"),
        ({"freeze": ["*"]}, "freezes all .* parameters"),
    ):
        recipe = recipe_from_mapping(mapping(msl_store, **changes))
        with pytest.raises(ValueError, match=message):
            train(recipe, tmp_path / "run")
        assert not (tmp_path / "run").exists()
        fails = [f.what for f in check_recipe(recipe, tmp_path) if f.verdict == "fails"]
        assert len(fails) == 1 and message.split()[0].strip("r'") in fails[0], fails
    with pytest.raises(ValueError, match="named in training.freeze"):
        recipe_from_mapping(mapping(msl_store, rates=[{"parameters": "*", "factor": 0}]))


def test_check_says_what_is_trained(msl_store: Path, tmp_path: Path) -> None:
    rates = [{"parameters": "head.*", "factor": 0.1}]
    recipe = recipe_from_mapping(mapping(msl_store, freeze=["backbone.*"], rates=rates))
    (found,) = (f for f in check_recipe(recipe, tmp_path) if f.what.startswith("trained"))
    assert found.verdict == "ok" and "at 0.1 of the learning rate" in found.what


CONFIG = ModelConfig(
    embed_dim=32, depth=7, heads=4, patch=4, partitions=1, input_channels=tuple("abcdef"),
    output_channels=tuple("abcdef"), image_size=(16, 16),
)  # fmt: skip


def names_of(config: ModelConfig) -> list[str]:
    with torch.device("meta"):
        return [name for name, _ in build_model(config).named_parameters()]


def plan(frozen: frozenset[str]) -> Layout:
    """Of two ranks that share out samples."""
    demand = Demand(
        model=CONFIG, loss=planned_loss, parallel=ParallelConfig(), batch=4, micro_batch=1,
        precision=torch.float32, frozen=frozen,
    )  # fmt: skip
    found = make_plan(demand, 2, MACHINES["h100"]).fitting
    return next(layout for layout in found if layout.dp == 2)


def test_a_plan_counts_neither_gradient_nor_moments_of_what_is_frozen() -> None:
    sizes = {name: p.numel() for name, p in build_model(CONFIG).named_parameters()}
    whole = plan(frozenset())
    for pattern in ("backbone.blocks.*", "backbone.blocks.[0-4].*"):
        frozen = frozenset(name for name in sizes if fnmatch(name, pattern))
        trained = sum(size for name, size in sizes.items() if name not in frozen)
        part = plan(frozen)
        assert part.memory["optimizer"] == 8 * trained
        assert part.memory["parameters"] == whole.memory["parameters"] == 4 * sum(sizes.values())
        assert part.memory["gradients"] < whole.memory["gradients"]
        assert part.sent["all-reduce over dp"] == 4 * trained
        assert part.flops < whole.flops


@pytest.mark.parametrize("pattern", ["backbone.blocks.*", "[ab]*"])
def test_a_frozen_model_is_planned_as_if_all_blocks_were_simulated(pattern: str) -> None:
    """Blocks with a backward pass, as the aggregation learns, and without one."""
    frozen = {name for name in names_of(CONFIG) if fnmatch(name, pattern)}

    def cost() -> StepCost:
        return simulate_step(
            CONFIG, ParallelConfig(dp=1, fsdp=1, tp=1), loss=planned_loss, samples=2, precision=torch.float32,
            frozen=frozen,
        )  # fmt: skip

    few = cost()
    with mock.patch.object(step, "BLOCKS", 100):
        direct = cost()
    assert few.stored(1, trained=True) == direct.stored(1, trained=True)
    assert sum(p.flops for p in few.phases) == sum(p.flops for p in direct.phases)
    worst = [max(p.peak.total() for p in found.phases) for found in (few, direct)]
    assert worst[0] == pytest.approx(worst[1], rel=0.01)


def test_what_a_recipe_freezes_is_planned(msl_store: Path) -> None:
    demand = demand_of(
        task_of(recipe_from_mapping(mapping(msl_store, freeze=["head.h*", "*norm*"])))
    )
    assert "head.hidden.0.weight" in demand.frozen and "backbone.norm.bias" in demand.frozen
    assert "head.weight" not in demand.frozen


def test_the_last_pattern_that_matches_counts() -> None:
    recipe = recipe_from_mapping(
        mapping(Path("s.zarr"), rates=[
            {"parameters": "*", "factor": 0.1}, {"parameters": "head.*", "factor": 2.0},
        ])
    )  # fmt: skip
    factors = rates_of(names_of(CONFIG), recipe.training)
    assert factors["head.weight"] == 2.0 and factors["backbone.norm.weight"] == 0.1
