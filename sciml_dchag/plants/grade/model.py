"""A trained grader, as it is opened in Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from sciml_dchag.plants.grade.config import GradeRecipe
from sciml_dchag.training.trained import TrainedModel


class GradeModel(TrainedModel[GradeRecipe]):
    """A trained grader of plants."""

    kind = "grader of plants"
    recipe_type = GradeRecipe

    def facts(self) -> dict[str, Any]:
        """What was trained, and on how many grades."""
        from sciml_dchag.plants.grade.task import GradeTask

        more = GradeTask.describe(self.saved.checkpoint, self.saved.path)
        return {**super().facts(), **more}

    def grade(
        self, store: str | os.PathLike[str], out: str | os.PathLike[str], **options: Any
    ) -> pd.DataFrame:
        """Grade the images of a store and write a table; see `predict.predict`."""
        from sciml_dchag.plants.grade.predict import predict

        return predict(self.run or self.saved.path, Path(store), Path(out), **options)
