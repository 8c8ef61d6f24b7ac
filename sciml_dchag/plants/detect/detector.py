"""A trained detector on a plant store: boxes of objects in pixels of its images."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from sciml_dchag.files.resumable import Progress
from sciml_dchag.plants.detect.boxes import Found, Window
from sciml_dchag.plants.detect.config import DetectPlantsRecipe
from sciml_dchag.plants.detect.training import DetectPlantsRecord
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.whole_image_model import WholeImageModel
from sciml_dchag.training.detection import LEAST_SCORE, detection_objective
from sciml_dchag.training.precision import autocast


class PlantDetector(WholeImageModel[DetectPlantsRecipe, DetectPlantsRecord]):
    """A trained detector and a plant store, on one process."""

    recipe_type, record_type = DetectPlantsRecipe, DetectPlantsRecord

    def __init__(
        self, model: str | os.PathLike[str], store: CubeStore, device: str | None = None
    ) -> None:
        super().__init__(model, store, device)
        self.objective = detection_objective(self.model.config).to(self.device)

    @torch.no_grad()
    def find(
        self,
        cubes: Sequence[str],
        *,
        batch: int = 16,
        least_score: float = LEAST_SCORE,
        most_overlap: float | None = None,
        progress: Progress | None = None,
    ) -> list[Found]:
        """Find the objects of some images.

        Args:
            cubes: their names.
            batch: images at once.
            least_score: leave out what is less probable.
            most_overlap: IoU beyond which the less probable of two is a duplicate; None is that of
                the run's recipe.
            progress: called for images.
        """
        if most_overlap is None:
            most_overlap = self.recipe.evaluation.most_overlap
        reader, found = self.reader, list[Found]()
        for start in range(0, len(cubes), batch):
            names = list(cubes[start : start + batch])
            images = torch.stack([reader.read(name) for name in names]).to(self.device)
            with autocast(self.recipe.training.precision, self.device):
                said = self.objective.predict(self.model, images)
            detections = self.objective.detections(
                said, least_score=least_score, most=self.recipe.task.max_objects,
                most_overlap=most_overlap,
            )  # fmt: skip
            for name, one in zip(names, detections, strict=True):
                window = Window.of(reader.box(name), self.store.size(name), reader.image_size)
                boxes = window.to_image(one.boxes.double().cpu().numpy())
                found.append(Found(boxes=boxes, scores=one.scores.double().cpu().numpy()))
            if progress is not None:
                progress(start + len(names), len(cubes), "finding objects")
        return found
