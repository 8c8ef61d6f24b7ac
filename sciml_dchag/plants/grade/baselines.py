"""What a grader must beat: the commonest grade, and boosted trees on a histogram of colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.files.resumable import Progress
from sciml_dchag.plants.colour import as_seen
from sciml_dchag.plants.grade.training import GradeStore
from sciml_dchag.plants.whole_images import WholeImages

BASELINES = {
    "commonest": "the commonest grade of the training images, and their mean fraction of lesions",
    "colours": "boosted trees on each image's histogram of hue, saturation and value",
}
BINS = (8, 6, 6)
"""Of hue, saturation and value."""


def fit_and_apply(
    opened: GradeStore, cubes: Sequence[str], progress: Progress | None = None
) -> dict[str, pd.DataFrame]:
    """Fit the baselines on the training images and apply them.

    Args:
        opened: store and labels; the training images' alone are used.
        cubes: names of the images to grade.
        progress: called for images whose colours are counted.

    Returns:
        By name of the baseline, one row per image: `grade`, and `lesion_percent` where lesions of
        training images are drawn. Values that are no reflectance have no colours.
    """
    training = opened.store.split("train")
    graded, drawn = opened.graded(training), opened.drawn(training)
    commonest = pd.DataFrame(index=pd.Index(cubes, name="cube"))
    if graded:
        commonest["grade"] = int(np.bincount([opened.grades[cube] for cube in graded]).argmax())
    if drawn:
        commonest["lesion_percent"] = np.mean([opened.lesion_percent(cube) for cube in drawn])
    if not opened.store.is_reflectance:
        return {"commonest": commonest}
    colours = _by_colours(opened, graded, drawn, cubes, progress)
    return {"commonest": commonest, "colours": colours}


def _by_colours(
    opened: GradeStore,
    graded: Sequence[str],
    drawn: Sequence[str],
    cubes: Sequence[str],
    progress: Progress | None,
) -> pd.DataFrame:
    """What boosted trees say that are fitted on images with a grade, or with drawn lesions."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    samples = opened.samples("train")
    wanted = [*dict.fromkeys([*graded, *drawn, *cubes])]
    counted = {}
    for done, cube in enumerate(wanted, start=1):
        counted[cube] = histogram(samples.reader, cube)
        if progress is not None:
            progress(done, len(wanted), "counting colours")
    known = np.stack([counted[cube] for cube in cubes])
    said = pd.DataFrame(index=pd.Index(cubes, name="cube"))
    seed = opened.recipe.seed
    if graded:
        grades = np.array([opened.grades[cube] for cube in graded])
        said["grade"] = grades[0]
        if len(set(grades)) > 1:
            classifier = HistGradientBoostingClassifier(random_state=seed)
            classifier.fit(np.stack([counted[cube] for cube in graded]), grades)
            said["grade"] = classifier.predict(known).astype(np.int64)
    if drawn:
        percent = np.array([opened.lesion_percent(cube) for cube in drawn])
        regressor = HistGradientBoostingRegressor(random_state=seed)
        regressor.fit(np.stack([counted[cube] for cube in drawn]), percent)
        said["lesion_percent"] = regressor.predict(known)
    return said


def histogram(reader: WholeImages, cube: str) -> NDArray[np.float32]:
    """Fractions of an image's pixels by hue, saturation and value, (bins,).

    Of three bands as they are, of more as the eye sees them; of what the model is shown.
    """
    from skimage.color import rgb2hsv

    store = reader.store
    values = store.reflectance(cube, None, *reader.box(cube))
    colours = as_seen(values, store.wavelength_nm)
    pixels = colours.reshape(-1, 3)
    pixels = pixels[np.isfinite(pixels).all(axis=1)].clip(0, 1)
    hsv = rgb2hsv(pixels)
    counted = np.histogramdd(hsv, bins=BINS, range=((0, 1),) * 3)[0].ravel()
    return (counted / max(len(pixels), 1)).astype(np.float32)
