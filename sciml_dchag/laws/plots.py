"""The picture of a search: error by complexity, and the law against what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sciml_dchag.figures.style import COLOURS, INK, SOFT_INK, new_figure, quiet_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sciml_dchag.laws.discover import Laws


def plot_law(found: Laws) -> Figure:
    """Draw R2 by complexity beside the baselines, and the law on held-out rows."""
    figure = new_figure(9.0, 4.2, f"Laws of {found.training.target.name}")
    left, right = figure.subplots(1, 2)
    _draw_front(left, found)
    _draw_law(right, found)
    return figure


def _draw_front(axes: Axes, found: Laws) -> None:
    complexity = [c.formula.complexity for c in found.candidates]
    held_out = [max(c.r2_held_out, -1.0) for c in found.candidates]
    training = [c.r2_training for c in found.candidates]
    axes.plot(complexity, training, "o-", color=SOFT_INK, label="training", markersize=4)
    axes.plot(complexity, held_out, "o-", color=COLOURS["model"], label="held out", markersize=4)
    for name, (_, score) in found.baselines.items():
        if score > -1:
            axes.axhline(score, color=COLOURS["ridge"], linewidth=0.8, linestyle="--")
            axes.text(1.0, score, name, transform=axes.get_yaxis_transform(), fontsize=7,
                      color=COLOURS["ridge"], ha="right", va="bottom")  # fmt: skip
    axes.set(xlabel="operations and symbols", ylabel="R2, -1 where below", ylim=(-1.05, 1.05))
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    quiet_axes(axes)


def _draw_law(axes: Axes, found: Laws) -> None:
    quiet_axes(axes)
    units = found.training.target.unit.text()
    axes.set(xlabel=f"formula ({units})", ylabel=f"{found.training.target.name} ({units})")
    if found.law is None:
        axes.text(0.5, 0.5, "no law", transform=axes.transAxes, ha="center", color=SOFT_INK)
        return
    predicted, measured = found.law.formula.predict(found.held_out), found.held_out.y
    axes.scatter(predicted, measured, s=6, color=COLOURS["model"], alpha=0.5, linewidths=0)
    ends = np.array([measured.min(), measured.max()])
    axes.plot(ends, ends, color=INK, linewidth=0.8)
    axes.set_title("held-out groups", fontsize=9, color=SOFT_INK)
