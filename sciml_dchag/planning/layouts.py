"""Which layout of a run over ranks fits their memory, and which of those is the fastest.

Memory, products and bytes are those of a simulated step (`step`). Seconds are an estimate from
them and from a machine's published rates: good for choosing between layouts, not for a promise.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import multiprocessing
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from sciml_dchag.config.parts import frozen_of
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.control import BRANCH
from sciml_dchag.models.transformer import build_model
from sciml_dchag.parallel.config import ParallelConfig, require_divisible
from sciml_dchag.planning.allocator import held_unused
from sciml_dchag.planning.recorder import Bytes, Phase
from sciml_dchag.planning.step import StepCost, simulate_step
from sciml_dchag.training.task import PlannedLoss, Task

Progress = Callable[[int, int, str], None]
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Rates of one accelerator and its links, per direction, as their makers publish them."""

    memory: float
    """Bytes of one accelerator."""
    flops: float
    """Multiplications and additions a second in bfloat16, dense."""
    node: int
    """Accelerators in a node."""
    link: float
    """Bytes a second between accelerators of a node."""
    network: float
    """Bytes a second out of a node, for each accelerator."""
    utilisation: float = 0.35
    """Part of `flops` that is assumed to be reached."""
    latency: float = 2e-5
    """Seconds that a collective takes however little it sends; assumed."""


MACHINES = {
    "frontier": Machine(memory=64 * GIB, flops=191.5e12, node=8, link=50e9, network=12.5e9),
    "a100": Machine(memory=80 * GIB, flops=312e12, node=4, link=300e9, network=25e9),
    "h100": Machine(memory=80 * GIB, flops=989e12, node=8, link=450e9, network=50e9),
}
"""`frontier`: one of the two dies of an MI250X, four cards and four network ports a node."""

PLANNED_IN = {
    "auto": torch.bfloat16, "bfloat16": torch.bfloat16, "float16": torch.float16,
    "float32": torch.float32,
}  # fmt: skip
"""What products are computed in on the machines above, by `training.precision`."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a run asks for, apart from its layout."""

    model: ModelConfig
    """The complete architecture."""
    loss: PlannedLoss
    """What is computed of a micro-batch; see `training.task`."""
    parallel: ParallelConfig
    """What is not a degree: recomputation, sequence parallelism, the channel stage."""
    batch: int
    """Samples of an optimizer step, of all ranks."""
    micro_batch: int = 0
    """Samples a rank takes at once; 0 for as many as fit."""
    averaged: bool = False
    """Whether averaged weights are kept."""
    precision: torch.dtype = torch.bfloat16
    """What products are computed in."""
    frozen: frozenset[str] = frozenset()
    """Names of the parameters that are not trained."""


def demand_of(task: Task[Any]) -> Demand:
    """Take from a recipe what does not depend on the layout.

    Raises:
        ValueError: there is no store yet and the recipe does not say its size, or a pattern of
            `training.freeze` matches no parameter.
    """
    recipe, training = task.recipe, task.recipe.training
    config = task.expected_model()
    frozen: frozenset[str] = frozenset()
    if training.freeze or config.control.channels:
        with torch.device("meta"):
            names = [name for name, _ in build_model(config).named_parameters()]
        frozen = frozen_of(names, training)
        if config.control.channels:
            frozen |= {name for name in names if not name.startswith(BRANCH)}
    return Demand(
        model=config,
        loss=task.planned_loss(),
        parallel=recipe.parallel,
        batch=training.batch,
        micro_batch=training.micro_batch,
        averaged=bool(training.ema_decay),
        precision=PLANNED_IN[training.precision],
        frozen=frozen,
    )


def chosen_machine(name: str, memory: str | None) -> Machine:
    """Return a machine by name, with another memory such as `64GiB` where one is given.

    Raises:
        ValueError: an unknown name, or a size that is none.
    """
    if name not in MACHINES:
        raise ValueError(f"There is no machine {name!r}: choose one of {', '.join(MACHINES)}.")
    if memory is None:
        return MACHINES[name]
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GiB|GB)\s*", memory)
    if not found or float(found[1]) == 0:
        raise ValueError(f"{memory!r} is not a size of memory: write, say, 64GiB or 80GB.")
    unit = GIB if found[2] == "GiB" else 1e9
    return dataclasses.replace(MACHINES[name], memory=float(found[1]) * unit)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A way to spread a run over ranks, and what it takes of each."""

    dp: int
    fsdp: int
    tp: int
    micro_batch: int
    """Samples that a rank takes at once."""
    memory: Bytes
    """Bytes by kind at the step's worst moment."""
    worst: str
    """The phase in which that moment lies."""
    sent: Counter[str]
    """Bytes that a rank sends in an optimizer step, by collective."""
    calls: int
    """Collectives of an optimizer step."""
    flops: float
    """Multiplications and additions of a rank's optimizer step."""
    seconds: float
    """Estimated time of an optimizer step."""
    samples: int
    """Samples of an optimizer step, of all ranks."""

    @property
    def throughput(self) -> float:
        """Estimated samples a second, of all ranks."""
        return self.samples / self.seconds


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The layouts of a run that were looked at."""

    fitting: list[Layout]
    """Those that fit, fastest first."""
    too_large: list[Layout]
    """Those that do not, least memory first."""
    impossible: list[str]
    """Why a tp degree was not looked at."""


def make_plan(
    demand: Demand,
    ranks: int,
    machine: Machine,
    *,
    processes: int = 1,
    progress: Progress | None = None,
) -> Plan:
    """Look at every layout of a run over so many ranks.

    Args:
        demand: the run.
        ranks: all of them.
        machine: what they run on.
        processes: that share out the simulations, a second or more each.
        progress: called for every simulation.

    Raises:
        ValueError: no layout deals the batch out evenly.
    """
    impossible: list[str] = []
    storages: dict[int, list[tuple[int, int]]] = {}
    for tp in (tp for tp in _divisors(ranks) if tp <= demand.model.heads):
        try:
            require_divisible(demand.model, _degrees(demand, tp, 1))
        except ValueError as error:
            impossible.append(str(error))
            continue
        if dealt := list(_storages(ranks // tp, demand)):
            storages[tp] = dealt
    if not storages:
        raise ValueError(
            f"training.batch {demand.batch} cannot be dealt out over any layout of {ranks} ranks: "
            f"make it a multiple of a divisor of {ranks}, or ask for another number of ranks."
        )
    steps = [(tp, min(2, ranks // tp), samples) for tp in storages for samples in (1, 2)]
    costs = _simulate(demand, steps, processes, progress)
    found = [
        _best_micro_batch(demand, machine, (dp, fsdp, tp), one, two)
        for (tp, dealt), one, two in zip(storages.items(), costs[::2], costs[1::2], strict=True)
        for dp, fsdp in dealt
    ]
    room = machine.memory
    fitting = [layout for layout in found if layout.memory.total() <= room]
    too_large = [layout for layout in found if layout.memory.total() > room]
    return Plan(
        fitting=sorted(fitting, key=lambda layout: layout.seconds),
        too_large=sorted(too_large, key=lambda layout: layout.memory.total()),
        impossible=impossible,
    )


def unused_memory(demand: Demand, layout: Layout) -> int:
    """Estimate the bytes that the caching allocator holds beyond what a layout allocates.

    It gives them back before it fails, so that what is allocated decides whether a run fits.
    """
    cost = _simulate_one(demand, (layout.tp, min(2, layout.fsdp), layout.micro_batch))
    return held_unused(cost.events, cost.sizes)


def _degrees(demand: Demand, tp: int, fsdp: int) -> ParallelConfig:
    return dataclasses.replace(demand.parallel, dp=1, fsdp=fsdp, tp=tp)


def _simulate(
    demand: Demand,
    steps: list[tuple[int, int, int]],
    processes: int,
    progress: Progress | None,
) -> list[StepCost]:
    """Simulate steps of (tp, fsdp, samples).

    FSDP's buffers are the same whether two ranks share the storage or many, so that two stand for
    any number.
    """
    costs: list[StepCost] = []
    simulate = partial(_simulate_one, demand)
    with contextlib.ExitStack() as stack:
        results: Iterator[StepCost] = map(simulate, steps)
        if (processes := min(processes, len(steps) // 2)) > 1:  # a start takes as long as one step
            context = multiprocessing.get_context("forkserver")
            pool = stack.enter_context(ProcessPoolExecutor(processes, mp_context=context))
            results = pool.map(simulate, steps)
        for cost in results:
            costs.append(cost)
            if progress is not None:
                progress(len(costs), len(steps), "simulating steps")
    return costs


def _simulate_one(demand: Demand, step: tuple[int, int, int]) -> StepCost:
    tp, fsdp, samples = step
    return simulate_step(
        demand.model, _degrees(demand, tp, fsdp), samples=samples, precision=demand.precision,
        loss=demand.loss, frozen=demand.frozen,
    )  # fmt: skip


def _storages(data_ranks: int, demand: Demand) -> Iterator[tuple[int, int]]:
    """dp and fsdp that make so many ranks, if these can be dealt the batch evenly."""
    if demand.batch % (data_ranks * max(1, demand.micro_batch)) == 0:
        for fsdp in _divisors(data_ranks):
            yield data_ranks // fsdp, fsdp


def _best_micro_batch(
    demand: Demand, machine: Machine, degrees: tuple[int, int, int], one: StepCost, two: StepCost
) -> Layout:
    """The layout with the largest micro-batch that fits, or else with the smallest."""
    share = demand.batch // (degrees[0] * degrees[1])
    sizes = [demand.micro_batch] if demand.micro_batch else _divisors(share)[::-1]
    layouts = (_layout(demand, machine, degrees, size, one, two) for size in sizes)
    for layout in layouts:
        if layout.memory.total() <= machine.memory:
            break
    return layout


def _layout(
    demand: Demand,
    machine: Machine,
    degrees: tuple[int, int, int],
    micro_batch: int,
    one: StepCost,
    two: StepCost,
) -> Layout:
    """Put a layout's costs together from steps of one and of two samples."""
    dp, fsdp, tp = degrees
    rounds = demand.batch // (dp * fsdp * micro_batch)
    trained = one.stored(fsdp, trained=True)
    steady: Bytes = Counter(
        {
            "parameters": 4 * one.stored(fsdp),
            "optimizer": (12 if demand.averaged else 8) * trained,
        }
    )
    if rounds > 1 and dp * fsdp > 1:  # gradients are added up whole before they are shared out
        steady["gradients"] = 4 * one.stored(1, trained=True)
    share = trained / one.stored(one.fsdp, trained=True)
    worst, memory = "", Counter[str]()
    for a, b in zip(one.phases, two.phases, strict=True):
        peak = {kind: a.peak[kind] + (micro_batch - 1) * (b.peak[kind] - a.peak[kind])
                for kind in a.peak | b.peak}  # fmt: skip
        peak["gradients"] = int(peak.get("gradients", 0) * share)
        if sum(peak.values()) + steady.total() > memory.total():
            worst, memory = a.name, steady + Counter(peak)
    flops = rounds * sum(_at(a.flops, b.flops, micro_batch) for a, b in _pairs(one, two))
    sent = _sent(one, two, micro_batch, rounds, degrees)
    if dp > 1:
        sent["all-reduce over dp"] = 2 * (dp - 1) / dp * 4 * trained  # type: ignore[assignment]
    calls = rounds * sum(phase.sent.total() for phase in one.phases)
    return Layout(
        dp=dp, fsdp=fsdp, tp=tp, micro_batch=micro_batch, memory=memory, worst=worst, sent=sent,
        calls=calls, flops=flops, samples=demand.batch,
        seconds=_seconds(machine, degrees, flops, sent, calls),
    )  # fmt: skip


def _pairs(one: StepCost, two: StepCost) -> Iterator[tuple[Phase, Phase]]:
    return zip(one.phases, two.phases, strict=True)


def _at(of_one: float, of_two: float, samples: int) -> float:
    """What costs a fixed part and a part a sample, from its cost for one and for two samples."""
    return of_one + (samples - 1) * (of_two - of_one)


def _sent(
    one: StepCost, two: StepCost, samples: int, rounds: int, degrees: tuple[int, int, int]
) -> Counter[str]:
    """Bytes that a rank sends in a ring, by collective, in an optimizer step of `rounds` rounds."""
    _, fsdp, tp = degrees
    totals = [
        Counter(
            {
                name: sum(
                    size * times
                    for p in cost.phases
                    for (n, size), times in p.sent.items()
                    if n == name
                )
                for name in {name for p in cost.phases for name, _ in p.sent}
            }
        )
        for cost in (one, two)
    ]
    sent: Counter[str] = Counter()
    for name in totals[0] | totals[1]:
        ranks = tp if name.endswith("tp") else fsdp
        passes = 2 if name.startswith("all-reduce") else 1
        once = name.startswith("reduce-scatter over fsdp")  # after the last round alone
        whole = _at(totals[0][name], totals[1][name], samples) * (1 if once else rounds)
        sent[name] = int(passes * (ranks - 1) / ranks * whole)
    return sent


def _seconds(
    machine: Machine,
    degrees: tuple[int, int, int],
    flops: float,
    sent: Counter[str],
    calls: int,
) -> float:
    """Estimate a step: products, then tp's collectives; the others run beside both."""
    _, fsdp, tp = degrees
    speed = {
        "tp": machine.link if tp <= machine.node else machine.network,
        "fsdp": machine.link if tp * fsdp <= machine.node else machine.network,
        "dp": machine.network if math.prod(degrees) > machine.node else machine.link,
    }
    times = Counter[str]()
    for name, size in sent.items():
        axis = name.rpartition(" ")[2]
        times[axis] += size / speed[axis]  # type: ignore[assignment]
    computing = flops / (machine.flops * machine.utilisation) + times["tp"]
    return max(computing, times["fsdp"] + times["dp"]) + calls * machine.latency


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
