"""PyTorch's caching allocator in numbers, by hand."""

import pytest

from sciml_dchag.planning.allocator import MIB, CachingAllocator, held_unused


def test_small_tensors_share_segments_of_two_mebibytes() -> None:
    allocator = CachingAllocator()
    blocks = [allocator.allocate(1) for _ in range(3)]
    assert [block.size for block in blocks] == [512] * 3
    assert allocator.reserved == 2 * MIB and allocator.allocated == 3 * 512
    allocator.allocate(MIB + 1)  # no longer small
    assert allocator.reserved == 22 * MIB


@pytest.mark.parametrize(
    ("size", "segment"), [(5 * MIB, 20 * MIB), (10 * MIB, 10 * MIB), (11 * MIB + 1, 12 * MIB)]
)
def test_segments_of_large_tensors(size: int, segment: int) -> None:
    allocator = CachingAllocator()
    allocator.allocate(size)
    assert allocator.reserved == segment


def test_the_smallest_block_that_fits_is_taken_and_neighbours_are_joined() -> None:
    allocator = CachingAllocator()
    large, small = allocator.allocate(64 * MIB), allocator.allocate(32 * MIB)
    allocator.give_back(large)
    allocator.give_back(small)
    first, second = allocator.allocate(30 * MIB), allocator.allocate(30 * MIB)
    assert first is small and second is large and allocator.reserved == 96 * MIB
    third = allocator.allocate(34 * MIB)  # what is left of the first segment
    assert allocator.reserved == 96 * MIB
    allocator.give_back(second)
    allocator.give_back(third)
    assert allocator.allocate(64 * MIB).size == 64 * MIB and allocator.reserved == 96 * MIB


def test_a_gap_is_what_is_held_unused() -> None:
    """A tensor of 40 that comes while 60 of 100 are taken finds no room in what 100 left."""
    sizes = {"a": 50, "b": 50, "c": 100, "d": 40}
    a, b, c, d = ((number, size * MIB) for number, size in enumerate(sizes.values()))
    gone = [(number, 0) for number in range(4)]
    # b stands between what a and a new segment leave free: 50 are free, and 100 fit nowhere.
    assert held_unused([a, b, gone[0], c, gone[1], gone[2]], []) == 50 * MIB
    assert held_unused([a, gone[0], d, gone[3]], []) == 0
