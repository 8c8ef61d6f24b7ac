"""Which pixels of an image are plants: an index, Otsu's threshold, and a clean-up by shape.

Works on calibrated reflectance before any smoothing. A mask that the user draws is read by
`mask_files`, numbers that last are given by `numbering`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.plants.prepare.config import Index
from sciml_dchag.plants.prepare.numbering import row_by_row

RED_NM, NEAR_INFRARED_NM = (660.0, 680.0), (780.0, 820.0)
BLUE_NM, GREEN_NM = (450.0, 490.0), (530.0, 570.0)

GREEN_NDVI = 0.4
"""Above it a pixel is green, whatever the rest of the image; soils and seeds stay below."""
GREEN_EXCESS = 0.2
"""The same for the excess of green."""
BARE_PART = 0.5
"""Below so much of these, nothing is green, whatever the rest of the image."""
DARK_SUM = 0.04
"""Where two bands together reflect less, their ratio is noise, and the index is taken as 0."""
LEAST_RATIO = 1.5
"""Where one side of the threshold is not so many times as bright, neither is a plant."""
LEAST_REFLECTANCE = 0.01
"""Darker pixels are taken as that dark: the logarithm of noise says nothing."""
LEAST_PIXELS = 16
"""Smaller objects are no plants."""
LEAST_PART = 4
"""Smaller parts of an object are noise."""
MOST_HOLE_PIXELS = 1
"""Larger holes are no noise: soil that is seen between leaves."""
MOST_UNKNOWN_PIXELS = 64
"""Larger holes of which nothing is known, such as glints, are not filled either."""
PARTS_APART = 1
"""Parts of a plant are so many pixels from each other at most, twice: a petiole is thinner than a
pixel, and its pixel half soil."""


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Plants of an image, and how they were separated from the background."""

    plants: NDArray[np.int32]
    """0 for background, 1, 2, ... for the plants row by row, (rows, columns)."""
    index: str
    """What the threshold was put on."""
    threshold: float
    """Where it was put."""


def index_bands(wavelength_nm: NDArray[np.float64]) -> dict[str, NDArray[np.intp]]:
    """Choose the bands that the indices need, by name: those in its span, or else the nearest.

    A span which the camera does not come within 30 nm of is left out.
    """
    spans = {"blue": BLUE_NM, "green": GREEN_NM, "red": RED_NM, "near_infrared": NEAR_INFRARED_NM}
    chosen = {}
    for name, (low, high) in spans.items():
        inside = np.flatnonzero((wavelength_nm >= low) & (wavelength_nm <= high))
        if not len(inside):
            apart = np.maximum(low - wavelength_nm, wavelength_nm - high)
            inside = np.flatnonzero(apart == apart.min())[:1] if apart.min() <= 30 else inside
        if len(inside):
            chosen[name] = inside
    # Cameras of the short-wave infrared see none of them.
    return chosen or {"all": np.linspace(0, len(wavelength_nm) - 1, 24).astype(np.intp)}


def segment(
    colours: dict[str, NDArray[np.float32]],
    name: str,
    index: Index | None = None,
    most: int | None = None,
) -> Segmentation:
    """Separate plants from background.

    NDVI (Rouse et al. 1974) where the camera sees red and near infrared, or else the excess of
    green (Woebbecke et al. 1995) of chromatic coordinates; plants are green, and what is merely
    bright is none. Only where the camera sees neither, or where it is asked for (seeds, dry
    leaves), brightness: the logarithm of reflectance, as shading multiplies, in the colour whose
    two sides are the most apart by Otsu's own measure, with the plants on the side that holds less
    of the image's border. Threshold by Otsu (1979); holes are kept but for single pixels, parts
    that nearly touch are one plant, and objects of some pixels are kept.

    Args:
        colours: mean reflectance in the spans of `index_bands`, each (rows, columns).
        name: of the image, for messages.
        index: which to use; None chooses as above.
        most: keep as many of the largest objects; None keeps all.

    Raises:
        ValueError: nothing but background; bands that the index needs are not there.
    """
    kept = None
    for choice in [index] if index else _possible(colours):
        values = _index(colours, choice, name)
        found = _threshold(values, choice, chosen=index is not None)
        if found is not None:
            plants, threshold = found
            kept = _cleaned(plants, ~np.isfinite(values), most)
            if kept.any():
                return Segmentation(plants=kept, index=choice, threshold=threshold)
    raise NoPlantError(
        f"{name} shows nothing but background{_not_green(choice)}: leave it out, choose "
        f"`index=brightness` for seeds or dry leaves, or give its plants with `mask=FILE` or "
        f"`mask=none`."
    )


class NoPlantError(ValueError):
    """An image without a plant, as of a pot in which nothing has grown."""


def green_pixels(colours: dict[str, NDArray[np.float32]]) -> NDArray[np.bool_] | None:
    """Where NDVI is that of a plant, (rows, columns); None where the camera does not see it."""
    if "ndvi" not in _possible(colours):
        return None
    return np.asarray(_index(colours, "ndvi", "") > GREEN_NDVI)


def _not_green(index: Index) -> str:
    words = {"ndvi": f"NDVI above {GREEN_NDVI:g}", "excess-green": "an excess of green"}
    return f" (no plant with {words[index]})" if index in words else ""


def _possible(colours: dict[str, NDArray[np.float32]]) -> list[Index]:
    if {"red", "near_infrared"} <= set(colours):
        return ["ndvi"]
    if {"red", "green", "blue"} <= set(colours):
        return ["excess-green"]
    return ["brightness"]


def _index(colours: dict[str, NDArray[np.float32]], index: Index, name: str) -> NDArray[np.float64]:
    """The index at every pixel; brightness is the logarithm of reflectance."""
    if index == "brightness":
        logs = [
            np.log(np.maximum(colour, LEAST_REFLECTANCE, dtype=np.float64))
            for colour in colours.values()
        ]
        return max(logs, key=_separability)
    needed = ("near_infrared", "red") if index == "ndvi" else ("green", "red", "blue")
    if missing := [colour for colour in needed if colour not in colours]:
        raise ValueError(
            f"{name} has no bands of {missing[0].replace('_', ' ')}, which the index {index} "
            f"needs: leave `index` out, or choose brightness."
        )
    bands = np.stack([colours[colour].astype(np.float64) for colour in needed])
    total = bands.sum(axis=0)
    # NaN stays NaN, so that what is not known is no plant.
    share = np.where(total < DARK_SUM, 0.0, bands / np.where(total < DARK_SUM, 1.0, total))
    return np.asarray(
        share[0] - share[1] if index == "ndvi" else 2 * share[0] - share[1] - share[2]
    )


def _otsu(values: NDArray[np.float64]) -> float:
    from skimage.filters import threshold_otsu

    return float(threshold_otsu(values[np.isfinite(values)]))


def _separability(values: NDArray[np.float64]) -> float:
    """Share of the variance that lies between the two sides of the threshold (Otsu 1979)."""
    known = values[np.isfinite(values)]
    if not len(known) or known.max() - known.min() < 1e-6:
        return 0.0
    above = known > _otsu(known)
    part = above.mean()
    return float(
        part * (1 - part) * (known[above].mean() - known[~above].mean()) ** 2 / known.var()
    )


def _threshold(
    values: NDArray[np.float64], index: Index, *, chosen: bool
) -> tuple[NDArray[np.bool_], float] | None:
    """Return what is plant and the threshold; None where there is nothing to separate."""
    known = np.isfinite(values)
    if not known.any():
        return None
    low, high = float(values[known].min()), float(values[known].max())
    green = {"ndvi": GREEN_NDVI, "excess-green": GREEN_EXCESS}.get(index)
    if high - low < 1e-6:
        # One value throughout: plants fill the image if it is green, and else nothing is known.
        return (known, low) if green is not None and low > green else None
    threshold = _otsu(values)
    above = known & (values > threshold)
    if green is None:
        if values[above].mean() - values[known & ~above].mean() < np.log(LEAST_RATIO):
            return None
        border = np.concatenate([above[0], above[-1], above[1:-1, 0], above[1:-1, -1]])
        plants = known & ~above if border.mean() > 0.5 else above
        return plants, float(np.exp(threshold))
    if threshold > green:  # also where plants fill the image and Otsu parts green from greener
        threshold = green
    elif values[above].mean() < green and (not chosen or (values > green).any()):
        threshold = green  # where plants are few, Otsu may part soil from plastic
    threshold = max(threshold, BARE_PART * green)
    above = known & (values > threshold)
    return (above, threshold) if above.any() else None


def _cleaned(
    plants: NDArray[np.bool_], unknown: NDArray[np.bool_], most: int | None
) -> NDArray[np.int32]:
    """Drop specks, fill single pixels and glints, join parts, and number what is left row by row.

    Args:
        plants: what lies above the threshold, (rows, columns).
        unknown: pixels without a value.
        most: keep as many of the largest; None keeps all.
    """
    from scipy.ndimage import binary_dilation, binary_fill_holes
    from skimage.measure import label, regionprops
    from skimage.morphology import disk

    parts = label(plants, connectivity=2)
    sizes = np.bincount(parts.ravel())
    kept = plants & (sizes[parts] >= LEAST_PART)
    # Background that does not reach the border, so that a corner cut off by plants is no hole.
    framed, unknown = np.pad(kept, 1), np.pad(unknown, 1)
    for hole in regionprops(label(~framed, connectivity=1)):
        place = tuple(hole.coords.T)
        if hole.area <= (MOST_UNKNOWN_PIXELS if unknown[place].all() else MOST_HOLE_PIXELS):
            framed[place] = True
    filled = framed[1:-1, 1:-1]
    # What lies within a plant belongs to it, as a leaf does whose petiole is too thin to be seen.
    reach = binary_fill_holes(binary_dilation(filled, disk(PARTS_APART)))
    joined = label(reach, connectivity=1) * filled
    regions = [region for region in regionprops(joined) if region.area >= LEAST_PIXELS]
    regions.sort(key=lambda region: -region.area)
    regions = regions[:most]
    heights = [float(region.bbox[2] - region.bbox[0]) for region in regions]
    numbers = row_by_row([region.centroid for region in regions], heights)
    labelled = np.zeros(plants.shape, np.int32)
    for region, number in zip(regions, numbers, strict=True):
        labelled[tuple(region.coords.T)] = number
    return labelled
