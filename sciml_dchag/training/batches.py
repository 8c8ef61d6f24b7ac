"""Batches of samples, and the loader that deals them to ranks.

What a sample holds is `weather.windows`' and `plants.crops`'.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, Self, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sciml_dchag.files.memory import require_shared_memory
from sciml_dchag.parallel import stopping

BATCHES_AHEAD = 2
"""Batches that each loader process makes before they are asked for."""


def drawn(seed: int, number: int, size: int) -> tuple[int, int]:
    """The epoch of a sample, counted on through all epochs, and what that epoch's order puts there.

    Args:
        seed: of the run.
        number: of the sample.
        size: samples of an epoch.
    """
    epoch, place = divmod(number, size)
    return epoch, int(np.random.default_rng([seed, epoch]).permutation(size)[place])


@dataclass(frozen=True)
class Batch:
    """Tensors whose first dimension is the sample."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All fields, in order."""
        return tuple(getattr(self, f.name) for f in fields(self))

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.tensors[0])

    def to(self, device: torch.device) -> Self:
        """Move to a device, without waiting for it where the memory is pinned."""
        return type(self)(*(tensor.to(device, non_blocking=True) for tensor in self.tensors))

    def split(self, samples: int) -> list[Self]:
        """Cut into batches of so many samples."""
        parts = zip(*(tensor.split(samples) for tensor in self.tensors), strict=True)
        return [type(self)(*part) for part in parts]

    @classmethod
    def stack(cls, samples: Sequence[Self]) -> Self:
        """Join samples to a batch."""
        parts = zip(*(sample.tensors for sample in samples), strict=True)
        return cls(*(torch.cat(part) for part in parts))


@dataclass(frozen=True)
class MaskedBatch(Batch):
    """Samples of a masked autoencoder; values are normalised, NaN where they are not known."""

    images: Tensor
    """(B, C, H, W): the channels that this rank reads."""
    visible: Tensor
    """(B, V): locations that are seen, ascending."""
    hidden_channels: Tensor
    """(B, C): channels that are hidden, of all ranks."""
    weights: Tensor
    """(B, H, W): what an error at each pixel counts; 0 for nothing."""

    def without(self, absent: list[bool]) -> MaskedBatch:
        """Return the batch with the pixels of some samples weighted by nothing."""
        weights = self.weights * ~torch.tensor(absent)[:, None, None]
        return MaskedBatch(self.images, self.visible, self.hidden_channels, weights)


AnyBatch = TypeVar("AnyBatch", bound=Batch)
OneBatch = TypeVar("OneBatch", bound=Batch, covariant=True)


class Samples(Protocol[OneBatch]):
    """Samples numbered through all epochs, each as a batch of one."""

    def __len__(self) -> int:
        """Return the number of samples in an epoch."""

    def __getitem__(self, number: int) -> OneBatch:
        """Return a sample, the same whenever it is asked for."""


class _OwnSamples(Sampler[int]):
    """Numbers of a rank's samples of some steps, one after the other."""

    def __init__(self, steps: range, batch: int, own: range) -> None:
        self.steps, self.batch, self.own = steps, batch, own

    def __iter__(self) -> Iterator[int]:
        return (step * self.batch + number for step in self.steps for number in self.own)

    def __len__(self) -> int:
        return len(self.steps) * len(self.own)


def load_batches(
    samples: Samples[AnyBatch],
    *,
    batch: int,
    first_step: int,
    last_step: int,
    workers: int,
    own: range | None = None,
    pin_memory: bool = False,
) -> DataLoader[AnyBatch]:
    """Iterate over the batches of training steps first_step .. last_step - 1.

    Args:
        samples: what to draw from.
        batch: samples a step, of all ranks.
        first_step, last_step: steps are numbered from 0 through all epochs.
        workers: loader processes.
        own: which samples of each step this rank takes; None for all.
        pin_memory: keep batches where a GPU reads them without a further copy.

    Raises:
        OSError: shared memory does not hold the batches of loader processes.
    """
    own = own if own is not None else range(batch)
    if workers and first_step < last_step:
        sample = samples[first_step * batch + own[0]]
        size = len(own) * sum(tensor.nbytes for tensor in sample.tensors)
        require_shared_memory(max(2**20, workers * BATCHES_AHEAD * size))
    return DataLoader(
        cast(Dataset[AnyBatch], samples),
        batch_size=len(own),
        sampler=_OwnSamples(range(first_step, last_step), batch, own),
        collate_fn=stack,
        num_workers=workers,
        # A fork would inherit Zarr's running event loop and may hang.
        multiprocessing_context="forkserver" if workers else None,
        worker_init_fn=_end_with_parent,
        persistent_workers=workers > 0,
        prefetch_factor=BATCHES_AHEAD if workers else None,
        pin_memory=pin_memory,
    )


def stack(samples: Sequence[AnyBatch]) -> AnyBatch:
    """Join samples to a batch of their kind."""
    return type(samples[0]).stack(samples)


def _end_with_parent(_: int) -> None:
    """Let a loader process end when the training process is killed.

    A worker of PyTorch looks whether its parent has changed, and a fork server's never does.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # A scheduler signals all processes of a job; the last steps still need their batches.
    for number in stopping.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
