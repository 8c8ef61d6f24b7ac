"""Pictures of scores within windows: errors by channel, and how deep lows and highs are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sciml_dchag.figures.style import COLOURS, INK, SOFT_INK, new_figure, quiet_axes
from sciml_dchag.figures.tables import heading
from sciml_dchag.weather.interpolate.baselines import BASELINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 8
"""Channels in a picture."""


def plot_errors(table: pd.DataFrame) -> Figure:
    """Draw RMSE against time within the window: a row per channel, a column per window.

    Args:
        table: as `Scorer.table` gives it; of many channels the first `MOST_ROWS` are drawn.
    """
    channels = list(dict.fromkeys(table["channel"]))[:MOST_ROWS]
    return _panels(
        "RMSE within windows", [table[table["channel"] == channel] for channel in channels],
        [f"{channel}" for channel in channels], perfect=0.0,
    )  # fmt: skip


def plot_depths(objects: pd.DataFrame) -> Figure:
    """Draw the bias of depth against time within the window: a row per kind, a column per window.

    Args:
        objects: as `Scorer.objects_table` gives it.
    """
    kinds = list(dict.fromkeys(objects["kind"]))
    keys, tables = ["window_hours", "elapsed_hours", "units"], []
    for kind in kinds:
        of_kind = objects[objects["kind"] == kind]
        tables.append(of_kind.pivot(index=keys, columns="forecast", values="depth_bias"))
    channel = objects["channel"].iloc[0]
    return _panels(
        "Bias of depth within windows", [table.reset_index() for table in tables],
        [f"{kind} of {channel}" for kind in kinds], perfect=None,
    )  # fmt: skip


def _panels(
    title: str, tables: list[pd.DataFrame], names: list[str], perfect: float | None
) -> Figure:
    """A row of panels per table, a column per window.

    Args:
        title: of the picture.
        tables: `window_hours`, `elapsed_hours`, `units`, a column per way to interpolate.
        names: what each table is of.
        perfect: 0.0 for errors, which are none at both ends; None for a bias.
    """
    windows = sorted({int(hours) for hours in tables[0]["window_hours"]})
    size = 1.2 + 4.2 * len(windows), 1.5 + 2.6 * len(tables)
    figure = new_figure(*size, title)
    for row, (table, name) in enumerate(zip(tables, names, strict=True)):
        for column, window in enumerate(windows):
            place = row * len(windows) + column + 1
            axes = figure.add_subplot(len(tables), len(windows), place)
            own = table[table["window_hours"] == window]
            _panel(axes, own, f"{name}, {window} h", window, perfect)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9,
        labelcolor=INK,
    )  # fmt: skip
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, title: str, window: int, perfect: float | None) -> None:
    """A line for the model and for each baseline."""
    rows = rows.sort_values("elapsed_hours")
    x = rows["elapsed_hours"].to_numpy(np.float64)
    for name in (*reversed(BASELINES), "model"):
        y, strong = rows[name].to_numpy(np.float64), name == "model"
        at = x
        if perfect is not None:
            at, y = np.array([0.0, *x, window]), np.array([perfect, *y, perfect])
        axes.plot(
            at, y, color=COLOURS[name], linewidth=2.4 if strong else 1.4, marker="o",
            markersize=4.5 if strong else 3, label=heading(name), zorder=3 if strong else 2,
        )  # fmt: skip
    quiet_axes(axes)
    axes.set_title(title, loc="left", color=INK, fontsize=10.5, fontweight="bold")
    axes.set_title(rows["units"].iloc[0], loc="right", color=SOFT_INK, fontsize=9)
    axes.set_xlabel("hours from the start of the window")
    axes.set_xlim(0, window)
    axes.set_xticks([0, *x, window])
    if perfect is None:
        axes.axhline(0.0, color=SOFT_INK, linewidth=0.8, zorder=1)
    else:
        axes.set_ylim(perfect, None)
