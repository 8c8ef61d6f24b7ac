"""Which cell is to find which object: task-aligned assignment (Feng et al. 2021, arXiv 2108.07755).

A cell suits an object by t = s^0.5 u^6, where s is the probability that it gives the object's class
and u the overlap of its box with the object's: what it would be taken for later. The ten cells that
suit an object best, of those whose centres lie in its box, are to find it.

Shapes: B batch, A cells, M objects (padded with class -1), K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml_dchag.objectives.boxes import intersection_over_union

CELLS = 10
"""Cells that are to find an object, at most."""
SCORE_POWER, OVERLAP_POWER = 0.5, 6.0


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What each cell is to find."""

    objects: Tensor
    """Position of its object, (B, A); -1 for nothing."""
    scores: Tensor
    """Probability that it is to give the object's class, (B, A): the best cell of an object its
    overlap, others less as they suit it less; 0 for nothing."""


@torch.no_grad()
def assign(
    scores_BAK: Tensor,
    boxes_BA4: Tensor,
    centres_A2: Tensor,
    sides_A: Tensor,
    objects_BM4: Tensor,
    classes_BM: Tensor,
    period: float = 0.0,
) -> Assignment:
    """Assign cells to objects.

    Args:
        scores_BAK: probabilities of classes.
        boxes_BA4: boxes that cells give, in pixels.
        centres_A2: their centres, in pixels.
        sides_A: their sides, in pixels; an object smaller than the smallest is as large as it here,
            so that some cell's centre is near enough to find it.
        objects_BM4: true boxes, in pixels.
        classes_BM: their classes, -1 where there is none.
        period: columns of a globe; 0 for an image with edges.
    """
    # What pads every sample is left out.
    some = (classes_BM >= 0).any(0)
    M = int(some.nonzero().max()) + 1 if some.any() else 0
    if not M:
        nothing = torch.full(scores_BAK.shape[:2], -1, device=scores_BAK.device)
        return Assignment(objects=nothing, scores=torch.zeros_like(scores_BAK[..., 0]))
    A, objects_BM4, classes_BM = len(centres_A2), objects_BM4[:, :M], classes_BM[:, :M]
    there_BM1 = (classes_BM >= 0)[..., None]
    inside_BMA = _inside(centres_A2, objects_BM4, float(sides_A.min()), period) & there_BM1
    # A few cells lie in an object's box: overlaps of those alone are computed.
    sample, which, cell = inside_BMA.nonzero(as_tuple=True)
    overlap_BMA = torch.zeros(inside_BMA.shape, device=inside_BMA.device)
    overlap_BMA[sample, which, cell] = intersection_over_union(
        objects_BM4[sample, which], boxes_BA4[sample, cell], period
    ).float()
    score_BMA = torch.zeros_like(overlap_BMA)
    score_BMA[sample, which, cell] = scores_BAK[sample, cell, classes_BM[sample, which]].float()
    suits_BMA = score_BMA**SCORE_POWER * overlap_BMA**OVERLAP_POWER
    suits_BMA = suits_BMA.masked_fill(~inside_BMA, -1.0)  # below those inside that overlap nothing
    best = suits_BMA.topk(min(CELLS, A), dim=-1).indices
    taken_BMA = torch.zeros_like(inside_BMA).scatter_(2, best, True) & inside_BMA
    # A cell that several objects want is given to the one that its box overlaps most.
    wanted = overlap_BMA.masked_fill(~taken_BMA, -1.0)
    object_BA = wanted.argmax(1)
    taken_BMA &= torch.arange(M, device=object_BA.device)[:, None] == object_BA[:, None]
    object_BA = torch.where(taken_BMA.any(1), object_BA, -1)
    suits_BMA = suits_BMA.where(taken_BMA, 0.0)
    most_BM1 = suits_BMA.amax(2, keepdim=True)
    overlap_BM1 = overlap_BMA.where(taken_BMA, 0.0).amax(2, keepdim=True)
    score_BA = (suits_BMA * overlap_BM1 / most_BM1.clamp(min=1e-12)).amax(1)
    return Assignment(objects=object_BA, scores=score_BA.to(scores_BAK.dtype))


def _inside(centres_A2: Tensor, objects_BM4: Tensor, least: float, period: float) -> Tensor:
    """Whether a cell's centre lies in an object's box, (B, M, A)."""
    middle_BM2 = (objects_BM4[..., :2] + objects_BM4[..., 2:]) / 2
    reach_BM2 = (objects_BM4[..., 2:] - objects_BM4[..., :2]).clamp(min=least) / 2
    away_BMA2 = centres_A2 - middle_BM2[:, :, None]
    if period:
        turns = torch.round(away_BMA2[..., 0] / period) * period
        away_BMA2 = torch.stack([away_BMA2[..., 0] - turns, away_BMA2[..., 1]], dim=-1)
    return (away_BMA2.abs() <= reach_BM2[:, :, None]).all(-1)
