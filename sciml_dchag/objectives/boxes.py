"""Boxes: overlap, its complete form, and suppression of duplicates, across a globe's seam too.

A box is (x0, y0, x1, y1) in pixels, x1 > x0 and y1 > y0. On a globe of `period` columns x is
counted on beyond them: a box that crosses the seam has x0 < 0 or x1 > period, and boxes that differ
by whole turns are one. A period of 0 is an image with edges.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def turned_to(boxes: Tensor, others: Tensor, period: float) -> Tensor:
    """Turn boxes by whole turns so that each one's centre is nearest to another one's; broadcasts.

    Args:
        boxes: (..., 4).
        others: (..., 4).
        period: columns of the globe; 0 turns nothing.
    """
    if not period:
        return boxes
    apart = (others[..., 0] + others[..., 2] - boxes[..., 0] - boxes[..., 2]) / 2
    turns = torch.round(apart / period) * period
    return boxes + torch.stack([turns, torch.zeros_like(turns)] * 2, dim=-1)


def _overlap(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of intersection and of union, (...,)."""
    low = torch.maximum(one[..., :2], other[..., :2])
    high = torch.minimum(one[..., 2:], other[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(-1) for box in (one, other)]
    return intersection, areas[0] + areas[1] - intersection


def intersection_over_union(one: Tensor, other: Tensor, period: float = 0.0) -> Tensor:
    """Area of the intersection over that of the union, 0 to 1; (..., 4), (..., 4) -> (...,)."""
    intersection, union = _overlap(one, turned_to(other, one, period))
    return intersection / union.clamp(min=1e-9)


def complete_iou(one: Tensor, other: Tensor, period: float = 0.0) -> Tensor:
    """IoU less penalties for distance and shape (Zheng et al. 2020, arXiv 1911.08287), -1.5 to 1.

    CIoU = IoU - d^2 / c^2 - a v, with d between the centres, c the diagonal of the box around both,
    v = 4 / pi^2 (arctan(w / h) - arctan(w' / h'))^2 and a = v / (1 - IoU + v), which is held
    constant in the gradient. Unlike IoU it has a gradient where boxes do not overlap.
    """
    other = turned_to(other, one, period)
    intersection, union = _overlap(one, other)
    iou = intersection / union.clamp(min=1e-9)
    around = torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(
        one[..., :2], other[..., :2]
    )
    apart = (one[..., :2] + one[..., 2:] - other[..., :2] - other[..., 2:]) / 2
    distance = apart.square().sum(-1) / around.square().sum(-1).clamp(min=1e-9)
    sizes = [(box[..., 2:] - box[..., :2]).clamp(min=1e-9) for box in (one, other)]
    angles = [torch.atan2(size[..., 0], size[..., 1]) for size in sizes]
    shape = 4 / math.pi**2 * (angles[0] - angles[1]).square()
    with torch.no_grad():
        factor = shape / (1 - iou + shape).clamp(min=1e-9)
    return iou - distance - factor * shape


def suppressed(
    boxes_N4: Tensor, scores_N: Tensor, classes_N: Tensor, most: float, period: float = 0.0
) -> Tensor:
    """Positions of the boxes that are kept, by falling score: non-maximum suppression.

    The box of the highest score is kept and those of its class that overlap it by an IoU above
    `most` are dropped, then the same with what is left.
    """
    order = scores_N.argsort(descending=True, stable=True)
    kept = []
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(first)
        iou = intersection_over_union(boxes_N4[first], boxes_N4[rest], period)
        order = rest[(iou <= most) | (classes_N[rest] != classes_N[first])]
    return torch.stack(kept) if kept else order
