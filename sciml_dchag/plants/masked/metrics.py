"""The scores of a reconstruction that there are. To add one, add its `ReconstructionMetric`.

Every metric is a ratio of sums over pixels, which `scores.ReconstructionScorer` keeps: over all
bands, and band by band where that has a meaning.

Shapes: C bands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.figures.metric import Metric, readable_units
from sciml_dchag.plants.traits.indices import INDICES

Floats = NDArray[np.float64]
Ratio = tuple[Floats, Floats]

SCORED_INDICES = ("NDVI", "PRI", "REP")
"""Indices whose error is scored, where the bands reach."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Sums:
    """Sums over the scored pixels of one kind of reconstruction."""

    squares: Mapping[str, Floats]
    """Squared errors of `masked`, `visible` and `all` pixels, (C,) each."""
    weights: Mapping[str, Floats]
    """Numbers of these pixels, (C,) each."""
    variance: Floats
    """Of the training images, by which the loss is normalised, (C,)."""
    spread: Floats
    """Squared deviations of the true masked pixels from their own mean, (C,)."""
    angle: float
    """Spectral angles, degrees."""
    pixels: int
    """Pixels that have an angle."""
    index_squares: Mapping[str, float]
    """Squared errors of the indices that the bands reach."""
    index_pixels: Mapping[str, int]
    """Pixels that have such an index."""


def _same(ratio: float) -> float:
    return ratio


@dataclass(frozen=True, kw_only=True)
class ReconstructionMetric(Metric):
    """A score of a reconstruction."""

    ratio: Callable[[Sums], Ratio]
    """Numerator and denominator by band, (C,), or of all bands, (1,)."""
    finish: Callable[[float], float] = _same
    """From the ratio to the score."""
    by_wavelength: bool = False
    """Whether each band has a score of its own."""
    index: str = ""
    """An index that the bands must reach, or there is no such score."""

    def overall(self, sums: Sums) -> float:
        """The score over all bands; NaN where nothing was counted."""
        numerator, denominator = self.ratio(sums)
        return self._score(float(numerator.sum()), float(denominator.sum()))

    def of_band(self, sums: Sums, band: int) -> float:
        """The score of one band; NaN where nothing was counted."""
        numerator, denominator = self.ratio(sums)
        return self._score(float(numerator[band]), float(denominator[band]))

    def _score(self, numerator: float, denominator: float) -> float:
        return self.finish(numerator / denominator) if denominator > 0 else float("nan")


def _mse(name: str, label: str, pixels: str) -> ReconstructionMetric:
    return ReconstructionMetric(
        name=f"mse_{name}",
        label=label,
        formula=f"Mean squared error of reflectance over {pixels}.",
        perfect=0.0,
        reference="He et al. 2022, Masked Autoencoders Are Scalable Vision Learners, "
        "arXiv:2111.06377",
        ratio=lambda sums: (sums.squares[name], sums.weights[name]),
        by_wavelength=True,
    )


def _rmse_of_index(name: str) -> ReconstructionMetric:
    index = INDICES[name]
    return ReconstructionMetric(
        name=f"rmse_{name}",
        label=f"RMSE of {name}",
        formula=f"Root mean squared error of {index.long_name}, {index.formula}, over pixels of "
        f"which some band was hidden.",
        perfect=0.0,
        units=lambda _: readable_units(index.units),
        reference=index.source,
        ratio=lambda sums: (
            np.array([sums.index_squares[name]]),
            np.array([sums.index_pixels[name]], np.float64),
        ),
        finish=lambda ratio: ratio**0.5,
        index=name,
    )


METRICS: dict[str, ReconstructionMetric] = {
    metric.name: metric
    for metric in (
        _mse("masked", "MSE of hidden pixels", "pixels that the model did not see"),
        _mse("visible", "MSE of visible pixels", "pixels that the model saw"),
        _mse("all", "MSE of all pixels", "hidden and visible pixels"),
        ReconstructionMetric(
            name="loss_masked",
            label="Normalised MSE of hidden pixels",
            formula="Mean over pixels that the model did not see of the squared error divided by "
            "the variance of the band over the training images: what training minimises.",
            perfect=0.0,
            reference="He et al. 2022, Masked Autoencoders Are Scalable Vision Learners, "
            "arXiv:2111.06377",
            ratio=lambda sums: (sums.squares["masked"] / sums.variance, sums.weights["masked"]),
        ),
        ReconstructionMetric(
            name="r2_masked",
            label="R² of hidden pixels",
            formula="Coefficient of determination: 1 minus the squared error of hidden pixels "
            "divided by their squared deviations from their own mean.",
            perfect=1.0,
            reference="Draper and Smith 1998, Applied Regression Analysis, section 1.3",
            ratio=lambda sums: (sums.squares["masked"], sums.spread),
            finish=lambda ratio: 1 - ratio,
            by_wavelength=True,
        ),
        ReconstructionMetric(
            name="spectral_angle_degrees",
            label="Spectral angle",
            formula="Mean angle between true and reconstructed spectra as vectors, over pixels of "
            "which some band was hidden; it does not depend on how bright either is.",
            perfect=0.0,
            units=lambda _: "degrees",
            reference="Kruse et al. 1993, The Spectral Image Processing System, equation 1",
            ratio=lambda sums: (np.array([sums.angle]), np.array([sums.pixels], np.float64)),
        ),
        *(_rmse_of_index(name) for name in SCORED_INDICES),
    )
}
"""By name, in the order of tables."""
