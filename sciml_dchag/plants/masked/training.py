"""What training a masked autoencoder asks of a plant store."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
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
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.store.statistics import require_normalisable
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.training.masked import MaskedData
from sciml_dchag.training.task import Fingerprint, short_hash


@dataclass(frozen=True, kw_only=True)
class MaskedRecord:
    """What a masked autoencoder's checkpoint keeps of its data."""

    channels: tuple[str, ...]
    """Bands of the training store, in order."""
    mean: tuple[float, ...]
    """Mean of the training images' plant pixels by band."""
    std: tuple[float, ...]
    """Standard deviation of the same."""
    training_images: tuple[str, ...]
    """Images that mean and std were computed over."""
    kernels: tuple[int, ...] = ()
    """Of the interpolation that reconstructions start from, by band, as positions in
    `objectives.interpolation.KERNELS`; none where they start from nothing."""
    missed_std: tuple[float, ...] = ()
    """What that interpolation misses, in normalised units, by band."""
    quantity: str = ""
    """What the store held, such as reflectance; empty where it was not kept."""

    def require_quantity(self, store: CubeStore, path: Path) -> None:
        """Refuse a store that holds something else than the training store did.

        Args:
            store: the store.
            path: of the checkpoint, for a message.

        Raises:
            ValueError: it does.
        """
        if self.quantity and self.quantity != store.quantity:
            raise ValueError(
                f"{path} was trained on {self.quantity}, and {store.path} holds the "
                f"{store.quantity}: prepare a store with the same `snv`."
            )


class MaskedTrainingStore:
    """A plant store that a recipe's masked autoencoder is trained on.

    Raises:
        ValueError: there is no image to train on, or one without values at some wavelength.
        FileNotFoundError: there is no store.
    """

    def __init__(self, recipe: MaskedRecipe) -> None:
        self.recipe = recipe
        self.store = CubeStore.open(recipe.data.store)
        if not self.store.split("train"):
            raise ValueError(
                f"None of the {len(self.store.names)} images in {self.store.path} is for training: "
                f"prepare it with another split."
            )
        if recipe.training.validate_every and not self.store.split("validation"):
            raise ValueError(
                f"training.validate_every is {recipe.training.validate_every}, but none of the "
                f"{len(self.store.names)} images in {self.store.path} is for validation: set it to "
                f"0, or prepare the store with another split."
            )
        self.statistics = self.store.statistics()
        if (empty := ~np.isfinite(self.statistics.mean)).any():
            nm = self.store.wavelength_nm[empty]
            raise ValueError(
                f"{len(nm)} bands of {self.store.path} from {nm[0]:g} to {nm[-1]:g} nm have no "
                f"value on plants of the training images, with which nothing can be normalised: "
                f"prepare it with `drop_bands=FIRST-LAST`, or with others in `bands`."
            )
        require_normalisable(self.statistics, self.store.wavelength_nm)

    def model_config(self) -> ModelConfig:
        """Fill in bands and crop."""
        return masked_model_config(self.recipe, self.store.wavelength_nm)

    def training_data(self, model: ChannelTransformer, ranks: Ranks) -> MaskedTrainingData:
        """Build crops and the task."""
        return MaskedTrainingData(self, model, ranks)

    def fingerprint(self) -> Fingerprint:
        """Name bands, images with their splits, and statistics to the last bit."""
        store, statistics = self.store, self.statistics
        fix = f"let all ranks read the same {store.path}, or copy it to each machine again"
        splits = json.dumps([store.names, list(store.table["split"])]).encode()
        return {
            "bands in the store": (
                f"{len(store.channels)} ({short_hash(store.wavelength_nm.tobytes())})",
                fix,
            ),
            "images in the store": (f"{len(store.names)} ({short_hash(splits)})", fix),
            "statistics in the store": (
                f"statistics {short_hash(statistics.mean.tobytes(), statistics.std.tobytes())}",
                fix,
            ),
        }

    def difference(self, checkpoint: Checkpoint) -> str | None:
        """Find other bands or other training images."""
        store = self.store
        saved = checkpoint.read_data(MaskedRecord, Path("the run's checkpoint"))
        if list(saved.channels) != store.channels.names:
            return (
                f"whose store had {len(saved.channels)} bands where {store.path} has "
                f"{len(store.channels)}, or others"
            )
        if not (
            np.allclose(saved.mean, self.statistics.mean, rtol=1e-5)
            and np.allclose(saved.std, self.statistics.std, rtol=1e-5)
        ):
            return f"whose store had other training images than {store.path} has"
        return None


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
        statistics = self.opened.statistics
        return {
            "channels": self.opened.store.channels.names,
            "mean": statistics.mean.tolist(),
            "std": statistics.std.tolist(),
            "training_images": list(statistics.cubes),
            "kernels": self.kernels,
            "missed_std": self.missed_std.tolist(),
            "quantity": self.opened.store.quantity,
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
