"""What training a forecaster asks of a weather store."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciml_dchag.channels import ChannelSet
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.objectives.forecast import ForecastObjective
from sciml_dchag.objectives.layout import InputLayout
from sciml_dchag.parallel.apply import own_channels
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.store.statistics import Statistics
from sciml_dchag.weather.store.store import Period, Store
from sciml_dchag.weather.training_store import WeatherRecord, WeatherTrainingStore
from sciml_dchag.weather.windows import ForecastBatch, ForecastWindows


@dataclass(frozen=True, kw_only=True)
class ForecastRecord(WeatherRecord):
    """What a forecaster's checkpoint keeps of its data."""

    change_std: tuple[float, ...] | None
    """Unit of a residual forecast by target channel; None for any other output."""
    step_hours: int
    """Time step of the store."""


class ForecastTrainingStore(WeatherTrainingStore):
    """A weather store that a recipe's forecaster is trained on.

    Raises:
        ValueError: store and recipe do not fit together.
        FileNotFoundError: there is no store, or it has no statistics.
    """

    record_type = ForecastRecord

    def __init__(self, recipe: ForecastRecipe) -> None:
        super().__init__(recipe.data.store, recipe.data)
        self.recipe = recipe
        check_rotation(self.store, recipe)

    def model_config(self) -> ModelConfig:
        """Fill in channels and grid."""
        return complete_model_config(self.recipe, self.store)

    def training_data(self, model: ChannelTransformer, ranks: Ranks) -> ForecastTrainingData:
        """Read the training period's statistics of change and build the task."""
        return ForecastTrainingData(self, model, ranks)

    def difference(self, checkpoint: Checkpoint) -> str | None:
        """Find what was prepared differently, or is another store's."""
        if (found := super().difference(checkpoint)) is not None:
            return found
        saved = checkpoint.read_data(ForecastRecord, Path("the run's checkpoint"))
        if self.store.step_hours in (None, saved.step_hours):  # uneven is refused elsewhere
            return None
        return (
            f"in steps of {saved.step_hours} h where {self.store.path} has "
            f"{self.store.step_hours} h"
        )


class ForecastTrainingData:
    """Windows of the training and validation periods, and the task."""

    def __init__(
        self, opened: ForecastTrainingStore, model: ChannelTransformer, ranks: Ranks
    ) -> None:
        recipe, store = opened.recipe, opened.store
        self.opened = opened
        inputs, outputs = own_channels(model, ranks.mesh)
        # A rollout feeds forecasts of all channels back, so that it needs all inputs.
        rolls_out = recipe.task.rollout_steps > 1
        windows = partial(
            training_windows, store, recipe, statistics=opened.statistics,
            inputs=None if rolls_out else inputs, outputs=outputs,
        )  # fmt: skip
        self.samples = windows(recipe.data.train)
        self.validation = None
        if recipe.data.validation and recipe.training.validate_every:
            self.validation = windows(recipe.data.validation)
        self.change_std = None
        if recipe.task.output == "residual":
            self.change_std = np.concatenate(ranks.of_channels(change_std(self.samples)))
        self.task = ForecastObjective(
            change_std=None if self.change_std is None else self.change_std[outputs],
            area_weights=latitude_weights(store.latitude),
            target_indices=store.channels.indices(model.config.output_channels),
            layout=self.samples.layout,
        ).to(ranks.device)
        self.task.complete = ranks.complete
        if rolls_out:
            self.task.own_inputs = slice(inputs.start, inputs.stop)
            # With `tp-only` every rank reads all inputs, and what it does with them is the same.
            apart = len(inputs) < len(model.config.input_channels)
            self.task.join = ranks.channel_joiner(len(outputs), apart=apart)

    def error(self, model: ChannelTransformer, batch: ForecastBatch) -> Tensor:
        """Sum the latitude-weighted squared errors."""
        return self.task.squared_error(model, *batch.tensors)

    def weight(self, batch: ForecastBatch) -> Tensor:
        """Sum the latitude weights of what is known."""
        return self.task.weight(batch.targets)

    def without(self, batch: ForecastBatch, absent: list[bool]) -> ForecastBatch:
        """Take the targets of some samples away."""
        targets = batch.targets.clone()
        targets[torch.tensor(absent)] = math.nan
        return ForecastBatch(
            batch.inputs, batch.now, batch.later_constants, targets, batch.lead_hours
        )

    def record(self) -> dict[str, Any]:
        """Channels, statistics, grid, unit of change and time step."""
        return {
            **self.opened.record(),
            "change_std": None if self.change_std is None else self.change_std.tolist(),
            "step_hours": self.samples.step_hours,
        }


class Placed(Protocol):
    """A store, or one that will be: where it is and its columns."""

    @property
    def path(self) -> Path:
        """Where it is."""

    @property
    def longitude(self) -> NDArray[np.float64]:
        """Column centres, degrees east."""


def check_rotation(store: Placed, recipe: ForecastRecipe) -> None:
    """Refuse to turn the fields of a region, whose east edge would become its west edge.

    Raises:
        ValueError: `data.rotate` is on and the store's columns do not go once around.
    """
    columns = len(store.longitude)
    steps = np.diff(store.longitude)
    if recipe.data.rotate and not np.allclose(steps, 360 / columns, rtol=0, atol=1e-3):
        raise ValueError(
            f"data.rotate turns fields about the Earth's axis, and {store.path} has {columns} "
            f"columns from {store.longitude[0]:g} to {store.longitude[-1]:g} degrees, which do not "
            f"go once around: set data.rotate to false, or prepare a global grid."
        )


def training_windows(
    store: Store,
    recipe: ForecastRecipe,
    period: Period,
    statistics: Statistics,
    inputs: range | None = None,
    outputs: range | None = None,
) -> ForecastWindows:
    """Build the samples of a period as a recipe asks for them, of some channels or of all."""
    task, data = recipe.task, recipe.data
    return ForecastWindows(
        store,
        period,
        mean=statistics.mean,
        std=statistics.std,
        targets=task.targets or store.channels.names,
        lead_hours=task.lead_hours,
        history_hours=data.history_hours,
        static=data.static,
        forcings=data.forcings,
        rollout_steps=task.rollout_steps,
        rotate=data.rotate and period == data.train,
        seed=recipe.seed,
        memory_mebibytes=data.memory_mebibytes,
        inputs=inputs,
        outputs=outputs,
    )


def complete_model_config(recipe: ForecastRecipe, store: Store) -> ModelConfig:
    """Fill in what the data decide: channels and image size.

    Raises:
        ValueError: the patch does not divide the grid, or there are too many partitions.
    """
    return model_config_of(recipe, store.channels, (len(store.latitude), len(store.longitude)))


def model_config_of(
    recipe: ForecastRecipe, channels: ChannelSet, image_size: tuple[int, int]
) -> ModelConfig:
    """Fill in the channels and the size of a grid.

    Raises:
        ValueError: as `complete_model_config`, or an input that is in no vocabulary.
    """
    inputs = ChannelSet(input_layout(recipe, channels).names)
    return dataclasses.replace(
        recipe.model,
        input_channels=tuple(inputs.names),
        output_channels=tuple(recipe.task.targets or channels.names),
        image_size=image_size,
    )


def input_layout(recipe: ForecastRecipe, channels: ChannelSet) -> InputLayout:
    """Lay out the inputs that a recipe makes of a store's channels."""
    data = recipe.data
    return InputLayout(
        channels=tuple(channels.names), history_hours=data.history_hours, static=data.static,
        forcings=data.forcings,
    )  # fmt: skip


def change_std(windows: ForecastWindows, most: int = 256) -> NDArray[np.float64]:
    """Standard deviation of the change over a lead time, by target channel, normalised.

    From up to `most` samples spread over the period, area-weighted.
    """
    weights = latitude_weights(windows.store.latitude)[:, None]
    count = min(most, len(windows))
    total, known = 0.0, 0.0
    for position in np.linspace(0, len(windows) - 1, count).astype(int):
        sample = windows[int(position)]
        now = sample.now[0].double().numpy()
        squares = (sample.targets[0, 0].numpy() - now) ** 2 * weights
        total = total + np.nansum(squares, (1, 2))
        known = known + np.isfinite(squares).sum((1, 2))
    return np.maximum(np.sqrt(total / np.maximum(known, 1)), 1e-6)
