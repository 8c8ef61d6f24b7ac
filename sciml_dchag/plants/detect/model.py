"""A trained detector of objects in plants, as it is opened in Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from sciml_dchag.plants.detect.config import DetectPlantsRecipe
from sciml_dchag.training.trained import TrainedModel


class DetectPlantsModel(TrainedModel[DetectPlantsRecipe]):
    """A trained detector of objects in images of plants."""

    kind = "detector of objects in plants"
    recipe_type = DetectPlantsRecipe

    def facts(self) -> dict[str, Any]:
        """What was trained, and on how many objects."""
        from sciml_dchag.plants.detect.task import DetectPlantsTask

        more = DetectPlantsTask.describe(self.saved.checkpoint, self.saved.path)
        return {**super().facts(), **more}

    def find_objects(
        self, source: str | os.PathLike[str], out: str | os.PathLike[str], **options: Any
    ) -> pd.DataFrame:
        """Find the objects in the images of a store and write a table; see `predict.predict`."""
        from sciml_dchag.plants.detect.predict import predict

        return predict(self.run or self.saved.path, Path(source), Path(out), **options)
