"""How objects that are found agree with the true ones: sums over times, and scores of them.

Pairs for F1, place and attributes are those of `objects.matching`: at most so many km apart. Boxes
of one size stand for objects, so that overlap is a matter of place, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from sciml_dchag.objectives.boxes import intersection_over_union
from sciml_dchag.training.average_precision import OVERLAPS, Judged, average_precision, judge
from sciml_dchag.weather.detect.labels import BoxGrid, Located
from sciml_dchag.weather.objects.finding import Objects
from sciml_dchag.weather.objects.matching import match

Floats = NDArray[np.float64]

LABELS = {
    "f1": "F1", "precision": "Precision", "recall": "Recall", "place_error": "Place error",
    "count_error": "Count error", "count_spread": "Spread of count errors",
    "f1_iou50": "F1 at IoU 0.5", "ap50": "AP50", "ap50_95": "AP50:95",
    "bias": "Bias", "rms": "RMS error",
}  # fmt: skip
DEFINITIONS = {
    "f1": "2 found / (2 found + missed + false); found are pairs within evaluation.within_km.",
    "precision": "Found / (found + false).",
    "recall": "Found / (found + missed).",
    "place_error": "Mean great-circle distance of pairs.",
    "count_error": "Number of objects found at a time minus the true number, the mean over times.",
    "count_spread": "Standard deviation of that over times.",
    "f1_iou50": "F1 where pairs are boxes that overlap by an IoU of 0.5 or more.",
    "ap50": "Average precision of boxes, a pair being an IoU of 0.5 or more, as COCO defines it; "
    "the baselines' probability is their depth.",
    "ap50_95": "The mean of average precisions at IoU 0.5, 0.55, ... 0.95.",
    "bias": "Mean over pairs of an attribute minus the true one.",
    "rms": "Root of the mean over pairs of the squared difference of an attribute.",
}


class ObjectSums:
    """What one way to find objects adds up over times.

    Args:
        grid: boxes of places.
        kinds: classes.
        attributes: names, with units in brackets.
        within_km: how far apart a pair may be.
    """

    def __init__(
        self, grid: BoxGrid, kinds: Sequence[str], attributes: Sequence[str], within_km: float
    ) -> None:
        self.grid, self.kinds, self.attributes = grid, tuple(kinds), tuple(attributes)
        self.within_km = within_km
        self.hits = self.hits_by_box = self.found = self.truth = 0
        self.km = 0.0
        self.counts: list[int] = []
        self.differences: list[Floats] = []
        self.judged: dict[int, list[Judged]] = {kind: [] for kind in range(len(kinds))}

    def add(self, found: Located, truth: Located, score: float) -> None:
        """Add a time.

        Args:
            found: all that was found, by falling probability.
            truth: the true objects.
            score: least probability of what counts; average precision looks at all.
        """
        counted = found.at(found.scores >= score)
        self.pair(counted, truth)
        for kind in range(len(self.kinds)):
            own, true = counted.at(counted.classes == kind), truth.at(truth.classes == kind)
            likely = found.at(found.classes == kind)
            overlap = self._overlap(likely, true)
            self.judged[kind].append(judge(likely.scores, overlap))
            of_counted = judge(own.scores, self._overlap(own, true), most=len(own))
            self.hits_by_box += int(of_counted.hits[0].sum())

    def pair(self, counted: Located, truth: Located) -> None:
        """Add what pairs of a time say: all but what is a matter of overlap."""
        self.counts.append(len(counted) - len(truth))
        self.found += len(counted)
        self.truth += len(truth)
        for kind in range(len(self.kinds)):
            own, true = counted.at(counted.classes == kind), truth.at(truth.classes == kind)
            pairs = match(_objects(own), _objects(true), self.within_km)
            self.hits += len(pairs.found)
            self.km += float(pairs.distance_km.sum())
            self.differences.append(own.attributes[pairs.found] - true.attributes[pairs.truth])

    def _overlap(self, found: Located, truth: Located) -> Floats:
        """IoU of boxes, (N, M)."""
        one, other = (
            torch.from_numpy(self.grid.boxes(objects.latitude, objects.longitude))
            for objects in (found, truth)
        )
        period = float(self.grid.columns) if self.grid.wraps else 0.0
        return intersection_over_union(one[:, None], other[None], period).numpy()

    def f1(self) -> float:
        """2 found / (2 found + missed + false); NaN where there is nothing."""
        return _ratio(2 * self.hits, self.found + self.truth)

    def scores(self) -> dict[tuple[str, str], float]:
        """All scores, by metric and what it is of."""
        precisions = np.array([average_precision(images) for images in self.judged.values()])
        known = precisions[~np.isnan(precisions).any(axis=1)]
        by_overlap = known.mean(axis=0) if len(known) else np.full(len(OVERLAPS), np.nan)
        scores = {
            "f1": self.f1(),
            "precision": _ratio(self.hits, self.found),
            "recall": _ratio(self.hits, self.truth),
            "place_error": _ratio(self.km, self.hits),
            "count_error": float(np.mean(self.counts)) if self.counts else np.nan,
            "count_spread": float(np.std(self.counts)) if self.counts else np.nan,
            "f1_iou50": _ratio(2 * self.hits_by_box, self.found + self.truth),
            "ap50": float(by_overlap[0]),
            "ap50_95": float(by_overlap.mean()),
        }
        found = {(name, "objects"): value for name, value in scores.items()}
        differences = np.concatenate(self.differences) if self.differences else np.empty((0, 0))
        for place, name in enumerate(self.attributes):
            own = differences[:, place]
            own = own[np.isfinite(own)]
            found["bias", name] = float(own.mean()) if len(own) else np.nan
            found["rms", name] = float(np.sqrt((own**2).mean())) if len(own) else np.nan
        return found


def scores_table(sums: dict[str, ObjectSums]) -> pd.DataFrame:
    """One row per score; a column for the model and one for each baseline."""
    columns = {name: one.scores() for name, one in sums.items()}
    rows = []
    for metric, of in next(iter(columns.values())):
        units = {"place_error": "km"}.get(metric, "1")
        if of != "objects":
            units = of.rpartition("(")[2].rstrip(")") if of.endswith(")") else "1"
        rows.append(
            {
                "metric": metric, "object": of, "units": units,
                "perfect": PERFECT.get(metric, 1.0),
                **{name: scores[metric, of] for name, scores in columns.items()},
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


PERFECT = {
    "place_error": 0.0, "count_spread": 0.0, "rms": 0.0, "bias": np.nan, "count_error": np.nan,
}  # fmt: skip
"""Perfect values that are not 1; biases may be 0 by accident and are compared with none."""


def _objects(located: Located) -> Objects:
    nothing = np.zeros(len(located))
    return Objects(
        latitude=located.latitude, longitude=located.longitude, value=nothing, depth=nothing
    )


def _ratio(one: float, other: float) -> float:
    return one / other if other else np.nan
