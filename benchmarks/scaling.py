"""A whole training step on real ranks: D-CHAG, absorbed, against tensor parallelism alone.

The baseline is the paper's: every rank tokenizes all channels and one cross-attention over them,
with the tokens formed, is split by heads over tp. `dchag-c`, absorbed, has each rank aggregate its
own channels. Two cases: 80 channels, depth 16, batch 4, and 512 channels, depth 8, batch 1; both
D 512, 16 heads, patch 4, 32 x 64, two partitions, as many channels out as in.

A step is what training does in float32: gradients dropped, forward, latitude-weighted squared
error, backward, gradient clipped to norm 1, fused AdamW; random numbers are the data. The ranks
are processes joined by gloo, tp over all of them. All models of a case live in the same processes
and take turns; every step ends with a barrier, so that it lasts as long as on the slowest rank.
Figures are those of the rank with the longest median. CPU time is one rank's, what its gloo
threads take included.

One more step of each side, profiled, gives the peak of what torch allocates over parameters,
optimizer and inputs, and shows that the sides are what they are called: a materialised one
allocates its channels' tokens in one piece, an absorbed one nothing of that size.

    python benchmarks/scaling.py --rounds 5
    python benchmarks/scaling.py --rounds 5 --all    # three more sides
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from record import alternate, provenance, write_json
from rich.console import Console
from rich.table import Table
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.profiler import ProfilerActivity, profile

from sciml_dchag.config import TrainingConfig
from sciml_dchag.models.aggregation import AggregationKind, Implementation
from sciml_dchag.models.config import ModelConfig, expected_parameters
from sciml_dchag.models.transformer import count_parameters
from sciml_dchag.objectives.forecast import ForecastObjective
from sciml_dchag.objectives.layout import InputLayout
from sciml_dchag.parallel.apply import own_channels
from sciml_dchag.parallel.build import build_on_ranks
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.parallel.mesh import build_mesh
from sciml_dchag.parallel.runtime import TIMEOUT, Ranks
from sciml_dchag.training.optim import ShardedAdamW, scale_and_clip_gradient
from sciml_dchag.weather.area import latitude_weights


@dataclass(frozen=True, kw_only=True)
class Side:
    aggregation: AggregationKind
    channel_stage: Literal["dchag", "distributed-tokens", "tp-only"]
    implementation: Implementation


BASELINE, OURS = "tp-only materialised", "dchag-c absorbed"
SIDES = {
    BASELINE: Side(aggregation="single", channel_stage="tp-only", implementation="materialised"),
    OURS: Side(aggregation="dchag-c", channel_stage="dchag", implementation="absorbed"),
}
MORE_SIDES = {
    "dchag-c materialised": Side(
        aggregation="dchag-c", channel_stage="dchag", implementation="materialised"
    ),
    "dchag-l absorbed": Side(
        aggregation="dchag-l", channel_stage="dchag", implementation="absorbed"
    ),
    "distributed-tokens materialised": Side(
        aggregation="single", channel_stage="distributed-tokens", implementation="materialised"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    channels: int
    depth: int
    batch: int
    embed_dim: int = 512
    heads: int = 16
    patch: int = 4
    partitions: int = 2
    image_size: tuple[int, int] = (32, 64)

    def model(self, side: Side) -> ModelConfig:
        names = tuple(f"channel {number}" for number in range(self.channels))
        return ModelConfig(
            embed_dim=self.embed_dim,
            depth=self.depth,
            heads=self.heads,
            patch=self.patch,
            aggregation=side.aggregation,
            partitions=self.partitions,
            implementation=side.implementation,
            input_channels=names,
            output_channels=names,
            image_size=self.image_size,
        )


CASES = [Case(channels=80, depth=16, batch=4), Case(channels=512, depth=8, batch=1)]


class Step:
    """A side's model on this rank and its training step, as `training.trainer` takes it."""

    def __init__(self, case: Case, side: Side) -> None:
        self.case, self.side = case, side
        parallel = ParallelConfig(tp=dist.get_world_size(), channel_stage=side.channel_stage)
        self.ranks = Ranks(
            device=torch.device("cpu"), mesh=build_mesh(parallel, parallel.tp, "cpu")
        )
        self.model = build_on_ranks(case.model(side), 0, self.ranks, parallel)
        self.inputs, outputs = own_channels(self.model, self.ranks.mesh)
        self.config = TrainingConfig()
        self.optimizer = ShardedAdamW(self.model, self.config)
        height = case.image_size[0]
        self.task = ForecastObjective(
            change_std=np.ones(len(outputs)),
            area_weights=latitude_weights((np.arange(height) + 0.5) * 180 / height - 90),
            target_indices=range(case.channels),
            layout=InputLayout(channels=self.model.config.input_channels),
        )
        self.task.complete = self.ranks.complete
        generator = torch.Generator().manual_seed(0)  # the same samples on every rank and side
        shape = (case.batch, case.channels, *case.image_size)
        state, later = (torch.randn(shape, generator=generator) for _ in range(2))
        self.batch = (
            state[:, list(self.inputs)],
            state[:, list(outputs)],
            state.new_empty(case.batch, 0, 0, *case.image_size),
            later[:, None, list(outputs)],
            torch.full((case.batch,), 24.0),
        )
        self.loss = math.nan
        self.require_model()

    def __call__(self) -> None:
        self.model.train()
        self.optimizer.zero_grad()
        weight = self.ranks.sum(self.task.weight(self.batch[3]))
        error = self.task.squared_error(self.model, *self.batch)
        (error / weight.to(error.dtype)).backward()
        unscaled = torch.ones((), dtype=torch.float64)
        limit, mesh = self.config.clip_norm, self.ranks.mesh
        scale_and_clip_gradient(self.model.parameters(), unscaled, limit, mesh)
        self.optimizer.step()
        self.loss = float(self.ranks.sum(error) / weight)
        dist.barrier()

    def require_model(self) -> None:
        """Refuse a model of other size, precision or share of the channels than its name says."""
        found, expected = count_parameters(self.model), expected_parameters(self.model.config)
        if found != expected:
            raise ValueError(f"{self.side} has {found} parameters, where {expected} are expected.")
        if {p.dtype for p in self.model.parameters()} != {torch.float32}:
            raise ValueError(f"{self.side} has parameters that are not float32.")
        share = 1 if self.side.channel_stage == "tp-only" else dist.get_world_size()
        if len(self.inputs) * share != self.case.channels:
            raise ValueError(f"{self.side} tokenizes {len(self.inputs)} channels on one rank.")

    @property
    def tokens_bytes(self) -> int:
        """Bytes of the tokens of the channels that this rank tokenizes."""
        height, width = (side // self.case.patch for side in self.case.image_size)
        tokens = self.case.batch * height * width * len(self.inputs)
        return tokens * self.case.embed_dim * torch.float32.itemsize

    def memory(self) -> tuple[int, int]:
        """Take one more step; return the peak over what was there before, and the largest piece."""
        self.optimizer.zero_grad()
        gc.collect()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            self()
        events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
        sizes = [event.nbytes() for event in sorted(events, key=lambda e: e.start_ns())]
        return int(np.cumsum(sizes).max()), max(sizes)


def require_result(side: Side, loss: float, largest_bytes: int, tokens_bytes: int) -> None:
    """Refuse a loss that is not finite, and tokens formed or not against the side's name."""
    if not math.isfinite(loss):
        raise ValueError(f"{side} has a loss of {loss}.")
    # Pixels and weights, in float64 at most, are the next largest pieces: far smaller as long as
    # D and the locations of a batch are well over two times the pixels of a patch.
    if (largest_bytes >= tokens_bytes) != (side.implementation == "materialised"):
        raise ValueError(
            f"{side} allocates {largest_bytes} bytes at most in one piece, where its channels' "
            f"tokens are {tokens_bytes}."
        )


def time_on_rank(
    case: Case, sides: dict[str, Side], rounds: int, threads: int
) -> dict[str, dict[str, Any]]:
    """Build, time and check all sides of a case, as one of the ranks."""
    torch.set_num_threads(threads)
    dist.init_process_group("gloo", timeout=TIMEOUT)
    steps = {name: Step(case, side) for name, side in sides.items()}
    result = alternate(steps, rounds)
    for name, step in steps.items():
        peak, largest = step.memory()
        require_result(step.side, step.loss, largest, step.tokens_bytes)
        result[name] |= {
            "peak_mebibytes": peak / 2**20,
            "largest_piece_mebibytes": largest / 2**20,
            "tokens_mebibytes": step.tokens_bytes / 2**20,
            "parameters": count_parameters(step.model),
            "channels_tokenized_on_a_rank": len(step.inputs),
            "loss": step.loss,
        }
    dist.destroy_process_group()
    return result


def compare(
    case: Case, sides: dict[str, Side], *, rounds: int, threads: int = 1, ranks: int = 2
) -> dict[str, Any]:
    """Start the ranks, as torchrun would, and compare all sides with the first one."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler would tell when it starts
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
    )
    answers = elastic_launch(launch, time_on_rank)(case, sides, rounds, threads)
    slowest = {
        name: max((answers[rank][name] for rank in range(ranks)), key=median_seconds)
        for name in sides
    }
    baseline = slowest[next(iter(sides))]
    ratios = {name: ratio(baseline, side) for name, side in slowest.items()}
    return {"case": asdict(case), "sides": slowest, "ratio": ratios}


def median_seconds(side: dict[str, Any]) -> float:
    return side["seconds"]["median"]


def ratio(baseline: dict[str, Any], side: dict[str, Any]) -> dict[str, Any]:
    """How many times more the baseline needs: of medians, and the extremes of any two rounds."""
    before, after = baseline["seconds"], side["seconds"]
    return {
        "seconds": before["median"] / after["median"],
        "seconds_spread": [before["min"] / after["max"], before["max"] / after["min"]],
        "cpu_seconds": baseline["cpu_seconds"]["median"] / side["cpu_seconds"]["median"],
        "peak_memory": baseline["peak_mebibytes"] / side["peak_mebibytes"],
    }


def table(result: dict[str, Any]) -> Table:
    case = result["case"]
    title = f"{case['channels']} channels, depth {case['depth']}, batch {case['batch']}"
    drawn = Table(title=title, title_justify="left")
    drawn.add_column("side")
    for heading in ("step, s", "CPU, s", "peak, MiB", "times faster", "in CPU"):
        drawn.add_column(heading, justify="right")
    for name, side in result["sides"].items():
        seconds, gain = side["seconds"], result["ratio"][name]
        low, high = gain["seconds_spread"]
        drawn.add_row(
            name,
            f"{seconds['median']:.2f} ({seconds['min']:.2f}-{seconds['max']:.2f})",
            f"{side['cpu_seconds']['median']:.2f}",
            f"{side['peak_mebibytes']:.0f}",
            f"{gain['seconds']:.1f} ({low:.1f}-{high:.1f})",
            f"{gain['cpu_seconds']:.1f}",
        )
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--all", action="store_true", help="also time the other sides")
    default = Path(__file__).parent / "results" / "scaling.json"
    parser.add_argument("--json", type=Path, default=default, help="%(default)s")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)  # for the record; ranks set their own
    sides = SIDES | (MORE_SIDES if options.all else {})
    machine, console = provenance(), Console(width=110)
    console.print(
        f"{machine['cpu']}, {options.ranks} gloo ranks of {options.threads} thread(s), "
        f"torch {machine['torch']}"
    )
    cases = []
    for case in CASES:
        with console.status(f"{case.channels} channels"):
            result = compare(
                case, sides, rounds=options.rounds, threads=options.threads, ranks=options.ranks
            )
        console.print(table(result))
        cases.append(result)
    write_json(
        options.json,
        {
            "benchmark": "scaling",
            "method": " ".join((__doc__ or "").partition("\n    python")[0].split()),
            "settings": {
                "rounds": options.rounds, "threads": options.threads, "ranks": options.ranks,
                "sides": {name: asdict(side) for name, side in sides.items()},
            },
            "machine": machine,
            "cases": cases,
        },
    )  # fmt: skip
    console.print(f"kept in {options.json}")


if __name__ == "__main__":
    main()
