"""One training step of the real model without its numbers, on ranks that are not there.

The model, `parallelize` and the loss are those that train. Tensors are fake ones, which have a
shape, a type and a storage of so many bytes, and collectives are those of a process group that
answers at once. All blocks cost the same, so that five stand for any number of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from sciml_dchag.models.absorbed_torch import buffer_numbers
from sciml_dchag.models.aggregation import PartialCrossAttention
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.parallel.apply import freeze, own_channels, own_shape, parallelize, storage_dim
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.parallel.mesh import build_mesh, sharded_axes
from sciml_dchag.planning.allocator import Event
from sciml_dchag.planning.recorder import Bytes, Phase, StepRecorder
from sciml_dchag.training.task import PlannedLoss

BLOCKS = 5
"""Blocks that are simulated; the middle one stands for many.

The outer ones are not like it: FSDP holds a buffer of the module before, and gathers the next."""


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What the training step of one micro-batch takes on one rank, phase by phase."""

    phases: list[Phase]
    """In order. Of what outlasts a step they hold the gradients alone."""
    parameters: list[tuple[tuple[int, ...], int | None, bool]]
    """Shapes of the parameters that this rank computes with, the dimension split over tp, and
    whether they are trained."""
    fsdp: int
    """Ranks that shared out the storage of gradients in `phases`."""
    events: list[Event]
    """What the blocks that were simulated took and gave back."""
    sizes: list[int]
    """Bytes of their parameters that this rank stores."""

    def stored(self, fsdp: int, *, trained: bool = False) -> int:
        """Numbers of parameters that a rank stores if so many share out their storage.

        Args:
            fsdp: the ranks that share it out.
            trained: whether frozen ones are left out.
        """
        total = 0
        for shape, split_over_tp, learns in self.parameters:
            if trained and not learns:
                continue
            size = shape[storage_dim(shape, split_over_tp, fsdp)]
            total += math.prod(shape) // size * -(-size // fsdp)
        return total


def simulate_step(
    config: ModelConfig,
    parallel: ParallelConfig,
    *,
    loss: PlannedLoss,
    samples: int,
    precision: torch.dtype,
    autocast: bool = True,
    device: str = "cuda",
    frozen: Collection[str] = (),
) -> StepCost:
    """Run the forward and backward pass of a micro-batch on the first of dp x fsdp x tp ranks.

    Args:
        config: the complete architecture.
        parallel: with explicit degrees.
        loss: what is computed of a micro-batch, such as `objectives.forecast.planned_loss`.
        samples: of the micro-batch on this rank.
        precision: what products are computed in.
        autocast: parameters stay float32 and are cast; without, they have that precision too.
        device: kind of device that is planned for.
        frozen: names of the parameters that are not trained.

    Raises:
        ValueError: tp does not divide the model's partitions, heads or locations.
    """
    equal = _blocks_are_equal(config.depth, frozen) and not config.control.channels
    extra = max(0, config.depth - BLOCKS) if equal else 0
    config = dataclasses.replace(config, depth=config.depth - extra)
    mixed = autocast and precision != torch.float32
    with _fake_ranks(parallel) as mesh:
        with torch.device("meta"):
            model = ChannelTransformer(config)
            if not autocast:
                model.to(precision)
        parallelize(model, mesh, parallel, precision if mixed else None)
        freeze(model, frozen)
        model.train()
        for module in model.modules():
            if isinstance(module, PartialCrossAttention):
                module.buffer_numbers = buffer_numbers(device)
        parameters = {
            name: (own_shape(parameter), sharded_axes(parameter).get("tp"), parameter.requires_grad)
            for name, parameter in model.named_parameters()
        }
        sizes = [4 * math.prod(shape) // parallel.fsdp for shape, _, _ in parameters.values()]
        own = own_channels(model, mesh)
        of_a_block = [entry for name, entry in parameters.items() if "blocks.1." in name]
        with FakeTensorMode(allow_non_fake_inputs=True):
            model.to_empty(device="cpu")
            phases, events = _record(model, own, samples, precision, mixed, loss)
    return StepCost(
        phases=_stretched(phases, extra),
        parameters=[*parameters.values(), *of_a_block * extra],
        fsdp=parallel.fsdp,
        events=events,
        sizes=sizes,
    )


def _blocks_are_equal(depth: int, frozen: Collection[str]) -> bool:
    """Whether the same parameters of every block are frozen, so that one stands for another."""
    of_block: dict[str, set[str]] = {str(number): set() for number in range(depth)}
    for name in frozen:
        if name.startswith(prefix := "backbone.blocks."):
            number, _, rest = name.removeprefix(prefix).partition(".")
            of_block[number].add(rest)
    return len({frozenset(names) for names in of_block.values()}) <= 1


def _record(
    model: ChannelTransformer,
    own: tuple[range, range],
    samples: int,
    precision: torch.dtype,
    mixed: bool,
    learn: PlannedLoss,
) -> tuple[list[Phase], list[Event]]:
    """Run the step and return its phases, and what it took and gave back."""
    dtype = torch.float32 if mixed else precision
    cast = torch.autocast("cpu", dtype=precision, enabled=mixed, cache_enabled=False)
    with StepRecorder(model, _stages(model)) as recorder:
        with cast:
            loss = learn(model, own, samples, dtype)
        recorder.begin("backward loss", "loss")
        loss.backward()
        recorder.begin("end", "batch")
    for phase in recorder.phases:
        del phase.start["parameters"], phase.peak["parameters"]
    return recorder.phases, list(recorder.events)


def _stages(model: ChannelTransformer) -> dict[nn.Module, str]:
    blocks = {block: f"block {i}" for i, block in enumerate(model.backbone.blocks)}
    decoder: dict[nn.Module, str] = {} if model.decoder is None else {model.decoder: "decoder"}
    return {model.aggregation: "channel stage", **blocks, **decoder, model.head: "head"}


def _stretched(phases: list[Phase], extra: int) -> list[Phase]:
    """Repeat a middle block's phases `extra` times, each standing where it would stand.

    A block's forward pass leaves the same behind wherever it stands, and so does its backward
    pass; what follows stands on the sum.
    """
    if extra <= 0:
        return phases
    names = [phase.name for phase in phases]
    forward = names.index("forward block 2")
    left = _difference(phases[forward + 1].start, phases[forward].start)
    # Frozen blocks that nothing trained comes before have no backward pass.
    backward, returned = len(phases), Counter[str]()
    if "backward block 2" in names:
        backward = names.index("backward block 2")
        returned = _difference(phases[backward + 1].start, phases[backward].start)
    result: list[Phase] = []
    for position, phase in enumerate(phases):
        shift: Bytes = Counter()
        if position > forward:
            shift = _sum(shift, left, extra)
        if position > backward:
            shift = _sum(shift, returned, extra)
        copies = extra if position in (forward, backward) else 0
        step = left if position == forward else returned
        for copy in range(copies + 1):
            here = _sum(shift, step, copy)
            result.append(
                dataclasses.replace(
                    phase, start=_sum(phase.start, here, 1), peak=_sum(phase.peak, here, 1)
                )
            )
    return result


def _difference(later: Bytes, earlier: Bytes) -> Bytes:
    return Counter({kind: later[kind] - earlier[kind] for kind in later | earlier})


def _sum(one: Bytes, other: Bytes, times: int) -> Bytes:
    kinds = set(one) | set(other)
    return Counter({kind: one[kind] + times * other[kind] for kind in kinds})


@contextlib.contextmanager
def _fake_ranks(parallel: ParallelConfig) -> Iterator[DeviceMesh | None]:
    """Be the first of so many ranks, of which no other is there."""
    ranks = parallel.dp * parallel.fsdp * parallel.tp
    if ranks == 1:
        yield None
        return
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        yield build_mesh(parallel, ranks, "cpu")
    finally:
        dist.destroy_process_group()
