"""A trained model that looks at whole images of a plant store, on one process."""

from __future__ import annotations

import os
from typing import Generic, TypeVar

import numpy as np

from sciml_dchag.config import from_mapping
from sciml_dchag.parallel.runtime import Ranks, choose_device
from sciml_dchag.plants.recipe import WholeImagesRecipe
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.training_store import PlantRecord
from sciml_dchag.plants.whole_images import WholeImages
from sciml_dchag.training.export import find_model

Recipe = TypeVar("Recipe", bound=WholeImagesRecipe)
Record = TypeVar("Record", bound=PlantRecord)


class WholeImageModel(Generic[Recipe, Record]):
    """A trained model and a plant store, on one process.

    Args:
        model: a run, a checkpoint or an exported file.
        store: the images; their bands are those of the training store.
        device: where to compute; None is the run's.

    Raises:
        FileNotFoundError: no checkpoint.
        ValueError: a damaged checkpoint, other bands or another quantity, or a device that is not
            there.
    """

    recipe_type: type[Recipe]
    record_type: type[Record]

    def __init__(
        self, model: str | os.PathLike[str], store: CubeStore, device: str | None = None
    ) -> None:
        found = find_model(model)
        self.path, self.checkpoint, self.store = found.path, found.checkpoint, store
        self.recipe = from_mapping(self.recipe_type, found.checkpoint.recipe)
        self.data = found.checkpoint.read_data(self.record_type, self.path)
        self.data.require_bands(store, self.path)
        self.data.require_quantity(store, self.path)
        self.reader = WholeImages(
            store, np.asarray(self.data.mean), np.asarray(self.data.std),
            image_size=self.recipe.data.image_size, crop=self.recipe.data.crop,
        )  # fmt: skip
        self.device = choose_device(device or self.recipe.parallel.device)
        self.model = found.ready(Ranks(device=self.device), self.recipe.training)
