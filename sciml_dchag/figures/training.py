"""The picture of a training run: loss, learning rate and gradient norm by step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.figures.numbers import readable_number
from sciml_dchag.figures.style import (
    COLOURS,
    label_ends,
    new_figure,
    plain_log_numbers,
    quiet_axes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_training(records: Iterable[Mapping[str, Any]]) -> Figure:
    """Training and validation loss against the step, from the records of `log.jsonl`.

    The line is the mean over about a fiftieth of the run, the pale line beneath it every record.

    Args:
        records: mappings with `step` and `loss`, `validation_loss` or both; others are passed by.

    Raises:
        ValueError: no record with a loss.
    """
    kept = list(records)
    loss = _series(kept, "loss")
    validation = _series(kept, "validation_loss")
    if not loss.size and not validation.size:
        raise ValueError("no record has a step and a loss, so there is no curve to plot.")
    figure = new_figure(6.6, 4.0, "Loss during training")
    axes = figure.add_subplot()
    ends: list[tuple[float, str, str]] = []
    if loss.size:
        axes.plot(*loss, color=COLOURS["model"], linewidth=0.8, alpha=0.25)
        smooth = _running_mean(loss, max(1, loss.shape[1] // 50))
        axes.plot(*smooth, color=COLOURS["model"], linewidth=2.0)
        ends.append((float(smooth[1, -1]), "training", COLOURS["model"]))
    if validation.size:
        colour = COLOURS["persistence"]
        axes.plot(*validation, color=colour, linewidth=1.4, marker="o", markersize=3.5)
        ends.append((float(validation[1, -1]), "validation", colour))
        step, least = validation[:, int(np.argmin(validation[1]))]
        axes.plot(step, least, "o", mfc="none", mec=colour, markersize=10, markeredgewidth=1.2)
        axes.annotate(
            f"best {readable_number(least)}",
            (step, least),
            xytext=(0, -16),
            textcoords="offset points",
            ha="center",
            color=colour,
            fontsize=8.5,
        )
    axes.set_yscale("log")
    quiet_axes(axes)
    plain_log_numbers(axes)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (normalised)")
    axes.set_xlim(0.0, max(float(series[0, -1]) for series in (loss, validation) if series.size))
    label_ends(axes, ends)
    return figure


def _series(records: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    """Steps and values of the records that hold a number under `key`, shape (2, records)."""
    pairs = [(r["step"], r[key]) for r in records if "step" in r and r.get(key) is not None]
    finite = [(float(x), float(y)) for x, y in pairs if math.isfinite(y)]
    return np.array(finite, dtype=np.float64).reshape(-1, 2).T


def _running_mean(series: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Steps and values averaged over `width` neighbours, shape (2, records - width + 1)."""
    kernel = np.full(width, 1.0 / width)
    return np.stack([np.convolve(row, kernel, mode="valid") for row in series])
