"""The recipe of a detector of objects in images of plants: from raw images to scores."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from sciml_dchag.config.common import MOST_SAMPLES, TaskConfig, require_at_least
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.plants.recipe import WholeImagesConfig, WholeImagesRecipe

MOST_OBJECTS = 1000
"""Objects of one image; more are not looked for."""
MOST_LABEL = 65535
"""The largest number of a label image."""


@dataclass(frozen=True, kw_only=True)
class BoxedImagesConfig(WholeImagesConfig):
    """From the store and label images to batches: whole images, brought to one size."""

    image_size: tuple[int, int] = (128, 256)
    """Rows and columns that images are brought to, by means over areas, whatever theirs are."""
    objects: str = ""
    """Folder of label images (PNG, TIFF, NPY) called as the images, in which objects are drawn as
    `task.label` says; or `sample:NAME`. Images without one are left out."""


@dataclass(frozen=True, kw_only=True)
class DetectPlantsConfig(TaskConfig):
    """What is learnt: where objects are."""

    kind: Literal["detect-plants"] = "detect-plants"
    """Which task this is."""
    label: int = 0
    """The number whose connected pieces in a label image are the objects, such as 2 for lesions; 0
    takes each number above 0 for one object, such as leaves that are numbered."""
    least_pixels: int = 16
    """Objects of fewer pixels of the label image are left out, in training and in scores."""
    max_objects: int = 100
    """Objects of an image, at most; a label image with more is refused."""

    def __post_init__(self) -> None:
        require_at_least(0, "task.label", self.label, MOST_LABEL)
        require_at_least(1, "task.least_pixels", self.least_pixels)
        require_at_least(1, "task.max_objects", self.max_objects, MOST_OBJECTS)


@dataclass(frozen=True, kw_only=True)
class DetectPlantsEvaluation:
    """What is scored of the test images."""

    batch: int = 16
    """Images that are looked at together."""
    most_overlap: float = 0.5
    """Of two boxes whose IoU is larger, the less probable one is a duplicate."""
    score: float = 0.0
    """Least probability of what counts as found; 0 chooses it by `choose_by` on the validation
    images, or else on the training images."""
    choose_by: Literal["f1", "counts"] = "f1"
    """What the least probability is chosen by: `f1`, the highest F1 of boxes at IoU 0.5, or
    `counts`, the least mean absolute error of the number of objects in an image."""

    def __post_init__(self) -> None:
        require_at_least(1, "evaluation.batch", self.batch, MOST_SAMPLES)
        for name in ("most_overlap", "score"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"evaluation.{name} is {getattr(self, name):g}: it must be from 0 to 1."
                )


@dataclass(frozen=True, kw_only=True)
class DetectPlantsRecipe(WholeImagesRecipe):
    """Plants: learn to find objects, such as lesions or leaves, in the images of a store."""

    data: BoxedImagesConfig = field(default_factory=BoxedImagesConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig(head="detect"))
    task: DetectPlantsConfig = field(default_factory=DetectPlantsConfig)
    evaluation: DetectPlantsEvaluation = field(default_factory=DetectPlantsEvaluation)

    def __post_init__(self) -> None:
        super().__post_init__()
        # The task says it all; a recipe need not say it twice.
        object.__setattr__(self, "model", dataclasses.replace(self.model, head="detect"))
