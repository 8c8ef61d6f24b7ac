"""What the tasks on a plant store share: preparing, and checking what is not there yet."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.summary import in_words
from sciml_dchag.plants.recipe import PlantRecipe, WholeImagesRecipe
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.store.summary import changes, in_short
from sciml_dchag.plants.training_store import require_test_images
from sciml_dchag.training.task import Attempt, Task, attempt_scored

AnyPlantRecipe = TypeVar("AnyPlantRecipe", bound=PlantRecipe)
AnyWholeImagesRecipe = TypeVar("AnyWholeImagesRecipe", bound=WholeImagesRecipe)


class PlantTask(Task[AnyPlantRecipe]):
    """A task on a plant store."""

    def prepare(self, progress: Progress | None, console: Callable[[str], None]) -> None:
        """Calibrate raw images into the store, with plant masks and splits."""
        store, prepare = Path(self.recipe.data.store), self.recipe.prepare
        if store.exists():
            console(f"prepare: {store} is there")
            CubeStore.open(store)
            return
        from sciml_dchag.plants.prepare.images import prepare_plants

        console(f"prepare: bands {prepare.bands} into {store}")
        prepare_plants(
            out=store,
            **dataclasses.asdict(prepare),
            seed=self.recipe.seed,
            progress=progress,
        )
        for line in changes(CubeStore.open(store)):
            console(f"prepare: {line}")

    def test_images(self) -> list[str]:
        """Names of the images of the store that are scored.

        Raises:
            NothingToScoreError: there is none.
        """
        return require_test_images(CubeStore.open(self.recipe.data.store))

    def check_scored(self) -> str:
        """Say how many images are scored; before there is a store, what they will be chosen by.

        Raises:
            NothingToScoreError: none is.
        """
        if not Path(self.recipe.data.store).exists():
            return f"test images by prepare.split {self.recipe.prepare.split}"
        return f"{len(self.test_images())} test image(s)"


class WholeImageTask(PlantTask[AnyWholeImagesRecipe]):
    """A task on whole images with labels: what is checked of its recipe."""

    @abc.abstractmethod
    def config_for(self, wavelength_nm: NDArray[np.float64]) -> ModelConfig:
        """Fill in the architecture for a store of these bands."""

    @abc.abstractmethod
    def check_labels(self, known: pd.DataFrame) -> str:
        """Say what is known of images that are not prepared yet, one row of the table for each."""

    @abc.abstractmethod
    def check_store(self) -> str:
        """Say what is known of the images of the store."""

    def expected_model(self) -> ModelConfig:
        """Take bands from the store, or from `prepare`."""
        from sciml_dchag.plants.checks import expected_bands

        return self.config_for(expected_bands(self.recipe))

    def check(self, attempt: Attempt, note: Callable[[str], None]) -> None:
        """Check images or store, labels and model."""
        from sciml_dchag.plants.checks import check_before_store

        def model(wavelength_nm: NDArray[np.float64]) -> None:
            attempt(lambda: in_words(self.config_for(wavelength_nm)))

        path = Path(self.recipe.data.store)
        if not path.exists():
            check_before_store(
                self.recipe, attempt, require_size=_any_size, size=self._size,
                labels=self.check_labels,
                model=model,
            )  # fmt: skip
        elif attempt(lambda: f"store {path}: {in_short(CubeStore.open(path))}") and attempt(
            self.check_store
        ):
            attempt(lambda: in_words(self.expected_model()))
            attempt_scored(self.check_scored, attempt, note)

    def _size(self) -> str:
        return "images are brought to {} x {} pixels".format(*self.recipe.data.image_size)


def _any_size(name: str, size: tuple[int, int]) -> None:
    """Images of whatever size are brought to the model's."""
