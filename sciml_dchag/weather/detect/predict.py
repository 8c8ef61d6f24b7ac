"""The folder that `predict` writes with a detector: a table of objects and a picture.

OUT/boxes.csv       one row per object: time, kind, place, probability, attributes, and its box
OUT/objects.png     the first time
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.config.common import MOST_SAMPLES, require_at_least
from sciml_dchag.figures.saving import save_figure
from sciml_dchag.files.places import check_place
from sciml_dchag.files.result_folders import whole_folder
from sciml_dchag.files.resumable import Progress
from sciml_dchag.training.detection import least_probability
from sciml_dchag.weather.detect.detector import Detector
from sciml_dchag.weather.detect.found import FOLDER, PICTURE, TABLE
from sciml_dchag.weather.detect.labels import Located
from sciml_dchag.weather.detect.plots import plot_found
from sciml_dchag.weather.store.store import Period, Store, taken_every


def predict(
    model: str | os.PathLike[str],
    source: Path,
    out: Path,
    *,
    period: Period = (None, None),
    every_hours: int | None = None,
    score: float | None = None,
    batch: int = 16,
    device: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Find the objects of a store's times and write them, whole or not at all.

    Args:
        model: a run, a checkpoint or an exported file.
        source: a weather store with the model's channels on its grid.
        out: the folder to write.
        period: first and last time, both included.
        every_hours: hours between times; None takes each.
        score: least probability; None takes that of the run's evaluation, or 0.25.
        batch: times that are looked at together.
        device: where to compute; None is the run's.
        overwrite: replace a folder of objects.
        progress: called for times.

    Returns:
        The table.

    Raises:
        FileNotFoundError: no store or no checkpoint.
        FileExistsError: `out` exists, and `overwrite` is off or it holds something else.
        ValueError: a store that does not fit the model, or a period without times.
    """
    check_place(out, FOLDER, overwrite)
    require_at_least(1, "batch", batch, MOST_SAMPLES)
    store = Store.open(source)
    detector = Detector(model, store, device)
    if score is None:
        score = least_probability(model)
    indices = store.with_history(detector.recipe.data.history_hours)
    indices = indices[np.isin(indices, store.time_indices(period))]
    if not len(indices):
        raise ValueError(
            f"{source} has no time from {period[0] or 'its first'} to {period[1] or 'its last'} "
            f"with the history that the model needs: choose another period."
        )
    indices = indices[taken_every(store.times[indices], every_hours or 0, "`every_hours`")]
    found = detector.find(indices, batch=batch, least_score=score, progress=progress)
    table = table_of(detector, store.times[indices], found)
    with whole_folder(out, FOLDER, overwrite=overwrite) as folder:
        table.to_csv(folder / TABLE, index=False, float_format="%.4f", lineterminator="\n")
        picture = plot_found(detector, int(indices[0]), found[0])
        save_figure(picture, folder / PICTURE, store.attribution)
    return table


def table_of(
    detector: Detector, times: NDArray[np.datetime64], found: Sequence[Located]
) -> pd.DataFrame:
    """One row per object; boxes in pixels of the grid, x eastward and y northward."""
    parts = []
    for time, objects in zip(times, found, strict=True):
        boxes = detector.grid.boxes(objects.latitude, objects.longitude)
        kinds = [detector.kinds[place] for place in objects.classes]
        columns = {
            "time": np.full(len(objects), time), "kind": kinds,
            "latitude": objects.latitude, "longitude": objects.longitude,
            "probability": objects.scores,
            **{
                name: objects.attributes[:, place]
                for place, name in enumerate(detector.attributes)
            },
            **{side: boxes[:, place] for place, side in enumerate(("x0", "y0", "x1", "y1"))},
        }  # fmt: skip
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)
