"""What PyTorch's caching allocator holds on an accelerator beyond what tensors take of it.

It asks the card for segments, splits them, and keeps what is given back for the next tensor of a
fitting size. Sizes that fit nothing leave gaps, so that a job reserves more than it ever allocates.
The rules are those of `c10/cuda/CUDACachingAllocator.cpp` with its default settings, of one stream.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MIB = 2**20
UNIT = 512
"""Sizes are rounded up to a multiple of this."""
SMALL = MIB
"""Tensors up to this size share segments of 2 MiB, from which larger ones take nothing."""

Event = tuple[int, int]
"""A storage's key, and its bytes from now on; 0 when it is given back."""


@dataclass(eq=False)
class Block:
    """A piece of a segment, between its neighbours."""

    size: int
    small: bool
    before: Block | None = None
    after: Block | None = None
    free: bool = False


class CachingAllocator:
    """Counts the segments and blocks that a sequence of tensors leads to."""

    def __init__(self) -> None:
        self.allocated = self.most_allocated = self.reserved = 0
        self._free: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}

    def allocate(self, size: int) -> Block:
        """Give a tensor a block of so many bytes: the smallest free one, or of a new segment."""
        size = max(UNIT, -(-size // UNIT) * UNIT)
        small = size <= SMALL
        fitting = bisect.bisect_left(self._free[small], (size, 0))
        if fitting < len(self._free[small]):
            block = self._free[small].pop(fitting)[2]
        else:
            block = Block(_segment(size), small)
            self.reserved += block.size
        block.free = False
        if block.size - size >= (UNIT if small else SMALL + 1):
            self._split(block, size)
        self.allocated += block.size
        self.most_allocated = max(self.most_allocated, self.allocated)
        return block

    def give_back(self, block: Block) -> None:
        """Keep a block for other tensors, joined to what is free beside it."""
        self.allocated -= block.size
        for other in (block.before, block.after):
            if other is not None and other.free:
                self._free[other.small].remove((other.size, id(other), other))
                block.size += other.size
                if other is block.before:
                    block.before = other.before
                    if other.before is not None:
                        other.before.after = block
                else:
                    block.after = other.after
                    if other.after is not None:
                        other.after.before = block
        self._keep(block)

    def _split(self, block: Block, size: int) -> None:
        rest = Block(block.size - size, block.small, before=block, after=block.after)
        if block.after is not None:
            block.after.before = rest
        block.after, block.size = rest, size
        self._keep(rest)

    def _keep(self, block: Block) -> None:
        block.free = True
        bisect.insort(self._free[block.small], (block.size, id(block), block))


def _segment(size: int) -> int:
    """Bytes that are asked of the card for a tensor that fits nowhere."""
    if size <= SMALL:
        return 2 * MIB
    return 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB


def held_unused(events: Sequence[Event], parameters: Iterable[int], steps: int = 3) -> int:
    """Bytes that are reserved beyond the most that is allocated, over the first steps of a job.

    Args:
        events: what a step takes and gives back. What it does not give back are gradients, which
            go once the optimizer has used them.
        parameters: bytes of each parameter; after the first step there are two moments of each.
        steps: after which nothing more is asked of the card.
    """
    allocator, sizes = CachingAllocator(), list(parameters)
    for size in sizes:
        allocator.allocate(size)
    for step in range(steps):
        live: dict[int, tuple[int, Block]] = {}
        for key, size in events:
            if key in live:
                known, block = live[key]
                if known == size:
                    continue
                allocator.give_back(block)
                del live[key]
            if size:
                live[key] = size, allocator.allocate(size)
        if step == 0:
            for size in sizes:
                allocator.allocate(size)
                allocator.allocate(size)
        for _, block in live.values():
            allocator.give_back(block)
    return allocator.reserved - allocator.most_allocated
