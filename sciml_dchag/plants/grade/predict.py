"""The table that `predict` writes with a grader: one row per image."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from sciml_dchag.config.common import MOST_SAMPLES, require_at_least
from sciml_dchag.files.atomic import written_beside
from sciml_dchag.files.places import check_file
from sciml_dchag.files.resumable import Progress
from sciml_dchag.plants.grade.grader import Grader
from sciml_dchag.plants.store.cubes import CubeStore


def predict(
    model: str | os.PathLike[str],
    source: Path,
    out: Path,
    *,
    batch: int = 32,
    device: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Grade the images of a store and write a table, whole or not at all.

    Args:
        model: a run, a checkpoint or an exported file.
        source: a plant store with the model's bands.
        out: the table to write (.csv).
        batch: images at once.
        device: where to compute; None is the run's.
        overwrite: replace a table.
        progress: called for images.

    Returns:
        The table, as of `Grader.grade`.

    Raises:
        FileNotFoundError: no store or no checkpoint.
        FileExistsError: `out` exists and `overwrite` is off.
        ValueError: a name that does not end in .csv, or a store that does not fit the model.
    """
    require_at_least(1, "batch", batch, MOST_SAMPLES)
    check_file(out, overwrite, ".csv")
    store = CubeStore.open(source)
    table = Grader(model, store, device).grade(store.names, batch=batch, progress=progress)
    write_table(table, out)
    return table


def write_table(table: pd.DataFrame, out: Path) -> None:
    """Write grades of images, whole or not at all."""
    with written_beside(out) as partial:
        table.to_csv(partial, float_format="%.4f", lineterminator="\n")
