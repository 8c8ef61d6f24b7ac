"""Which pixels of an image are plants: an index, Otsu's threshold, and a clean-up by shape.

Works on calibrated reflectance before any smoothing. A mask that the user draws is read here too.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.plants.prepare.config import Index

RED_NM, NEAR_INFRARED_NM = (660.0, 680.0), (780.0, 820.0)
BLUE_NM, GREEN_NM = (450.0, 490.0), (530.0, 570.0)

GREEN_NDVI = 0.4
"""Above it a pixel is green, whatever the rest of the image; soils and seeds stay below."""
GREEN_EXCESS = 0.2
"""The same for the excess of green."""
DARK_SUM = 0.04
"""Where two bands together reflect less, their ratio is noise, and the index is taken as 0."""
LEAST_RATIO = 1.5
"""Where one side of the threshold is not so many times as bright, neither is a plant."""
LEAST_REFLECTANCE = 0.01
"""Darker pixels are taken as that dark: the logarithm of noise says nothing."""
LEAST_PIXELS = 16
"""Smaller objects are no plants."""
MOST_HOLE_PIXELS = 64
"""Larger holes are no noise: soil that is seen between leaves."""


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Plants of an image, and how they were told from the background."""

    plants: NDArray[np.int32]
    """0 for background, 1, 2, ... for the plants from left to right, (rows, columns)."""
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
    """Tell plants from background.

    NDVI (Rouse et al. 1974) where the camera sees red and near infrared, or else the excess of
    green (Woebbecke et al. 1995) of chromatic coordinates. Where even what lies above the threshold
    is not green (seeds, dry leaves), brightness: the logarithm of reflectance, as shading
    multiplies, in the colour whose two sides are the most apart by Otsu's own measure, with the
    plants on the side that holds less of the image's border. Threshold by Otsu (1979), then
    opening, closing, filling of small holes, and objects of some pixels kept.

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
            kept = _cleaned(plants, most)
            if kept.any():
                return Segmentation(plants=kept, index=choice, threshold=threshold)
    raise ValueError(
        f"{name} shows nothing but background: leave it out, choose `index`, or give its plants "
        f"with `mask=FILE` or `mask=none`."
    )


def _possible(colours: dict[str, NDArray[np.float32]]) -> list[Index]:
    if {"red", "near_infrared"} <= set(colours):
        return ["ndvi", "brightness"]
    if {"red", "green", "blue"} <= set(colours):
        return ["excess-green", "brightness"]
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
    """Return what is plant and the threshold; None where there is nothing to tell apart."""
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
    if values[above].mean() < green and not chosen:
        return None
    if threshold > green:  # also where plants fill the image and Otsu parts green from greener
        threshold = green
        above = known & (values > green)
    return above, threshold


def _cleaned(plants: NDArray[np.bool_], most: int | None) -> NDArray[np.int32]:
    """Smooth outlines, fill small holes, drop specks and label what is left from left to right."""
    from scipy.ndimage import binary_dilation, binary_erosion
    from skimage.measure import label, regionprops
    from skimage.morphology import disk

    def eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(binary_erosion(mask, disk(1), border_value=1))

    def dilated(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(binary_dilation(mask, disk(1)))

    opened = dilated(eroded(plants))
    closed = eroded(dilated(opened))
    # Background that does not reach the border, so that a corner cut off by plants is no hole.
    framed = np.pad(closed, 1)
    for hole in regionprops(label(~framed, connectivity=1)):
        if hole.area <= MOST_HOLE_PIXELS:
            framed[tuple(hole.coords.T)] = True
    filled = framed[1:-1, 1:-1]
    regions = [
        region
        for region in regionprops(label(filled, connectivity=2))
        if region.area >= LEAST_PIXELS
    ]
    regions.sort(key=lambda region: -region.area)
    regions = sorted(regions[:most], key=lambda region: region.centroid[1])
    labelled = np.zeros(plants.shape, np.int32)
    for number, region in enumerate(regions, start=1):
        labelled[tuple(region.coords.T)] = number
    return labelled


def read_mask(path: Path, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Read a mask that the user gives.

    Args:
        path: PNG, TIFF or NPY: 0 for background, and one number a plant; 255 alone is plant 1.
        shape: rows and columns of the image.

    Returns:
        0 for background, 1, 2, ... for the plants, (rows, columns).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no mask, of another size, or all background.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no mask {path}: check its name.")
    try:
        if path.suffix.lower() == ".npy":
            found = np.load(path)
        else:
            from skimage.io import imread

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = np.asarray(imread(path))
    except (ValueError, OSError, SyntaxError) as error:
        raise ValueError(
            f"The mask {path} cannot be read: give a PNG, TIFF or NPY file."
        ) from error
    if found.ndim == 3 and (found[..., :3] == found[..., :1]).all():
        found = found[..., 0]  # grey, saved as colours
    if found.shape != shape:
        raise ValueError(
            f"The mask {path} has {' x '.join(map(str, found.shape))} values and the image "
            f"{shape[0]} x {shape[1]}: draw it on the image as it was taken."
        )
    numbers = np.unique(found)
    whole = np.isfinite(numbers) & (numbers >= 0) & (numbers == np.floor(numbers))
    if not whole.all():
        wrong = float(numbers[~whole][0])
        raise ValueError(f"The mask {path} holds {wrong:g}: give whole numbers from 0 on.")
    plants = numbers[numbers > 0]
    if not len(plants):
        raise ValueError(f"The mask {path} is all background (0): draw the plants into it.")
    labelled: NDArray[np.int32] = np.searchsorted(plants, found, side="right").astype(np.int32)
    labelled[found == 0] = 0
    return labelled
