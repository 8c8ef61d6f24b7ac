"""The head that grades an image: how much of it is lesion, what all of it looks like, and a scale.

A map at half a patch says which fraction of each cell is plant and which is lesion. The logarithm
of their sums' ratio, and the features pooled over locations by a learnt query, give one number, the
severity; a grade is how many thresholds it exceeds (cumulative logits: McCullagh 1980, Regression
Models for Ordinal Data), so that two grades off counts more than one.

Shapes: B batch, C channels, H x W image, L locations, D embedding, E width, F cells of half a
patch, K grades, N = K - 1 + 2 F.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml_dchag.models.detection import Convolution, RareLinear
from sciml_dchag.models.hooks import local, unchanged
from sciml_dchag.models.layers import Linear
from sciml_dchag.models.pyramid import ChannelPixels, FinestLevel

LEAST_RATIO = 1e-4
"""Lesions of a smaller fraction of the plant are as good as none."""
COMMON_RATIO, SHARP = 0.02, 4.0
"""The middle of a scale, and how sharply grades are told apart, where it starts."""


class Thresholds(nn.Module):
    """K - 1 thresholds in ascending order, whatever is learnt."""

    def __init__(self, grades: int) -> None:
        super().__init__()
        self.steps = nn.Parameter(torch.empty(grades - 1))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start one apart, about zero."""
        number = len(self.steps)
        self.steps.fill_(0.5413)  # softplus of it is 1
        self.steps[0] = -(number - 1) / 2

    def forward(self) -> Tensor:
        """Return the thresholds, (K - 1,)."""
        steps = local(self.steps)
        return torch.cat([steps[:1], F.softplus(steps[1:])]).cumsum(0)


class Severity(nn.Module):
    """One number out of the ratio of lesions and pooled features: w log(ratio) + w' features.

    In units of the logarithm, and about a common ratio. It starts as the ratio's alone, as grades
    mostly follow areas. Logits are its distances from thresholds times a sharpness of its own
    parameter: grades that are steps of the area leave little doubt between them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ratio, self.sharpness = (nn.Parameter(torch.empty(1)) for _ in range(2))
        self.features = Linear(width, 1)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start with the ratio alone."""
        self.ratio.fill_(1.0)
        self.sharpness.fill_(math.log(SHARP))

    def forward(self, pooled_BE: Tensor, ratio_B: Tensor, thresholds_K: Tensor) -> Tensor:
        """Return the logits that each threshold is exceeded, (B, K - 1)."""
        logarithm_B1 = (ratio_B[:, None] + LEAST_RATIO).log() - math.log(COMMON_RATIO)
        severity_B1 = local(self.ratio) * logarithm_B1 + self.features(pooled_BE).float()
        return local(self.sharpness).exp() * (severity_B1 - thresholds_K)


class GradeHead(nn.Module):
    """A map of plant and lesion, pooled features, and an ordinal scale."""

    def __init__(self, level: FinestLevel, *, grades: int) -> None:
        super().__init__()
        width, embed_dim = level.fine.out_features // 4, level.fine.in_features
        self.level, self.grades = level, grades
        self.look = nn.Sequential(*(Convolution(width, wraps=False) for _ in range(2)))
        self.plant, self.lesion = Linear(width, 1), RareLinear(width, 1)
        self.attend = Linear(embed_dim, 1)
        self.pooled = Linear(embed_dim, width)
        self.severity = Severity(width)
        self.thresholds = Thresholds(grades)
        # Where ranks that compute the same part, each with the errors of its own samples.
        self.enter: Callable[[Tensor], Tensor] = unchanged

    @property
    def pixels(self) -> ChannelPixels:
        """What maps the pixels of all channels."""
        return self.level.pixels

    def forward(
        self, features_BLD: Tensor, x_BCHW: Tensor, available_BCHW: Tensor | None = None
    ) -> Tensor:
        """Return logits that each threshold is exceeded, then of both areas by cell: (B, N)."""
        fine = self.level.finest(features_BLD, x_BCHW, available_BCHW).permute(0, 3, 1, 2)
        seen_BFE = self.look(fine).flatten(2).transpose(1, 2)
        areas_BF2 = torch.cat([self.plant(seen_BFE), self.lesion(seen_BFE)], dim=-1)
        attention_BL1 = self.attend(features_BLD).softmax(dim=1)
        pooled_BE = F.gelu(self.pooled((attention_BL1 * features_BLD).sum(1)))
        ratio_B = lesion_ratio(areas_BF2.sigmoid())
        grades_BK = self.severity(pooled_BE, ratio_B, self.thresholds())
        return self.enter(torch.cat([grades_BK, areas_BF2.flatten(1)], dim=-1))


def lesion_ratio(areas_BF2: Tensor) -> Tensor:
    """Area of lesions over that of the plant: (B,).

    Args:
        areas_BF2: fractions of each cell that are plant, lesions included, and lesion.
    """
    plant, lesion = areas_BF2.float().sum(1).unbind(-1)
    return lesion / plant.clamp(min=1e-3)


def split_grading(said_BN: Tensor, grades: int) -> tuple[Tensor, Tensor]:
    """Separate what a grader says: logits of thresholds (B, K - 1), and of areas (B, F, 2)."""
    return said_BN[:, : grades - 1], said_BN[:, grades - 1 :].unflatten(1, (-1, 2))
