"""Pictures of scores within windows: errors by channel, and how deep lows and highs are."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    rows = {str(channel): table[table["channel"] == channel] for channel in channels}
    return _panels("RMSE within windows", rows)


def plot_depths(objects: pd.DataFrame) -> Figure:
    """Draw the bias of depth against time within the window: a row per kind, a column per window.

    Args:
        objects: as `Scorer.objects_table` gives it.
    """
    keys, channel, rows = ["window_hours", "elapsed_hours", "units"], objects["channel"].iloc[0], {}
    for kind in dict.fromkeys(objects["kind"]):
        own = objects[objects["kind"] == kind]
        wide = own.pivot(index=keys, columns="forecast", values="depth_bias")
        rows[f"{kind} of {channel}"] = wide.reset_index()
    return _panels("Bias of depth within windows", rows)


def _panels(title: str, tables: dict[str, pd.DataFrame]) -> Figure:
    """A row of panels per table, a column per window.

    Args:
        title: of the picture.
        tables: `window_hours`, `elapsed_hours`, `units`, a column per way to interpolate; by what
            they are of.
    """
    windows = sorted({int(hours) for table in tables.values() for hours in table["window_hours"]})
    figure = new_figure(3.2 + 3.9 * len(windows), 1.2 + 2.5 * len(tables), title)
    for row, (name, table) in enumerate(tables.items()):
        for column, window in enumerate(windows):
            place = row * len(windows) + column + 1
            axes = figure.add_subplot(len(tables), len(windows), place)
            own = table[table["window_hours"] == window].sort_values("elapsed_hours")
            _panel(axes, own, f"{name}, {window} h", window)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside right upper", frameon=False, fontsize=9, labelcolor=INK
    )
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, title: str, window: int) -> None:
    """A line for the model and for each baseline, all of which are exact at both ends."""
    within = rows["elapsed_hours"].tolist()
    for name in ("model", *reversed(BASELINES)):
        strong = name == "model"
        axes.plot(
            [0, *within, window], [0.0, *rows[name], 0.0], color=COLOURS[name], marker="o",
            linewidth=3.2 if strong else 1.2, markersize=5 if strong else 2.5, label=heading(name),
        )  # fmt: skip
    quiet_axes(axes)
    axes.axhline(0.0, color=SOFT_INK, linewidth=0.8, zorder=1)
    axes.set_title(title, loc="left", color=INK, fontsize=10.5, fontweight="bold")
    axes.set_title(rows["units"].iloc[0], loc="right", color=SOFT_INK, fontsize=9)
    axes.set_xlabel("hours from the start of the window")
    axes.set_xlim(0, window)
    axes.set_xticks([0, *within, window])
