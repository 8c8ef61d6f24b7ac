"""A trained detector on a plant store: boxes of objects in pixels of its images."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch

from sciml_dchag.config import from_mapping
from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.parallel.build import build_on_ranks
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.parallel.runtime import Ranks, choose_device
from sciml_dchag.plants.detect.boxes import Found, Window
from sciml_dchag.plants.detect.config import DetectPlantsRecipe
from sciml_dchag.plants.detect.training import DetectPlantsRecord
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.whole_images import WholeImages
from sciml_dchag.training.detection import detection_objective
from sciml_dchag.training.export import find_model
from sciml_dchag.training.precision import autocast, keep_as_trained

LEAST_SCORE = 0.01
"""What is less probable is not kept at all: average precision looks at little beyond."""


class PlantDetector:
    """A trained detector and a plant store, on one process.

    Args:
        model: a run, a checkpoint or an exported file.
        store: the images; their bands are those of the training store.
        device: where to compute; None is the run's.

    Raises:
        FileNotFoundError: no checkpoint.
        ValueError: a damaged checkpoint, other bands or another quantity, or a device that is not
            there.
    """

    def __init__(
        self, model: str | os.PathLike[str], store: CubeStore, device: str | None = None
    ) -> None:
        found = find_model(model)
        self.path, self.checkpoint, self.store = found.path, found.checkpoint, store
        self.recipe = from_mapping(DetectPlantsRecipe, found.checkpoint.recipe)
        self.data = found.checkpoint.read_data(DetectPlantsRecord, self.path)
        self.data.require_bands(store, self.path)
        self.data.require_quantity(store, self.path)
        self.reader = WholeImages(
            store, np.asarray(self.data.mean), np.asarray(self.data.std),
            image_size=self.recipe.data.image_size, crop=self.recipe.data.crop,
        )  # fmt: skip
        self.device = choose_device(device or self.recipe.parallel.device)
        config = from_mapping(ModelConfig, found.checkpoint.model_config)
        self.model = build_on_ranks(config, None, Ranks(device=self.device), ParallelConfig())
        found.load_into(self.model)
        keep_as_trained(self.model, config, self.recipe.training)
        self.model.eval()
        self.objective = detection_objective(config).to(self.device)

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
