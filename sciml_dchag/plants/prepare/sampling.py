"""Reading some lines of an image, or all of a reference block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.plants.read.raw_cube import RawCube

SAMPLED_BYTES = 2**25
"""Most bytes of a file that are looked at before it is prepared; of smaller ones every line."""
LINES_AT_ONCE = 32


def sampled(cube: RawCube, most_bytes: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Read lines that are evenly spread over an image, the first and the last among them."""
    line_bytes = cube.samples * cube.bands * cube.dtype.itemsize
    number = min(cube.lines, max(3, most_bytes // max(line_bytes, 1)))
    for line in np.unique(np.linspace(0, cube.lines - 1, number).astype(int)).tolist():
        yield line, cube.read_lines(slice(line, line + 1))[0]


def read_block(cube: RawCube, first: int) -> NDArray[Any]:
    """Read some lines from one on."""
    return cube.read_lines(slice(first, min(first + LINES_AT_ONCE, cube.lines)))
