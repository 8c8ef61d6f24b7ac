"""Closed forms of a step's costs (docs/costs.md) against the simulated step, on small shapes."""

import pytest
import torch
from closed_forms import Shape, flops, memory, numbers, sent_over_fsdp, sent_over_tp, shape_of
from costs import sent
from paper import STEADY_BYTES, activations

from sciml_dchag.models.config import ModelConfig
from sciml_dchag.objectives.forecast import planned_loss
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.planning.step import StepCost, simulate_step


def both(
    kind: str, implementation: str, channels: int = 128, tp: int = 4, fsdp: int = 1
) -> tuple[StepCost, Shape]:
    names = tuple(f"c{i}" for i in range(channels))
    config = ModelConfig(
        embed_dim=512,
        depth=6,
        heads=8,
        patch=4,
        aggregation="single" if kind == "tp-only" else kind,  # type: ignore[arg-type]
        partitions=tp,
        implementation=implementation,  # type: ignore[arg-type]
        input_channels=names,
        output_channels=names,
        image_size=(64, 128),
    )
    parallel = ParallelConfig(
        tp=tp,
        fsdp=fsdp,
        activation_checkpointing="blocks",
        channel_stage="tp-only" if kind == "tp-only" else "dchag",
    )
    cost = simulate_step(
        config, parallel, loss=planned_loss, samples=2, precision=torch.bfloat16, autocast=False
    )
    return cost, shape_of(kind, config, tp, 2)


MODELS = [
    ("tp-only", "materialised"), ("dchag-c", "materialised"), ("dchag-l", "materialised"),
    ("dchag-c", "absorbed"), ("dchag-l", "absorbed"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "implementation"), MODELS)
def test_products_and_bytes(kind: str, implementation: str) -> None:
    """Within 1%: left out are products with vectors and gradients of single vectors."""
    cost, shape = both(kind, implementation)
    assert flops(shape) == pytest.approx(sum(phase.flops for phase in cost.phases), rel=0.01)
    assert sent_over_tp(shape) == pytest.approx(sent(cost, "tp", 4), rel=0.01)
    assert numbers(shape) == pytest.approx(cost.stored(1), rel=0.01)


@pytest.mark.parametrize("kind", ["tp-only", "dchag-c", "dchag-l"])
def test_memory(kind: str) -> None:
    """Within 10%, as the pixels and what a block, the head and the loss need at once are left out;
    and what 128 more channels add within 10%, most of which is the channel stage."""
    (few, few_shape), (many, many_shape) = (
        both(kind, "materialised", channels) for channels in (256, 384)
    )
    needs = [activations(cost) + STEADY_BYTES * cost.stored(1) for cost in (few, many)]
    on_paper = [memory(shape) for shape in (few_shape, many_shape)]
    assert on_paper[1] == pytest.approx(needs[1], rel=0.1)
    assert on_paper[1] - on_paper[0] == pytest.approx(needs[1] - needs[0], rel=0.1)


def test_fsdp() -> None:
    """Within 1%: biases of blocks are left out."""
    cost, shape = both("dchag-c", "absorbed", fsdp=2)
    assert sent_over_fsdp(shape, 2) == pytest.approx(sent(cost, "fsdp", 2), rel=0.01)
