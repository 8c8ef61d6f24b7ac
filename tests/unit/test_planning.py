"""The planner: a simulated step's memory, sums and bytes, and the choice of a layout."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from sciml_dchag.cli import main
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.objectives.forecast import planned_loss
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.planning import step as planned_step
from sciml_dchag.planning.layouts import GIB, MACHINES, Demand, chosen_machine, make_plan
from sciml_dchag.planning.presentation import nothing_fits, settings
from sciml_dchag.planning.step import StepCost, simulate_step

RECIPES = Path(__file__).parents[2] / "pipelines"


def model(depth: int = 4, channels: int = 16, **changes: object) -> ModelConfig:
    names = tuple(f"c{i}" for i in range(channels))
    config = ModelConfig(
        embed_dim=64, depth=depth, heads=4, patch=4, partitions=4, input_channels=names,
        output_channels=names, image_size=(32, 64),
    )  # fmt: skip
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def simulate(config: ModelConfig, samples: int = 2, **parallel: object) -> StepCost:
    degrees = ParallelConfig(**{"fsdp": 1, **parallel})  # type: ignore[arg-type]
    return simulate_step(
        config, degrees, loss=planned_loss, samples=samples, precision=torch.float32
    )


@pytest.mark.parametrize(
    "parallel",
    [
        {"tp": 2},
        {"fsdp": 2, "tp": 2},
        {"fsdp": 2, "activation_checkpointing": "blocks"},
        {"tp": 2, "sequence_parallel": True, "activation_checkpointing": "selective"},
    ],
    ids=str,
)
def test_five_blocks_stand_for_any_number(
    parallel: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    stretched = simulate(model(depth=8), **parallel)
    monkeypatch.setattr(planned_step, "BLOCKS", 100)
    direct = simulate(model(depth=8), **parallel)
    assert Counter(stretched.parameters) == Counter(direct.parameters)
    for attribute in ("flops", "sent"):
        one, other = ([getattr(phase, attribute) for phase in cost.phases]
                      for cost in (stretched, direct))  # fmt: skip
        if attribute == "flops":
            assert sum(one) == sum(other) > 0
        else:
            assert sum(one, Counter()) == sum(other, Counter())
    assert len(stretched.phases) == len(direct.phases)
    for one_phase, other_phase in zip(stretched.phases, direct.phases, strict=True):
        assert one_phase.name.rstrip("0123456789") == other_phase.name.rstrip("0123456789")
        assert one_phase.peak.total() == other_phase.peak.total(), other_phase.name


def test_the_products_of_a_block_are_counted() -> None:
    B, L, D = 2, 8 * 16, 64
    cost = simulate(model(), samples=B)
    forward = {phase.name: phase.flops for phase in cost.phases}
    weights, attention = 2 * 12 * B * L * D**2, 2 * 2 * B * L**2 * D
    assert forward["forward block 2"] == weights + attention
    # Twice the forward's products, and the attention's weights once more: no one keeps them.
    assert forward["backward block 2"] == 2 * (weights + attention) + attention / 2


def test_shapes_that_are_met_for_the_first_time_cost_the_same() -> None:
    """DTensor tries an operator on whole tensors when it meets their shapes for the first time."""
    first, again = (simulate(model(channels=12, embed_dim=48), samples=3, tp=2) for _ in range(2))
    for one, other in zip(first.phases, again.phases, strict=True):
        assert (one.flops, one.peak) == (other.flops, other.peak), one.name


def test_the_absorbed_form_costs_what_the_method_says() -> None:
    """2 C P D^2 once and 2 B L C P D (method note, section 4), forward; P counts the constant."""
    B, L, D, C, P = 4, 8 * 16, 64, 64, 17
    config = model(channels=C, aggregation="single", partitions=1)
    cost = simulate(config, samples=B)
    stage = next(phase for phase in cost.phases if phase.name == "forward channel stage")
    maps, per_location = 2 * C * P * D**2, 2 * B * L * C * P * D
    scores = 2 * B * L * C * P * config.heads
    output = 2 * B * L * D**2
    assert stage.flops == pytest.approx(maps + per_location + scores + output, rel=0.02)


def test_recomputation_and_sharding_save_what_they_should() -> None:
    def worst(cost: StepCost) -> int:
        return max(phase.peak.total() for phase in cost.phases)

    plain = simulate(model(depth=8))
    kept = {
        setting: worst(simulate(model(depth=8), activation_checkpointing=setting))
        for setting in ("none", "selective", "blocks")
    }
    assert kept["blocks"] < 0.5 * kept["none"] and kept["blocks"] < kept["selective"] < kept["none"]
    assert sum(p.flops for p in simulate(model(), activation_checkpointing="selective").phases) == (
        sum(p.flops for p in simulate(model()).phases)
    )
    assert plain.stored(2) == pytest.approx(plain.stored(1) / 2, rel=0.01)
    both = simulate(model(depth=8), tp=2), simulate(model(depth=8), tp=2, sequence_parallel=True)
    assert worst(both[1]) < 0.95 * worst(both[0])


def test_a_step_gathers_one_token_a_partition_in_its_precision() -> None:
    sent = sum((phase.sent for phase in simulate(model(), tp=2).phases), Counter())
    B, L, D, G = 2, 8 * 16, 64, 4
    assert sent["all-gather over tp", 4 * B * L * G * D] == 1
    assert not any(name.startswith("reduce-scatter") for name, _ in sent)
    mixed = simulate_step(
        model(),
        ParallelConfig(fsdp=1, tp=2),
        loss=planned_loss,
        samples=B,
        precision=torch.bfloat16,
    )
    sent = sum((phase.sent for phase in mixed.phases), Counter())
    assert sent["all-gather over tp", 2 * B * L * G * D] == 1


def test_fsdp_gathers_in_the_precision_that_is_computed_in() -> None:
    def gathered(precision: torch.dtype) -> tuple[int, int]:
        cost = simulate_step(
            model(), ParallelConfig(fsdp=2), loss=planned_loss, samples=1, precision=precision
        )
        sent = sum((phase.sent for phase in cost.phases), Counter())
        kinds = ("all-gather over fsdp", "reduce-scatter over fsdp")
        one, other = (sum(n * k for (name, n), k in sent.items() if name == kind) for kind in kinds)
        return one, other

    exact, halved = gathered(torch.float32), gathered(torch.bfloat16)
    assert exact[0] == 2 * halved[0] and exact[1] == halved[1]  # gradients keep float32


DEMAND = Demand(
    model=model(depth=2, channels=64), loss=planned_loss, parallel=ParallelConfig(), batch=32
)


@pytest.mark.slow
def test_the_fastest_layout_that_fits_is_proposed() -> None:
    room = dataclasses.replace(MACHINES["frontier"], memory=1 * GIB)
    plan = make_plan(DEMAND, 4, room)
    assert {(x.dp, x.fsdp, x.tp) for x in plan.fitting} == {
        (4, 1, 1), (2, 2, 1), (1, 4, 1), (2, 1, 2), (1, 2, 2), (1, 1, 4),
    }  # fmt: skip
    seconds = [layout.seconds for layout in plan.fitting]
    assert seconds == sorted(seconds) and not plan.too_large
    best = plan.fitting[0]
    assert best.samples == 32 and best.micro_batch == 32 // (best.dp * best.fsdp)
    assert f"--set parallel.tp={best.tp}" in settings(best)
    sharded = {(x.dp, x.fsdp): x.memory for x in plan.fitting if x.tp == 1}
    for kind in ("parameters", "optimizer"):
        assert sharded[1, 4][kind] == pytest.approx(sharded[4, 1][kind] / 4, rel=0.05)
    assert sharded[1, 4]["optimizer"] == 2 * sharded[1, 4]["parameters"]

    most = max(layout.memory.total() for layout in plan.fitting)
    least = min(layout.memory.total() for layout in plan.fitting)
    tight = make_plan(DEMAND, 4, dataclasses.replace(room, memory=(most + least) / 2))
    smaller = {(x.dp, x.fsdp, x.tp): x.micro_batch for x in [*tight.fitting, *tight.too_large]}
    for layout in plan.fitting:
        assert smaller[layout.dp, layout.fsdp, layout.tp] <= layout.micro_batch
    assert all(layout.memory.total() <= (most + least) / 2 for layout in tight.fitting)


@pytest.mark.slow
def test_what_does_not_fit_is_told() -> None:
    tiny = dataclasses.replace(MACHINES["frontier"], memory=1e6)
    plan = make_plan(DEMAND, 2, tiny)
    assert not plan.fitting and plan.too_large
    text = nothing_fits(plan, DEMAND, tiny)
    assert "No layout fits" in text and "activation_checkpointing=blocks" in text
    odd = dataclasses.replace(DEMAND, batch=3)
    with pytest.raises(ValueError, match="training.batch 3 cannot be dealt"):
        make_plan(dataclasses.replace(odd, model=model(partitions=1)), 4, tiny)


def test_memory_sizes() -> None:
    assert chosen_machine("frontier", "80GB").memory == 80e9
    assert chosen_machine("a100", None).memory == 80 * GIB
    for wrong in ("64", "lots", "0GiB", "-1GiB"):
        with pytest.raises(ValueError, match="not a size of memory"):
            chosen_machine("frontier", wrong)


@pytest.mark.slow
def test_the_command_proposes_settings_and_refuses_what_is_no_plan(tmp_path: Path) -> None:
    small = ["--set", "model.size=tiny", "--set", "model.partitions=2", "--runs", str(tmp_path)]
    recipe = str(RECIPES / "era5_forecast.yaml")
    done = CliRunner().invoke(main, ["plan", recipe, "--gpus", "2", "--memory", "64GiB", *small])
    assert done.exit_code == 0, done.output
    assert "Proposed: --set parallel.dp=" in done.output and "optimizer" in done.output
    for arguments, message in (
        (["--gpus", "2", "--memory", "1"], "not a size of memory"),
        (["--gpus", "1000003"], "cannot be dealt out"),
        (["--gpus", "0"], "0 is not in the range"),
    ):
        refused = CliRunner().invoke(main, ["plan", recipe, *arguments, *small])
        assert refused.exit_code == 2 and message in refused.output, refused.output
    assert not list(tmp_path.iterdir())
