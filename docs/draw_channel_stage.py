"""Draw `docs/channel_stage.png`: what D-CHAG does with the channels of one location.

python docs/draw_channel_stage.py
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

RANKS = ("#2a6f97", "#5a9367", "#c9822b", "#8e5572")
INK, SOFT_INK = "#222222", "#666666"


def draw() -> Figure:
    """Draw 16 channels on four ranks, their aggregation, and the transformer that follows."""
    figure = Figure(figsize=(10, 4.1), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axes.set_xlim(0, 20)
    axes.set_ylim(0, 8.2)
    axes.axis("off")
    for rank, colour in enumerate(RANKS):
        y = 5.55 - 1.6 * rank
        axes.add_patch(
            FancyBboxPatch((1.45, y - 0.62), 8.4, 1.24, boxstyle="round,pad=0.05", fc=colour,
                           ec="none", alpha=0.10)
        )  # fmt: skip
        axes.text(1.2, y, f"rank {rank}", ha="right", va="center", color=colour, fontsize=10)
        for channel in range(4):
            _square(axes, 1.75 + 0.95 * channel, y, colour, 0.62)
        _arrow(axes, (5.5, y), (6.3, y))
        _box(axes, 6.35, y, 2.1, "partial\naggregation")
        _arrow(axes, (8.5, y), (9.0, y))
        _square(axes, 9.05, y, colour, 0.62)
        _arrow(axes, (9.95, y), (11.25, 3.15 + 0.45 * (1.5 - rank)))
        _square(axes, 11.4, 3.15 + 0.68 * (1.5 - rank), colour, 0.5)
    _box(axes, 12.9, 3.15, 2.1, "final\naggregation")
    _arrow(axes, (12.0, 3.15), (12.8, 3.15))
    _arrow(axes, (15.05, 3.15), (15.65, 3.15))
    _square(axes, 15.7, 3.15, INK, 0.62)
    _arrow(axes, (16.4, 3.15), (17.0, 3.15))
    _box(axes, 17.05, 3.15, 2.5, "transformer\nblocks, heads")
    for x, head, note in (
        (3.6, "C channels", "one patch of pixels each"),
        (9.36, "one token", "per rank"),
        (11.65, "G tokens", "gathered"),
        (16.0, "one token", "per location"),
    ):
        axes.text(x, 7.45, head, ha="center", color=INK, fontsize=11, fontweight="bold")
        axes.text(x, 6.85, note, ha="center", color=SOFT_INK, fontsize=9.5)
    return figure


def _square(axes: Axes, x: float, y: float, colour: str, size: float) -> None:
    axes.add_patch(
        FancyBboxPatch((x, y - size / 2), size, size, boxstyle="round,pad=0.02", fc=colour, ec="w")
    )


def _box(axes: Axes, x: float, y: float, width: float, text: str) -> None:
    axes.add_patch(
        FancyBboxPatch((x, y - 0.5), width, 1.0, boxstyle="round,pad=0.03", fc="white", ec=SOFT_INK)
    )
    axes.text(x + width / 2, y, text, ha="center", va="center", color=INK, fontsize=9.5)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, color=SOFT_INK, lw=1.1)
    )


if __name__ == "__main__":
    draw().savefig(Path(__file__).with_name("channel_stage.png"))
