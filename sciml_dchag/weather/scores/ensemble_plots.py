"""Pictures of ensembles: spread beside error, rank histograms. CRPS is drawn by `plots`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sciml_dchag.figures.numbers import readable_lead
from sciml_dchag.figures.style import (
    COLOURS,
    INK,
    SOFT_INK,
    label_ends,
    lead_ticks,
    new_figure,
    quiet_axes,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_spread(table: pd.DataFrame, members: int, channels: Sequence[str]) -> Figure:
    """Spread and error of the ensemble mean against lead time, a panel a channel.

    The spread is multiplied by sqrt((M + 1) / M), so that the lines meet where members are right.

    Args:
        table: scores with rows `spread` and `ensemble_mean_rmse`.
        members: M.
        channels: which, in this order.
    """
    columns = min(3, len(channels))
    lines = math.ceil(len(channels) / columns)
    figure = new_figure(
        1.2 + 3.6 * columns, 1.1 + 2.7 * lines, "Spread and error", f"{members} members"
    )
    for place, channel in enumerate(channels):
        axes = figure.add_subplot(lines, columns, place + 1)
        rows = table[table["channel"] == channel].set_index("metric")
        leads = rows.loc[["spread"], "lead_hours"].to_numpy(np.float64)
        in_days = leads.max() > 72
        x = leads / 24 if in_days else leads
        spread = rows.loc[["spread"], "model"].to_numpy(float)
        lines_drawn = {
            "error": (rows.loc[["ensemble_mean_rmse"], "model"].to_numpy(float), INK),
            "spread": (spread * math.sqrt((members + 1) / members), COLOURS["model"]),
            "single forecast": (
                rows.loc[["ensemble_mean_rmse"], "deterministic"].to_numpy(float),
                COLOURS["deterministic"],
            ),
        }
        for y, colour in lines_drawn.values():
            axes.plot(x, y, color=colour, linewidth=1.8, marker="o", markersize=3.5, clip_on=False)
        quiet_axes(axes)
        _title(axes, channel, rows["units"].loc[["spread"]].iloc[0])
        lead_ticks(axes, x)
        axes.set_xlabel("lead time (days)" if in_days else "lead time (hours)")
        axes.set_ylim(0.0, None)
        axes.set_xlim(0.0, float(x.max()))
        ends = [
            (float(y[-1]), name, colour)
            for name, (y, colour) in lines_drawn.items()
            if np.isfinite(y[-1])
        ]
        label_ends(axes, ends)
    return figure


def plot_ranks(ranks: pd.DataFrame, channels: Sequence[str]) -> Figure:
    """Rank histograms of the first, a middle and the last lead time, one row for each channel.

    Args:
        ranks: `channel`, `lead_hours`, `members_below`, `fraction`.
        channels: which, in this order.
    """
    leads = sorted(set(ranks["lead_hours"]))
    some = sorted({leads[0], leads[len(leads) // 2], leads[-1]})
    height = 1.1 + 2.1 * len(channels)
    figure = new_figure(1.0 + 3.4 * len(some), height, "Rank of the truth among the members")
    for line, channel in enumerate(channels):
        for column, lead in enumerate(some):
            axes = figure.add_subplot(len(channels), len(some), line * len(some) + column + 1)
            rows = ranks[(ranks["channel"] == channel) & (ranks["lead_hours"] == lead)]
            count = len(rows)
            axes.bar(rows["members_below"], rows["fraction"], width=0.9, color=COLOURS["model"])
            axes.axhline(1 / count, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
            quiet_axes(axes)
            _title(axes, channel, readable_lead(int(lead)))
            axes.set_xlim(-0.6, count - 0.4)
            axes.set_ylim(0.0, max(2.5 / count, 1.05 * float(rows["fraction"].max())))
            axes.set_xlabel("members below the truth")
            if column == 0:
                axes.set_ylabel("fraction of cases")
    return figure


def _title(axes: Axes, left: str, right: str) -> None:
    axes.set_title(left, loc="left", color=INK, fontsize=10.5, fontweight="bold")
    axes.set_title(right, loc="right", color=SOFT_INK, fontsize=9)
