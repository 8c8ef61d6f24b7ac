"""Pictures of lows and highs: a map with their marks, and their scores by lead time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from sciml_dchag.figures.style import (
    HAIRLINE,
    INK,
    MISSING,
    SOFT_INK,
    degrees_east,
    degrees_north,
    new_figure,
)
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.objects.finding import Kind
from sciml_dchag.weather.objects.table import quantity_of_field
from sciml_dchag.weather.scores.plots import score_panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS: dict[Kind, tuple[str, str]] = {"lows": ("L", "#a33a52"), "highs": ("H", "#0f62a8")}
"""Letter and colour of each kind."""
MOST_LINES = 60
"""Isolines in a picture."""


def plot_objects(
    field: xr.DataArray, tables: Mapping[Kind, pd.DataFrame], when: str = ""
) -> Figure:
    """Draw isolines of a field and the objects found in it, each with its value.

    Args:
        field: of one time, on latitude and longitude, as given to `find_lows`.
        tables: objects of that time by kind (`lows`, `highs`), as `find_lows` returns them.
        when: what the title says of the time.
    """
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    grid, quantity = Grid.of(field), quantity_of_field(field)
    values = field.values.astype(np.float64) * quantity.factor
    longitude = grid.unwrapped_longitude
    if grid.is_periodic:  # lines go on to where they began
        longitude = np.append(longitude, longitude[0] + 360.0)
        values = np.concatenate([values, values[:, :1]], axis=1)
    spread = float(np.nanmax(values) - np.nanmin(values))
    step = quantity.min_depth * max(1.0, np.ceil(spread / quantity.min_depth / MOST_LINES))
    counts = ", ".join(f"{len(table)} {kind}" for kind, table in tables.items())
    title = f"{field.name or 'Field'}: {counts}"
    figure = new_figure(13.0, 7.2, title, when)
    axes = figure.add_subplot()
    axes.set_facecolor(MISSING)
    first = np.floor(np.nanmin(values) / step) * step
    levels = first + step * np.arange(int(spread / step) + 3)
    shaded = axes.contourf(longitude, grid.latitude, values, levels, cmap="BrBG_r", alpha=0.45)
    axes.contour(
        longitude, grid.latitude, values, levels, colors=SOFT_INK, linewidths=0.5, linestyles="-"
    )
    for kind, table in tables.items():
        letter, colour = MARKS[kind]
        column = next(name for name in table.columns if str(name).startswith("value ("))
        x = longitude[0] + np.mod(table["longitude"] - longitude[0], 360.0)
        for east, north, value in zip(x, table["latitude"], table[column], strict=True):
            axes.annotate(
                letter, (east, north), color=colour, fontsize=9, fontweight="bold",
                ha="center", va="center",
            )  # fmt: skip
            axes.annotate(
                f"{value:.0f}", (east, north), (0, -5), textcoords="offset points",
                color=INK, fontsize=5.5, ha="center", va="top",
            )  # fmt: skip
    axes.set_aspect("equal")
    axes.set_xlim(longitude[0], longitude[-1])
    axes.set_ylim(grid.latitude.min(), grid.latitude.max())
    axes.xaxis.set_major_locator(MultipleLocator(60 if np.ptp(longitude) > 120 else 10))
    axes.yaxis.set_major_locator(MultipleLocator(30 if np.ptp(grid.latitude) > 60 else 10))
    axes.xaxis.set_major_formatter(FuncFormatter(degrees_east))
    axes.yaxis.set_major_formatter(FuncFormatter(degrees_north))
    axes.tick_params(colors=SOFT_INK, labelsize=8, length=3, color=HAIRLINE)
    for spine in axes.spines.values():
        spine.set_color(HAIRLINE)
    bar = figure.colorbar(shaded, ax=axes, orientation="horizontal", shrink=0.5, aspect=40)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=SOFT_INK, labelsize=8, length=2, color=HAIRLINE)
    bar.set_label(f"{quantity.units}, a line every {step:g}", color=SOFT_INK, fontsize=9)
    return figure


def plot_object_scores(table: pd.DataFrame) -> Figure:
    """Draw F1, place error and bias of the value by lead time, a row of panels per kind.

    Args:
        table: as `ObjectScores.table` gives it.
    """
    kinds = list(dict.fromkeys(table["kind"]))
    forecasts = list(dict.fromkeys(table["forecast"]))
    channel, units = table["channel"].iloc[0], table["units"].iloc[0]
    panels: list[tuple[str, str, str, float | None]] = [
        ("f1", "F1", "", 1.0),
        ("place_error_km", "place error", "km", 0.0),
        ("value_bias", "bias of the value", units, None),
    ]
    title = f"{' and '.join(kinds).capitalize()} of {channel} by lead time"
    figure = new_figure(13.0, 1.1 + 2.7 * len(kinds), title)
    for row, kind in enumerate(kinds):
        own = table[table["kind"] == kind]
        for place, (column, label, unit, perfect) in enumerate(panels):
            wide = own.pivot(index="lead_hours", columns="forecast", values=column)[forecasts]
            wide = wide.reset_index()
            wide.insert(0, "channel", f"{kind}: {label}")
            wide.insert(1, "units", unit)
            axes = figure.add_subplot(len(kinds), len(panels), row * len(panels) + place + 1)
            score_panel(axes, wide, perfect)
    return figure
