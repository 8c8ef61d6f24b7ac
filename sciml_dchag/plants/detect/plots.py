"""A picture of images with the boxes that are found, and the true ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sciml_dchag.figures.style import new_figure
from sciml_dchag.plants.colour import as_seen
from sciml_dchag.plants.detect.boxes import Floats, Found
from sciml_dchag.plants.store.cubes import CubeStore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOUND, TRUE = "#ffffff", "#ff9d2e"


def plot_boxes(store: CubeStore, found: Mapping[str, Found], truth: Mapping[str, Floats]) -> Figure:
    """Draw images with their boxes, two in a row.

    Args:
        store: the images.
        found: what is found in each image that is drawn.
        truth: the true boxes of each.
    """
    from matplotlib.patches import Rectangle

    lines = -(-len(found) // 2)
    figure = new_figure(10.0, 2.6 * lines, "Objects", "white: found, orange: true")
    for place, (cube, objects) in enumerate(found.items(), start=1):
        axes = figure.add_subplot(lines, 2, place)
        axes.imshow(np.nan_to_num(as_seen(store.reflectance(cube), store.wavelength_nm)))
        pairs: Sequence[tuple[Floats, str]] = ((truth[cube], TRUE), (objects.boxes, FOUND))
        for boxes, colour in pairs:
            for x0, y0, x1, y1 in boxes - 0.5:  # pixels are drawn around their numbers
                side = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, lw=1.0)
                axes.add_patch(side)
        axes.set_title(f"{cube}: {len(objects)} found, {len(truth[cube])} true", fontsize=9)
        axes.set_axis_off()
    return figure
