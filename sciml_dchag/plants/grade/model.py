"""A trained grader, as it is opened in Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

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

    def lesions(self, store: str | os.PathLike[str], image: str) -> xr.DataArray:
        """Where the model sees lesions in an image, and how much of each cell they are.

        Args:
            store: a plant store with the model's bands.
            image: name of an image in it.

        Returns:
            Fractions from 0 to 1, (y, x), with cell centres in pixels of the image.
        """
        from sciml_dchag.plants.grade.grader import Grader
        from sciml_dchag.plants.store.cubes import CubeStore

        opened = CubeStore.open(store)
        grader = Grader(self.run or self.saved.path, opened)
        fractions = grader.lesions(image)
        coordinates = {}
        for name, number, side, part in zip(
            ("y", "x"), fractions.shape, opened.size(image), grader.reader.box(image), strict=True
        ):
            first, last, _ = part.indices(side)
            coordinates[name] = first + (np.arange(number) + 0.5) * (last - first) / number
        return xr.DataArray(
            fractions, dims=("y", "x"), coords=coordinates, name="lesions",
            attrs={"units": "1", "long_name": "fraction of lesions"},
        )  # fmt: skip
