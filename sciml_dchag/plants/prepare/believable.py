"""Whether what an image is taken for is reflectance: everywhere, not in one line of it.

What stands for no data without being declared, another scale, bands of noise and references that do
not fit are found in lines spread over the image, and refused with what to set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.plants.prepare.calibration import Calibration
from sciml_dchag.plants.prepare.sampling import SAMPLED_BYTES, sampled
from sciml_dchag.plants.read.envi_fields import largest
from sciml_dchag.plants.read.raw_cube import RawCube

MOST_REFLECTANCE, BRIGHT_REFLECTANCE = 2.0, 1.2
"""What lies above is no reflectance; what lies above the second is a glint, or a wrong white."""
LEAST_REFLECTANCE = -0.5
"""What lies below is none either: noise about 0 is smaller."""
MOST_GLINTS, MOST_LOW = 0.01, 0.01
"""Fractions of values beyond these bounds that single pixels and bands may have."""
MOST_OF_A_GLINT = 20.0
"""No glint reflects more."""
MOST_BRIGHT = 0.25
"""Fraction of values above `BRIGHT_REFLECTANCE` that is worth a warning."""
MOST_OF_A_BAND = 0.05
"""The same fraction of a band, beyond which the band is noise."""
BELOW_DARK, SOME_BELOW, MANY_BELOW = -0.05, 0.05, 0.25
"""Where such fractions of values are below, dark is brighter than the image: doubtful, or wrong."""
LEAST_LARGE = 0.005
"""Where nearly all values are below, they have been divided twice."""
SAME_NUMBER, LEAST_SAME = 0.5, 1e-4
"""A number that so many of such values share, and so many of all, stands for no data."""
LEAST_FILLED, FILLED_BANDS = 1e-3, 10
"""Spectra of one number in so many bands or more are no light; so large a fraction is said."""
ODD_BAND, ODD_NM = 3.0, 30.0
"""A band whose median is so many times that of both neighbours within so many nm, or they its."""
SCALES = (100.0, 1000.0, 10000.0, 65535.0)
"""What reflectance is usually multiplied by."""
SCALES_OF_8_BITS = (100.0, 255.0)
"""The same in whole numbers of 8 bits."""


@dataclass(frozen=True, eq=False)
class _Values:
    """Values of some lines in the bands that are used, (bands, pixels)."""

    raw: NDArray[np.float64]
    """As the file holds them."""
    made: NDArray[np.float32]
    """Taken for reflectance; NaN where not known."""


def require_believable(
    image: RawCube,
    calibration: Calibration,
    used: NDArray[np.intp],
    *,
    most_bytes: int = SAMPLED_BYTES,
) -> list[str]:
    """Look at values of lines all over an image, and refuse what cannot be reflectance.

    Args:
        image: the image.
        calibration: its calibration, of all bands.
        used: bands that are used, places among the camera's.
        most_bytes: how much is read; at least three lines.

    Returns:
        What is doubtful, one sentence each.

    Raises:
        ValueError: numbers that stand for no data, another scale, or bands that are noise.
    """
    values = _sample(image, calibration, used, most_bytes)
    known = np.isfinite(values.made)
    if not known.any() and known.shape[1] == image.lines * image.samples:
        raise ValueError(
            f"{image.path.name} has no value that is known, and so nothing but background: all are "
            f"NaN, no data or saturated, or their references are. Take it again, or look at "
            f"`nodata` and `bit_depth`."
        )
    if not calibration.referenced:
        known &= values.raw != 0  # what was cut out lies on zeros
    if not known.any():
        return []
    made = np.where(known, values.made, np.nan)
    high, low = made > MOST_REFLECTANCE, made < LEAST_REFLECTANCE
    if calibration.referenced:
        return _beside_references(image, used, made, high, low)
    for beyond in (low, high):
        _refuse_undeclared(image, values.raw, made, known, beyond)
    said = _filled(image, values.raw, made)
    number = int(known.sum())
    if high.sum() > MOST_GLINTS * number or low.sum() > MOST_LOW * number:
        bad = _bad_bands(known, high | low)
        if bad.mean() > 0.5 or not bad.any():
            raise ValueError(_another_scale(image, made))
        spans = spans_of(image, used[bad])
        raise ValueError(
            f"{image.path.name} holds no reflectance at {spans} nm, where values run from "
            f"{np.nanmin(made[bad]):.3g} to {np.nanmax(made[bad]):.3g}: leave these bands out with "
            f"`drop_bands={spans}`."
        )
    if np.nanquantile(np.abs(made), 0.999) < LEAST_LARGE:
        raise ValueError(
            f"{image.path.name} has no value above {np.nanmax(made):.3g}, after its numbers were "
            f"divided by {image.scale:g}: say what they are to be divided by with `scale=1`."
            if image.scale > 1
            else f"{image.path.name} has no value above {np.nanmax(made):.3g}, which is darker "
            f"than any plant: say what its numbers are to be divided by with `scale=NUMBER`."
        )
    said += _odd_bands(image, used, made)
    if doubt := _below_dark(image, made, "dark was subtracted twice, or an offset is missing"):
        return [*said, doubt]
    return [*said, *_doubts(image, made, "look whether its scale is right")]


def _sample(
    image: RawCube, calibration: Calibration, used: NDArray[np.intp], most_bytes: int
) -> _Values:
    chosen = calibration.select(used, slice(None))
    raw, made = [], []
    for place, line in sampled(image, most_bytes):
        numbers = line.T[used]
        out = np.empty(numbers.shape, np.float32)
        chosen.apply(numbers, out)
        if place in image.lost_lines:
            out[:] = np.nan
        raw.append(numbers.astype(np.float64))
        made.append(out)
    return _Values(np.concatenate(raw, axis=1), np.concatenate(made, axis=1))


def _refuse_undeclared(
    image: RawCube,
    raw: NDArray[np.float64],
    made: NDArray[np.float32],
    known: NDArray[np.bool_],
    beyond: NDArray[np.bool_],
) -> None:
    """Refuse values beyond the bounds most of which are one number, where the others are inside."""
    number = int(beyond.sum())
    if number < max(1, LEAST_SAME * known.sum()):
        return
    found, times = np.unique(raw[beyond], return_counts=True)
    same = float(found[times.argmax()])
    others = known & (raw != same)
    undeclared = times.max() >= SAME_NUMBER * number
    if same > 0:  # not glints that are cut off, nor all of an image of another scale
        far = float(np.median(made[beyond])) > MOST_OF_A_GLINT
        undeclared &= far or number > MOST_GLINTS * known.sum()
        undeclared &= not others.any() or bool(beyond[others].mean() <= MOST_GLINTS)
    if not undeclared:
        return
    raise ValueError(
        f"{image.path.name} holds {same:g} in {times.max() / known.size:.1%} of its values, which "
        f"is no reflectance: if it stands for no data, say so with `nodata={same:g}`, and else "
        f"what its numbers are to be divided by with `scale=NUMBER`."
    )


def _filled(image: RawCube, raw: NDArray[np.float64], made: NDArray[np.float32]) -> list[str]:
    """Say that many spectra are one number, as no light is: what is cut out, or no data.

    Raises:
        ValueError: that number is no reflectance, or brighter than a white panel.
    """
    known = np.asarray(np.isfinite(made).all(axis=0))
    flat = known & (raw == raw[0]).all(axis=0) & (raw[0] != 0)  # what was cut out lies on zeros
    if len(raw) < FILLED_BANDS or flat.mean() < LEAST_FILLED:
        return []
    found, times = np.unique(raw[0, flat], return_counts=True)
    number, share = float(found[times.argmax()]), times.max() / len(known)
    value = float(made[0, flat][raw[0, flat] == number][0])
    glints = share <= MOST_GLINTS and number != largest(image.dtype)  # those that are cut off
    if share < LEAST_FILLED or (value > BRIGHT_REFLECTANCE and glints):
        return []
    said = f"{image.path.name} holds {number:g} in all bands of {share:.1%} of its pixels"
    fix = f"if it stands for no data, say so with `nodata={number:g}`"
    if not BELOW_DARK <= value <= BRIGHT_REFLECTANCE:
        raise ValueError(f"{said}, which is no light: {fix}.")
    return [f"{said}: {fix}."]


def _odd_bands(image: RawCube, used: NDArray[np.intp], made: NDArray[np.float32]) -> list[str]:
    """Say which bands have no value at all, or others than both their neighbours everywhere."""
    said = []
    lost = np.asarray(~np.isfinite(made).any(axis=1))
    if lost.any():
        spans = spans_of(image, used[lost])
        said.append(
            f"{image.path.name} has no value but 0 in {int(lost.sum())} band(s) at {spans} nm: "
            f"leave them out with `drop_bands={spans}`."
        )
    order = np.argsort(image.wavelength_nm[used], kind="stable")
    order = order[~lost[order]]
    nm, level = image.wavelength_nm[used][order], np.nanmedian(made[order], axis=1)
    if len(order) < 3:
        return said
    before, after, mine = level[:-2], level[2:], level[1:-1]
    odd = (mine > ODD_BAND * np.maximum(before, after)) | (
        ODD_BAND * mine < np.minimum(before, after)
    )
    odd &= (nm[2:] - nm[:-2] <= ODD_NM) & (np.minimum(before, after) > LEAST_LARGE)
    if odd.any():
        spans = spans_of(image, used[order[1:-1][odd]])
        said.append(
            f"{image.path.name} is {ODD_BAND:g} times brighter or darker at {spans} nm than in the "
            f"bands on either side: leave these bands out with `drop_bands={spans}` if they are "
            f"bad."
        )
    return said


def _bad_bands(known: NDArray[np.bool_], beyond: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(beyond.sum(axis=1) > MOST_OF_A_BAND * np.maximum(known.sum(axis=1), 1))


def _another_scale(image: RawCube, made: NDArray[np.float32]) -> str:
    """Say that numbers are of another scale, and which it may be."""
    low, high = (float(np.nanquantile(made, q)) for q in (0.01, 0.99))
    scales = SCALES_OF_8_BITS if image.dtype == np.uint8 else SCALES
    fits = [scale for scale in scales if high / scale < BRIGHT_REFLECTANCE]
    # Of a plant something is brighter than a tenth.
    likely = [f"`scale={fit * image.scale:g}`" for fit in fits[:2] if high / fit > 0.1]
    scale = " or ".join(likely[: 2 if scales is SCALES_OF_8_BITS else 1]) or "`scale=NUMBER`"
    return (
        f"{image.path.name} has values from {low:.4g} to {high:.4g}, which is no reflectance: give "
        f"its references with `white` and `dark`, or say what its numbers are to be divided by "
        f"with {scale}, as it was saved (`reflectance scale factor` in an ENVI header)."
    )


def _beside_references(
    image: RawCube,
    used: NDArray[np.intp],
    made: NDArray[np.float32],
    high: NDArray[np.bool_],
    low: NDArray[np.bool_],
) -> list[str]:
    """Look at what references have made of counts."""
    known = np.isfinite(made)
    bad = _bad_bands(known, high | low)
    if (high | low).sum() > MOST_BRIGHT * known.sum() and bad.mean() > 0.5:
        raise ValueError(
            f"{image.path.name} has reflectance from {np.nanquantile(made, 0.01):.3g} to "
            f"{np.nanquantile(made, 0.99):.3g} by its references, which cannot be: give those that "
            f"were taken with the same settings and light."
        )
    if np.nanquantile(made, 0.999) < LEAST_LARGE:
        raise ValueError(
            f"{image.path.name} has no reflectance above {np.nanmax(made):.3g} by its references: "
            f"it is dark, or reflectance already, to which none belong."
        )
    if doubt := _below_dark(image, made, "its dark reference is brighter than it"):
        return [doubt]
    if bad.any():
        return [
            f"{image.path.name} has reflectance from {np.nanmin(made[bad]):.3g} to "
            f"{np.nanmax(made[bad]):.3g} at {spans_of(image, used[bad])} nm, which is noise: leave "
            f"these bands out with `drop_bands={spans_of(image, used[bad])}`."
        ]
    return _doubts(image, made, "look at its references and at the light")


def _below_dark(image: RawCube, made: NDArray[np.float32], why: str) -> str:
    """Say that much lies below 0; nothing where little does.

    Raises:
        ValueError: so much that it cannot be reflectance.
    """
    below = float((made < BELOW_DARK).sum() / np.isfinite(made).sum())
    said = (
        f"{image.path.name} has reflectance below {BELOW_DARK:g} in {below:.0%} of its values, as "
        f"where {why}: look at where it comes from."
    )
    if below > MANY_BELOW:
        raise ValueError(said)
    return said if below > SOME_BELOW else ""


def _doubts(image: RawCube, made: NDArray[np.float32], fix: str) -> list[str]:
    known = np.isfinite(made)
    bright = float((made > BRIGHT_REFLECTANCE).sum() / known.sum())
    if bright <= MOST_BRIGHT:
        return []
    return [
        f"{image.path.name} reflects more than {BRIGHT_REFLECTANCE:g} in {bright:.0%} of its "
        f"values, up to {np.nanmax(made):.3g}: {fix}."
    ]


def spans_of(image: RawCube, bands: NDArray[np.intp]) -> str:
    """Say wavelengths of bands as spans of neighbours: `1350-1460,1790-1960`, whole nm."""
    order = np.argsort(image.wavelength_nm, kind="stable")
    places = np.sort(np.argsort(order, kind="stable")[bands])
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    nm = image.wavelength_nm[order]
    return ",".join(f"{np.floor(nm[run[0]]):g}-{np.ceil(nm[run[-1]]):g}" for run in runs)
