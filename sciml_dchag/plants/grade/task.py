"""The task of grading; see `training.task.Task`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.objectives.grading import planned_loss
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.plants.grade.config import GradeRecipe
from sciml_dchag.plants.grade.labels import UNKNOWN, LesionImages, grades_of
from sciml_dchag.plants.grade.training import GradeRecord, GradeStore, grade_model_config
from sciml_dchag.plants.task import WholeImageTask
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.training.task import PlannedLoss


class GradeTask(WholeImageTask[GradeRecipe]):
    """Learn to grade the images of a plant store."""

    def open(self) -> GradeStore:
        """Open the plant store and its labels."""
        return GradeStore(self.recipe)

    def config_for(self, wavelength_nm: NDArray[np.float64]) -> ModelConfig:
        """Fill in bands, outputs and size."""
        return grade_model_config(self.recipe, wavelength_nm)

    def planned_loss(self) -> PlannedLoss:
        """The error of grades and areas."""
        return planned_loss

    def check_store(self) -> str:
        """Say what is known of the training images."""
        opened = self.open()
        training = opened.store.split("train")
        for cube in opened.drawn(opened.store.names):
            opened.lesion_percent(cube)
        for split in ("train", *(["validation"] if self.recipe.training.validate_every else [])):
            opened.samples(split)
        return (
            f"{len(opened.graded(training))} of {len(training)} training images have a grade, "
            f"{len(opened.drawn(training))} drawn lesions"
        )

    def test_images(self) -> list[str]:
        """Test images that have a grade or drawn lesions."""
        return self.open().labelled_test()

    def check_labels(self, known: pd.DataFrame) -> str:
        """Say how many images have a label."""
        recipe = self.recipe
        where = recipe.prepare.table or "prepare.table"
        grades = grades_of(known, recipe.task.column, recipe.task.grades, where)
        said = f"{int((grades != UNKNOWN).sum())} of {len(grades)} images have a grade"
        if recipe.data.lesions:
            names = [str(name) for name in known.index]
            said += f", {len(LesionImages(recipe.data.lesions, names).files)} drawn lesions"
        return said

    def evaluate(
        self,
        run: Path,
        *,
        parallel: ParallelConfig | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Score the test images beside the commonest grade and boosted trees on colours."""
        from sciml_dchag.plants.grade.evaluate import evaluate

        return evaluate(run, self.recipe, progress=progress)

    @classmethod
    def describe(cls, checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
        """Bands, grades and how many images had labels."""
        data, task = checkpoint.read_data(GradeRecord, path), checkpoint.recipe["task"]
        return {
            "bands": f"{len(data.channels)}, {data.channels[0]} to {data.channels[-1]}",
            "grades": f"{task['column']}, 0 to {task['grades'] - 1}",
            "training images": f"{len(data.training_images)}, {data.graded} with a grade, "
            f"{data.drawn} with drawn lesions",
        }
