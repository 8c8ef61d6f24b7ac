"""Pictures of a reconstruction: images side by side, spectra, errors by wavelength.

Every function takes arrays or rows and returns a matplotlib Figure; `plots.save_figure` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.figures.style import (
    COLOURS,
    INK,
    MISSING,
    SOFT_INK,
    label_ends,
    new_figure,
    plain_log_numbers,
    quiet_axes,
)
from sciml_dchag.plants.colour import true_colour

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

BASELINE_COLOURS = {
    "model": COLOURS["model"],
    "gaussian_process": COLOURS["ridge"],
    "mean_spectrum": COLOURS["persistence"],
    "pca": COLOURS["climatology"],
}
NAMES = {
    "model": "model",
    "gaussian_process": "Gaussian process",
    "mean_spectrum": "mean spectrum",
    "pca": "PCA (sees it)",
}


@dataclass(frozen=True, eq=False)
class Example:
    """One crop, one pass: what was there, what was shown, what was made of it."""

    image: str
    """Name of the image."""
    truth: NDArray[np.float32]
    """(C, H, W), NaN where not known."""
    predicted: NDArray[np.float32]
    """(C, H, W)."""
    hidden: NDArray[np.bool_]
    """Locations that were hidden, (H, W)."""
    plants: NDArray[np.bool_]
    """(H, W)."""


def plot_side_by_side(
    examples: Sequence[Example], wavelength_nm: NDArray[np.float64], subtitle: str = ""
) -> Figure:
    """Original, what the model saw, and its reconstruction of what is hidden, in colours."""
    rows, columns = examples[0].truth.shape[1:]
    height = max(1.4, min(3.2, 2.6 * rows / columns))
    figure = new_figure(8.4, height * len(examples) + 1.1, "Masked and reconstructed", subtitle)
    axes = figure.subplots(len(examples), 3, squeeze=False)
    for line, example in zip(axes, examples, strict=True):
        original = true_colour(example.truth, wavelength_nm)
        made = true_colour(example.predicted, wavelength_nm, like=example.truth)
        hidden = example.hidden[..., None]
        seen = np.where(hidden, _colour(MISSING), original)
        mixed = np.where(hidden, made, original)
        titles = (f"{example.image}", "what the model saw", "reconstructed where hidden")
        for panel, picture, title in zip(line, (original, seen, mixed), titles, strict=True):
            panel.imshow(picture, interpolation="nearest")
            panel.set_title(title, fontsize=9, color=SOFT_INK, loc="left")
            panel.set_axis_off()
    return figure


def plot_reconstructed_spectra(
    examples: Sequence[Example],
    wavelength_nm: NDArray[np.float64],
    mean_spectrum: NDArray[np.float64],
    number: int,
    subtitle: str = "",
) -> Figure:
    """True and reconstructed spectra of hidden plant pixels, evenly spread over brightness."""
    pairs = []
    for example in examples:
        where = example.hidden & example.plants & np.isfinite(example.truth).all(0)
        pairs += list(zip(example.truth[:, where].T, example.predicted[:, where].T, strict=True))
    pairs.sort(key=lambda pair: float(pair[0].mean()))
    chosen = [
        pairs[i] for i in np.unique(np.linspace(0, len(pairs) - 1, number).round().astype(int))
    ]
    columns = min(3, len(chosen))
    lines = -(-len(chosen) // columns)
    figure = new_figure(8.4, 2.1 * lines + 0.9, "Spectra of hidden pixels", subtitle)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for panel in grid.flat[len(chosen) :]:
        panel.set_axis_off()
    for place, (panel, (true, made)) in enumerate(zip(grid.flat, chosen, strict=False)):
        quiet_axes(panel)
        panel.plot(wavelength_nm, mean_spectrum, color=BASELINE_COLOURS["mean_spectrum"], lw=1)
        panel.plot(wavelength_nm, true, color=INK, lw=1)
        panel.plot(wavelength_nm, made, color=COLOURS["model"], lw=1.4)
        if place >= len(chosen) - columns:
            panel.set_xlabel("wavelength, nm")
        if place % columns == 0:
            panel.set_ylabel("reflectance")
    for text, colour, height in (
        ("true", INK, 0.94), ("model", COLOURS["model"], 0.83),
        ("mean spectrum", BASELINE_COLOURS["mean_spectrum"], 0.72),
    ):  # fmt: skip
        grid.flat[0].text(
            0.03, height, text, color=colour, fontsize=8.5, transform=grid.flat[0].transAxes
        )
    return figure


def plot_error_by_wavelength(table: pd.DataFrame, subtitle: str = "") -> Figure:
    """Root mean square error of hidden pixels at each wavelength, model and baselines.

    Args:
        table: scores as `ReconstructionScorer.table` gives them.
        subtitle: beside the heading.
    """
    chosen = table[(table["metric"] == "mse_masked") & (table["wavelength_nm"] != "all")]
    nm = chosen["wavelength_nm"].to_numpy(np.float64)
    figure = new_figure(8.4, 3.9, "Error by wavelength", subtitle)
    axes = figure.subplots()
    quiet_axes(axes)
    axes.set_yscale("log")
    ends = []
    for name, colour in BASELINE_COLOURS.items():
        error = np.sqrt(chosen[name].to_numpy(np.float64))
        axes.plot(nm, error, color=colour, lw=1.8 if name == "model" else 1.2)
        ends.append((float(error[-1]), NAMES[name], colour))
    plain_log_numbers(axes)
    axes.set_xlim(nm[0], nm[-1])
    axes.set_xlabel("wavelength, nm")
    axes.set_ylabel("RMSE of hidden pixels, reflectance")
    label_ends(axes, ends)
    return figure


def _colour(name: str) -> NDArray[np.float64]:
    from matplotlib.colors import to_rgb

    return np.array(to_rgb(name))
