"""The task of masked autoencoding: each step of `training.task.Task`, done by its own module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.plants.masked.training import MaskedRecord, MaskedTrainingStore
from sciml_dchag.plants.task import PlantTask
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.training.masked import planned_loss
from sciml_dchag.training.task import Attempt, PlannedLoss, attempt_scored


class MaskedTask(PlantTask[MaskedRecipe]):
    """Learn to reconstruct hidden parts of hyperspectral images."""

    def open(self) -> MaskedTrainingStore:
        """Open the plant store."""
        return MaskedTrainingStore(self.recipe)

    def expected_model(self) -> ModelConfig:
        """Take bands from the store, or from `prepare`."""
        from sciml_dchag.plants.masked.checks import expected_model

        return expected_model(self.recipe)

    def planned_loss(self) -> PlannedLoss:
        """The error of what is hidden."""
        return planned_loss(self.recipe.task)

    def check(self, attempt: Attempt, note: Callable[[str], None]) -> None:
        """Check images or store, model and masks."""
        from sciml_dchag.plants.masked.checks import check

        check(self.recipe, attempt, lambda: attempt_scored(self.check_scored, attempt, note))

    def evaluate(
        self,
        run: Path,
        *,
        parallel: ParallelConfig | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Score the test images beside a mean spectrum and a PCA."""
        from sciml_dchag.plants.masked.evaluate import evaluate

        return evaluate(run, self.recipe, progress=progress)

    @classmethod
    def describe(cls, checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
        """Bands, what is hidden, and the training images."""
        data, task = checkpoint.read_data(MaskedRecord, path), checkpoint.recipe["task"]
        bands = data.channels
        return {
            "bands": f"{len(bands)}, {bands[0]} to {bands[-1]}",
            "hidden": {"locations": task["mask_ratio"], "band groups": task["channel_mask_ratio"]},
            "training images": list(data.training_images),
        }
