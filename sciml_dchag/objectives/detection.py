"""What a detector learns: which cells hold objects, where boxes end, what is measured of them.

Error of a sample: cross-entropy of classes over all cells, and over the cells that are to find an
object (`assigner`), each weighted by the score that it is to give, 1 - CIoU of boxes, the
cross-entropy of distances (distribution focal loss: Li et al. 2020, arXiv 2006.04388) and absolute
errors of attributes. The loss is its sum divided by the number of objects, which is known before
the model is called and adds up over ranks.

Shapes: B batch, C channels, H x W image, A cells, M objects, K classes, T attributes, N = 4 BINS +
K + T.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml_dchag.models.detection import BINS, cells_of
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.objectives.assigner import assign
from sciml_dchag.objectives.boxes import complete_iou, suppressed

BOX, DISTANCE, ATTRIBUTE = 2.0, 0.5, 0.5
"""What errors of boxes, distances and attributes count beside those of classes."""
MOST_CANDIDATES = 1000
"""Cells of the highest scores that are looked at for duplicates."""


@dataclass(frozen=True, kw_only=True)
class Detections:
    """The objects found in one image, by falling score."""

    boxes: Tensor
    """(N, 4): (x0, y0, x1, y1) in pixels."""
    scores: Tensor
    """(N,): 0 to 1."""
    classes: Tensor
    """(N,): positions among the model's classes."""
    attributes: Tensor
    """(N, T): in deviations of the training data."""


class DetectionObjective(nn.Module):
    """Errors of a detector, and the objects that it finds.

    Args:
        image_size: rows and columns in pixels.
        patch: side of the model's patch in pixels.
        classes: K.
        wraps: whether the last column is beside the first.
    """

    centres: Tensor
    sides: Tensor

    def __init__(
        self, *, image_size: tuple[int, int], patch: int, classes: int, wraps: bool
    ) -> None:
        super().__init__()
        self.classes = classes
        self.period = float(image_size[1]) if wraps else 0.0
        centres, sides = cells_of(image_size, patch)
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("sides", sides, persistent=False)
        self.complete: Callable[[Tensor], bool] = lambda available: bool(available.all())
        self.own_samples = slice(None)
        """Whose errors this rank adds up, of a batch that several ranks compute together."""

    def predict(self, model: ChannelTransformer, images_BCHW: Tensor) -> Tensor:
        """Call the model on normalised images, NaN where missing: (B, A, N)."""
        available: Tensor | None = images_BCHW.isfinite()
        assert available is not None
        if self.complete(available):
            available = None
        return model(images_BCHW.nan_to_num(0.0), available_BCHW=available)

    def error(
        self,
        model: ChannelTransformer,
        images_BCHW: Tensor,
        boxes_BM4: Tensor,
        classes_BM: Tensor,
        attributes_BMT: Tensor,
        counts_B: Tensor,
    ) -> Tensor:
        """Sum of the errors of this rank's samples, not divided by anything.

        Args:
            model: on this rank.
            images_BCHW: this rank's channels, normalised, NaN where missing.
            boxes_BM4: in pixels, anything where there is no object.
            classes_BM: -1 where there is no object.
            attributes_BMT: in deviations, NaN where not known.
            counts_B: False for samples that count nothing.
        """
        said, own = self.predict(model, images_BCHW), self._own(counts_B)
        parts = self.parts(said[own], boxes_BM4[own], classes_BM[own], attributes_BMT[own])
        return torch.stack(list(parts.values())).sum()

    def parts(
        self, said_BAN: Tensor, boxes_BM4: Tensor, classes_BM: Tensor, attributes_BMT: Tensor
    ) -> dict[str, Tensor]:
        """Weighted sums of errors: `class`, `box`, `distance` and `attribute`."""
        distances, logits_BAK, measured_BAT = self.split(said_BAN)
        found_BA4 = self.boxes(distances)
        given = assign(
            logits_BAK.sigmoid(), found_BA4, self.centres, self.sides, boxes_BM4, classes_BM,
            self.period,
        )  # fmt: skip
        object_BA, positive = given.objects.clamp(min=0), given.objects >= 0
        classes_BA = classes_BM.gather(1, object_BA).clamp(min=0)
        wanted_BAK = F.one_hot(classes_BA, self.classes) * given.scores[..., None]
        sample, cell = positive.nonzero(as_tuple=True)
        which = object_BA[sample, cell]
        weight, truth = given.scores[sample, cell], boxes_BM4[sample, which]
        overlap = complete_iou(found_BA4[sample, cell], truth, self.period)
        away = self._distances(truth, cell)
        known = attributes_BMT[sample, which]
        apart = F.smooth_l1_loss(
            measured_BAT[sample, cell], known.nan_to_num(0.0), reduction="none"
        )
        return {
            "class": F.binary_cross_entropy_with_logits(
                logits_BAK, wanted_BAK.to(logits_BAK.dtype), reduction="sum"
            ),
            "box": BOX * (weight * (1 - overlap)).sum(),
            "distance": DISTANCE * (weight[:, None] * _focal(distances[sample, cell], away)).sum(),
            "attribute": ATTRIBUTE * (weight[:, None] * apart * known.isfinite()).sum(),
        }

    def weight(self, classes_BM: Tensor, counts_B: Tensor) -> Tensor:
        """Number of objects of this rank's samples, in float64."""
        return (classes_BM[self._own(counts_B)] >= 0).sum().double()

    def _own(self, counts_B: Tensor) -> Tensor:
        """Whether this rank adds up the errors of each sample, (B,)."""
        own_B = torch.zeros_like(counts_B)
        own_B[self.own_samples] = True
        return own_B & counts_B

    def split(self, said_BAN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of distances (B, A, 4, BINS), of classes (B, A, K), and attributes (B, A, T).

        At least in float32: areas and exponentials follow.
        """
        exact = said_BAN.to(torch.promote_types(said_BAN.dtype, torch.float32))
        distances, logits, measured = exact.tensor_split((4 * BINS, 4 * BINS + self.classes), -1)
        return distances.unflatten(-1, (4, BINS)), logits, measured

    def boxes(self, distances_BA4D: Tensor) -> Tensor:
        """Boxes whose sides lie at the mean distances, (B, A, 4) in pixels."""
        bins = torch.arange(BINS, dtype=distances_BA4D.dtype, device=distances_BA4D.device)
        away = (distances_BA4D.softmax(-1) @ bins) * self.sides[:, None]
        return torch.cat([self.centres - away[..., :2], self.centres + away[..., 2:]], dim=-1)

    def _distances(self, boxes_N4: Tensor, cells_N: Tensor) -> Tensor:
        """Distances of the sides of boxes from the centres of cells, in cells: (N, 4)."""
        centres = self.centres[cells_N]
        middle = (boxes_N4[:, :2] + boxes_N4[:, 2:]) / 2 - centres
        if self.period:
            turns = torch.round(middle[:, :1] / self.period) * self.period
            middle = middle - torch.cat([turns, torch.zeros_like(turns)], dim=1)
        half = (boxes_N4[:, 2:] - boxes_N4[:, :2]) / 2
        return torch.cat([half - middle, half + middle], dim=1) / self.sides[cells_N][:, None]

    @torch.no_grad()
    def detections(
        self, said_BAN: Tensor, *, least_score: float, most_overlap: float, most: int
    ) -> list[Detections]:
        """The objects that a model's answer holds, of each image.

        Args:
            said_BAN: as `predict` returns it.
            least_score: leave out what is less probable.
            most_overlap: IoU beyond which the less probable of two of a class is a duplicate.
            most: objects of an image.
        """
        distances, logits_BAK, measured_BAT = self.split(said_BAN)
        boxes_BA4 = self.boxes(distances)
        scores_BA, classes_BA = logits_BAK.sigmoid().max(-1)
        found = []
        for scores, classes, boxes, measured in zip(
            scores_BA, classes_BA, boxes_BA4, measured_BAT, strict=True
        ):
            likely = (scores >= least_score).nonzero().flatten()
            likely = likely[scores[likely].argsort(descending=True, stable=True)[:MOST_CANDIDATES]]
            kept = likely[
                suppressed(
                    boxes[likely], scores[likely], classes[likely], most_overlap, self.period
                )[:most]
            ]
            found.append(
                Detections(
                    boxes=boxes[kept], scores=scores[kept], classes=classes[kept],
                    attributes=measured[kept],
                )
            )  # fmt: skip
        return found


def _focal(logits_N4D: Tensor, distances_N4: Tensor) -> Tensor:
    """Distribution focal loss, the mean over a box's sides: (N,) as (N, 1).

    Cross-entropy with the two whole distances beside the true one, nearer ones counting more; its
    minimum is a distribution whose mean is the true distance.
    """
    away = distances_N4.clamp(0, BINS - 1 - 1e-3)
    below = away.floor().long()
    above = away - below
    log = logits_N4D.log_softmax(-1)
    loss = -(
        log.gather(-1, below[..., None])[..., 0] * (1 - above)
        + log.gather(-1, below[..., None] + 1)[..., 0] * above
    )
    return loss.mean(-1, keepdim=True)


def planned_loss(
    model: ChannelTransformer, own: tuple[range, range], samples: int, dtype: torch.dtype
) -> Tensor:
    """The error of samples that have no values, for a planned step.

    Which cells find objects follows from values; a planned step has none, and counts every cell's
    class and box once, which is more than a real step does.

    Args:
        model: on this rank.
        own: positions of this rank's inputs and outputs.
        samples: how many.
        dtype: of the images.
    """
    config = model.config
    objective = DetectionObjective(
        image_size=config.image_size, patch=config.patch, classes=len(config.output_channels),
        wraps=config.wraps,
    )  # fmt: skip
    images = torch.empty(samples, len(own[0]), *config.image_size, dtype=dtype)
    distances, logits, measured = objective.split(model(images))
    boxes = objective.boxes(distances)
    of_classes = F.binary_cross_entropy_with_logits(
        logits, torch.zeros_like(logits), reduction="sum"
    )
    return of_classes + (1 - complete_iou(boxes, boxes.detach())).sum() + measured.abs().sum()
