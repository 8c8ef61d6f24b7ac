"""The task of finding objects in images of plants; see `training.task.Task`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.objectives.detection import planned_loss
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.plants.detect.config import DetectPlantsRecipe
from sciml_dchag.plants.detect.training import (
    BoxStore,
    DetectPlantsRecord,
    detect_model_config,
    label_images,
)
from sciml_dchag.plants.task import WholeImageTask
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.training.task import PlannedLoss


class DetectPlantsTask(WholeImageTask[DetectPlantsRecipe]):
    """Learn to find objects in the images of a plant store."""

    def open(self) -> BoxStore:
        """Open the plant store and its label images."""
        return BoxStore(self.recipe)

    def config_for(self, wavelength_nm: NDArray[np.float64]) -> ModelConfig:
        """Fill in bands, outputs and size."""
        return detect_model_config(self.recipe, wavelength_nm)

    def planned_loss(self) -> PlannedLoss:
        """The error of objects."""
        return planned_loss

    def check_store(self) -> str:
        """Say what is known of the training images."""
        opened = self.open()
        for split in ("train", *(["validation"] if self.recipe.training.validate_every else [])):
            opened.samples(split)
        training = opened.store.split("train")
        return (
            f"{opened.objects:,} objects in {len(opened.known('train'))} of {len(training)} "
            f"training images"
        )

    def test_images(self) -> list[str]:
        """Test images that have a label image."""
        return self.open().labelled_test()

    def check_labels(self, known: pd.DataFrame) -> str:
        """Say how many images have a label."""
        found = label_images(self.recipe, [str(name) for name in known.index])
        return f"{len(found.files)} of {len(known)} images have a label image"

    def evaluate(
        self,
        run: Path,
        *,
        parallel: ParallelConfig | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Score the test images beside a threshold, a watershed and the mean number."""
        from sciml_dchag.plants.detect.evaluate import evaluate

        return evaluate(run, self.recipe, progress=progress)

    @classmethod
    def describe(cls, checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
        """Bands, and how many objects were learnt from."""
        data = checkpoint.read_data(DetectPlantsRecord, path)
        return {
            "bands": f"{len(data.channels)}, {data.channels[0]} to {data.channels[-1]}",
            "training images": f"{len(data.training_images)}, {data.labelled} with label images",
            "objects": f"{data.objects:,}",
        }
