"""The table that `predict` writes with a detector of objects in plants: one row per object."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sciml_dchag.config.common import MOST_SAMPLES, require_at_least
from sciml_dchag.files.atomic import written_beside
from sciml_dchag.files.places import check_file
from sciml_dchag.files.resumable import Progress
from sciml_dchag.plants.detect.boxes import Found
from sciml_dchag.plants.detect.detector import PlantDetector
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.training.detection import least_probability


def predict(
    model: str | os.PathLike[str],
    source: Path,
    out: Path,
    *,
    score: float | None = None,
    batch: int = 16,
    device: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Find the objects in the images of a store and write a table, whole or not at all.

    Args:
        model: a run, a checkpoint or an exported file.
        source: a plant store with the model's bands.
        out: the table to write (.csv).
        score: least probability; None takes that of the run's evaluation, or 0.25.
        batch: images at once.
        device: where to compute; None is the run's.
        overwrite: replace a table.
        progress: called for images.

    Returns:
        The table: `cube`, `probability`, and the box `x0`, `y0`, `x1`, `y1` in pixels of the image,
        x rightward and y downward from its corner.

    Raises:
        FileNotFoundError: no store or no checkpoint.
        FileExistsError: `out` exists and `overwrite` is off.
        ValueError: a name that does not end in .csv, or a store that does not fit the model.
    """
    require_at_least(1, "batch", batch, MOST_SAMPLES)
    check_file(out, overwrite, ".csv")
    store = CubeStore.open(source)
    detector = PlantDetector(model, store, device)
    least = least_probability(model) if score is None else score
    found = detector.find(store.names, batch=batch, least_score=least, progress=progress)
    table = table_of(store.names, found)
    write_table(table, out)
    return table


def table_of(cubes: Sequence[str], found: Sequence[Found]) -> pd.DataFrame:
    """One row per object."""
    names = np.repeat(np.array(cubes, object), [len(one) for one in found])
    boxes = np.concatenate([one.boxes for one in found])
    scores = np.concatenate([one.scores for one in found])
    sides = {side: boxes[:, place] for place, side in enumerate(("x0", "y0", "x1", "y1"))}
    return pd.DataFrame({"cube": names, "probability": scores, **sides})


def write_table(table: pd.DataFrame, out: Path) -> None:
    """Write objects, whole or not at all."""
    with written_beside(out) as partial:
        table.to_csv(partial, index=False, float_format="%.4f", lineterminator="\n")
