"""Fitted regressions of traits: kept as JSON, and applied to new plants with an interval.

Each is linear in its features: mean reflectance by band, indices, or an embedding; or a line
through a normalised difference of two bands.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag._version import __version__
from sciml_dchag.files.atomic import write_text
from sciml_dchag.laws.two_band import TwoBandIndex, fit_two_band
from sciml_dchag.plants.traits.nested_regression import TWO_BAND, fit_linear
from sciml_dchag.plants.traits.plant_source import EMBEDDING, PlantSource, open_source

FORMAT = "sciml-dchag-traits-1"
MODELS = "models.json"
COVERAGE = 0.9
"""Fraction of new plants of the kind that was measured whose trait lies within the interval."""


@dataclass(frozen=True, kw_only=True)
class TraitModel:
    """A regression of one trait, fitted on all rows."""

    trait: str
    """The column of the table of traits."""
    units: str
    """Its units."""
    features: str
    """Kind of features."""
    regressor: str
    """`ridge`, `pls` or `two-band`."""
    names: list[str]
    """The features, in order."""
    intercept: float
    """In the trait's units."""
    coefficients: list[float]
    """Of each feature; for `two-band` the slope alone, of the difference of `names`."""
    importance: list[float]
    """VIP of each feature; for `pls`."""
    lowest: list[float]
    """Smallest value of each feature among the rows that it was fitted on."""
    highest: list[float]
    """Largest value."""
    r2: float
    """Of the pooled out-of-fold predictions."""
    rmse: float
    """Of these, in the trait's units."""
    rows: int
    """Plants or images that it was fitted on."""
    half_width: float
    """Of the interval: the quantile of the absolute out-of-fold errors that covers 90 % of new
    plants (cross-conformal: Barber et al. 2021, Annals of Statistics 49)."""
    encoder: str = ""
    """Hash of the weights that embeddings are by; without one, checkpoint and step."""

    def predict(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predict from features (plants, features): (plants,)."""
        if self.regressor == TWO_BAND:
            line = TwoBandIndex(
                first=0, second=1, slope=self.coefficients[0], intercept=self.intercept
            )
            return line.predict(X)
        return self.intercept + X @ np.asarray(self.coefficients)

    def outside(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fraction of features beyond those that it was fitted on, (plants,); NaN if unknown."""
        low, high = np.asarray(self.lowest), np.asarray(self.highest)
        beyond: NDArray[np.float64] = ((low > X) | (high < X)).mean(axis=1)
        return np.where(np.isfinite(X).all(axis=1), beyond, np.nan)


def half_width(errors: NDArray[np.float64]) -> float:
    """Half of the interval's width from absolute out-of-fold errors (rows,); inf if too few."""
    place = math.ceil((len(errors) + 1) * COVERAGE)
    return float(np.sort(errors)[place - 1]) if place <= len(errors) else math.inf


def fit_model(
    frame: pd.DataFrame,
    measured: NDArray[np.float64],
    groups: NDArray[Any],
    *,
    regressor: str,
    folds: int,
    seed: int,
    **known: Any,
) -> TraitModel:
    """Fit a regression on all rows; `known` are the other fields of `TraitModel`."""
    X = frame.to_numpy(np.float64)
    names: list[str] = list(map(str, frame.columns))
    importance: list[float] = []
    if regressor == TWO_BAND:
        line = fit_two_band(X, measured)
        bands = [line.first, line.second]
        X, names = X[:, bands], [names[band] for band in bands]
        intercept, coefficients = line.intercept, [line.slope]
    else:
        fit = fit_linear(X, measured, groups, regressor=regressor, folds=folds, seed=seed)
        intercept, coefficients = fit.intercept, fit.coefficients.tolist()
        importance = [] if fit.importance is None else fit.importance.tolist()
    return TraitModel(
        regressor=regressor, names=names, intercept=intercept, coefficients=coefficients,
        importance=importance, lowest=X.min(axis=0).tolist(), highest=X.max(axis=0).tolist(),
        rows=len(X), **known,
    )  # fmt: skip


def write_models(path: Path, models: Sequence[TraitModel], source: PlantSource) -> None:
    """Write models with what they come from."""
    record = {
        "format": FORMAT, "version": __version__, "attribution": source.attribution,
        "simulated": int(source.simulated), "source": str(source.path),
        "models": [asdict(model) for model in models],
    }  # fmt: skip
    write_text(path, json.dumps(record, indent=1))


def read_models(path: str | os.PathLike[str]) -> list[TraitModel]:
    """Read the models of a folder that `probe` wrote, or of its file.

    Raises:
        FileNotFoundError: there are none.
        ValueError: a file that cannot be read as such.
    """
    path = Path(path)
    file = path / MODELS if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"There are no fitted models of traits at {file}: write them with `sciml-dchag probe`."
        )
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']!r}")
        models = [TraitModel(**entry) for entry in record["models"]]
        for model in models:
            wanted = 1 if model.regressor == TWO_BAND else len(model.names)
            if len(model.coefficients) != wanted or not np.isfinite(model.coefficients).all():
                raise ValueError(f"its model of {model.trait!r} does not fit its features")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is no file of fitted models ({error}; {FORMAT} is needed): name the folder "
            f"that `sciml-dchag probe` wrote."
        ) from error
    return models


def encoder_of(source: PlantSource) -> str:
    """Say which encoder embeddings are by; nothing where there are none."""
    if source.embeddings is None:
        return ""
    attrs = source.embeddings.attrs
    return (
        str(attrs.get("encoder", ""))
        or f"{Path(str(attrs.get('checkpoint', ''))).name} step {attrs.get('step', '')}"
    )


def apply_models(
    models_path: str | os.PathLike[str],
    source_path: str | os.PathLike[str],
    *,
    traits: Sequence[str] = (),
    store_path: str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """Predict traits of new plants, each by its best model whose features are there.

    Args:
        models_path: the folder that `probe` wrote.
        source_path: a plant store, or a folder of embeddings.
        traits: names; none takes all.
        store_path: the store of embeddings that is not where it was.

    Returns:
        One row per plant: `cube`, `plant`, and for each trait its prediction, the bounds of an
        interval that holds 90 % of new plants like those measured (`TRAIT low`, `TRAIT high`), and
        the fraction of features beyond what the model has seen (`TRAIT outside`). `attrs` say which
        model each trait is of.

    Raises:
        FileNotFoundError: no models, or no plants.
        ValueError: a trait without a model, or features that the plants lack; which.
    """
    models, source = read_models(models_path), open_source(source_path, store_path)
    known = list(dict.fromkeys(model.trait for model in models))
    if missing := [name for name in traits if name not in known]:
        raise ValueError(f"{models_path} has no model of {missing[0]!r}: it has {known}.")
    features = source.features(list(dict.fromkeys(source.plants["cube"])))
    table = source.plants[["cube", "plant"]].copy()
    rows = pd.MultiIndex.from_frame(table)
    used: dict[str, str] = {}
    for trait in traits or known:
        of_trait = sorted((m for m in models if m.trait == trait), key=lambda m: -m.r2)
        reasons = [_lacking(model, features, source) for model in of_trait]
        fitting = [m for m, reason in zip(of_trait, reasons, strict=True) if reason is None]
        if not fitting:
            raise ValueError(f"{trait!r} cannot be predicted for {source.path}: {reasons[0]}.")
        model = fitting[0]
        X = features[model.features].reindex(rows)[model.names].to_numpy(np.float64)
        predicted = model.predict(X)
        if lacking := [f"{c} plant {n}" for c, n in rows[~np.isfinite(X).all(axis=1)]]:
            more = f" and {len(lacking) - 8} others" if len(lacking) > 8 else ""
            warnings.warn(
                f"{trait} of {', '.join(lacking[:8])}{more} is not predicted, as some of the "
                f"{model.features} features that its model needs have no value there.",
                stacklevel=2,
            )
        table[trait] = predicted
        table[f"{trait} low"] = predicted - model.half_width
        table[f"{trait} high"] = predicted + model.half_width
        table[f"{trait} outside"] = model.outside(X)
        used[trait] = f"{model.features}, {model.regressor}, R2 {model.r2:.3f} on {model.rows} rows"
    table.attrs = {"models": used, "attribution": source.attribution}
    return table


def _lacking(
    model: TraitModel, features: dict[str, pd.DataFrame], source: PlantSource
) -> str | None:
    """Say what a model needs that plants lack; None if it has all."""
    if model.features not in features:
        return f"its model needs the {model.features}, which {source.path} does not give"
    if model.features == EMBEDDING and model.encoder != encoder_of(source):
        return (
            f"its model is of embeddings by another encoder ({model.encoder}) than these are by "
            f"({encoder_of(source)}): embed the images with the run that the model was fitted on"
        )
    have = set(map(str, features[model.features].columns))
    if missing := [name for name in model.names if name not in have]:
        return (
            f"its model needs {missing[0]} and {len(missing) - 1} more of its {len(model.names)} "
            f"{model.features} features, which are not there: prepare the images with the bands "
            f"that the model was fitted on"
        )
    return None
