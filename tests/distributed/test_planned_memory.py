"""What the planner says of memory, beside what real ranks allocate."""

from typing import Any

import planning_workers
import pytest
import torch
from rank_launcher import on_ranks

from sciml_dchag.models.config import ModelConfig
from sciml_dchag.objectives.forecast import planned_loss
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.planning.step import simulate_step


def case(
    kind: str, implementation: str, channels: int, embed_dim: int, depth: int,
    parallel: dict[str, Any], samples: int, precision: str = "float32",
) -> tuple[ModelConfig, dict[str, Any], int, str]:  # fmt: skip
    names = tuple(f"c{i}" for i in range(channels))
    config = ModelConfig(
        embed_dim=embed_dim, depth=depth, heads=4, patch=4, aggregation=kind, partitions=4,
        implementation=implementation, input_channels=names, output_channels=names,
        image_size=(32, 64),
    )  # fmt: skip
    return config, {"fsdp": 1, **parallel}, samples, precision


CASES = [
    case("dchag-c", "absorbed", 80, 128, 4, {"tp": 2}, 4),
    case("dchag-c", "materialised", 80, 128, 4, {"tp": 2}, 2),
    case("dchag-c", "absorbed", 80, 128, 7, {"fsdp": 2}, 2),
    case("dchag-l", "absorbed", 81, 128, 6, {"tp": 2, "activation_checkpointing": "blocks"}, 4),
    case("dchag-c", "absorbed", 80, 256, 3, {"tp": 2, "sequence_parallel": True}, 2, "bfloat16"),
    case("single", "absorbed", 200, 128, 8, {"tp": 2, "activation_checkpointing": "selective"}, 2),
    case("single", "materialised", 80, 128, 2, {"tp": 2, "channel_stage": "tp-only"}, 2),
]


@pytest.mark.full
def test_the_plan_is_what_two_real_ranks_allocate() -> None:
    measured = on_ranks(2, planning_workers.measured_peaks, CASES)
    for number, (config, parallel, samples, precision) in enumerate(CASES):
        degrees = ParallelConfig(**parallel)
        cost = simulate_step(
            config,
            degrees,
            loss=planned_loss,
            samples=samples,
            precision=getattr(torch, precision),
            device="cpu",
        )
        outputs, inputs = (len(c) // degrees.tp for c in (config.output_channels,
                                                           config.input_channels))  # fmt: skip
        if degrees.channel_stage == "tp-only":
            inputs *= degrees.tp
        batch = 4 * samples * (inputs + 2 * outputs) * 32 * 64
        planned = max(phase.peak.total() for phase in cost.phases) - batch
        real = measured[0][number]
        # The goal is 10 %. What is missed is scratch memory inside operators.
        assert planned == pytest.approx(real, rel=0.1), (parallel, config.aggregation)
