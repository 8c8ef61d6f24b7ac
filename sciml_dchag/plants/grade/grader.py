"""A trained grader on a store: grades, probabilities and lesions of images."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.grading import lesion_ratio
from sciml_dchag.plants.grade.config import GradeRecipe
from sciml_dchag.plants.grade.training import GradeRecord, cells_of, grading_objective
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.whole_image_model import WholeImageModel
from sciml_dchag.training.precision import autocast


class Grader(WholeImageModel[GradeRecipe, GradeRecord]):
    """A trained grader and a store."""

    recipe_type, record_type = GradeRecipe, GradeRecord

    def __init__(
        self, model: str | os.PathLike[str], store: CubeStore, device: str | None = None
    ) -> None:
        super().__init__(model, store, device)
        self.objective = grading_objective(self.recipe).to(self.device)

    def grade(
        self, cubes: Sequence[str], *, batch: int = 32, progress: Progress | None = None
    ) -> pd.DataFrame:
        """Grade images.

        Args:
            cubes: their names.
            batch: images at once.
            progress: called for images.

        Returns:
            One row per image: `grade` (how many thresholds are more likely exceeded than not),
            `severity` (the expected grade), `probability_0`, ... of each grade, and
            `lesion_percent` of the plant where drawn lesions were learnt.
        """
        parts = []
        for start in range(0, len(cubes), batch):
            names = list(cubes[start : start + batch])
            above, areas = self._say(names)
            columns = {
                "grade": (above > 0.5).sum(1).astype(np.int64), "severity": above.sum(1),
                **{f"probability_{g}": p for g, p in enumerate(probabilities(above).T)},
            }  # fmt: skip
            if self.data.drawn:
                columns["lesion_percent"] = 100 * lesion_ratio(areas).double().cpu().numpy()
            parts.append(pd.DataFrame(columns, index=pd.Index(names, name="cube")))
            if progress is not None:
                progress(start + len(names), len(cubes), "grading")
        return pd.concat(parts)

    def lesions(self, cube: str) -> NDArray[np.float32]:
        """Fraction of each cell of the model's image that is lesion, (rows, columns)."""
        _, areas = self._say([cube])
        return areas[0, :, 1].unflatten(0, cells_of(self.recipe)).float().cpu().numpy()

    @torch.no_grad()
    def _say(self, names: list[str]) -> tuple[NDArray[np.float64], Tensor]:
        """Probabilities that each threshold is exceeded, (B, K - 1), and areas, (B, F, 2)."""
        images = torch.stack([self.reader.read(name) for name in names]).to(self.device)
        with autocast(self.recipe.training.precision, self.device):
            grades, areas = self.objective.predict(self.model, images)
        return grades.sigmoid().double().cpu().numpy(), areas.sigmoid()


def probabilities(above: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of each grade, (N, K), from those that it is above 0, 1, ...: (N, K - 1)."""
    edges = np.pad(above, ((0, 0), (1, 0)), constant_values=1.0)
    return edges - np.pad(above, ((0, 0), (0, 1)))
