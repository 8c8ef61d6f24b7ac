"""A picture of each prepared image: true and false colours, outlines of the plants, spectra.

What is shown is gathered while the image is written, so that nothing is read again. Figures are
made without pyplot, so that no window, backend or global state is touched.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.figures.style import INK, SOFT_INK, new_figure, quiet_axes, take_text_literally
from sciml_dchag.files.zarr_groups import PICTURES_FOLDER
from sciml_dchag.plants.colour import colour_weights, false_colour_weights, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PIXELS = 900
"""Lines and columns of a larger image are thinned for the picture."""
SAMPLED_PIXELS = 4000
"""Plant pixels whose spectra the quartiles are of."""
_GREEN, _CYAN = "#2e7d32", "#00e0ff"


class Sketch:
    """What is kept of an image for its picture while its blocks pass."""

    def __init__(self, wavelength_nm: NDArray[np.float64], plants: NDArray[np.int32]) -> None:
        self.wavelength_nm = wavelength_nm
        self.plants = plants
        true, self.colours_are = colour_weights(wavelength_nm)
        false, self.false_colours_are = false_colour_weights(wavelength_nm)
        self._weights = np.concatenate([true, false])
        self.step = max(1, -(-max(plants.shape) // MOST_PIXELS))
        self.shown = plants[:: self.step, :: self.step]
        self.colours = np.empty((6, *self.shown.shape), np.float32)
        rows, columns = np.nonzero(plants)
        # Evenly spread over the plants, so that the picture is the same every time.
        chosen = np.unique(np.linspace(0, len(rows) - 1, SAMPLED_PIXELS).astype(np.intp))
        chosen = chosen[: len(rows)]  # an image may have no plant
        self._rows, self._columns = rows[chosen], columns[chosen]
        self.spectra = np.empty((len(chosen), len(wavelength_nm)), np.float32)

    def add(self, line: int, spectra: NDArray[np.float32]) -> None:
        """Take from a line, (C, columns), what the picture needs."""
        if line % self.step == 0:
            self.colours[:, line // self.step] = self._weights @ spectra[:, :: self.step]
        first, last = np.searchsorted(self._rows, (line, line + 1))
        self.spectra[first:last] = spectra[:, self._columns[first:last]].T


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What is written around a picture."""

    name: str
    attribution: str
    simulated: bool
    plants_by: str


def draw(sketch: Sketch, caption: Caption) -> Figure:
    """Draw the picture of an image: four panels."""
    rows, columns = sketch.plants.shape
    # Panels as wide as images of usual shapes need, and never a ribbon.
    height = float(np.clip(4.6 * rows / columns, 2.2, 6.0))
    number = len(np.unique(sketch.plants[sketch.plants > 0]))
    what = f"{number or 'no'} plant{'s' * (number > 1)}, {rows} x {columns} pixels"
    label = "SYNTHETIC, " if caption.simulated else ""
    figure = new_figure(10.4, 2 * height + 1.3, caption.name, f"{label}{what}")
    axes = figure.subplots(2, 2)
    true = show(sketch.colours[:3])
    _image(axes[0, 0], true, "Colours", sketch.colours_are)
    _image(axes[0, 1], true, "Plants", caption.plants_by)
    _outline(axes[0, 1], sketch.shown)
    _image(axes[1, 0], show(sketch.colours[3:]), "False colours", sketch.false_colours_are)
    _spectrum(axes[1, 1], sketch)
    figure.text(
        0.012, 0.06 / figure.get_figheight(), caption.attribution, color=SOFT_INK, fontsize=7.5,
        ha="left", va="bottom",
    ).set_in_layout(False)  # fmt: skip
    return figure


def save(sketch: Sketch, caption: Caption, store: Path) -> None:
    """Put the picture of an image into a store."""
    (store / PICTURES_FOLDER).mkdir(exist_ok=True)
    figure = draw(sketch, caption)
    take_text_literally(figure)
    figure.savefig(store / PICTURES_FOLDER / f"{caption.name}.png", dpi=110)


def _title(axes: Axes, title: str, detail: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=10.5, fontweight="bold")
    axes.set_title(detail, loc="right", color=SOFT_INK, fontsize=8.5)


def _image(axes: Axes, colours: NDArray[np.float32], title: str, detail: str) -> None:
    axes.imshow(colours, interpolation="nearest")
    axes.set_axis_off()
    _title(axes, title, detail)


def _outline(axes: Axes, plants: NDArray[np.int32]) -> None:
    # A frame of background, so that outlines close at the image's border.
    framed = np.pad(plants, 1)
    rows, columns = (np.arange(-1, n + 1) for n in plants.shape)
    for plant in np.unique(plants[plants > 0]):
        mine = (framed == plant).astype(np.float32)
        axes.contour(columns, rows, mine, levels=[0.5], colors=[_CYAN], linewidths=1.4)
        y, x = np.argwhere(plants == plant).mean(axis=0)
        number = axes.text(x, y, str(plant), color=INK, fontsize=8, ha="center", va="center")
        number.set_bbox({"boxstyle": "round,pad=0.15", "facecolor": _CYAN, "linewidth": 0})
    axes.set_xlim(-0.5, plants.shape[1] - 0.5)
    axes.set_ylim(plants.shape[0] - 0.5, -0.5)


def _spectrum(axes: Axes, sketch: Sketch) -> None:
    if not np.isfinite(sketch.spectra).any():
        axes.set_axis_off()
        _title(axes, "Spectrum of the plants", "none")
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All-NaN slice|Mean of empty slice")
        low, high = np.nanquantile(sketch.spectra, (0.25, 0.75), axis=0)
        mean = np.nanmean(sketch.spectra, axis=0, dtype=np.float64)
    nm = sketch.wavelength_nm
    axes.fill_between(nm, low, high, color=_GREEN, alpha=0.22, linewidth=0)
    axes.plot(nm, mean, color=_GREEN, linewidth=1.8)
    quiet_axes(axes)
    axes.set_xlim(nm[0], nm[-1])
    axes.set_ylim(min(0.0, float(np.nanmin(low))), None)
    axes.set_xlabel("wavelength (nm)")
    axes.set_ylabel("reflectance")
    _title(axes, "Spectrum of the plants", "mean and quartiles")
