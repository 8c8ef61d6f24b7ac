"""What a law must beat: ridge regression, and the best normalised difference of two bands."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.laws.formula import Formula, r2
from sciml_dchag.laws.front import folds
from sciml_dchag.laws.table import Array, LawTable
from sciml_dchag.laws.two_band import fit_two_band

PENALTIES = tuple(10.0**power for power in range(-6, 5))
"""That folds of the training groups choose from; features are standardised."""
FOLDS = 5


def looks_like_bands(table: LawTable) -> tuple[str, ...]:
    """Names of inputs that are wavelengths, such as `r652.0`, `b_550` or `550`."""
    names = [column.name for column in table.inputs]
    return tuple(n for n in names if re.fullmatch(r"[A-Za-z]?_?\d{3,4}(\.\d+)?", n))


def baseline_scores(
    training: LawTable, held_out: LawTable, bands: tuple[str, ...]
) -> dict[str, tuple[float, float]]:
    """R2 on training rows and on held-out rows, by baseline.

    `mean` predicts the training rows' mean; `ridge` takes the inputs; `ridge of logarithms` the
    logarithms of those that are positive everywhere, and is left out where none is; `two-band
    index` is a line through the normalised difference of two bands that fits training rows best.
    """
    scores = {"mean": (0.0, r2(held_out.y, np.full_like(held_out.y, training.y.mean())))}
    scores["ridge"] = _ridge(training, held_out, training.X.T, held_out.X.T)
    positive = np.asarray((training.X > 0).all(axis=1) & (held_out.X > 0).all(axis=1))
    if positive.any():
        logs = (_with_logs(table.X, positive) for table in (training, held_out))
        scores["ridge of logarithms"] = _ridge(training, held_out, *logs)
    if len(bands) > 1:
        places = [column.name for column in training.inputs]
        chosen = [places.index(band) for band in bands]
        index = fit_two_band(training.X[chosen].T, training.y)
        scores["two-band index"] = (
            r2(training.y, index.predict(training.X[chosen].T)),
            r2(held_out.y, index.predict(held_out.X[chosen].T)),
        )
    return scores


def index_formulas(training: LawTable, bands: tuple[str, ...]) -> list[Formula]:
    """The best normalised difference times a fitted constant that has the units of the target.

    A search by proposals meets one pair of bands among many by chance; all pairs are quickly tried.
    None where there are no two bands of one unit, or no such constant.
    """
    from sympy import Symbol

    columns = {column.name: column for column in training.inputs}
    fitted = [
        constant
        for constant in training.constants
        if constant.value is None and constant.unit.exponents == training.target.unit.exponents
    ]
    if len(bands) < 2 or len({columns[b].unit.exponents for b in bands}) > 1 or not fitted:
        return []
    chosen = [list(columns).index(band) for band in bands]
    index = fit_two_band(training.X[chosen].T, training.y)
    one, other = Symbol(bands[index.first]), Symbol(bands[index.second])
    difference = (one - other) / (one + other)
    name = fitted[0].name
    return [Formula(expression=Symbol(name) * difference, constants={name: index.slope})]


def _with_logs(X: Array, positive: NDArray[np.bool_]) -> Array:
    return np.concatenate([X, np.log(X[positive])]).T


def _ridge(
    training: LawTable, held_out: LawTable, X: Array, X_held_out: Array
) -> tuple[float, float]:
    fold = folds(training.groups, FOLDS)
    errors = []
    for penalty in PENALTIES:
        parts = [
            _ridge_predict(X[fold != f], training.y[fold != f], X[fold == f], penalty)
            - training.y[fold == f]
            for f in np.unique(fold)
        ]
        errors.append(float(sum((part**2).sum() for part in parts)))
    penalty = PENALTIES[int(np.argmin(errors))]
    return (
        r2(training.y, _ridge_predict(X, training.y, X, penalty)),
        r2(held_out.y, _ridge_predict(X, training.y, X_held_out, penalty)),
    )


def _ridge_predict(X: Array, y: Array, X_new: Array, penalty: float) -> Array:
    mean, spread = X.mean(axis=0), X.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    Z = (X - mean) / spread
    weights = np.linalg.solve(Z.T @ Z + penalty * np.eye(Z.shape[1]), Z.T @ (y - y.mean()))
    return np.asarray(y.mean() + (X_new - mean) / spread @ weights)
