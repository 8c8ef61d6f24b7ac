"""Pictures of what is known of plants: maps of indices, traits predicted against measured.

Every function takes arrays and returns a matplotlib Figure; `plots.save_figure` writes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.figures.numbers import readable_number
from sciml_dchag.figures.style import COLOURS, HAIRLINE, INK, SOFT_INK, new_figure, quiet_axes
from sciml_dchag.plants.traits.indices import INDICES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BACKGROUND = "#eceef1"
SYNTHETIC = "SYNTHETIC, not observed"


def plot_index_maps(
    maps: Mapping[str, NDArray[np.float64]],
    *,
    title: str,
    simulated: bool = False,
    places: Mapping[int, tuple[float, float]] | None = None,
) -> Figure:
    """Draw maps of indices side by side, each with its own colour bar.

    The scales leave out the outermost 2 percent of the values on either side, which the arrows of
    the colour bars say. NaN is pale grey.

    Args:
        maps: (rows, columns) by name of the index, NaN off the plants.
        title: of the picture, such as the image's name.
        simulated: whether to say that the image is synthetic.
        places: centroids (row, column) by the number of the plant, written there.

    Raises:
        ValueError: there is no map.
    """
    if not maps:
        raise ValueError("There is no index to draw: name one at least.")
    rows, across = next(iter(maps.values())).shape
    columns = min(3 if across > rows / 2 else 5, len(maps))
    lines = math.ceil(len(maps) / columns)
    aspect = min(max(rows / across, 0.28), 2.2)
    panel_width = 3.4 if aspect < 1.3 else 2.6
    subtitle = f"{rows} × {across} pixels"  # noqa: RUF001
    figure = new_figure(
        max(5.2, columns * (panel_width + 0.2)),
        0.9 + lines * (0.45 + (panel_width - 0.9) * aspect),
        title,
        f"{subtitle}, {SYNTHETIC}" if simulated else subtitle,
    )
    for place, (name, values) in enumerate(maps.items()):
        axes = figure.add_subplot(lines, columns, place + 1)
        _index_panel(axes, name, values)
        for number, (y, x) in (places or {}).items():
            text = axes.text(x, y, str(number), color=INK, fontsize=7, ha="center", va="center")
            text.set_bbox({"boxstyle": "round,pad=0.12", "facecolor": BACKGROUND, "linewidth": 0})
    return figure


def _index_panel(axes: Axes, name: str, values: NDArray[np.float64]) -> None:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [2, 98]) if finite.size else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    image = axes.imshow(np.ma.masked_invalid(values), cmap="viridis", vmin=low, vmax=high)
    axes.set_facecolor(BACKGROUND)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(HAIRLINE)
    units = INDICES[name].units
    axes.set_title(name, loc="left", color=INK, fontsize=10.5, fontweight="bold")
    axes.set_title("" if units == "1" else units, loc="right", color=SOFT_INK, fontsize=9)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.03, aspect=24, extend="both")
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=SOFT_INK, labelsize=8, length=2, color=HAIRLINE)


def plot_predictions(
    scores: pd.DataFrame, predictions: pd.DataFrame, *, simulated: bool = False
) -> Figure:
    """Draw a trait predicted out of fold against measured: regressors down, features across.

    Args:
        scores: rows of one trait with `trait`, `units`, `features`, `regressor`, `r2`, `rmse`.
        predictions: rows of that trait with `features`, `regressor`, `measured`, `predicted`.
        simulated: whether to say that the images are synthetic.

    Raises:
        ValueError: there is no regression among the scores.
    """
    drawn = scores[scores["features"] != "none"]
    if drawn.empty:
        raise ValueError("There is no regression to draw: score one at least.")
    kinds = list(dict.fromkeys(drawn["features"]))
    regressors = list(dict.fromkeys(drawn["regressor"]))
    trait, units = str(drawn["trait"].iloc[0]), str(drawn["units"].iloc[0])
    cases = list(drawn[["features", "regressor"]].itertuples(index=False, name=None))
    rows = len(predictions.merge(drawn[["features", "regressor"]].iloc[[0]]))
    subtitle = f"predicted out of fold, {rows} rows"
    figure = new_figure(
        max(6.2, 0.6 + 3.1 * len(kinds)),
        0.9 + 3.1 * len(regressors),
        trait,
        f"{subtitle}, {SYNTHETIC}" if simulated else subtitle,
    )
    limits = _common_limits(predictions["measured"], drawn, predictions)
    for line, regressor in enumerate(regressors):
        of_line = [kind for kind in kinds if (kind, regressor) in cases]
        for kind in of_line:
            column = kinds.index(kind)
            axes = figure.add_subplot(len(regressors), len(kinds), line * len(kinds) + column + 1)
            score = drawn[(drawn["features"] == kind) & (drawn["regressor"] == regressor)].iloc[0]
            shown = predictions[
                (predictions["features"] == kind) & (predictions["regressor"] == regressor)
            ]
            _prediction_panel(axes, shown, limits)
            name = {"pls": "PLS"}.get(regressor, regressor)
            axes.set_title(f"{kind}, {name}", loc="left", color=INK, fontsize=10, fontweight="bold")
            r2 = f"{score['r2']:.2f}".replace("-", "\N{MINUS SIGN}")
            text = f"R² {r2}\nRMSE {readable_number(score['rmse'])} {units}".rstrip()
            axes.text(
                0.04, 0.96, text, transform=axes.transAxes, va="top", color=SOFT_INK, fontsize=9
            )
            if not any((kind, below) in cases for below in regressors[line + 1 :]):
                axes.set_xlabel("measured")
            if kind == of_line[0]:
                axes.set_ylabel("predicted")
    return figure


def _common_limits(
    measured: pd.Series, scores: pd.DataFrame, predictions: pd.DataFrame
) -> tuple[float, float]:
    """Limits of all panels; predictions far off the measured range do not squeeze the others."""
    predicted = predictions[predictions["features"].isin(set(scores["features"]))]["predicted"]
    spread = float(measured.max() - measured.min())
    low = max(float(min(measured.min(), predicted.min())), float(measured.min()) - spread / 2)
    high = min(float(max(measured.max(), predicted.max())), float(measured.max()) + spread / 2)
    return low - 0.05 * spread, high + 0.05 * spread


def _prediction_panel(axes: Axes, shown: pd.DataFrame, limits: tuple[float, float]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.plot(limits, limits, color=SOFT_INK, linewidth=0.8, zorder=1)
    axes.scatter(
        shown["measured"],
        np.clip(shown["predicted"], *limits),  # what lies beyond is drawn at the edge
        s=16,
        color=COLOURS["model"],
        alpha=0.65,
        linewidths=0,
        zorder=2,
        clip_on=False,
    )
    quiet_axes(axes)
    axes.grid(axis="x", color=HAIRLINE, linewidth=0.6)
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
