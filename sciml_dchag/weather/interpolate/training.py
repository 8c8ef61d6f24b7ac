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
from sciml_dchag.weather.area import goes_around, latitude_weights
from sciml_dchag.weather.interpolate.config import InterpolateRecipe
from sciml_dchag.weather.interpolate.ridge import (
    fit_ridge,
    fitted_times,
    ridge_of,
    sources,
    unit_of,
)
from sciml_dchag.weather.interpolate.windows import (
    BetweenBatch,
    BetweenWindows,
    check_windows,
    layout_of,
)
from sciml_dchag.weather.store.cycles import Cycle, season_terms
from sciml_dchag.weather.store.store import Period, Store
from sciml_dchag.weather.training_store import WeatherRecord, WeatherTrainingStore
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
    """Weights of the ridge, (M, C, C or 1, 2, S, H), likewise."""

    def cycle(self, grid: tuple[int, int]) -> Cycle:
        """What states are departures from, on a grid of (rows, columns)."""
        hours = np.array(self.daily_cycle_hours, np.int64)
        shape = (len(hours), -1, len(self.channels), *grid)
        return Cycle(hours, from_text(self.daily_cycle, shape))

    def ridge_weights(self, fits: int, rows: int) -> NDArray[np.float32]:
        """Weights of the ridge at all fitted times, (M, C, C or 1, 2, S, H)."""
        channels = len(self.channels)
        return from_text(self.ridge, (fits, channels, sources(channels), 2, -1, rows))


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
        if saved.step_hours == self.store.step_hours:
            return None
        return (
            f"in steps of {saved.step_hours} h where {self.store.path} has "
            f"{self.store.step_hours} h"
        )


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
            fitted = fitted_times(self.samples)
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
            "daily_cycle": to_text(self.cycle.mean),
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
    return BetweenWindows(
        opened.store,
        period,
        cycle=cycle,
        std=opened.statistics.std,
        window_hours=recipe.task.window_hours,
        forcings=recipe.data.forcings,
        rotate=recipe.data.rotate and period == recipe.data.train,
        seed=recipe.seed,
        # What is only fitted on is gone through once.
        memory_mebibytes=0 if whole else recipe.data.memory_mebibytes,
        inputs=inputs,
        outputs=outputs,
    )


class Gridded(Stepped, Protocol):
    """A store, or one that will be: its columns and times."""

    @property
    def longitude(self) -> NDArray[np.float64]:
        """Column centres, degrees east."""

    def time_indices(self, period: Period) -> NDArray[np.int64]:
        """Positions of the times within a period."""


def check_store(recipe: InterpolateRecipe, store: Gridded, shape: tuple[int, int, int]) -> None:
    """Refuse a store that a recipe's windows, rotation or daily cycle do not fit.

    Args:
        recipe: what is asked for.
        store: the store, or one that will be.
        shape: its channels, rows and columns.

    Raises:
        ValueError: windows without times between, a region that is to be rotated, or a daily cycle
            too large to be kept with each checkpoint.
    """
    step = check_windows(recipe.task.window_hours, require_even_steps(store))
    if recipe.data.rotate and not goes_around(store.longitude):
        raise ValueError(
            f"data.rotate turns fields about the Earth's axis, and the columns of {store.path} do "
            f"not go once around: set data.rotate to false, or prepare a global grid."
        )
    hours = 24 // math.gcd(step, 24)
    terms = season_terms(store.times[store.time_indices(recipe.data.train)])
    if 4 * hours * terms * math.prod(shape) > MOST_BYTES:
        raise ValueError(
            f"Interpolation keeps the mean of {hours} hours of day"
            f"{' and its seasons' if terms > 1 else ''} of {shape[0]} channels on "
            f"{shape[1]} x {shape[2]} cells with each checkpoint, which must be at most "
            f"{MOST_BYTES // 2**20} MiB: take fewer channels, a coarser grid or a longer step."
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


def fits_windows(recipe: InterpolateRecipe, store: Store) -> str:
    """Say which windows there are in the training period, and times within them."""
    step = require_even_steps(store)
    times = {w: w // step - 1 for w in recipe.task.window_hours}
    return ", ".join(f"windows of {w} h with {n} time(s) between" for w, n in times.items())
