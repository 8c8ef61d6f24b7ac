"""What of a masked autoencoder's recipe would fail; see `sciml_dchag.checking`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.summary import in_words
from sciml_dchag.plants.checks import check_before_store, expected_bands
from sciml_dchag.plants.crops import require_crop, require_large_enough
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.plants.masked.training import (
    MaskedTrainingStore,
    masked_model_config,
)
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.store.summary import in_short
from sciml_dchag.training.masked import masked_objective
from sciml_dchag.training.task import Attempt


def check(recipe: MaskedRecipe, attempt: Attempt, scored: Callable[[], None]) -> None:
    """Attempt what preparing, training and evaluating ask of a recipe.

    Args:
        recipe: what is checked.
        attempt: as of `Task.check`.
        scored: attempts `PlantTask.check_scored`.
    """
    path, image_size = Path(recipe.data.store), recipe.data.image_size
    if not path.exists():
        check_before_store(
            recipe,
            attempt,
            require_size=lambda name, size: require_crop(name, size, image_size),
            size=lambda: "crops of {} x {} pixels".format(*image_size),
            model=lambda nm: _check_model(recipe, nm, attempt),
        )
    elif attempt(lambda: f"store {path}: {in_short(CubeStore.open(path))}"):
        _check_with_store(recipe, attempt)
        scored()


def _check_with_store(recipe: MaskedRecipe, attempt: Attempt) -> None:
    """Attempt what training asks of a store that is there."""
    store = CubeStore.open(recipe.data.store)

    def crops() -> str:
        for cube in store.names:
            require_large_enough(store, cube, recipe.data.image_size)
        rows, columns = recipe.data.image_size
        return f"crops of {rows} x {columns} pixels"

    attempt(
        lambda: f"statistics of {len(MaskedTrainingStore(recipe).statistics.cubes)} training images"
    )
    attempt(crops)
    _check_model(recipe, store.wavelength_nm, attempt)


def expected_model(recipe: MaskedRecipe) -> ModelConfig:
    """Return the architecture that a recipe will train, from its store or from what will be in it.

    Raises:
        ValueError: there is no store yet and the recipe does not say its bands.
    """
    return masked_model_config(recipe, expected_bands(recipe))


def _check_model(
    recipe: MaskedRecipe, wavelength_nm: NDArray[np.float64], attempt: Attempt
) -> None:
    def masks() -> str:
        task = masked_objective(
            recipe.seed, recipe.task, masked_model_config(recipe, wavelength_nm)
        )
        return f"{task.visible} of {task.locations} locations are seen"

    if attempt(lambda: in_words(masked_model_config(recipe, wavelength_nm))):
        attempt(masks)
