"""Whether numbers of an image lie as its header says: neighbours of an image are similar.

A wrong interleave, or lines and samples exchanged, gives a file of the right size in which bands
and pixels are mixed up. It is refused where the header's order leaves neighbours nearly as unlike
as any two numbers of the image, and another order makes them similar in all three directions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_SIDE, LEAST_BANDS = 8, 16
"""Smaller images, and spectra of fewer bands, show too little."""
PROBED = 400
"""Numbers that are compared with their neighbours, drawn all over the file."""
DIFFERENT, SIMILAR = 0.4, 0.2
"""Mean difference from a neighbour, as a fraction of that of any two numbers."""
AXES = {"bil": (0, 2, 1), "bip": (0, 1, 2), "bsq": (2, 0, 1)}
"""Where lines, samples and bands stand in a file, from its slowest side on."""

Shape = tuple[int, int, int]
"""Lines, samples, bands."""


def require_in_order(
    data: Path,
    header: Path,
    interleave: str,
    shape: Shape,
    dtype: np.dtype[Any],
    offset: int,
    wavelength_nm: NDArray[np.float64],
) -> None:
    """Refuse an image whose numbers lie in another order than its header says.

    Args:
        data: the file of numbers.
        header: its header, for messages.
        interleave: `bil`, `bip` or `bsq`, as the header says.
        shape: lines, samples and bands, likewise.
        dtype: of the numbers, with their order of bytes.
        offset: bytes before them.
        wavelength_nm: of the bands, which need not be in their order.

    Raises:
        ValueError: which order fits.
    """
    lines, samples, bands = shape
    if min(lines, samples) < LEAST_SIDE or bands < LEAST_BANDS:
        return
    numbers = np.memmap(data, dtype, "r", offset, (lines * samples * bands,))
    order = np.argsort(wavelength_nm, kind="stable")
    said = _differences(numbers, interleave, shape, order)
    if said.max() < DIFFERENT or not np.isfinite(said).all():
        return
    for other, turned in _others(interleave, shape):
        if _differences(numbers, other, turned, order).max() <= SIMILAR:
            fix = f"interleave = {other}" if other != interleave else ""
            if turned != shape:
                fix += f"{' and ' if fix else ''}lines = {turned[0]} and samples = {turned[1]}"
            raise ValueError(
                f"The numbers of {data} are mixed up as {header.name} has them, interleave "
                f"{interleave} of {lines} lines and {samples} samples: neighbours are similar with "
                f"{fix}, so correct the header."
            )


def _others(interleave: str, shape: Shape) -> Iterator[tuple[str, Shape]]:
    lines, samples, bands = shape
    for other, turned in itertools.product(AXES, (shape, (samples, lines, bands))):
        if (other, turned) != (interleave, shape):
            yield other, turned


def _differences(
    numbers: NDArray[Any], interleave: str, shape: Shape, order: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Mean difference of neighbours along lines, samples and bands; 1 is that of any two numbers.

    Infinite or NaN where it cannot be said.
    """
    draw = np.random.default_rng(0)  # the same numbers each time
    place = np.stack([draw.integers(0, side - 1, PROBED) for side in shape])
    axes = AXES[interleave]

    def value(at: NDArray[np.int64]) -> NDArray[np.float64]:
        at = np.stack([at[0], at[1], order[at[2]]])
        index = np.ravel_multi_index(tuple(at[a] for a in axes), [shape[a] for a in axes])
        return np.asarray(numbers[index], np.float64)

    here = value(place)
    steps = np.eye(3, dtype=np.int64)
    with np.errstate(all="ignore"):  # infinite numbers
        apart = np.array([np.abs(value(place + step[:, None]) - here).mean() for step in steps])
        return np.asarray(apart / np.abs(here - np.roll(here, 1)).mean())
