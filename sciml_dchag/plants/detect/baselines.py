"""What a detector must beat: a threshold of colour, a watershed of plants, the mean number.

Settings of the first two are those of the highest F1 at IoU 0.5 on training images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any

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
Settings = tuple[float, int]
Find = Callable[[Pixels, Any, int], Found]


def score_baselines(
    opened: BoxStore, cubes: Sequence[str], progress: Progress | None = None
) -> dict[str, dict[str, float]]:
    """Choose settings on training images and score the baselines.

    Args:
        opened: store and labels.
        cubes: names of the images to score on.
        progress: called for images.

    Returns:
        Scores by name of the baseline and metric.
    """
    training = opened.known("train")
    fitted = list(training)[:FITTED]
    read = _Images(opened, len(fitted) + len(cubes), progress)
    images = [read(cube) for cube in fitted]
    wanted = [read(cube) for cube in cubes]
    truth = [opened.boxes(cube) for cube in cubes]
    mean = opened.objects / len(training)
    errors = np.array([mean - len(boxes) for boxes in truth])
    scores = {}
    ways: tuple[tuple[str, Find, Iterable[Settings]], ...] = (
        ("threshold", _redder, product(REDNESS, PIXELS)),
        ("watershed", _basins, product(APART, PIXELS)),
    )
    for name, find, tried in ways:
        settings = _best(find, tried, images, [training[cube] for cube in fitted])
        sums = BoxSums()
        for image, boxes in zip(wanted, truth, strict=True):
            sums.add(find(image, *settings), boxes, 0.0)
        scores[name] = sums.scores()
    return {**scores, "mean_number": count_scores(errors, sum(map(len, truth)))}


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
    find: Find,
    tried: Iterable[Settings],
    images: Sequence[Pixels],
    truth: Sequence[Floats],
) -> Settings:
    """The settings of the highest F1."""
    best, chosen = -1.0, None
    for settings in tried:
        sums = BoxSums()
        for image, boxes in zip(images, truth, strict=True):
            sums.pair(find(image, *settings), boxes)
        if chosen is None or sums.f1() > best:
            best, chosen = sums.f1(), settings
    assert chosen is not None
    return chosen


def _redder(redness: Pixels, least: float, pixels: int) -> Found:
    """Pieces that are redder than a threshold."""
    pieces, _ = ndimage.label(redness > least, TOUCHING)  # NaN is no plant
    return _found(pieces, pixels)


def _basins(redness: Pixels, apart: int, pixels: int) -> Found:
    """Basins of the distance from the edge of plants."""
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    plants = np.isfinite(redness)
    distance = ndimage.distance_transform_edt(plants)
    middles = np.zeros(plants.shape, np.int32)
    peaks = peak_local_max(distance, min_distance=apart, labels=plants.astype(np.int32))
    middles[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return _found(watershed(-distance, middles, mask=plants), pixels)


def _found(pieces: NDArray[np.int32], pixels: int) -> Found:
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
