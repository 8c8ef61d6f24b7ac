"""The recipe of a grader of plants: from raw images and a table to scores."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from sciml_dchag.config.common import MOST_SAMPLES, TaskConfig, require_at_least
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.plants.recipe import WholeImagesConfig, WholeImagesRecipe

MOST_GRADES = 100
"""A scale of more grades is a slip."""


@dataclass(frozen=True, kw_only=True)
class GradedImagesConfig(WholeImagesConfig):
    """From the store and labels to batches: whole images, brought to one size."""

    lesions: str = ""
    """Folder of label images (PNG, TIFF, NPY) called as the images: 0 background, 1 plant, 2
    lesion; or `sample:NAME`. Images without one have a grade alone; empty for none at all."""


@dataclass(frozen=True, kw_only=True)
class GradeConfig(TaskConfig):
    """What is learnt: the grade of an image, and how much of its plants is lesion."""

    kind: Literal["grade"] = "grade"
    """Which task this is."""
    column: str = "severity"
    """Column of the store's table, which `prepare.table` brings, that holds grades: whole numbers
    from 0 on; empty where not known."""
    grades: int = 5
    """Number of grades of the scale: 0 to one less."""
    lesion_weight: float = 20.0
    """What errors of the map of plant and lesion count beside those of grades."""

    def __post_init__(self) -> None:
        require_at_least(2, "task.grades", self.grades, MOST_GRADES)
        require_at_least(0, "task.lesion_weight", self.lesion_weight)


@dataclass(frozen=True, kw_only=True)
class GradeEvaluation:
    """What is scored of the test images."""

    batch: int = 32
    """Images that are graded at once."""

    def __post_init__(self) -> None:
        require_at_least(1, "evaluation.batch", self.batch, MOST_SAMPLES)


@dataclass(frozen=True, kw_only=True)
class GradeRecipe(WholeImagesRecipe):
    """Plants: learn to grade images, with or without drawn lesions."""

    data: GradedImagesConfig = field(default_factory=GradedImagesConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig(head="grade"))
    task: GradeConfig = field(default_factory=GradeConfig)
    evaluation: GradeEvaluation = field(default_factory=GradeEvaluation)

    def __post_init__(self) -> None:
        super().__post_init__()
        # The task says it all; a recipe need not say it twice.
        object.__setattr__(self, "model", dataclasses.replace(self.model, head="grade"))
