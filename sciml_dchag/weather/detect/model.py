"""A trained detector of objects, as it is opened in Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from sciml_dchag.training.trained import TrainedModel
from sciml_dchag.weather.detect.config import DetectRecipe


class DetectModel(TrainedModel[DetectRecipe]):
    """A trained detector of objects in weather."""

    kind = "detector of objects"
    recipe_type = DetectRecipe

    def facts(self) -> dict[str, Any]:
        """What was trained, and which objects it finds."""
        from sciml_dchag.weather.detect.task import DetectTask

        more = DetectTask.describe(self.saved.checkpoint, self.saved.path)
        return {**super().facts(), **more}

    def find_objects(
        self, source: str | os.PathLike[str], out: str | os.PathLike[str], **options: Any
    ) -> pd.DataFrame:
        """Find the objects of a store and write them; see `predict.predict`."""
        from sciml_dchag.weather.detect.predict import predict

        return predict(self.run or self.saved.path, Path(source), Path(out), **options)
