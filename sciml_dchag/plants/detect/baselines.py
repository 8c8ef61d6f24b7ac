"""What a detector must beat: a threshold of colour, a watershed of plants, the mean number.

Settings of the first two are those of the highest F1 at IoU 0.5 on training images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciml_dchag.files.resumable import Progress
from sciml_dchag.plants.colour import as_seen
from sciml_dchag.plants.detect.boxes import TOUCHING, Floats, Found
from sciml_dchag.plants.detect.scores import BoxSums, count_scores
from sciml_dchag.plants.detect.training import BoxStore

BASELINES = {
    "threshold": "pieces of the plant that are redder (a* of CIELAB) than a threshold",
    "watershed": "a watershed of the distance from the plants' edge",
    "mean_number": "as many objects as a training image has on average",
}
REDNESS = tuple(np.arange(-20.0, 22.0, 3.0))
"""Values of a* that are tried."""
PIXELS = (8, 16, 32, 64, 128, 256)
"""Least numbers of pixels of a piece that are tried."""
APART = (1, 2, 3, 4, 6, 8, 12)
"""Least distances in pixels between the middles of two objects that are tried."""
FITTED = 60
"""Training images, at most, that settings are chosen on."""

Pixels = NDArray[np.float64]
Pieces = NDArray[np.int32]
Cut = Callable[[Pixels, float], Pieces]
"""Cuts an image into numbered pieces, by one setting."""


def score_baselines(
    opened: BoxStore, cubes: Sequence[str], progress: Progress | None = None
) -> dict[str, dict[str, float]]:
    """Choose settings on training images and score the baselines.

    Args:
        opened: store and labels.
        cubes: names of the images to score on.
        progress: called for images.

    Returns:
        Scores by name of the baseline and metric. Values that are no reflectance have no colours,
        and are counted by the mean number alone.
    """
    training = opened.known("train")
    truth = [opened.boxes(cube) for cube in cubes]
    errors = np.array([opened.objects / len(training) - len(boxes) for boxes in truth])
    mean_number = {"mean_number": count_scores(errors, sum(map(len, truth)))}
    if not opened.store.is_reflectance:
        return mean_number
    fitted = list(training)[:FITTED]
    read = _Images(opened, len(fitted) + len(cubes), progress)
    images = [read(cube) for cube in fitted]
    wanted = [read(cube) for cube in cubes]
    scores = {}
    ways: tuple[tuple[str, Cut, Sequence[float]], ...] = (
        ("threshold", _redder, REDNESS),
        ("watershed", _basins, APART),
    )
    for name, cut, tried in ways:
        setting, pixels = _best(cut, tried, images, [training[cube] for cube in fitted])
        sums = BoxSums()
        for image, boxes in zip(wanted, truth, strict=True):
            sums.add(_found(cut(image, setting), pixels), boxes, 0.0)
        scores[name] = sums.scores()
    return {**scores, **mean_number}


class _Images:
    """Reads what baselines look at: redness, NaN where there is no plant, (rows, columns)."""

    def __init__(self, opened: BoxStore, number: int, progress: Progress | None) -> None:
        self.opened, self.number, self.progress, self.done = opened, number, progress, 0

    def __call__(self, cube: str) -> Pixels:
        from skimage.color import rgb2lab

        store = self.opened.store
        seen = as_seen(store.reflectance(cube), store.wavelength_nm)
        redness: Pixels = rgb2lab(np.nan_to_num(seen))[..., 1]
        plants = store.plants(cube) > 0
        if plants.all():  # the store does not know where plants are
            plants = _saturated(seen)
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.number, "looking at colours")
        return np.where(ndimage.binary_fill_holes(plants), redness, np.nan)


def _saturated(seen: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The largest coloured piece of a picture: a leaf on a table."""
    from skimage.filters import threshold_otsu

    saturation = np.ptp(seen, axis=-1) / np.maximum(seen.max(-1), 1e-6)
    saturation = np.nan_to_num(saturation)
    if np.ptp(saturation) == 0:
        return np.ones(saturation.shape, bool)
    pieces, _ = ndimage.label(saturation > threshold_otsu(saturation), TOUCHING)
    largest: NDArray[np.bool_] = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    return largest


def _best(
    cut: Cut, tried: Sequence[float], images: Sequence[Pixels], truth: Sequence[Floats]
) -> tuple[float, int]:
    """The setting, and the least number of pixels of a piece, of the highest F1."""
    best, chosen = -1.0, (tried[0], PIXELS[0])
    for setting in tried:
        sums = {pixels: BoxSums() for pixels in PIXELS}
        for image, boxes in zip(images, truth, strict=True):
            pieces = cut(image, setting)
            for pixels, one in sums.items():
                one.pair(_found(pieces, pixels), boxes)
        for pixels, one in sums.items():
            if one.f1() > best:
                best, chosen = one.f1(), (setting, pixels)
    return chosen


def _redder(redness: Pixels, least: float) -> Pieces:
    """Pieces that are redder than a threshold."""
    pieces: Pieces = ndimage.label(redness > least, TOUCHING)[0]  # NaN is no plant
    return pieces


def _basins(redness: Pixels, apart: float) -> Pieces:
    """Basins of the distance from the edge of plants."""
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    plants = np.isfinite(redness)
    distance = ndimage.distance_transform_edt(plants)
    middles = np.zeros(plants.shape, np.int32)
    peaks = peak_local_max(distance, min_distance=int(apart), labels=plants.astype(np.int32))
    middles[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    pieces: Pieces = watershed(-distance, middles, mask=plants)
    return pieces


def _found(pieces: Pieces, pixels: int) -> Found:
    """Numbered pieces as boxes, by falling area."""
    area = np.bincount(pieces.ravel())
    places = ndimage.find_objects(pieces)
    large = [number for number in range(1, len(area)) if area[number] >= pixels]
    large.sort(key=lambda number: -int(area[number]))
    boxes = [
        (columns.start, rows.start, columns.stop, rows.stop)
        for rows, columns in (places[number - 1] for number in large)
    ]
    return Found(
        boxes=np.array(boxes, np.float64).reshape(-1, 4), scores=area[large].astype(np.float64)
    )
