"""Ridge and partial least squares regression, scored by nested cross-validation over groups.

Rows of one group, such as repeated measurements of one plant, are never on both sides of a split.
Everything that is learnt, standardisation included, is learnt on the training side. Where the rows
come from is not known here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sciml_dchag.laws.two_band import fit_two_band

Array = NDArray[np.float64]

REGRESSORS = ("ridge", "pls")
"""Ridge regression on standardised features; partial least squares on standardised features."""
TWO_BAND = "two-band"
"""A line through the best normalised difference of two bands; for spectra."""
RIDGE_PENALTIES = tuple(10.0 ** (half / 2) for half in range(-8, 13))
"""Penalties that the inner folds choose from; features are standardised."""
MOST_COMPONENTS = 20
"""Most components of partial least squares that the inner folds choose from."""
LEAST_FOLDS = 3
"""With fewer, the inner folds of the smallest table have one row to learn from."""


@dataclass(frozen=True, eq=False, kw_only=True)
class OutOfFold:
    """Predictions of rows by regressions that have seen no row of their group."""

    predicted: NDArray[np.float64]
    """(rows,), in the trait's units."""
    fold: NDArray[np.int64]
    """Which outer fold each row was predicted in, (rows,)."""
    chosen: tuple[float, ...]
    """Penalty, or number of components, that each outer fold's inner folds chose."""


def predict_out_of_fold(
    features: ArrayLike,
    measured: ArrayLike,
    groups: Sequence[object] | NDArray[Any],
    *,
    regressor: str,
    folds: int = 5,
    seed: int = 0,
) -> OutOfFold:
    """Predict each row by a regression on the other folds, tuned on folds of those.

    Args:
        features: (rows, features), finite.
        measured: (rows,), finite.
        groups: a label a row; rows of one label stay together.
        regressor: a name of `REGRESSORS`, `two-band`, or `mean`, which predicts the training
            folds' mean.
        folds: outer folds, and inner ones.
        seed: of the division into folds, which is the same for all features and regressors.

    Raises:
        ValueError: too few groups for the folds.
    """
    X, y = np.asarray(features, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    codes = np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]
    require_groups(len(np.unique(codes)), folds)
    predicted, fold_of_row = np.full(len(y), np.nan), np.full(len(y), -1, dtype=np.int64)
    chosen: list[float] = []
    for fold, (training, held_out) in enumerate(_split(codes, folds, [seed])):
        fold_of_row[held_out] = fold
        if regressor == "mean":
            predicted[held_out] = y[training].mean()
            continue
        if regressor == TWO_BAND:
            predicted[held_out] = fit_two_band(X[training], y[training]).predict(X[held_out])
            continue
        inner = _split(codes[training], folds, [seed, fold])
        setting = _tune(regressor, X[training], y[training], inner)
        predicted[held_out] = _path(regressor, X[training], y[training], X[held_out])[:, setting]
        chosen.append(RIDGE_PENALTIES[setting] if regressor == "ridge" else float(setting + 1))
    return OutOfFold(predicted=predicted, fold=fold_of_row, chosen=tuple(chosen))


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearFit:
    """A regression on all rows, in the units of features and trait."""

    intercept: float
    """In the trait's units."""
    coefficients: NDArray[np.float64]
    """Of each feature, (features,)."""
    importance: NDArray[np.float64] | None
    """Variable importance in projection of partial least squares, (features,); above 1 matters."""
    chosen: float
    """Penalty, or number of components."""


def fit_linear(
    features: ArrayLike,
    measured: ArrayLike,
    groups: Sequence[object] | NDArray[Any],
    *,
    regressor: str,
    folds: int = 5,
    seed: int = 0,
) -> LinearFit:
    """Fit `ridge` or `pls` on all rows, tuned by folds of them; see `predict_out_of_fold`.

    VIP_j = sqrt(p sum_k s_k (w_jk / |w_k|)^2 / sum_k s_k), where s_k is the variance of the trait
    that component k explains, w its weights and p the number of features (Chong and Jun 2005,
    Chemometrics and Intelligent Laboratory Systems 78).
    """
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    X, y = np.asarray(features, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    codes = np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]
    setting = _tune(regressor, X, y, _split(codes, folds, [seed]))
    scaler = StandardScaler().fit(X)
    importance, chosen = None, float(setting + 1)
    if regressor == "ridge":
        chosen = RIDGE_PENALTIES[setting]
        standard = Ridge(alpha=chosen, solver="svd").fit(scaler.transform(X), y).coef_
    else:
        pls = _fit_pls(scaler.transform(X), y, setting + 1)
        standard = pls.coef_[0]
        explained = pls.y_loadings_[0] ** 2 * (pls.x_scores_**2).sum(axis=0)
        weights = pls.x_weights_ / np.linalg.norm(pls.x_weights_, axis=0)
        importance = np.sqrt(X.shape[1] * (weights**2 @ explained) / explained.sum())
    coefficients = np.asarray(standard) / scaler.scale_
    intercept = float(y.mean() - coefficients @ scaler.mean_)
    return LinearFit(
        intercept=intercept, coefficients=coefficients, importance=importance, chosen=chosen
    )


def require_groups(groups: int, folds: int) -> None:
    """Refuse fewer than two groups a fold.

    Raises:
        ValueError: too few groups, or too few folds.
    """
    if folds < LEAST_FOLDS:
        raise ValueError(f"{folds} folds are too few to tune and to score: take {LEAST_FOLDS}.")
    if groups < 2 * folds:
        raise ValueError(
            f"there are {groups} plants (or groups), but {folds} folds need {2 * folds}: measure "
            f"more, or take fewer folds with `folds`, {LEAST_FOLDS} at least."
        )


def r2_score(measured: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """Part of the variance of all measured values that the predictions explain.

    1 - sum((measured - predicted)^2) / sum((measured - mean(measured))^2) over the pooled rows, not
    the mean of the folds' own. Below 0 where the mean would have been better.
    """
    residual = float(((measured - predicted) ** 2).sum())
    return 1.0 - residual / float(((measured - measured.mean()) ** 2).sum())


def root_mean_square_error(measured: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """Root of the mean squared error over the pooled rows, in the trait's units."""
    return math.sqrt(float(((measured - predicted) ** 2).mean()))


def _split(
    codes: NDArray[np.int64], folds: int, seed: list[int]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Divide rows into folds of about equal size that keep groups whole: (training, held out)."""
    from sklearn.model_selection import GroupKFold

    # GroupKFold deals groups by size, and those of one size by their number, so that shuffled
    # numbers give a random and still even division.
    present, codes = np.unique(codes, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(present))[codes]
    splits = GroupKFold(n_splits=folds).split(np.zeros(len(codes)), groups=shuffled)
    return [(np.asarray(training), np.asarray(held_out)) for training, held_out in splits]


def _tune(
    regressor: str, X: Array, y: Array, inner: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> int:
    """Return which setting has the least squared error over the rows of the inner folds."""
    squares: list[Array] = []
    for training, held_out in inner:
        predicted = _path(regressor, X[training], y[training], X[held_out])
        squares.append(((predicted - y[held_out, None]) ** 2).sum(axis=0))
    # The smallest inner fold decides how many components there can be.
    most = min(len(one) for one in squares)
    return int(np.sum([one[:most] for one in squares], axis=0).argmin())


def _path(regressor: str, X: Array, y: Array, X_new: Array) -> Array:
    """Predict with every setting, each a column: penalties, or 1, 2, ... components."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(X)
    X, X_new = scaler.transform(X), scaler.transform(X_new)
    if regressor == "ridge":
        # One decomposition serves all penalties, given as those of as many equal targets.
        ridge = Ridge(alpha=np.array(RIDGE_PENALTIES), solver="svd")
        every = np.repeat(y[:, None], len(RIDGE_PENALTIES), axis=1)
        return np.asarray(ridge.fit(X, every).predict(X_new))
    assert regressor == "pls", regressor
    pls = _fit_pls(X, y, min(MOST_COMPONENTS, X.shape[1], len(X) - 1))
    # Components are found one after the other, so that the first k are the regression with k.
    return np.asarray(y.mean() + np.cumsum(pls.transform(X_new) * pls.y_loadings_[0], axis=1))


def _fit_pls(X: Array, y: Array, components: int) -> Any:
    """Fit partial least squares on standardised features."""
    from sklearn.cross_decomposition import PLSRegression

    with warnings.catch_warnings():
        # Said where fewer components explain all there is; further ones change nothing then.
        warnings.filterwarnings("ignore", message=".*residual is constant at iteration")
        return PLSRegression(n_components=components, scale=False).fit(X, y)
