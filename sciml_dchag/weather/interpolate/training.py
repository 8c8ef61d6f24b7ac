"""What training an interpolator asks of a weather store; see `training.task`."""

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

from sciml_dchag.files.arrays import MOST_BYTES, from_text, to_text
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.objectives.between import BetweenObjective
from sciml_dchag.parallel.apply import own_channels
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.interpolate.config import InterpolateRecipe
from sciml_dchag.weather.interpolate.ridge import (
    fit_ridge,
    fitted_times,
    ridge_of,
    unit_of,
    weights_shape,
)
from sciml_dchag.weather.interpolate.windows import (
    ENDS_ALONE,
    BetweenBatch,
    BetweenWindows,
    check_windows,
    layout_of,
)
from sciml_dchag.weather.store.cycles import Cycle, cycle_bytes
from sciml_dchag.weather.store.store import Period
from sciml_dchag.weather.training_store import (
    Placed,
    Timed,
    WeatherRecord,
    WeatherTrainingStore,
    check_rotation,
    other_step,
)
from sciml_dchag.weather.windows import Stepped, require_even_steps


@dataclass(frozen=True, kw_only=True)
class BetweenRecord(WeatherRecord):
    """What an interpolator's checkpoint keeps of its data."""

    step_hours: int
    """Time step of the store."""
    unit: tuple[float, ...]
    """What the model's output is a multiple of, of all channels in each window."""
    daily_cycle_hours: tuple[int, ...]
    """Hours of `daily_cycle`."""
    daily_cycle: str
    """The training period's mean by hour of day, and its seasons where there are any, (hour, J, C,
    H, W), as `files.arrays` has it."""
    ridge: str
    """Weights of the ridge, `ridge.weights_shape`, likewise."""

    def cycle(self, grid: tuple[int, int]) -> Cycle:
        """What states are departures from, on a grid of (rows, columns)."""
        return Cycle.from_text(self.daily_cycle_hours, self.daily_cycle, len(self.channels), grid)

    def ridge_weights(self, fits: int, rows: int) -> NDArray[np.float32]:
        """Weights of the ridge of all channels at M fitted times, `ridge.weights_shape`."""
        return from_text(self.ridge, weights_shape(len(self.channels), fits, rows))


class BetweenStore(WeatherTrainingStore):
    """A weather store that an interpolator is trained on.

    Raises:
        ValueError: store and recipe do not fit together.
        FileNotFoundError: there is no store, or it has no statistics.
    """

    record_type = BetweenRecord

    def __init__(self, recipe: InterpolateRecipe) -> None:
        super().__init__(recipe.data.store, recipe.data)
        self.recipe = recipe
        check_store(recipe, self.store, self.store.shape[1:])

    def model_config(self) -> ModelConfig:
        """Fill in channels and grid."""
        size = (len(self.store.latitude), len(self.store.longitude))
        return complete_model_config(self.recipe, tuple(self.store.channels.names), size)

    def training_data(self, model: ChannelTransformer, ranks: Ranks) -> BetweenData:
        """Fit the daily cycle and the ridge, and build the objective."""
        return BetweenData(self, model, ranks)

    def difference(self, checkpoint: Checkpoint) -> str | None:
        """Find what was prepared differently, or is another store's."""
        if (found := super().difference(checkpoint)) is not None:
            return found
        saved = checkpoint.read_data(BetweenRecord, Path("the run's checkpoint"))
        return other_step(self.store, saved.step_hours)


class BetweenData:
    """Windows of the training and validation periods, and the objective."""

    def __init__(self, opened: BetweenStore, model: ChannelTransformer, ranks: Ranks) -> None:
        self.opened, recipe, store = opened, opened.recipe, opened.store
        inputs, outputs = own_channels(model, ranks.mesh)
        starts_from_ridge = recipe.task.start == "ridge"
        self.cycle = ranks.from_first(lambda: Cycle.of(store, recipe.data.train))
        windows = partial(
            windows_of, opened, cycle=self.cycle, outputs=outputs,
            # The ridge may be of all channels.
            inputs=None if starts_from_ridge else inputs,
        )  # fmt: skip
        self.samples = windows(recipe.data.train)
        self.validation = None
        if recipe.data.validation and recipe.training.validate_every:
            self.validation = windows(recipe.data.validation)
        self.ridge_weights = ranks.from_first(
            lambda: fit_ridge(windows_of(opened, recipe.data.train, cycle=self.cycle))
        )
        ridge = None
        if starts_from_ridge:
            fitted = fitted_times(self.samples.window_hours, self.samples.step_hours)
            ridge = ridge_of(store, self.ridge_weights, list(outputs), fitted)
        own_unit = unit_of(self.samples, ridge)
        self.unit = np.concatenate(ranks.of_channels(own_unit), axis=-1)
        self.objective = BetweenObjective(
            area_weights=latitude_weights(store.latitude),
            layout=self.samples.layout,
            unit=own_unit,
            window_hours=recipe.task.window_hours,
            ridge=ridge,
        ).to(ranks.device)
        self.objective.complete = ranks.complete
        if starts_from_ridge:
            self.objective.own_inputs = slice(inputs.start, inputs.stop)

    def error(self, model: ChannelTransformer, batch: BetweenBatch) -> Tensor:
        """Sum the latitude-weighted squared errors."""
        return self.objective.squared_error(model, *batch.tensors)

    def weight(self, batch: BetweenBatch) -> Tensor:
        """Sum the latitude weights of what is known."""
        return self.objective.weight(batch.targets)

    def without(self, batch: BetweenBatch, absent: list[bool]) -> BetweenBatch:
        """Take the targets of some samples away."""
        targets = batch.targets.clone()
        targets[torch.tensor(absent)] = math.nan
        return dataclasses.replace(batch, targets=targets)

    def record(self) -> dict[str, Any]:
        """Channels, statistics, grid, and all that was fitted."""
        return {
            **self.opened.record(),
            "step_hours": self.samples.step_hours,
            "unit": self.unit.ravel().tolist(),
            "daily_cycle_hours": self.cycle.hours.tolist(),
            "daily_cycle": self.cycle.to_text(),
            "ridge": to_text(self.ridge_weights),
        }


def windows_of(
    opened: BetweenStore,
    period: Period,
    *,
    cycle: Cycle,
    inputs: range | None = None,
    outputs: range | None = None,
) -> BetweenWindows:
    """Build the samples of a period as a recipe asks for them, of some channels or of all."""
    recipe, whole = opened.recipe, inputs is None and outputs is None
    training = period == recipe.data.train
    return BetweenWindows(
        opened.store,
        period,
        cycle=cycle,
        std=opened.statistics.std,
        window_hours=recipe.task.window_hours,
        forcings=recipe.data.forcings,
        rotate=recipe.data.rotate and training,
        ends_alone=ENDS_ALONE if training else 0.0,
        seed=recipe.seed,
        # What is only fitted on is gone through once.
        memory_mebibytes=0 if whole else recipe.data.memory_mebibytes,
        inputs=inputs,
        outputs=outputs,
    )


class Planned(Stepped, Placed, Timed, Protocol):
    """A store, or one that will be: its times and columns."""


def check_store(recipe: InterpolateRecipe, store: Planned, shape: tuple[int, int, int]) -> None:
    """Refuse a store that a recipe's windows or rotation, or a checkpoint's size do not fit.

    Args:
        recipe: what is asked for.
        store: the store, or one that will be.
        shape: its channels, rows and columns.

    Raises:
        ValueError: windows without times between, a region that is to be rotated, or a daily cycle
            or regression too large to be kept with each checkpoint.
    """
    step = check_windows(recipe.task.window_hours, require_even_steps(store))
    check_rotation(store, recipe.data.rotate)
    inside = store.times[store.time_indices(recipe.data.train)]
    cycle, said = cycle_bytes(inside, step, shape)
    fits = len(fitted_times(recipe.task.window_hours, step))
    ridge = 4 * math.prod(weights_shape(shape[0], fits, shape[1]))
    if max(cycle, ridge) > MOST_BYTES:
        raise ValueError(
            f"Interpolation keeps {said} ({cycle // 2**20} MiB) and a ridge regression at {fits} "
            f"times within windows ({ridge // 2**20} MiB) with each checkpoint, which must be at "
            f"most {MOST_BYTES // 2**20} MiB each: take fewer channels, fewer or shorter windows, "
            f"or a coarser grid."
        )


def complete_model_config(
    recipe: InterpolateRecipe, channels: tuple[str, ...], size: tuple[int, int]
) -> ModelConfig:
    """Fill in what the data decide: channels and grid.

    Raises:
        ValueError: the patch does not divide the grid.
    """
    return dataclasses.replace(
        recipe.model,
        input_channels=layout_of(channels, recipe.data.forcings).names,
        output_channels=channels,
        image_size=size,
    )


def fits_windows(recipe: InterpolateRecipe, store: Stepped) -> str:
    """Say which windows there are in the training period, and times within them."""
    step = require_even_steps(store)
    times = {w: w // step - 1 for w in recipe.task.window_hours}
    return ", ".join(f"windows of {w} h with {n} time(s) between" for w, n in times.items())
