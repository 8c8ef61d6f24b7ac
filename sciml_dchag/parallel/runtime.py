"""This process among the processes of a run: started by torchrun, or alone.

Also the communication outside the model: sums, agreements, objects. Every rank makes
every call, and none waits for ever.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from sciml_dchag import _version
from sciml_dchag.parallel import collectives
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.parallel.mesh import build_mesh

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

    def most(self, values: Tensor) -> Tensor:
        """Largest of all ranks' values, in float64; NaN where one is."""
        largest = values.detach().to(torch.float64, copy=True)
        if self.mesh is not None:
            unknown = largest.isnan().double()
            largest.nan_to_num_(-torch.inf, torch.inf, -torch.inf)
            dist.all_reduce(largest, dist.ReduceOp.MAX)
            dist.all_reduce(unknown, dist.ReduceOp.MAX)
            largest.masked_fill_(unknown > 0, torch.nan)
        return largest

    def every(self, value: T) -> list[T]:
        """Every rank's value, in their order, on every rank."""
        answers = [value]
        if self.mesh is not None:
            answers *= dist.get_world_size()
            dist.all_gather_object(answers, value)
        return answers

    def complete(self, available: Tensor) -> bool:
        """Whether all is there, on all of the ranks that see the same samples."""
        flag = bool(available.all())
        if self.mesh is None or self.mesh["tp"].size() == 1:
            return flag
        found = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MIN, group=self.mesh.get_group("tp"))
        return bool(found)

    def of_channels(self, value: T) -> list[T]:
        """Every rank's value, of those that see the same samples, in the order of channels."""
        if self.mesh is None:
            return [value]
        answers: list[T] = [value] * self.mesh["tp"].size()
        dist.all_gather_object(answers, value, group=self.mesh.get_group("tp"))
        return answers

    def agree(self, look: Callable[[], tuple[T, Mapping[str, tuple[str, str]]]]) -> T:
        """Compare what every rank sees, and refuse a difference.

        Args:
            look: what this rank does by itself; returns its result and, under the names of what
                must be the same on all ranks, what this rank sees and how to fix a difference.

        Returns:
            This rank's result.

        Raises:
            ValueError: on all ranks, where one cannot look or some see something else.
            OSError: all ranks cannot look, for the same reason.
        """
        error: Exception | None = None
        sight: Mapping[str, tuple[str, str]] = {}
        try:
            result, sight = look()
        except (ValueError, OSError) as failure:
            error = failure
        message = (" ".join(str(error).split()) or type(error).__name__) if error else ""
        answers = self.every((message, dict(sight)))
        failed = [rank for rank, (message, _) in enumerate(answers) if message]
        if len(failed) == len(answers) and len({message for message, _ in answers}) == 1:
            assert error is not None
            raise error
        if failed:
            others = f" (and on {len(failed) - 1} more)" if len(failed) > 1 else ""
            raise ValueError(
                f"On rank {failed[0]} of {len(answers)}{others}: {answers[failed[0]][0]}"
            ) from error
        _require_same([seen for _, seen in answers])
        return result

    def channel_joiner(self, own: int, *, apart: bool = True) -> Callable[[Tensor], Tensor]:
        """Return what joins the channels (B, C, H, W) of ranks that see the same samples.

        Args:
            own: how many channels this rank has.
            apart: whether each rank then uses channels of its own, or all ranks use all channels.
        """
        counts = self.of_channels(own)
        if self.mesh is None or len(counts) == 1:
            return lambda channels: channels
        return partial(
            collectives.gather_channels, mesh=self.mesh["tp"], counts=counts, apart=apart
        )

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


def _require_same(answers: list[dict[str, tuple[str, str]]]) -> None:
    """Refuse ranks that see something else than the first one, naming who sees what."""
    for what, (_, fix) in answers[0].items():
        ranks_by_sight: dict[str, list[int]] = {}
        for rank, answer in enumerate(answers):
            ranks_by_sight.setdefault(answer[what][0], []).append(rank)
        if len(ranks_by_sight) > 1:
            found = [f"{sight} on {_name(ranks)}" for sight, ranks in ranks_by_sight.items()]
            raise ValueError(f"The ranks see different {what}: {', '.join(found)}; {fix}.")


def _name(ranks: list[int], most: int = 4) -> str:
    """Name ranks, of many the first ones."""
    shown = ", ".join(map(str, ranks[:most]))
    more = f" and {len(ranks) - most} more" if len(ranks) > most else ""
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}{more}"


def started_ranks() -> int:
    """How many processes torchrun has started; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def evaluated_on_one_process(what: str) -> None:
    """Refuse to evaluate what several processes would evaluate each for itself.

    Args:
        what: in the plural, such as Interpolators.

    Raises:
        ValueError: torchrun has started several.
    """
    if started_ranks() > 1:
        raise ValueError(
            f"{what} are evaluated on one process, and torchrun has started several: start it "
            f"without torchrun."
        )


def _versions() -> tuple[None, dict[str, tuple[str, str]]]:
    """Say what runs here."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    versions = {"sciml-dchag": _version.__version__, "torch": torch.__version__, "Python": python}
    fix = "install the same on every machine"
    return None, {f"versions of {name}": (version, fix) for name, version in versions.items()}


def choose_device(wanted: str = "auto") -> torch.device:
    """Return where this process computes.

    Args:
        wanted: `ParallelConfig.device`.

    Raises:
        ValueError: there is no such device here, or too few for the processes of this machine.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    # A build for GPUs names its accelerator on a machine without one, too.
    there = torch.accelerator.is_available()
    accelerator = torch.accelerator.current_accelerator() if there else None
    found = "none" if accelerator is None else accelerator.type
    if wanted not in ("auto", found):
        raise ValueError(
            f"parallel.device is {wanted}, and the accelerator that torch finds on this machine is "
            f"{found}: set parallel.device to auto or cpu, or install torch and a driver for it."
        )
    if accelerator is None:
        return torch.device("cpu")
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.accelerator.device_count()
    if number >= count:
        raise ValueError(
            f"Process {number + 1} of this machine finds {count} device(s) of kind {found}: start "
            f"at most {count} with torchrun --nproc-per-node, or set parallel.device to cpu."
        )
    return torch.device(accelerator.type, number)


def _end_with_parent(every_seconds: float = 1.0) -> None:
    """End this process once torchrun is gone, which a killed one can no longer do itself.

    Else the ranks would go on beside those of the same command, given again.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every_seconds)
        os._exit(1)

    if not any(thread.name == _end_with_parent.__name__ for thread in threading.enumerate()):
        threading.Thread(target=watch, name=_end_with_parent.__name__, daemon=True).start()


@contextlib.contextmanager
def joined(config: ParallelConfig) -> Iterator[Ranks]:
    """Join the run's other processes for as long as the context lasts.

    Raises:
        ValueError: the degrees do not multiply to the number of processes, the device is not there,
            or the processes run different versions of this package, torch or Python.
    """
    device, count = choose_device(config.device), started_ranks()
    config.sizes(count)  # refused before anything waits
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _end_with_parent()
    if count == 1 or dist.is_initialized():
        mesh = build_mesh(config, count, device.type) if dist.is_initialized() else None
        ranks = Ranks(device=device, mesh=mesh)
        ranks.agree(_versions)
        yield ranks
        return
    if device.type != "cpu":
        torch.accelerator.set_device_index(device.index)
    # gloo beside the accelerator's own backend: checkpoints are written from the CPU.
    backend = "cpu:gloo" if device.type == "cpu" else f"cpu:gloo,{device.type}:nccl"
    dist.init_process_group(backend, timeout=TIMEOUT)
    ranks = Ranks(device=device, mesh=build_mesh(config, count, device.type))
    ranks.agree(_versions)
    yield ranks
    # Not after an error: it may wait for ranks that do not come, and the closed connections would
    # make other ranks fail before this one has reported its error.
    dist.destroy_process_group()
