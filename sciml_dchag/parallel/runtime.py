"""This process among the processes of a run: started by torchrun, or alone.

Also what ranks tell each other outside the model: sums, agreements, objects. Every rank makes
every call, and none waits for ever.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from sciml_dchag.parallel import collectives
from sciml_dchag.parallel.mesh import ParallelConfig, build_mesh

T = TypeVar("T")
TIMEOUT = datetime.timedelta(minutes=15)
"""How long a rank waits for the others before it gives up."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process and the others; one that is alone answers every question by itself."""

    device: torch.device
    """Where this rank computes."""
    mesh: DeviceMesh | None = None
    """The mesh of all ranks; None for a process that is alone."""

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.mesh is None or dist.get_rank() == 0

    @property
    def data(self) -> tuple[int, int]:
        """Number of this rank among those that see different samples, and how many they are."""
        if self.mesh is None:
            return 0, 1
        dp, fsdp, _ = self.mesh.get_coordinate() or (0, 0, 0)
        sizes = self.mesh.shape
        return dp * sizes[1] + fsdp, sizes[0] * sizes[1]

    @property
    def channels(self) -> tuple[int, int]:
        """Number of this rank among those that share out the channels, and how many they are."""
        if self.mesh is None:
            return 0, 1
        return self.mesh["tp"].get_local_rank(), self.mesh["tp"].size()

    def sum(self, values: Tensor) -> Tensor:
        """Sum of all ranks' values, in float64."""
        total = values.detach().to(torch.float64, copy=True)
        if self.mesh is not None:
            dist.all_reduce(total)
        return total

    def any_of_channels(self, flag: bool) -> bool:
        """Whether it is so on any of the ranks that see the same samples."""
        if self.mesh is None or self.mesh["tp"].size() == 1:
            return flag
        found = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.mesh.get_group("tp"))
        return bool(found)

    def of_channels(self, value: T) -> list[T]:
        """Every rank's value, of those that see the same samples, in the order of channels."""
        if self.mesh is None:
            return [value]
        answers: list[T] = [value] * self.mesh["tp"].size()
        dist.all_gather_object(answers, value, group=self.mesh.get_group("tp"))
        return answers

    def channel_joiner(self, own: int) -> Callable[[Tensor], Tensor]:
        """Return what joins the channels (B, C, H, W) of ranks that see the same samples.

        Args:
            own: how many channels this rank has.
        """
        counts = self.of_channels(own)
        if self.mesh is None or len(counts) == 1:
            return lambda channels: channels
        return partial(collectives.gather_channels, mesh=self.mesh["tp"], counts=counts)

    def deal(self, items: Sequence[T]) -> Iterator[tuple[T, bool]]:
        """Deal items to the ranks that see different samples, as many to each.

        Yields:
            An item, and whether it is this rank's. Where none is left the last one is repeated, so
            that the rank makes every call that others wait for; what comes of it is dropped.
        """
        number, count = self.data
        for place in range(number, number + len(items), count):
            yield items[min(place, len(items) - 1)], place < len(items)

    def from_first(self, function: Callable[[], T]) -> T:
        """Call a function on the first rank and return on every rank what it returned.

        Raises:
            Exception: whatever it raised, on every rank.
        """
        if self.mesh is None:
            return function()
        answer: list[tuple[T | None, Exception | None]] = [(None, None)]
        if self.first:
            try:
                answer = [(function(), None)]
            except Exception as error:
                answer = [(None, error)]
        dist.broadcast_object_list(answer)
        value, raised = answer[0]
        if raised is not None:
            raise raised
        return cast(T, value)

    def to_first(self, value: T) -> list[T]:
        """Every rank's value, in their order, on the first rank; nothing on the others."""
        if self.mesh is None:
            return [value]
        values: list[T] | None = [value] * dist.get_world_size() if self.first else None
        dist.gather_object(value, values)
        return values or []

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.mesh is not None:
            dist.barrier()


def started_ranks() -> int:
    """How many processes torchrun has started; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def choose_device() -> torch.device:
    """Take this process's accelerator where torch finds one, else the CPU."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None:
        return torch.device("cpu")
    return torch.device(accelerator.type, int(os.environ.get("LOCAL_RANK", "0")))


@contextlib.contextmanager
def joined(config: ParallelConfig) -> Iterator[Ranks]:
    """Join the run's other processes for as long as the context lasts.

    Raises:
        ValueError: the degrees do not multiply to the number of processes.
    """
    device, count = choose_device(), started_ranks()
    config.sizes(count)  # refused before anything waits
    if count == 1 or dist.is_initialized():
        mesh = build_mesh(config, count, device.type) if dist.is_initialized() else None
        yield Ranks(device=device, mesh=mesh)
        return
    if device.type != "cpu":
        torch.accelerator.set_device_index(device.index)
    # gloo beside the accelerator's own backend: checkpoints are written from the CPU.
    backend = "cpu:gloo" if device.type == "cpu" else f"cpu:gloo,{device.type}:nccl"
    dist.init_process_group(backend, timeout=TIMEOUT)
    try:
        yield Ranks(device=device, mesh=build_mesh(config, count, device.type))
    finally:
        dist.destroy_process_group()
