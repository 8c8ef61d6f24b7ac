"""How boxes that are found agree with the true ones: sums over images, and scores of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from sciml_dchag.objectives.boxes import intersection_over_union
from sciml_dchag.plants.detect.boxes import Floats, Found
from sciml_dchag.training.average_precision import OVERLAPS, Judged, average_precision, judge

LABELS = {
    "f1": "F1 at IoU 0.5", "precision": "Precision", "recall": "Recall",
    "ap50": "AP50", "ap50_95": "AP50:95", "count_error": "Count error",
    "count_spread": "Spread of count errors", "count_percent": "Absolute count error",
}  # fmt: skip
DEFINITIONS = {
    "f1": "2 found / (2 found + missed + false); found are pairs of boxes whose IoU is 0.5 or "
    "more, each box in one pair at most, the most probable first.",
    "precision": "Found / (found + false).",
    "recall": "Found / (found + missed).",
    "ap50": "Average precision, a pair being an IoU of 0.5 or more, as COCO defines it; the "
    "baselines' probability is the area.",
    "ap50_95": "The mean of average precisions at IoU 0.5, 0.55, ... 0.95.",
    "count_error": "Number of objects found in an image minus the true number, the mean.",
    "count_spread": "Standard deviation of that over images.",
    "count_percent": "Mean of the absolute count errors, of the mean true number.",
}
PERFECT = {"count_error": np.nan, "count_spread": 0.0, "count_percent": 0.0}
"""Perfect values that are not 1; an error may be 0 on average by accident."""


class BoxSums:
    """What one way to find objects adds up over images."""

    def __init__(self) -> None:
        self.hits = self.found = self.truth = 0
        self.counts: list[float] = []
        self.judged: list[Judged] = []

    def add(self, found: Found, truth: Floats, score: float) -> None:
        """Add an image.

        Args:
            found: all that was found.
            truth: the true boxes, (M, 4).
            score: least probability of what counts; average precision looks at all.
        """
        self.judged.append(judge(found.scores, overlap_of(found.boxes, truth)))
        self.pair(found.at_least(score), truth)

    def pair(self, counted: Found, truth: Floats) -> None:
        """Add what pairs of an image say: all but average precision."""
        self.counts.append(len(counted) - len(truth))
        self.found += len(counted)
        self.truth += len(truth)
        overlap = overlap_of(counted.boxes, truth)
        judged = judge(counted.scores, overlap, most=len(counted), overlaps=OVERLAPS[:1])
        self.hits += int(judged.hits[0].sum())

    def f1(self) -> float:
        """2 found / (2 found + missed + false); NaN where there is nothing."""
        return _ratio(2 * self.hits, self.found + self.truth)

    def count_error(self) -> float:
        """Mean absolute error of the number of objects in an image; NaN where there is no image."""
        return _ratio(float(np.abs(self.counts).sum()), len(self.counts))

    def scores(self) -> dict[str, float]:
        """All scores, by metric."""
        by_overlap = average_precision(self.judged) if self.judged else np.full(len(OVERLAPS), 0.0)
        return {
            "f1": self.f1(),
            "precision": _ratio(self.hits, self.found),
            "recall": _ratio(self.hits, self.truth),
            "ap50": float(by_overlap[0]),
            "ap50_95": float(by_overlap.mean()),
            **count_scores(np.array(self.counts), self.truth),
        }


def count_scores(errors: Floats, truth: int) -> dict[str, float]:
    """Scores of counts alone.

    Args:
        errors: number found minus true number, by image.
        truth: true number in all images.
    """
    return {
        "count_error": float(errors.mean()),
        "count_spread": float(errors.std()),
        "count_percent": 100 * _ratio(float(np.abs(errors).sum()), truth),
    }


def overlap_of(found: Floats, truth: Floats) -> Floats:
    """IoU of each pair of boxes, (N, M)."""
    one, other = torch.from_numpy(found)[:, None], torch.from_numpy(truth)[None]
    overlap: Floats = intersection_over_union(one, other).numpy()
    return overlap


def scores_table(columns: dict[str, dict[str, float]]) -> pd.DataFrame:
    """One row per score; a column for the model and one for each baseline, NaN where it has none.

    Args:
        columns: scores of each, by metric.
    """
    rows = [
        {
            "metric": metric, "units": "%" if metric == "count_percent" else "1",
            "perfect": PERFECT.get(metric, 1.0),
            **{name: scores.get(metric, np.nan) for name, scores in columns.items()},
        }
        for metric in LABELS
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _ratio(one: float, other: float) -> float:
    return one / other if other else np.nan
