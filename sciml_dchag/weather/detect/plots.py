"""A map of the objects found at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sciml_dchag.figures.style import (
    HAIRLINE,
    INK,
    MISSING,
    SOFT_INK,
    degrees_east,
    degrees_north,
    new_figure,
)
from sciml_dchag.weather.detect.detector import Detector
from sciml_dchag.weather.detect.labels import Located
from sciml_dchag.weather.scores.plots import time_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOUND, TRUE = "#a33a52", INK


def plot_found(
    detector: Detector, index: int, found: Located, truth: Located | None = None
) -> Figure:
    """Draw the boxes of objects on the store's first channel, and crosses at the true places.

    Args:
        detector: with its store.
        index: position of the time in the store.
        found: objects found at that time.
        truth: the true ones, where they are known.
    """
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    store, grid = detector.store, detector.grid
    channel = store.channels[0]
    field = store.read([index], [0])[0, 0].astype(np.float64)
    count = f"{len(found)} objects found (boxes)"
    count += f", {len(truth)} true (crosses)" if truth is not None else ""
    figure = new_figure(13.0, 7.2, count, time_text(store.times[index]))
    axes = figure.add_subplot()
    axes.set_facecolor(MISSING)
    west = grid.west - grid.step / 2
    east = west + grid.step * grid.columns
    south = grid.latitude[0] - grid.down / 2
    north = grid.latitude[-1] + grid.down / 2
    shaded = axes.pcolormesh(
        np.linspace(west, east, grid.columns + 1), np.append(grid.latitude - grid.down / 2, north),
        field, cmap="BrBG_r", alpha=0.6,
    )  # fmt: skip
    for box in grid.boxes(found.latitude, found.longitude):
        x0, x1 = west + box[0] * grid.step, west + box[2] * grid.step
        y0 = south + box[1] * grid.down
        height = (box[3] - box[1]) * grid.down
        for turn in (-360.0, 0.0, 360.0) if grid.wraps else (0.0,):
            axes.add_patch(
                Rectangle((x0 + turn, y0), x1 - x0, height, fill=False, edgecolor=FOUND, lw=1.2)
            )
    if truth is not None:
        x = west + np.mod(truth.longitude - west, 360.0)
        axes.plot(x, truth.latitude, "+", color=TRUE, markersize=5)
    axes.set_aspect("equal")
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)
    axes.xaxis.set_major_locator(MultipleLocator(60 if east - west > 120 else 10))
    axes.yaxis.set_major_locator(MultipleLocator(30 if north - south > 60 else 10))
    axes.xaxis.set_major_formatter(FuncFormatter(degrees_east))
    axes.yaxis.set_major_formatter(FuncFormatter(degrees_north))
    axes.tick_params(colors=SOFT_INK, labelsize=8, length=3, color=HAIRLINE)
    bar = figure.colorbar(shaded, ax=axes, orientation="horizontal", shrink=0.5, aspect=40)
    bar.ax.tick_params(colors=SOFT_INK, labelsize=8, length=2, color=HAIRLINE)
    bar.set_label(f"{channel.name}, {channel.units}", color=SOFT_INK, fontsize=9)
    return figure
