"""What a grader learns: which thresholds of a scale an image exceeds, and where its lesions are.

Error of a sample: cross-entropy of the K - 1 questions whether its grade is above 0, 1, ...
(cumulative logits: McCullagh 1980), so that a grade that is two off costs more than one; and where
its lesions are drawn, the mean cross-entropy of the fractions of cells that are plant and lesion,
and the distance of the logarithms of the ratio of both. Either may be missing. The loss is the sum
divided by the number of samples.

Shapes: B batch, C channels, H x W image, K grades, F cells, h x w cells.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml_dchag.models.grading import lesion_ratio, split_grading
from sciml_dchag.models.transformer import ChannelTransformer

RATIO = 0.3
"""What the distance of logarithms of ratios counts beside a grade."""
SMALL_RATIO = 1e-3
"""Added to ratios before the logarithm: smaller lesions are not told apart."""


class GradingObjective(nn.Module):
    """Errors of a grader, and what it says.

    Args:
        grades: K.
        lesion_weight: what the cross-entropy of areas counts beside that of a grade.
    """

    def __init__(self, *, grades: int, lesion_weight: float) -> None:
        super().__init__()
        self.grades, self.lesion_weight = grades, lesion_weight
        self.complete: Callable[[Tensor], bool] = lambda available: bool(available.all())
        self.own_samples = slice(None)
        """Whose errors this rank adds up, of a batch that several ranks compute together."""

    def predict(self, model: ChannelTransformer, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Call the model on normalised images, NaN where missing.

        Returns:
            Logits that each threshold is exceeded (B, K - 1), and of both areas (B, F, 2).
        """
        available: Tensor | None = images_BCHW.isfinite()
        assert available is not None
        if self.complete(available):
            available = None
        said = model(images_BCHW.nan_to_num(0.0), available_BCHW=available)
        return split_grading(said.float(), self.grades)

    def error(
        self,
        model: ChannelTransformer,
        images_BCHW: Tensor,
        grades_B: Tensor,
        areas_B2hw: Tensor,
        counts_B: Tensor,
    ) -> Tensor:
        """Sum of the errors of this rank's samples, not divided by anything.

        Args:
            model: on this rank.
            images_BCHW: this rank's channels, normalised, NaN where missing.
            grades_B: 0 to K - 1; -1 where not known.
            areas_B2hw: fractions of cells that are plant and lesion; NaN where not known.
            counts_B: False for samples that count nothing.
        """
        grades_BK, areas_BF2 = self.predict(model, images_BCHW)
        own = self._own(counts_B)
        parts = self.parts(grades_BK[own], areas_BF2[own], grades_B[own], areas_B2hw[own])
        return torch.stack(list(parts.values())).sum()

    def parts(
        self, grades_BK: Tensor, areas_BF2: Tensor, true_B: Tensor, true_B2hw: Tensor
    ) -> dict[str, Tensor]:
        """Weighted sums of errors over samples: `grade`, `areas` and `ratio`."""
        scale = torch.arange(self.grades - 1, device=true_B.device)
        graded = true_B >= 0
        above = (true_B[graded, None] > scale).to(grades_BK.dtype)
        drawn = true_B2hw.flatten(1).isfinite().all(1)
        truth = true_B2hw[drawn].flatten(2).transpose(1, 2)
        said = areas_BF2[drawn]
        of_areas = F.binary_cross_entropy_with_logits(said, truth, reduction="none")
        ratios = [(lesion_ratio(a) + SMALL_RATIO).log() for a in (said.sigmoid(), truth)]
        return {
            "grade": F.binary_cross_entropy_with_logits(grades_BK[graded], above, reduction="sum"),
            "areas": self.lesion_weight * of_areas.mean((1, 2)).sum(),
            "ratio": RATIO * (ratios[0] - ratios[1]).abs().sum(),
        }

    def weight(self, counts_B: Tensor) -> Tensor:
        """Number of this rank's samples, in float64."""
        return self._own(counts_B).sum().double()

    def _own(self, counts_B: Tensor) -> Tensor:
        """Whether this rank adds up the errors of each sample, (B,)."""
        own_B = torch.zeros_like(counts_B)
        own_B[self.own_samples] = True
        return own_B & counts_B


def planned_loss(
    model: ChannelTransformer, own: tuple[range, range], samples: int, dtype: torch.dtype
) -> Tensor:
    """The error of samples that have no values, for a planned step.

    Args:
        model: on this rank.
        own: positions of this rank's inputs and outputs.
        samples: how many.
        dtype: of the images.
    """
    config = model.config
    images = torch.empty(samples, len(own[0]), *config.image_size, dtype=dtype)
    said = model(images)
    return F.binary_cross_entropy_with_logits(said, torch.zeros_like(said), reduction="sum")
