"""What training a masked autoencoder asks of a plant store."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.objectives.interpolation import InterpolationErrors
from sciml_dchag.objectives.masked import MaskedObjective
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.plants.channels import band_name
from sciml_dchag.plants.crops import CubePatches
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.plants.training_store import PlantRecord, PlantTrainingStore
from sciml_dchag.training.masked import MaskedData


@dataclass(frozen=True, kw_only=True)
class MaskedRecord(PlantRecord):
    """What a masked autoencoder's checkpoint keeps of its data."""

    kernels: tuple[int, ...] = ()
    """Of the interpolation that reconstructions start from, by band, as positions in
    `objectives.interpolation.KERNELS`; none where they start from nothing."""
    missed_std: tuple[float, ...] = ()
    """What that interpolation misses, in normalised units, by band."""


class MaskedTrainingStore(PlantTrainingStore):
    """A plant store that a recipe's masked autoencoder is trained on.

    Raises:
        ValueError: there is no image to train on, or one without values at some wavelength.
        FileNotFoundError: there is no store.
    """

    record_type = MaskedRecord

    def __init__(self, recipe: MaskedRecipe) -> None:
        super().__init__(recipe)
        self.recipe: MaskedRecipe = recipe

    def model_config(self) -> ModelConfig:
        """Fill in bands and crop."""
        return masked_model_config(self.recipe, self.store.wavelength_nm)

    def training_data(self, model: ChannelTransformer, ranks: Ranks) -> MaskedTrainingData:
        """Build crops and the task."""
        return MaskedTrainingData(self, model, ranks)


class MaskedTrainingData(MaskedData):
    """Crops of the training and validation images, and the task."""

    def __init__(
        self, opened: MaskedTrainingStore, model: ChannelTransformer, ranks: Ranks
    ) -> None:
        recipe, store, data = opened.recipe, opened.store, opened.recipe.data
        super().__init__(recipe.seed, recipe.task, model, ranks)
        self.opened = opened
        crops = partial(
            CubePatches,
            store,
            mean=opened.statistics.mean,
            std=opened.statistics.std,
            image_size=data.image_size,
            draw_mask=self.objective.draw_mask,
            seed=recipe.seed,
            crops=data.crops,
            plants_only=recipe.task.plants_only,
            memory_mebibytes=data.memory_mebibytes,
            inputs=self.objective.own_inputs,
        )
        self.samples = crops(store.split("train"), flip=data.flip, rotate=data.rotate)
        self.validation = None
        if recipe.training.validate_every:
            self.validation = crops(store.split("validation"))
        self.kernels: list[int] = []
        self.missed_std = np.empty(0)
        if recipe.task.gaussian_process:
            mine = self.objective.own_outputs
            errors = interpolation_errors(self.samples, self.objective)
            whole = InterpolationErrors(
                np.concatenate(ranks.of_channels(errors.squares), axis=1),
                np.concatenate(ranks.of_channels(errors.counts)),
            )  # of all bands, so that any mesh chooses the same
            self.kernels, missed = whole.choose()
            self.missed_std = np.maximum(missed, 1e-6)
            self.objective.start_from(
                self.kernels[mine.start : mine.stop], self.missed_std[mine.start : mine.stop]
            )

    def record(self) -> dict[str, Any]:
        """Bands, their statistics, and the images that these are from."""
        return {
            **self.opened.record(),
            "kernels": self.kernels,
            "missed_std": self.missed_std.tolist(),
        }


def interpolation_errors(
    samples: CubePatches, objective: MaskedObjective, most: int = 24
) -> InterpolationErrors:
    """Find what every kernel misses of the hidden pixels of training samples, of their outputs."""

    def sample(number: int) -> tuple[Tensor, Tensor, Tensor]:
        image, visible, _, weight = samples[number].tensors
        return objective.targets(image)[0], ~objective.unseen(visible)[0, 0], weight[0]

    return InterpolationErrors.of(sample, most)


def masked_model_config(recipe: MaskedRecipe, wavelength_nm: NDArray[np.float64]) -> ModelConfig:
    """Fill in what the data decide: bands and the size of a crop."""
    names = tuple(band_name(nm) for nm in wavelength_nm)
    by_wavelength = recipe.model.channel_embedding == "wavelength"
    return dataclasses.replace(
        recipe.model,
        wavelength_nm=tuple(wavelength_nm.tolist()) if by_wavelength else (),
        input_channels=names,
        output_channels=names,
        image_size=recipe.data.image_size,
    )
