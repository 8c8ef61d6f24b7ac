"""How the pictures look: colours, quiet axes, ticks, labels at the ends of lines.

What is drawn is decided in `plots`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#22262b"
SOFT_INK = "#6b7280"
HAIRLINE = "#d5d8dd"
MISSING = "#c4c7cc"
COLOURS = {
    "model": "#0f62a8",
    "base": "#2a8f8a",
    "persistence": "#b0793a",
    "anomaly_persistence": "#d3a15f",
    "damped_persistence": "#7d8f3c",
    "climatology": "#8a9099",
    "linear": "#8a9099",
    "linear_of_departures": "#b0793a",
    "cubic_of_departures": "#7d8f3c",
    "ridge": "#a33a52",
    "ridge_of_four": "#7b5ea7",
    "inverse_model": "#7b5ea7",
    "deterministic": "#e0802f",
    "climatological_ensemble": "#4d545c",
    "truth": INK,
}

HEADER_INCHES = 0.42
FOOTER_INCHES = 0.3


def new_figure(width: float, height: float, title: str, subtitle: str = "") -> Figure:
    """A figure of that size in inches, room kept for the title above and the attribution below."""
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    engine = figure.get_layout_engine()
    assert engine is not None
    low, high = FOOTER_INCHES / height, HEADER_INCHES / height
    engine.set(rect=(0.0, low, 1.0, 1.0 - low - high), w_pad=0.08, h_pad=0.08)  # type: ignore[call-arg]
    left, top = 0.12 / width, 1.0 - 0.1 / height
    heading = figure.text(
        left, top, title, color=INK, fontsize=13, fontweight="bold", ha="left", va="top"
    )
    heading.set_in_layout(False)
    if subtitle:
        after = Annotation(
            subtitle,
            xy=(1.0, 0.0),
            xycoords=heading,  # the corner of the title, whose width is known once drawn
            xytext=(10, 1.5),
            textcoords="offset points",
            color=SOFT_INK,
            fontsize=10,
        )
        figure.add_artist(after)
        after.set_in_layout(False)
    return figure


def take_text_literally(figure: Figure) -> None:
    """Let no `$` of a user's attribution, trait or name begin a formula, but those of ticks."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if "$" in text.get_text() and "\\mathdefault" not in text.get_text():
            text.set_parse_math(False)


def quiet_axes(axes: Axes) -> None:
    """Two thin spines, a pale horizontal grid, soft text."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(HAIRLINE)
    axes.grid(axis="y", color=HAIRLINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=SOFT_INK, labelsize=8.5, length=3, color=HAIRLINE)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(SOFT_INK)
        label.set_fontsize(9)


def lead_ticks(axes: Axes, leads: NDArray[np.float64]) -> None:
    """A tick at every lead, but none that would touch the one after it."""
    kept: list[float] = []
    for lead in sorted(leads, reverse=True):
        if not kept or kept[-1] - lead >= 0.06 * leads.max():
            kept.append(float(lead))
    axes.set_xticks(kept, [f"{lead:g}" for lead in kept])


def wavenumber_ticks(axes: Axes, largest: int) -> None:
    """Powers of two, as plain numbers."""
    ticks = [2**k for k in range(largest.bit_length())]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()


def plain_log_numbers(axes: Axes) -> None:
    """Plain numbers, not powers of ten, on a logarithmic vertical axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_ylim()
    narrow = high / low < 30
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names to the right of the axes at the heights (value, name, colour) where lines end.

    Names that would overlap are pushed apart as little as it takes.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    x = axes.get_xlim()[1]
    figure_height = axes.figure.get_figure(root=True).get_size_inches()[1]
    gap = 11.5 / (72 * axes.get_position().height * figure_height)
    wanted = sorted((float(to_axes.transform((x, y))[1]), name, colour) for y, name, colour in ends)
    heights = np.array([height for height, _, _ in wanted])
    heights = _pushed_apart(heights, gap)
    for height, (_, name, colour) in zip(heights, wanted, strict=True):
        axes.annotate(
            name,
            (1.0, height),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=9,
            fontweight="bold" if name == "model" else "normal",
            annotation_clip=False,
        )


def _pushed_apart(ascending: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Ascending heights at least `gap` apart, groups that touch kept around their mean."""
    groups: list[list[float]] = []
    for height in ascending:
        groups.append([float(height)])
        while len(groups) > 1:
            below, above = groups[-2], groups[-1]
            top = np.mean(below) + gap * (len(below) - 1) / 2
            bottom = np.mean(above) - gap * (len(above) - 1) / 2
            if bottom - top >= gap - 1e-12:
                break
            groups[-2:] = [below + above]
    placed = [
        np.mean(group) + gap * (np.arange(len(group)) - (len(group) - 1) / 2) for group in groups
    ]
    return np.concatenate(placed) if placed else ascending


def degrees_east(value: float, _: object = None) -> str:
    """A longitude of either convention, as 60°E or 60°W."""
    value = (value + 180) % 360 - 180
    if value in (0, -180):
        return f"{abs(value):g}°"
    return f"{abs(value):g}°{'E' if value > 0 else 'W'}"


def degrees_north(value: float, _: object = None) -> str:
    """A latitude, as 30°N or 30°S."""
    return "0°" if value == 0 else f"{abs(value):g}°{'N' if value > 0 else 'S'}"


def cell_edges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half way between centres, and as far beyond the outermost ones as within."""
    middle = (centres[:-1] + centres[1:]) / 2
    first, last = 2 * centres[0] - middle[0], 2 * centres[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])
