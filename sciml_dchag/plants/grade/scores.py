"""Scores of grades and of lesions' fraction of the plant."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.plants.grade.labels import UNKNOWN

LABELS = {
    "accuracy": "Accuracy", "kappa": "Weighted kappa", "macro_f1": "Macro F1",
    "within_one": "Within one grade", "ratio_error": "Error of lesions' fraction",
}  # fmt: skip
DEFINITIONS = {
    "accuracy": "Fraction of images whose grade is right.",
    "kappa": "Cohen's kappa with quadratic weights (Cohen 1968): agreement beyond chance, where an "
    "error of two grades counts four times that of one.",
    "macro_f1": "Mean F1 of the grades that occur, each counting the same.",
    "within_one": "Fraction of images at most one grade off.",
    "ratio_error": "Mean absolute error of the fraction of the plant that is lesion, in percentage "
    "points, where lesions are drawn.",
}


def grade_scores(
    said: NDArray[np.int64], truth: NDArray[np.int64], grades: int
) -> dict[str, float]:
    """Scores of grades by metric; NaN where undefined.

    Args:
        said: the grades given, (N,).
        truth: the true ones, (N,).
        grades: number of grades of the scale.
    """
    confusion = np.zeros((grades, grades))
    np.add.at(confusion, (truth, said), 1)
    total, right = confusion.sum(), np.diag(confusion)
    squares = (np.arange(grades)[:, None] - np.arange(grades)) ** 2
    expected = np.outer(confusion.sum(1), confusion.sum(0)) / total
    by_chance = (squares * expected).sum()
    occur = confusion.sum(0) + confusion.sum(1)
    f1 = 2 * right[occur > 0] / occur[occur > 0]
    return {
        "accuracy": float(right.sum() / total),
        "kappa": float(1 - (squares * confusion).sum() / by_chance) if by_chance else np.nan,
        "macro_f1": float(f1.mean()),
        "within_one": float((abs(said - truth) <= 1).mean()),
    }


def scores_table(said: dict[str, pd.DataFrame], truth: pd.DataFrame, grades: int) -> pd.DataFrame:
    """One row per score; a column for the model and one for each baseline.

    Args:
        said: by name, one row per image: `grade` and, where it is said, `lesion_percent`.
        truth: the same images: `grade`, `UNKNOWN` where not known, and `lesion_percent`, NaN where
            lesions are not drawn.
        grades: number of grades of the scale.
    """
    known = truth["grade"].to_numpy() != UNKNOWN
    drawn = truth["lesion_percent"].notna().to_numpy()
    columns: dict[str, dict[str, float]] = {}
    for name, one in said.items():
        scores = dict.fromkeys(LABELS, np.nan)
        if known.any():
            scores |= grade_scores(
                one["grade"].to_numpy()[known], truth["grade"].to_numpy()[known], grades
            )
        if drawn.any() and "lesion_percent" in one:
            apart = (one["lesion_percent"] - truth["lesion_percent"]).to_numpy()[drawn]
            scores["ratio_error"] = float(abs(apart).mean())
        columns[name] = scores
    rows = [
        {
            "metric": metric, "units": "%" if metric == "ratio_error" else "1",
            "perfect": 0.0 if metric == "ratio_error" else 1.0,
            **{name: scores[metric] for name, scores in columns.items()},
        }
        for metric in LABELS
        if metric != "ratio_error" or drawn.any()
    ]  # fmt: skip
    return pd.DataFrame(rows)
