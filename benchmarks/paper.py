"""The paper's performance runs (arXiv 2506.21411) and the same runs simulated.

`frontier_memory.csv` is what the paper's own code measured on Frontier: image 128 x 256, patch 4,
micro-batch 2, bfloat16, blocks recomputed, no FSDP. Here its rows are read and turned into
configurations, its way of counting parameters is undone, and steps are simulated once each.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from sciml_dchag.models.config import ModelConfig
from sciml_dchag.objectives.forecast import planned_loss
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.planning.step import StepCost, simulate_step

GIB = 2**30
IMAGE, PATCH, SAMPLES = (128, 256), 4, 2
LOCATIONS, PIXELS = IMAGE[0] * IMAGE[1] // PATCH**2, PATCH**2
STEADY_BYTES = 24
"""Bytes of a parameter in the paper's runs: float32 parameter, gradient, AdamW's two moments and
the root that an update that is not fused makes (20), bfloat16 parameter and gradient (4).

The paper does not say which it keeps; 24 is what its readings give: 23.7 to 26.4 where activations
are small (32 channels), and 23.2 to 24.6 from the growth of `distributed_tokenize_only` with the
channels, its three copies of the tokens taken off."""
PLANNED_BYTES = 12
"""Bytes of a parameter as the planner has it: float32 parameter and two moments, fused; gradients
are simulated."""
THEIR_BYTES = 22
"""Bytes of a parameter in `reserved_by_theirs`: the 20 of float32, and a copy in bfloat16."""
KEPT_WHOLE = {"model": 8, "stage": 4}
"""Numbers, times D^2, that each of their ranks holds whole in `reserved_by_theirs`, beside those
that are split over tp: an attention has 4."""
CARD = 64 * GIB
"""Memory of an accelerator of the paper's; nothing can reserve more."""

Stage = Literal["dchag", "distributed-tokens", "tp-only"]
FULL_MODELS: dict[str, tuple[str, Stage]] = {
    "tp_baseline": ("single", "tp-only"),
    "distributed_tokenize_full_model": ("single", "distributed-tokens"),
    "dchag_cross_tree0": ("dchag-c", "dchag"),
    "dchag_linear_tree0": ("dchag-l", "dchag"),
}
"""Aggregation and channel stage of the rows that are whole models."""
STAGES_ALONE: dict[str, tuple[str, Stage]] = {
    "tp_tokenize_and_aggregate": ("single", "tp-only"),
    "dchag_cross_tokenize_and_aggregate": ("dchag-c", "dchag"),
    "dchag_linear_tokenize_and_aggregate": ("dchag-l", "dchag"),
}
"""The same of those that lack the transformer."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A row of the paper's file."""

    variant: str
    channels: int
    embed_dim: int
    tp: int
    reserved: float
    """GiB that the caching allocator held at its peak, mean of the repeats' extremes."""
    parameters: int
    """Of the whole model, as the paper's code counts them."""

    @property
    def size(self) -> str:
        return {2048: "1p7b", 4096: "7b", 8192: "26b"}[self.embed_dim]

    @property
    def tokens(self) -> float:
        """Bytes of the tokens that a rank forms of its channels."""
        whole = self.variant in ("tp_baseline", "tp_tokenize_and_aggregate", "tokenize_only")
        ranks = 1 if whole else self.tp
        return 2 * SAMPLES * LOCATIONS * self.channels * self.embed_dim / ranks


def read_runs(path: Path) -> list[Run]:
    with path.open() as file:
        return [
            Run(
                variant=row["variant"],
                channels=int(row["channels"]),
                embed_dim=int(row["embed_dim"]),
                tp=int(row["tp"]),
                reserved=(float(row["mem_reserved_gib_min"]) + float(row["mem_reserved_gib_max"]))
                / 2,
                parameters=round(float(row["params_billion"]) * 1e9),
            )
            for row in csv.DictReader(file)
        ]


def config_of(
    kind: str, channels: int, tp: int, size: str, implementation: str = "materialised"
) -> ModelConfig:
    """One of the paper's models, with a partition for each tp rank."""
    names = tuple(f"c{i}" for i in range(channels))
    return ModelConfig(
        size=size,
        patch=PATCH,
        aggregation=kind,  # type: ignore[arg-type]
        partitions=tp,
        implementation=implementation,  # type: ignore[arg-type]
        input_channels=names,
        output_channels=names,
        image_size=IMAGE,
    )


@cache
def simulated(
    kind: str,
    channels: int,
    tp: int,
    size: str,
    *,
    stage: Stage = "dchag",
    implementation: str = "materialised",
    autocast: bool = False,
    fsdp: int = 1,
) -> StepCost:
    """Simulate the step of a micro-batch, blocks recomputed; once for each set of arguments."""
    return simulate_step(
        config_of(kind, channels, tp, size, implementation),
        ParallelConfig(tp=tp, fsdp=fsdp, activation_checkpointing="blocks", channel_stage=stage),
        loss=planned_loss,
        samples=SAMPLES,
        precision=torch.bfloat16,
        autocast=autocast,
    )


def as_the_paper_counts(ours: int, kind: str, run: Run, depth: int) -> int:
    """Turn our count of parameters into the one that the paper's code makes.

    It counts row-parallel biases once a rank, the queries of partial cross-attentions once in all,
    and of linear partial aggregations one rank's layer and a query that is not used.
    """
    dim, ranks = run.embed_dim, run.tp
    attention = 4 * dim**2 + dim
    partial = {
        "single": 0,
        "dchag-c": ranks * attention + dim - ranks * (attention + dim),
        "dchag-l": run.channels // ranks + 1 + dim - (run.channels + ranks),
    }[kind]
    # Their attention has a bias of the key, which has no effect; ours has none.
    return ours + depth * dim + (ranks - 1) * (2 * depth + 1) * dim + partial


def activations(cost: StepCost) -> int:
    """Bytes at the step's worst moment, of what is neither parameter, gradient nor optimizer."""
    return max(phase.peak.total() - phase.peak["gradients"] for phase in cost.phases)


def stage_activations(cost: StepCost) -> int:
    """The same of the channel stage by itself."""
    kinds = ("batch", "channel stage", "communication")
    return max(
        sum(phase.peak[kind] for kind in kinds)
        for phase in cost.phases
        if phase.name.endswith("channel stage")
    )


def stage_gradients(cost: StepCost) -> int:
    """Bytes of gradients that the channel stage's backward pass adds."""
    names = [phase.name for phase in cost.phases]
    position = names.index("backward channel stage")
    phases = cost.phases
    return phases[position + 1].start["gradients"] - phases[position].start["gradients"]


def stage_numbers(kind: str, stage: Stage, channels: int, tp: int, embed_dim: int) -> int:
    """Numbers that a rank stores of the channel stage's parameters, as ours splits them.

    C (P + 2) D of the tokenizer; an attention has four matrices of D^2, a query and a bias.
    """
    own = channels if stage == "tp-only" else -(-channels // tp)
    split_by_heads = 4 * embed_dim**2 // tp + 2 * embed_dim
    partial = {
        "single": 0,
        "dchag-c": 4 * embed_dim**2 + 2 * embed_dim,
        "dchag-l": own + 1,
    }[kind]
    return own * (PIXELS + 2) * embed_dim + partial + split_by_heads


def reserved_by_theirs(run: Run, kind: str, stage: Stage, cost: StepCost) -> float:
    """Estimate the bytes that the paper's own code reserved in a run that was simulated with ours.

    Four terms, of which the last three are what their readings show and our code does not do: what
    ours needs at the worst moment; more copies of a rank's tokens (the list of the channels' tokens
    and their stack, and where keys and values are formed one more, two in a stage alone), and of
    all gathered ones (a list and what is joined of it); 22 bytes of each parameter that is split
    over tp; and as much for 8 D^2 numbers that no tp splits (4 in a stage alone). Fitted to the
    rows of `frontier_memory.csv` and `frontier_memory_t32.csv`: which tensors these are the
    file does not tell. Left out in turn, the rows of T = 2, 4, 8 and 32 had median errors of 5,
    5, 2 and 4 %.
    """
    whole = run.variant in FULL_MODELS
    copies = 0 if stage == "tp-only" else 2
    if run.variant.startswith("dchag_cross"):
        copies = 3 if whole else 4
    gathered = run.tp * run.tokens if stage == "distributed-tokens" else 0
    split = (
        cost.stored(1) if whole else stage_numbers(kind, stage, run.channels, run.tp, run.embed_dim)
    )
    numbers = split + KEPT_WHOLE["model" if whole else "stage"] * run.embed_dim**2
    needs = activations(cost) if whole else stage_activations(cost)
    return min(CARD, needs + copies * run.tokens + gathered + THEIR_BYTES * numbers)


def planned_peak(cost: StepCost, fsdp: int = 1) -> float:
    """Bytes at the worst moment as the planner has them, of a step simulated with autocast.

    Its storage is shared out over `fsdp` ranks, as in `planning.layouts`.
    """
    share = cost.stored(fsdp) / cost.stored(cost.fsdp)
    peaks = (p.peak.total() - (1 - share) * p.peak["gradients"] for p in cost.phases)
    return max(peaks) + PLANNED_BYTES * cost.stored(fsdp)
