"""What training a masked autoencoder asks of a weather store; see `training.task`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.objectives.masked import MaskedObjective
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.training.batches import MaskedBatch, drawn
from sciml_dchag.training.masked import MaskedData
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.masked.config import MaskedWeatherRecipe
from sciml_dchag.weather.store.store import Period, Store
from sciml_dchag.weather.training_store import WeatherTrainingStore


class MaskedWeatherStore(WeatherTrainingStore):
    """A weather store that a masked autoencoder is trained on.

    Raises:
        ValueError: store and recipe do not fit together.
        FileNotFoundError: there is no store, or it has no statistics.
    """

    def __init__(self, recipe: MaskedWeatherRecipe) -> None:
        super().__init__(recipe.data.store, recipe.data)
        self.recipe = recipe

    def model_config(self) -> ModelConfig:
        """Fill in channels and grid."""
        size = (len(self.store.latitude), len(self.store.longitude))
        return complete_model_config(self.recipe, tuple(self.store.channels.names), size)

    def training_data(self, model: ChannelTransformer, ranks: Ranks) -> MaskedWeatherData:
        """Build states and the objective."""
        return MaskedWeatherData(self, model, ranks)


class States:
    """States of a period and what is hidden of them, each weighted by the area of its cells.

    Args:
        store: the weather store, normalised with its statistics.
        period: which times.
        objective: draws what is hidden.
        seed: what the order is drawn from.
        inputs: positions of the channels to read.
    """

    def __init__(
        self,
        store: WeatherTrainingStore,
        period: Period,
        objective: MaskedObjective,
        seed: int,
        inputs: range,
    ) -> None:
        self.store: Store = store.store
        self.draw_mask, self.seed, self.inputs = objective.draw_mask, seed, inputs
        own = slice(inputs.start, inputs.stop)
        self._mean = store.statistics.mean[own].astype(np.float32)[:, None, None]
        self._std = store.statistics.std[own].astype(np.float32)[:, None, None]
        self.indices = self.store.time_indices(period)
        weights = latitude_weights(self.store.latitude).astype(np.float32)[:, None]
        self._weights = np.broadcast_to(weights, self.store.shape[2:]).copy()

    def __len__(self) -> int:
        """Return the number of times."""
        return len(self.indices)

    def __getitem__(self, number: int) -> MaskedBatch:
        """Return sample `number`, counted on through all epochs, as a batch of one."""
        epoch, index = drawn(self.seed, number, len(self))
        visible, hidden = self.draw_mask(epoch, index)
        fields = (self.state(int(self.indices[index])), visible, hidden, self._weights)
        return MaskedBatch(*(torch.from_numpy(field)[None] for field in fields))

    def state(self, time: int) -> NDArray[np.float32]:
        """Read and normalise the state at a time of the store: (C, H, W)."""
        state = self.store.read([time], list(self.inputs))[0]
        state -= self._mean
        state /= self._std
        return state


class MaskedWeatherData(MaskedData):
    """States of the training and validation periods, and the objective."""

    def __init__(self, store: MaskedWeatherStore, model: ChannelTransformer, ranks: Ranks) -> None:
        recipe = store.recipe
        super().__init__(recipe.seed, recipe.task, model, ranks)
        self.store, inputs = store, self.objective.own_inputs
        self.samples = States(store, recipe.data.train, self.objective, recipe.seed, inputs)
        self.validation = None
        if recipe.data.validation and recipe.training.validate_every:
            self.validation = States(
                store, recipe.data.validation, self.objective, recipe.seed, inputs
            )

    def record(self) -> dict[str, Any]:
        """Channels, statistics and grid."""
        return self.store.record()


def complete_model_config(
    recipe: MaskedWeatherRecipe, channels: tuple[str, ...], size: tuple[int, int]
) -> ModelConfig:
    """Fill in what the data decide: channels and grid.

    Raises:
        ValueError: the patch does not divide the grid.
    """
    return dataclasses.replace(
        recipe.model, input_channels=channels, output_channels=channels, image_size=size
    )
