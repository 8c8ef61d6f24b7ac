"""Pictures of a grader: true against given grades, and images with their lesions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sciml_dchag.figures.style import INK, new_figure
from sciml_dchag.plants.colour import as_seen
from sciml_dchag.plants.grade.grader import Grader
from sciml_dchag.plants.grade.labels import LESION, LesionImages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOUND, DRAWN = "#ffffff", "#ff9d2e"


def plot_confusion(said: pd.DataFrame, truth: pd.DataFrame, grades: int) -> Figure:
    """Draw how many images of each true grade were given which.

    Args:
        said, truth: one row per image, with `grade`; those of unknown grade are left out before.
        grades: number of grades of the scale.
    """
    counts = np.zeros((grades, grades), int)
    np.add.at(counts, (truth["grade"].to_numpy(), said["grade"].to_numpy()), 1)
    figure = new_figure(5.0, 4.6, "Grades of the test images", f"{counts.sum()} images")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Greens", vmin=0, vmax=1.2)
    for row, column in np.ndindex(grades, grades):
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=INK)
    axes.set_xticks(range(grades))
    axes.set_yticks(range(grades))
    axes.set_xlabel("given")
    axes.set_ylabel("true")
    return figure


def plot_lesions(
    grader: Grader,
    cubes: Sequence[str],
    said: pd.DataFrame,
    truth: pd.DataFrame,
    lesions: LesionImages | None,
) -> Figure:
    """Draw images with the outline of what the model takes for lesion, where half a cell is.

    Args:
        grader: with its store.
        cubes: which images.
        said, truth: one row per image, with `grade`.
        lesions: their label images, whose lesions are outlined, too; None for none.
    """
    store = grader.store
    figure = new_figure(10.0, 2.6 * -(-len(cubes) // 2), "Lesions", "white: found, orange: drawn")
    for place, cube in enumerate(cubes, start=1):
        axes = figure.add_subplot(-(-len(cubes) // 2), 2, place)
        values = store.reflectance(cube, None, *grader.reader.box(cube))
        picture = as_seen(values, store.wavelength_nm)
        rows, columns = picture.shape[:2]
        extent = (0, columns, rows, 0)
        axes.imshow(np.nan_to_num(picture), extent=extent)
        found = grader.lesions(cube)
        y, x = (
            (np.arange(number) + 0.5) * side / number
            for number, side in zip(found.shape, (rows, columns), strict=True)
        )
        if found.max() > 0.5:
            axes.contour(x, y, found, levels=[0.5], colors=FOUND, linewidths=1.0)
        labels = None if lesions is None else lesions.read(cube, store.size(cube))
        if labels is not None and (drawn := labels[grader.reader.box(cube)] == LESION).any():
            at = (np.arange(columns) + 0.5, np.arange(rows) + 0.5)
            axes.contour(*at, drawn, levels=[0.5], colors=DRAWN, linewidths=0.8)
        true = int(truth.at[cube, "grade"])
        axes.set_title(
            f"{cube}: grade {int(said.at[cube, 'grade'])}"
            + (f", true {true}" if true >= 0 else ""),
            fontsize=9,
        )
        axes.set_axis_off()
    return figure
