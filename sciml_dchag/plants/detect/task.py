"""The task of finding objects in images of plants; see `training.task.Task`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.summary import in_words
from sciml_dchag.objectives.detection import planned_loss
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.plants.checks import check_before_store, expected_bands
from sciml_dchag.plants.detect.config import DetectPlantsRecipe
from sciml_dchag.plants.detect.training import (
    BoxStore,
    DetectPlantsRecord,
    detect_model_config,
    label_images,
)
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.store.summary import in_short
from sciml_dchag.plants.task import PlantTask
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.training.task import Attempt, PlannedLoss


class DetectPlantsTask(PlantTask[DetectPlantsRecipe]):
    """Learn to find objects in the images of a plant store."""

    def open(self) -> BoxStore:
        """Open the plant store and its label images."""
        return BoxStore(self.recipe)

    def expected_model(self) -> ModelConfig:
        """Take bands from the store, or from `prepare`."""
        return detect_model_config(self.recipe, expected_bands(self.recipe))

    def planned_loss(self) -> PlannedLoss:
        """The error of objects."""
        return planned_loss

    def check(self, attempt: Attempt, note: Callable[[str], None]) -> None:
        """Check images or store, label images and model."""
        path = Path(self.recipe.data.store)
        if not path.exists():
            check_before_store(
                self.recipe, attempt, require_size=_any_size, size=self._size,
                labels=self._labels, model=lambda nm: self._model(nm, attempt),
            )  # fmt: skip
        elif attempt(lambda: f"store {path}: {in_short(CubeStore.open(path))}") and attempt(
            self._with_store
        ):
            attempt(lambda: in_words(self.expected_model()))

    def _with_store(self) -> str:
        opened = self.open()
        for split in ("train", *(["validation"] if self.recipe.training.validate_every else [])):
            opened.samples(split)
        opened.known("test")
        training = opened.store.split("train")
        return (
            f"{opened.objects:,} objects in {len(opened.known('train'))} of {len(training)} "
            f"training images"
        )

    def _size(self) -> str:
        return "images are brought to {} x {} pixels".format(*self.recipe.data.image_size)

    def _labels(self, known: pd.DataFrame) -> str:
        found = label_images(self.recipe, [str(name) for name in known.index])
        return f"{len(found.files)} of {len(known)} images have a label image"

    def _model(self, wavelength_nm: NDArray[np.float64], attempt: Attempt) -> None:
        attempt(lambda: in_words(detect_model_config(self.recipe, wavelength_nm)))

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


def _any_size(name: str, size: tuple[int, int]) -> None:
    """Images of whatever size are brought to the model's."""
