"""Average precision of detected objects, as COCO defines it.

Within each image detections are taken by falling score; each takes the true object of its class
that it overlaps most, of those that are not taken yet and that it overlaps enough. Precision is
made falling with recall and averaged over 101 values of recall. Equal to pycocotools'
(`tests/unit/test_average_precision.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

OVERLAPS = np.linspace(0.5, 0.95, 10)
"""Least IoU of a pair, for AP50:95; the first is AP50's."""
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100
"""Detections of an image that count, those of the highest scores."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The detections of one class in one image, by falling score, beside the true objects."""

    scores: Floats
    """(N,)."""
    hits: NDArray[np.bool_]
    """Whether each takes a true object, at each least IoU that was asked for, (10, N) of all."""
    truth: int
    """Number of true objects."""


def judge(scores: Floats, overlap: Floats, most: int = MOST, overlaps: Floats = OVERLAPS) -> Judged:
    """Match the detections of one class in one image.

    Args:
        scores: (N,).
        overlap: IoU of each detection and each true object of the class, (N, M).
        most: detections that count, those of the highest scores.
        overlaps: least IoU of a pair; average precision takes all of `OVERLAPS`.
    """
    order = np.argsort(-scores, kind="stable")[:most]
    found, truth = len(order), overlap.shape[1]
    hits = np.zeros((len(overlaps), found), bool)
    for level, least in enumerate(overlaps):
        free = np.ones(truth, bool)
        for place, detection in enumerate(order):
            candidates = np.where(free, overlap[detection], -1.0)
            # Of equal ones the last, as pycocotools takes it.
            best = truth - 1 - int(np.argmax(candidates[::-1])) if truth else -1
            if truth and candidates[best] >= min(least, 1 - 1e-10):
                free[best] = False
                hits[level, place] = True
    return Judged(scores=scores[order], hits=hits, truth=truth)


def average_precision(images: Sequence[Judged]) -> Floats:
    """Average precision of one class at each of `OVERLAPS`, (10,); NaN without true objects."""
    truth = sum(image.truth for image in images)
    if not truth:
        return np.full(len(OVERLAPS), np.nan)
    scores = np.concatenate([image.scores for image in images])
    order = np.argsort(-scores, kind="mergesort")
    hits = np.concatenate([image.hits for image in images], axis=1)[:, order]
    true = np.cumsum(hits, axis=1)
    recall = true / truth
    precision = true / np.maximum(np.arange(1, len(order) + 1), 1)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    found = np.zeros(len(OVERLAPS))
    for level in range(len(OVERLAPS)):
        places = np.searchsorted(recall[level], RECALLS, side="left")
        inside = places < len(order)
        found[level] = precision[level][places[inside]].sum() / len(RECALLS)
    return found
