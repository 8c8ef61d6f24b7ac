"""A plant store that a task trains on: bands, splits, statistics; see `training.task`."""

from __future__ import annotations

import abc
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sciml_dchag.config import Recipe
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.store.statistics import require_normalisable
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.training.task import (
    Fingerprint,
    NothingToScoreError,
    TrainingData,
    short_hash,
)


@dataclass(frozen=True, kw_only=True)
class PlantRecord:
    """What a checkpoint of every task on a plant store keeps of its data."""

    channels: tuple[str, ...]
    """Bands of the training store, in order."""
    mean: tuple[float, ...]
    """Mean of the training images' plant pixels by band."""
    std: tuple[float, ...]
    """Standard deviation of the same."""
    training_images: tuple[str, ...]
    """Images that mean and std were computed over."""
    quantity: str = ""
    """What the store held, such as reflectance; empty where it was not kept."""

    def require_bands(self, store: CubeStore, path: Path) -> None:
        """Refuse a store of other bands than the training store had.

        Raises:
            ValueError: it has others.
        """
        if list(self.channels) != store.channels.names:
            raise ValueError(
                f"{path} was trained on {len(self.channels)} bands, {self.channels[0]} to "
                f"{self.channels[-1]}, and {store.path} has {len(store.channels)}, "
                f"{store.channels.names[0]} to {store.channels.names[-1]}: prepare a store with "
                f"the same `bands`."
            )

    def require_quantity(self, store: CubeStore, path: Path) -> None:
        """Refuse a store that holds something else than the training store did.

        Raises:
            ValueError: it does.
        """
        if self.quantity and self.quantity != store.quantity:
            raise ValueError(
                f"{path} was trained on {self.quantity}, and {store.path} holds the "
                f"{store.quantity}: prepare a store with the same `snv` and `derivative`."
            )


def require_test_images(store: CubeStore) -> list[str]:
    """Names of a store's test images.

    Raises:
        NothingToScoreError: there is none.
    """
    if not (images := store.split("test")):
        raise NothingToScoreError(
            f"None of the {len(store.names)} images in {store.path} is for testing, which "
            f"`evaluate` and `run` score: prepare it with another split."
        )
    return images


class PlantTrainingStore(abc.ABC):
    """A plant store that a recipe's model is trained on.

    Raises:
        ValueError: there is no image to train on, or one without values at some wavelength.
        FileNotFoundError: there is no store.
    """

    record_type: type[PlantRecord]
    """What a checkpoint keeps of the data."""

    def __init__(self, recipe: Recipe) -> None:
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

    @abc.abstractmethod
    def model_config(self) -> ModelConfig:
        """Fill in what the data decide."""

    @abc.abstractmethod
    def training_data(self, model: ChannelTransformer, ranks: Ranks) -> TrainingData[Any]:
        """Build samples and errors."""

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
        saved = checkpoint.read_data(self.record_type, Path("the run's checkpoint"))
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

    def record(self) -> dict[str, Any]:
        """The values of a `PlantRecord`."""
        statistics = self.statistics
        return {
            "channels": self.store.channels.names,
            "mean": statistics.mean.tolist(),
            "std": statistics.std.tolist(),
            "training_images": list(statistics.cubes),
            "quantity": self.store.quantity,
        }
