"""What detectors of both wings share: batches of images with boxes, their errors and weights."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.objectives.detection import DetectionObjective
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.training.batches import Batch
from sciml_dchag.training.evaluation import Evaluation

LEAST_SCORE = 0.01
"""What is less probable is not kept at all: average precision looks at little beyond."""
USUAL_SCORE = 0.25
"""Least probability where a run was not evaluated."""
LEAST_PROBABILITY = "Least probability"
"""What an evaluation calls it."""
TRIED = np.round(np.arange(0.02, 0.96, 0.02), 2)
"""Least probabilities of which the one of the highest F1 is taken."""


@dataclass(frozen=True)
class DetectionBatch(Batch):
    """Images and their objects, padded to as many for each."""

    images: Tensor
    """(B, C, H, W): the channels that this rank reads, normalised, NaN where missing."""
    boxes: Tensor
    """(B, M, 4): (x0, y0, x1, y1) in pixels; anything where there is no object."""
    classes: Tensor
    """(B, M): positions among the model's classes; -1 where there is no object."""
    attributes: Tensor
    """(B, M, T): in deviations of the training data, NaN where not known."""

    counts: Tensor
    """(B,): False where a sample fills a batch up and counts nothing."""

    def without(self, absent: list[bool]) -> DetectionBatch:
        """Return the batch with some samples counting nothing."""
        return dataclasses.replace(self, counts=self.counts & ~torch.tensor(absent))


def least_probability(model: str | os.PathLike[str]) -> float:
    """The least probability that a run's evaluation counted as found, or `USUAL_SCORE`."""
    try:
        return float(Evaluation.read(Path(model)).settings[LEAST_PROBABILITY])
    except (FileNotFoundError, NotADirectoryError, KeyError):
        return USUAL_SCORE


def detection_objective(config: ModelConfig) -> DetectionObjective:
    """Build the objective of a model."""
    return DetectionObjective(
        image_size=config.image_size, patch=config.patch, classes=len(config.output_channels),
        wraps=config.wraps,
    )  # fmt: skip


class DetectionData:
    """Errors and weights of images with boxes, on this rank.

    Args:
        model: on this rank.
        ranks: this process and the others; those that see the same samples each add up the errors
            of their own share of them.
    """

    def __init__(self, model: ChannelTransformer, ranks: Ranks) -> None:
        self.objective = detection_objective(model.config).to(ranks.device)
        self.objective.complete = ranks.complete
        rank, count = ranks.channels
        self.objective.own_samples = slice(rank, None, count)

    def error(self, model: ChannelTransformer, batch: DetectionBatch) -> Tensor:
        """Sum the errors of classes, boxes and attributes."""
        return self.objective.error(model, *batch.tensors)

    def weight(self, batch: DetectionBatch) -> Tensor:
        """Count the objects."""
        return self.objective.weight(batch.classes, batch.counts)

    def without(self, batch: DetectionBatch, absent: list[bool]) -> DetectionBatch:
        """Leave some samples out."""
        return batch.without(absent)
