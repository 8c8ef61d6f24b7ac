"""Lines of an image that were not scanned: of zeros, or of a line that is written again and again.

An aborted scan, or frames that a computer did not take in time, leave the file as long as it was to
be. No camera counts 0 everywhere in a line, and noise never gives the same line twice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.plants.prepare.sampling import SAMPLED_BYTES, sampled
from sciml_dchag.plants.read.raw_cube import RawCube

LEAST_BANDS = 10
"""Pictures of fewer bands may have borders of one colour."""
MOST_EMPTY = 1e-3
"""Where more of the other spectra are zeros, what is not a plant was cut out of the image."""
LEAST_RUN, LEAST_OTHERS = 3, 3
"""Lines of a run that are the same, and others, most of which are not as the one before them: an
image without noise, or one that was enlarged, repeats its lines everywhere."""


def lost_lines(
    image: RawCube, *, referenced: bool, most_bytes: int = SAMPLED_BYTES
) -> tuple[frozenset[int], list[str]]:
    """Find lines that were not scanned.

    Args:
        image: the image.
        referenced: whether its numbers are counts; zeros of reflectance may have been cut out.
        most_bytes: how much is looked at; a gap that falls between lines looked at is not found.

    Returns:
        Their numbers, and a sentence on them.
    """
    if image.bands < LEAST_BANDS:
        return frozenset(), []
    places, empty, same = [], [], []
    before: NDArray[np.generic] | None = None
    number_empty = 0  # spectra of zeros in lines that have others
    for place, line in sampled(image, most_bytes):
        some = line.any(axis=1)
        places.append(place)
        empty.append(not some.any())
        number_empty += int(np.count_nonzero(~some)) if some.any() else 0
        alike = before is not None and np.array_equal(line, before) and some.any()
        same.append(bool(alike and (line != line[0]).any()))
        before = line
    found: list[tuple[str, list[tuple[int, int]]]] = []
    seen = len(places) - sum(empty)
    if (
        seen
        and image.missing != 0
        and (referenced or number_empty <= MOST_EMPTY * seen * image.samples)
    ):
        found.append(("holds zeros alone", _runs(places, empty, image, zeros=True)))
    repeats = _long_runs(same, places)
    if sum(same) and _others_differ(same, repeats):
        found.append(("repeats one line", _runs(places, repeats, image, zeros=False)))
    lost = {line for _, runs in found for low, high in runs for line in range(low, high + 1)}
    return frozenset(lost), [
        f"{image.path.name} {what} in {_spans(runs)} of {image.lines} lines, as where a scan was "
        f"aborted or frames were lost: they have no value (NaN)."
        for what, runs in found
        if runs
    ]


def _long_runs(same: list[bool], places: list[int]) -> list[bool]:
    """Those of `same` that belong to a run of at least `LEAST_RUN` lines."""
    kept = [False] * len(same)
    first = 0
    for i in range(1, len(same) + 1):
        if i < len(same) and same[i]:
            continue
        if places[i - 1] - places[first] + 1 >= LEAST_RUN:
            kept[first + 1 : i] = same[first + 1 : i]
        first = i
    return kept


def _others_differ(same: list[bool], repeats: list[bool]) -> bool:
    """Whether of the lines outside long runs most differ from the one before."""
    in_run = [
        repeated or following
        for repeated, following in zip(repeats, [*repeats[1:], False], strict=True)
    ]
    others = [not again for again, inside in zip(same, in_run, strict=True) if not inside]
    return len(others) >= LEAST_OTHERS and sum(others) > len(others) / 2


def _runs(
    places: list[int], flags: list[bool], image: RawCube, *, zeros: bool
) -> list[tuple[int, int]]:
    """First and last lines of runs; ends between lines that were looked at are looked for."""
    around = [-1, *places, image.lines]  # one place further on than flags
    runs: list[tuple[int, int]] = []
    for i, flag in enumerate(flags):
        if not flag or (i and flags[i - 1]):
            continue
        last = next((j for j in range(i, len(flags)) if not flags[j]), len(flags)) - 1
        first = i if zeros else i - 1  # of repeated lines the first one was scanned
        low = _edge(image, places[first], around[first])
        runs.append((low + (not zeros), _edge(image, places[last], around[last + 2])))
    return runs


def _edge(image: RawCube, inside: int, outside: int) -> int:
    """The last line from `inside` towards `outside` that is as the one inside, by halving."""
    pattern = _line(image, inside)
    while abs(outside - inside) > 1:
        middle = (inside + outside) // 2
        if np.array_equal(_line(image, middle), pattern):
            inside = middle
        else:
            outside = middle
    return inside


def _line(image: RawCube, place: int) -> NDArray[np.generic]:
    return image.read_lines(slice(place, place + 1))[0]


def _spans(runs: list[tuple[int, int]]) -> str:
    named = [f"{low} to {high}" if high > low else f"{low}" for low, high in runs[:4]]
    more = f" and {len(runs) - 4} other places" if len(runs) > 4 else ""
    return f"lines {', '.join(named)}{more}, {sum(high - low + 1 for low, high in runs)}"
