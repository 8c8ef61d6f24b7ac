"""What is known of the images to grade: grades of a table, and label images of their lesions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.plants.label_images import LabelImages

BACKGROUND, PLANT, LESION = 0, 1, 2
"""What label images hold."""
UNKNOWN = -1
"""Stands for a grade that is not known."""


def grades_of(table: pd.DataFrame, column: str, grades: int, where: object) -> NDArray[np.int64]:
    """Read the grades of a table of images; `UNKNOWN` where there is none.

    Args:
        table: one row per image.
        column: which column holds them.
        grades: number of grades of the scale.
        where: the store or table, for messages.

    Raises:
        ValueError: no such column, or something else than whole numbers of the scale in it.
    """
    if column not in table.columns:
        have = ", ".join(str(name) for name in table.columns) or "none"
        raise ValueError(
            f"{where} has no column {column!r} with grades; it has {have}: set task.column, or "
            f"prepare the store with a `table` that has it."
        )
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
    said = np.array([str(cell).strip() for cell in table[column]])
    empty = table[column].isna().to_numpy() | np.isin(said, ["", "None", "nan"])
    wrong = ~empty & ~((values >= 0) & (values < grades) & (values == np.floor(values)))
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"{where} has {str(said[at])!r} as {column} of {table.index[at]}: grades must be whole "
            f"numbers from 0 to {grades - 1} (task.grades {grades}), or empty."
        )
    return np.where(empty, UNKNOWN, np.nan_to_num(values)).astype(np.int64)


class LesionImages(LabelImages):
    """A folder of label images of lesions, called as the images of a store.

    Args:
        folder: the folder.
        names: names of the store's images.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no label image of any of them.
    """

    def __init__(self, folder: str | Path, names: Sequence[str]) -> None:
        super().__init__(folder, names, "data.lesions")

    def read(self, name: str, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Read an image's labels, (rows, columns); None where it has none.

        Raises:
            ValueError: another size than the image, or other numbers than 0, 1 and 2.
        """
        if (labels := self.numbers(name, size)) is None:
            return None
        path = self.files[name]
        found = np.unique(labels)
        if not np.isin(found, (BACKGROUND, PLANT, LESION)).all():
            other = found[~np.isin(found, (BACKGROUND, PLANT, LESION))][0]
            raise ValueError(
                f"The label image {path} holds {other}: it must be 0 for background, 1 for plant "
                f"and 2 for lesion."
            )
        if not (labels > BACKGROUND).any():
            raise ValueError(
                f"The label image {path} is all background (0): draw the plant as 1 into it."
            )
        return labels.astype(np.uint8)
