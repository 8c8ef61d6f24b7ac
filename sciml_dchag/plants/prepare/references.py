"""White and dark references: whether they fit an image, what of them can be used, their means.

Each column of a push-broom image has been seen by pixels of its own, so that references are
averaged over lines alone, unless asked otherwise. What is no panel (`panel`) is left out, and so is
what is saturated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.plants.prepare.config import References
from sciml_dchag.plants.prepare.panel import brightness, find_panel
from sciml_dchag.plants.prepare.sampling import (
    LINES_AT_ONCE,
    SAMPLED_BYTES,
    read_block,
    sampled,
)
from sciml_dchag.plants.read.raw_cube import RawCube

SAME_NM = 0.5
"""Wavelengths of an image and its references may differ by as much."""
CEILINGS = (
    *(2**bits - 1 for bits in range(10, 16)),
    *((2**bits - 1) << (16 - bits) for bits in (10, 12, 14)),
)
"""Largest numbers of cameras of 10 to 15 bits, as they are and moved to the upper of 16 bits."""
LEAST_AT_CEILING = 3
"""Numbers that have to be exactly at such a ceiling, with none above it."""
PLATEAU_BANDS, PLATEAU_DROP, PLATEAU_PIXELS = 3, 4, 0.01
"""Any other largest number is a ceiling where so many neighbouring bands have it in so large a
fraction of the pixels, and the next band is lower by more than so many counts, as no lamp is."""
WEAK, FAINT = 3.0, 8.0
"""White less than so many times the error of its mean above dark is masked, or warned of."""
FAINT_BY_NOISE = 1.5
"""It is warned of too where it is less than so many times the noise of a line above dark."""
WEAK_BY_DARK, FAINT_BY_DARK = 0.01, 0.05
"""The same as fractions of dark, which drifts by as much."""
DEAD = 0.02
"""A pixel of the sensor that sees less than so much of the median one's light is dead."""
LEAST_COUNT, LEAST_BY_TOP, MOST_BELOW = -100, 0.02, 0.001
"""Dark that was subtracted leaves counts no further below 0, by number and by the largest one, but
in so small a fraction."""
LEAST_ERROR = 0.3
"""Of whole numbers, counts."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Mean:
    """A reference averaged, in its own numbers; arrays are (B, columns) or (B, 1)."""

    counts: NDArray[np.float64]
    """Mean."""
    known: NDArray[np.bool_]
    """Where it can be used."""
    noise: NDArray[np.float64]
    """Standard deviation from line to line, what changes slowly aside."""
    error: NDArray[np.float64]
    """Standard error of the mean."""
    saturated: float
    """Fraction of pairs of a column and a band that are saturated in some line."""
    remarks: tuple[str, ...] = ()
    """What was left out, one sentence each."""


def check_reference(image: RawCube, name: str, reference: RawCube, references: References) -> None:
    """Refuse a reference that does not belong to an image.

    Raises:
        ValueError: other bands, another width, other settings of the camera, an exposure that only
            one of them says.
    """
    there = f"The {name} reference {reference.path.name}"
    if reference.bands != image.bands:
        raise ValueError(
            f"{there} has {reference.bands} bands and {image.path.name} {image.bands}: give the "
            f"one that was taken with the same settings of the camera."
        )
    apart = np.abs(reference.wavelength_nm - image.wavelength_nm)
    if apart.max() > SAME_NM:
        band = int(apart.argmax())
        raise ValueError(
            f"{there} has band {band + 1} at {reference.wavelength_nm[band]:g} nm and "
            f"{image.path.name} at {image.wavelength_nm[band]:g} nm: give the one that was taken "
            f"with the same camera."
        )
    if references == "column" and reference.samples != image.samples:
        raise ValueError(
            f"{there} is {reference.samples} pixels wide and {image.path.name} {image.samples}: "
            f"give one of the same width, or average it over all columns with `references=band`."
        )
    _check_quantity(image, there, reference)
    if is_radiance(image, reference):  # of which exposure and gain are no part any more
        return
    if (reference.exposure_ms is None) != (image.exposure_ms is None):
        said, unsaid = (reference, image) if image.exposure_ms is None else (image, reference)
        raise ValueError(
            f"{said.path.name} has an exposure of {said.exposure_ms:g} ms and {unsaid.path.name} "
            f"does not say its own, so that counts do not compare: add `exposure = MS` to its "
            f"header."
        )
    _check_settings(image, there, reference)


def is_radiance(image: RawCube, reference: RawCube) -> bool:
    """Whether an image and a reference that fits it are radiance, as one of them says."""
    return image.radiance or reference.radiance


def _check_quantity(image: RawCube, there: str, reference: RawCube) -> None:
    """Refuse radiance beside counts; whole numbers that are not scaled are counts."""
    for one, other, words in (
        (image, reference, f"{image.path.name} is radiance by its header and {there} "),
        (reference, image, f"{there} is radiance by its header and {image.path.name} "),
    ):
        if one.radiance and not other.radiance and other.may_be_counts:
            raise ValueError(
                f"{words}says nothing of it, so that their numbers do not compare: give references "
                f"that were saved as the image was."
            )


def _check_settings(image: RawCube, there: str, reference: RawCube) -> None:
    mine, its = dict(image.settings), dict(reference.settings)
    for name in sorted({*mine, *its}):
        if mine.get(name) == its.get(name):
            continue
        if name in mine and name in its:
            raise ValueError(
                f"{there} was taken at {name} {its[name]} and {image.path.name} at {name} "
                f"{mine[name]}, so that counts do not compare: give references of the same {name}."
            )
        said = image.path.name if name in mine else reference.path.name
        raise ValueError(
            f"{said} says {name} {mine.get(name, its.get(name))}, and "
            f"{reference.path.name if name in mine else image.path.name} says none, so that "
            f"counts may not compare: add `{name} = VALUE` to its header."
        )


def ceiling_of(numbers: NDArray[Any], said: float | None) -> float | None:
    """Find the number at which counts are cut off, though the file does not say it.

    Args:
        numbers: (lines, columns, bands), bands in the order of their wavelengths.
        said: the file's number for no data, which is no count.

    Returns:
        The ceiling; None where there is no sign of one.
    """
    known = numbers if said is None else numbers[numbers != said]
    known = known[np.isfinite(known)] if known.dtype.kind == "f" else known
    if not known.size:
        return None
    top = known.max()
    if float(top) in CEILINGS:
        return float(top) if np.count_nonzero(known == top) >= LEAST_AT_CEILING else None
    if top <= 0 or numbers.shape[2] <= PLATEAU_BANDS or numbers.dtype.kind == "f":
        return None
    at_top = (numbers == top).astype(np.int64)
    bands = np.cumsum(np.pad(at_top, ((0, 0), (0, 0), (1, 0))), axis=2)
    run = bands[..., PLATEAU_BANDS:] - bands[..., :-PLATEAU_BANDS] == PLATEAU_BANDS
    flat = run.any(axis=2)
    steps = np.abs(np.diff(numbers.astype(np.int64), axis=2))
    beside = np.where(at_top[..., 1:] != at_top[..., :-1], steps, np.iinfo(np.int64).max)
    cut = flat & (beside.min(axis=2) > PLATEAU_DROP) & (at_top.min(axis=2) == 0)
    return float(top) if cut.mean() >= PLATEAU_PIXELS else None


def ceiling_for(image: RawCube, white: RawCube, most_bytes: int = SAMPLED_BYTES) -> float | None:
    """Return the number at which image and references of one camera are saturated.

    That which either file says, or else that at which a plateau of either lies, if neither has
    larger numbers; None where there is no sign of one but the largest number of a type.
    """
    if (said := next((cube for cube in (image, white) if cube.ceiling_said), None)) is not None:
        return said.saturation
    looked = [_range_of(image, most_bytes), _range_of(white, SAMPLED_BYTES)]
    top = max(one.top for one in looked)
    return top if top in [one.ceiling for one in looked] else None


@dataclass(frozen=True, kw_only=True)
class _Range:
    """What numbers of a file, as far as it is looked at, reach to."""

    top: float
    """The largest."""
    ceiling: float | None
    """Where they are cut off."""
    lowest: float
    """The least."""
    below: float
    """Fraction below what counts may be."""
    same: bool
    """Whether most of these are one number."""


@lru_cache(maxsize=64)
def _range_of(cube: RawCube, most_bytes: int) -> _Range:
    order = np.argsort(cube.wavelength_nm, kind="stable")
    numbers = np.stack([line[:, order] for _, line in sampled(cube, most_bytes)])
    known = np.isfinite(numbers)
    if cube.missing is not None:
        known &= numbers != cube.missing
    top = numbers.max(where=known, initial=0)
    below = numbers[known & (numbers < min(LEAST_COUNT, -LEAST_BY_TOP * float(top)))]
    times = np.unique(below, return_counts=True)[1]
    return _Range(
        top=float(top),
        ceiling=ceiling_of(numbers, cube.missing),
        lowest=float(numbers.min(where=known, initial=0)),
        below=below.size / max(int(known.sum()), 1),
        same=bool(below.size) and float(times.max()) > below.size / 2,
    )


def require_counts(cube: RawCube, most_bytes: int = SAMPLED_BYTES) -> None:
    """Refuse counts that are far below 0, as those that their type does not hold.

    Raises:
        ValueError: there are more than some odd ones.
    """
    if cube.dtype.kind != "i" or not cube.may_be_counts:
        return
    found = _range_of(cube, most_bytes)
    if found.below <= MOST_BELOW:
        return
    share = f"{found.below:.1%} of its values"
    said = f"{cube.path.name} holds numbers down to {found.lowest:g} in {share}"
    if found.same:
        raise ValueError(
            f"{said}, which no camera counts: if it stands for no data, say so with "
            f"`nodata={found.lowest:g}`."
        )
    raise ValueError(
        f"{said}, as where counts above {np.iinfo(cube.dtype).max} were stored with a sign: say "
        f"that they have none (data type 12 for 2 in an ENVI header), or save them again."
    )


def scanned(reference: RawCube) -> NDArray[np.bool_]:
    """Lines of a reference that are not zeros all over, as no camera counts; all if none is."""
    there = np.asarray((brightness(reference) != 0).any(axis=1))
    return there if there.any() else ~there


@lru_cache(maxsize=64)  # white and dark are those of many images
def average(
    reference: RawCube,
    references: References,
    ceiling: float | None,
    dark_level: float | None = None,
) -> Mean:
    """Average a reference.

    Args:
        reference: the reference.
        references: over lines, or over lines and columns.
        ceiling: numbers from here on are saturated.
        dark_level: mean number without light, above which the panel of a white reference is looked
            for; None takes all of the reference, as of a dark one.

    Raises:
        ValueError: the panel covers a part of the columns alone.
    """
    panel: NDArray[np.bool_] | None = None
    remarks: tuple[str, ...] = ()
    if dark_level is not None:
        panel, remarks = find_panel(reference, dark_level, references)
    elif not (there := scanned(reference)).all():
        panel = np.broadcast_to(there[:, None], (reference.lines, reference.samples))
        remarks = (
            f"The reference {reference.path.name} holds zeros alone in {int((~there).sum())} of "
            f"its {reference.lines} lines, as where its scan was aborted: they are left out.",
        )
    shape = (reference.bands, reference.samples)
    total, count, squares, pairs = (np.zeros(shape) for _ in range(4))
    saturated = np.zeros(shape, bool)
    for first in range(0, reference.lines, LINES_AT_ONCE):
        block = read_block(reference, first)
        known = np.isfinite(block)
        if reference.missing is not None:
            known &= block != reference.missing
        if panel is not None:
            known &= panel[first : first + len(block), :, None]
        if ceiling is not None and block.max() >= ceiling:
            saturated |= np.any((block >= ceiling) & known, axis=0).T
        values = np.where(known, block, 0).astype(np.float64)
        total += values.sum(axis=0).T
        count += np.count_nonzero(known, axis=0).T
        both = known[1:] & known[:-1]
        squares += np.where(both, np.diff(values, axis=0) ** 2, 0).sum(axis=0).T
        pairs += np.count_nonzero(both, axis=0).T
    at_ceiling = float(saturated[count > 0].mean()) if (count > 0).any() else 0.0
    if references == "band":
        total, count, squares, pairs = (
            array.sum(axis=1, keepdims=True) for array in (total, count, squares, pairs)
        )
        saturated = np.any(saturated, axis=1, keepdims=True)
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    noise = np.sqrt(np.divide(squares, 2 * pairs, out=np.zeros_like(total), where=pairs > 0))
    for band, of_band in zip(noise, pairs > 0, strict=True):  # what no pair of lines shows
        band[~of_band] = np.median(band[of_band]) if of_band.any() else 0.0
    error = noise / np.sqrt(np.maximum(count, 1))
    least = LEAST_ERROR if reference.dtype.kind in "iu" else 0.0
    return Mean(
        counts=mean,
        known=(count > 0) & ~saturated,
        noise=noise,
        error=np.maximum(error, least),
        saturated=at_ceiling,
        remarks=remarks,
    )
