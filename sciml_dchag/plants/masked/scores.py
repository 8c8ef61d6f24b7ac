"""Scoring reconstructions of the test images beside interpolations, a mean spectrum and a PCA.

Statistic first, metric last, as everywhere here: sums over pixels are gathered by wavelength in
float64 and divided at the end, by `metrics`. Every location counts in each pass that hides it. Test
images touch nothing but the score: mean spectrum, PCA and the Gaussian process are those of the
training images.

The interpolations see what the model sees: the Gaussian process, with one kernel for all bands, and
inverse distance. The mean spectrum sees nothing of the image. The PCA sees the very pixel that it
reconstructs, in a fifth as many numbers as there are bands unless asked otherwise: it bounds what a
linear code of that size keeps, and no model that sees neighbours alone can be expected to reach it.
In as many numbers as bands it would be exact.

Shapes: C bands, H x W crop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.files.resumable import Progress
from sciml_dchag.objectives.interpolation import KERNELS, Interpolation, InverseDistance
from sciml_dchag.plants.crops import CubePatches
from sciml_dchag.plants.masked.metrics import METRICS, SCORED_INDICES, Floats, Sums
from sciml_dchag.plants.masked.reconstructor import Reconstruction, Reconstructor
from sciml_dchag.plants.masked.training import interpolation_errors
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.traits.indices import compute_index, reached_indices

KEYS = ("metric", "wavelength_nm")
"""What a reconstruction's score is of."""
INTERPOLATIONS = ("gaussian_process", "inverse_distance")
MODELS = ("model", *INTERPOLATIONS, "mean_spectrum", "pca")
"""Columns of the scores."""
IN_WORDS = {
    "gaussian_process": "a Gaussian process",
    "inverse_distance": "inverse distance",
    "mean_spectrum": "the mean spectrum",
}
"""What baselines are called in a sentence."""
TERMS = {
    "Hidden and visible": "What the model did not see of a crop, and what it saw. Passes that "
    "together hide every location are scored, each where it hides.",
    "Mean spectrum": "The mean over the plant pixels of the training images; it knows nothing of "
    "the image.",
    "Gaussian process": "Each band interpolated from the nearest visible pixels as the mean of a "
    "Gaussian process, whose kernel, one for all bands, is chosen on training images.",
    "Inverse distance": "The nearest visible pixels, weighted by the inverse square of their "
    "distance.",
    "PCA": "Principal components of the training images' spectra. It sees the very pixel that it "
    "reconstructs, in fewer numbers than there are bands.",
}
"""What words in the definitions of metrics mean."""


BANDS_A_COMPONENT = 5
"""As many times fewer components than bands has the PCA, unless asked otherwise."""


def number_of_components(asked: int, bands: int) -> int:
    """How many components the PCA has.

    Args:
        asked: of the recipe; 0 for a fifth of the bands.
        bands: number of bands.

    Raises:
        ValueError: as many as bands, with which it would be exact.
    """
    if asked >= bands:
        raise ValueError(
            f"evaluation.components is {asked} for {bands} bands, with which a PCA is exact and no "
            f"baseline: give fewer, or 0 for a fifth of the bands."
        )
    return asked or max(1, bands // BANDS_A_COMPONENT)


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """A linear code of spectra, from the training images' plant pixels."""

    mean: Floats
    """(C,)."""
    components: Floats
    """Orthonormal, (K, C)."""

    def reconstruct(self, spectra: Floats) -> Floats:
        """Project spectra, complete ones: (n, C) -> (n, C)."""
        return (spectra - self.mean) @ self.components.T @ self.components + self.mean


def fit_components(store: CubeStore, images: tuple[str, ...], number: int) -> PrincipalComponents:
    """Fit a PCA on the complete plant pixels of some images, one image in memory at a time.

    Args:
        store: the plant store.
        images: training images.
        number: of components, fewer where bands or pixels are fewer.
    """
    bands = len(store.channels)
    total, products, count = np.zeros(bands), np.zeros((bands, bands)), 0
    # About a value near the mean, so that nothing cancels in the products.
    origin = store.statistics().mean
    for image in images:
        for spectra in _plant_spectra(store, image):
            deviations = spectra - origin
            total += deviations.sum(0)
            products += deviations.T @ deviations
            count += len(spectra)
    shift = total / max(count, 1)
    covariance = products / max(count, 1) - np.outer(shift, shift)
    _, vectors = np.linalg.eigh(covariance)
    kept = max(1, min(number, bands, count - 1))
    return PrincipalComponents(origin + shift, vectors[:, ::-1][:, :kept].T.copy())


def _plant_spectra(store: CubeStore, image: str, lines: int = 64) -> Iterator[Floats]:
    plants = store.plants(image)
    for start in range(0, len(plants), lines):
        rows = slice(start, start + lines)
        if (here := plants[rows] > 0).any():
            spectra = store.reflectance(image, rows=rows)[:, here].T.astype(np.float64)
            yield spectra[np.isfinite(spectra).all(1)]


@dataclass
class _Errors:
    """Sums over pixels, by wavelength where an array, of one kind of reconstruction."""

    squares: dict[str, Floats] = field(default_factory=dict)
    """Squared errors, by `masked` and `visible`, (C,)."""
    angle: float = 0.0
    """Spectral angles, degrees."""
    index_squares: dict[str, float] = field(default_factory=dict)
    """Squared errors of indices."""


class ReconstructionScorer:
    """Gathers errors of a model and its baselines over the test images."""

    def __init__(self, reconstructor: Reconstructor, pca: PrincipalComponents) -> None:
        self.reconstructor, self.pca = reconstructor, pca
        self.wavelength_nm = reconstructor.store.wavelength_nm
        bands = len(self.wavelength_nm)
        self.weights = {part: np.zeros(bands) for part in ("masked", "visible")}
        self.truth = np.zeros(
            (2, bands)
        )  # of masked pixels: sum and sum of squares, about the mean
        self.pixels = 0
        reached: list[str] = []
        if "standard normal variate" not in reconstructor.store.quantity:
            reached, _ = reached_indices(self.wavelength_nm)
        self.indices = [name for name in SCORED_INDICES if name in reached]
        self.index_pixels = dict.fromkeys(self.indices, 0)
        self.errors = {
            model: _Errors(
                squares={part: np.zeros(bands) for part in self.weights},
                index_squares=dict.fromkeys(self.indices, 0.0),
            )
            for model in MODELS
        }

    def add(
        self,
        truth: NDArray[np.float32],
        one: Reconstruction,
        counts: NDArray[np.bool_],
    ) -> None:
        """Add one pass of a crop.

        Args:
            truth: reflectance, (C, H, W), NaN where not known.
            one: what is made of it.
            counts: pixels that are scored, (H, W).
        """
        true = truth[:, counts].T.astype(np.float64)
        if not len(true):
            return
        complete: NDArray[np.bool_] = np.asarray(np.isfinite(true).all(axis=1))
        pca = np.full_like(true, np.nan)
        pca[complete] = self.pca.reconstruct(true[complete])
        guesses = {
            "model": one.predicted[:, counts].T.astype(np.float64),
            **{name: f[:, counts].T.astype(np.float64) for name, f in one.interpolated.items()},
            "mean_spectrum": np.broadcast_to(self.reconstructor.mean, true.shape),
            "pca": pca,
        }
        unseen = one.hidden[:, counts].T
        # A pixel that is not complete has no PCA, and all are compared on the same pixels.
        known = np.broadcast_to(complete[:, None], true.shape)
        for part, where in (("masked", known & unseen), ("visible", known & ~unseen)):
            self.weights[part] += where.sum(0)
            for model, guess in guesses.items():
                self.errors[model].squares[part] += (np.where(where, guess - true, 0.0) ** 2).sum(0)
        deviation = np.where(known & unseen, true - self.reconstructor.mean, 0.0)
        self.truth += np.stack([deviation.sum(0), (deviation**2).sum(0)])
        scored = complete & unseen.any(1)
        self.pixels += int(scored.sum())
        for model, guess in guesses.items():
            self.errors[model].angle += float(spectral_angle(true[scored], guess[scored]).sum())
        for name in self.indices:
            self._add_index(name, true[scored], {m: g[scored] for m, g in guesses.items()})

    def _add_index(self, name: str, true: Floats, guesses: dict[str, Floats]) -> None:
        wanted = compute_index(name, true.T, self.wavelength_nm)
        found = {m: compute_index(name, g.T, self.wavelength_nm) for m, g in guesses.items()}
        known = np.isfinite(wanted) & np.all([np.isfinite(f) for f in found.values()], axis=0)
        self.index_pixels[name] += int(known.sum())
        for model, values in found.items():
            self.errors[model].index_squares[name] += float(((values - wanted)[known] ** 2).sum())

    def table(self) -> pd.DataFrame:
        """Turn the sums into an evaluation's table, one row per metric and wavelength.

        `wavelength_nm` is text: `all` over all bands.
        """
        sums = {model: self._sums(model) for model in MODELS}
        rows = []
        for metric in METRICS.values():
            if metric.index and metric.index not in self.indices:
                continue
            about = {"units": metric.units("1"), "perfect": metric.perfect_or_nan}
            values = {model: metric.overall(sums[model]) for model in MODELS}
            rows.append({"metric": metric.name, "wavelength_nm": "all", **about, **values})
            for band, nm in enumerate(self.wavelength_nm if metric.by_wavelength else ()):
                values = {model: metric.of_band(sums[model], band) for model in MODELS}
                rows.append({"metric": metric.name, "wavelength_nm": f"{nm:g}", **about, **values})
        return pd.DataFrame(rows)

    def _sums(self, model: str) -> Sums:
        errors, weights = self.errors[model], self.weights
        count = np.maximum(weights["masked"], 1)
        squares = dict(errors.squares)
        if model in INTERPOLATIONS:  # they copy what is visible, which is no reconstruction
            squares["visible"] = np.full_like(squares["visible"], np.nan)
        return Sums(
            squares={**squares, "all": squares["masked"] + squares["visible"]},
            weights={**weights, "all": weights["masked"] + weights["visible"]},
            variance=self.reconstructor.std**2,
            spread=self.truth[1] - self.truth[0] ** 2 / count,
            angle=errors.angle,
            pixels=self.pixels,
            index_squares=errors.index_squares,
            index_pixels=self.index_pixels,
        )


def spectral_angle(one: Floats, other: Floats) -> Floats:
    """Angle between spectra, degrees (Kruse et al. 1993, eq. 1): (n, C), (n, C) -> (n,).

    It does not depend on how bright either is.
    """
    product = (one * other).sum(-1)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    cosine = np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0)
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def score_images(
    reconstructor: Reconstructor,
    images: list[str],
    *,
    components: int = 0,
    batch: int = 8,
    progress: Progress | None = None,
) -> ReconstructionScorer:
    """Score a model on whole images, plants alone if it was trained on them alone.

    Args:
        reconstructor: the model on the images' store.
        images: names of test images.
        components: of the PCA; 0 for a fifth of the bands.
        batch: passes that are computed at once.
        progress: called for crops.

    Raises:
        ValueError: an image that is smaller than a crop; as many components as bands.
    """
    store = reconstructor.store
    number = number_of_components(components, len(store.channels))
    tiles = [(image, tile) for image in images for tile in reconstructor.tiles(image)]
    scorer = ReconstructionScorer(
        reconstructor, fit_components(store, store.statistics().cubes, number)
    )
    beside = interpolations(reconstructor)
    for index, (image, tile) in enumerate(tiles):
        truth = store.reflectance(image, rows=tile.rows, columns=tile.columns)
        counts = tile.new
        if reconstructor.recipe.task.plants_only:
            counts = counts & (store.plants(image, tile.rows, tile.columns) > 0)
        if counts.any():
            for one in reconstructor.reconstruct(truth, index, batch, beside):
                scorer.add(truth, one, counts)
        if progress is not None:
            progress(index + 1, len(tiles), "scoring crops")
    return scorer


def interpolations(reconstructor: Reconstructor) -> dict[str, Interpolation]:
    """The interpolations that stand beside a model, fitted on the training images alone."""
    store, recipe, task = reconstructor.store, reconstructor.recipe, reconstructor.task
    statistics, bands = store.statistics(), len(reconstructor.config.input_channels)
    samples = CubePatches(
        store, statistics.cubes, mean=statistics.mean, std=statistics.std,
        image_size=reconstructor.config.image_size, draw_mask=task.draw_mask, seed=recipe.seed,
        plants_only=recipe.task.plants_only,
    )  # fmt: skip
    everywhere = np.zeros(bands, np.int64)
    ((kernel, *_), _) = interpolation_errors(samples, task).choose(most=1)
    return {
        "gaussian_process": Interpolation((KERNELS[kernel],), everywhere),
        "inverse_distance": Interpolation((InverseDistance(),), everywhere),
    }


def without_undefined(
    table: pd.DataFrame, scorer: ReconstructionScorer
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Leave out rows whose score is NaN.

    Returns:
        The other rows, and one sentence with the reason for each metric of which some are left out.

    Raises:
        ValueError: no hidden pixel could be scored at all.
    """
    undefined = table["model"].isna()
    if not scorer.weights["masked"].any():
        raise ValueError(
            f"No hidden pixel of the test images in {scorer.reconstructor.store.path} can be "
            f"scored: none of them is on a plant and known in every band. Prepare the store with "
            f"another split, or without the bands that lack values (`drop_bands`)."
        )
    notes = []
    for name, rows in table[undefined].groupby("metric", sort=False):
        metric = METRICS[str(name)]
        if metric.index:
            why = f"no scored pixel has a value of {metric.index} in truth and reconstruction"
        elif name == "r2_masked":
            why = "the true values do not vary there"
        else:
            why = "no such pixel is known in every band"
        where = "" if "all" in set(rows["wavelength_nm"]) else f" at {len(rows)} wavelengths"
        notes.append(f"{metric.label} is left out{where}: {why}.")
    if "standard normal variate" in scorer.reconstructor.store.quantity:
        notes.append(
            f"Indices are left out: the values are the {scorer.reconstructor.store.quantity}."
        )
    return table[~undefined].reset_index(drop=True), tuple(notes)


def summary_of(table: pd.DataFrame) -> str:
    """Say in a sentence how the error of hidden pixels compares with the best baseline's."""
    overall = table[table["wavelength_nm"] == "all"].set_index("metric")
    row = overall.loc["mse_masked", [name for name in MODELS if name != "pca"]].astype(float)
    model, best = row.pop("model"), str(row.idxmin())
    against = f"{1 - model / row[best]:.1%} less" if model <= row[best] else (
        f"{model / row[best] - 1:.1%} more"
    )  # fmt: skip
    return (
        f"The squared error of hidden pixels is {model:.3g}, {against} than that of the best "
        f"baseline, {IN_WORDS[best]} ({row[best]:.3g}); that of the training images' mean "
        f"spectrum is {row['mean_spectrum']:.3g}."
    )
