"""What training a forecaster asks of a weather store."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciml_dchag.channels import ChannelSet
from sciml_dchag.files.arrays import MOST_BYTES, to_text
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.objectives.forecast import ForecastObjective
from sciml_dchag.objectives.layout import InputLayout
from sciml_dchag.parallel.apply import own_channels
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.forecast.base import (
    read_base_data,
    with_cycle_of,
    with_statistics_of,
)
from sciml_dchag.weather.forecast.chain import RegressionChain, fit_chain
from sciml_dchag.weather.forecast.change import change_std
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.forecast.linear_step import fit_linear_step, linear_step_of
from sciml_dchag.weather.forecast.record import ForecastRecord
from sciml_dchag.weather.store.cycles import Cycle, cycle_bytes
from sciml_dchag.weather.store.statistics import Statistics
from sciml_dchag.weather.store.store import Period, Store
from sciml_dchag.weather.training_store import WeatherTrainingStore, check_rotation, other_step
from sciml_dchag.weather.windows import ForecastBatch, ForecastWindows


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
        self.base = read_base_data(recipe)
        if self.base is not None:
            self.base.require_fitting(self.store, recipe.data)
            known = self.base.channels_of(self.store)
            self.statistics = with_statistics_of(self.base.record, known, self.statistics)
        check_rotation(self.store, recipe.data.rotate)

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
        return other_step(self.store, saved.step_hours)


class ForecastTrainingData:
    """Windows of the training and validation periods, and the task."""

    def __init__(
        self, opened: ForecastTrainingStore, model: ChannelTransformer, ranks: Ranks
    ) -> None:
        recipe, store = opened.recipe, opened.store
        self.opened = opened
        inputs, outputs = own_channels(model, ranks.mesh)
        # A rollout feeds forecasts of all channels back, so that it needs all inputs; and so does
        # a linear step, which may be of all channels.
        rolls_out, linear = recipe.task.rollout_steps > 1, recipe.task.linear_step
        needs_all = rolls_out or linear
        self.cycle = ranks.from_first(lambda: daily_cycle(store, recipe))
        if opened.base is not None and self.cycle is not None:
            self.cycle = with_cycle_of(opened.base, self.cycle, store)
        self.chain = ranks.from_first(lambda: chain_of(store, recipe, self.cycle))
        windows = partial(
            training_windows, store, recipe, statistics=opened.statistics, expected=self.cycle,
            chain=self.chain, inputs=None if needs_all else inputs, outputs=outputs,
        )  # fmt: skip
        self.samples = windows(recipe.data.train)
        self.validation = None
        if recipe.data.validation and recipe.training.validate_every:
            self.validation = windows(recipe.data.validation)
        targets = store.channels.indices(model.config.output_channels)
        self.linear_weights, step = None, None
        if linear:
            self.linear_weights = ranks.from_first(
                lambda: fit_linear_step(
                    training_windows(
                        store, recipe, recipe.data.train, opened.statistics, expected=self.cycle
                    )
                )
            )
            own = self.linear_weights[outputs.start : outputs.stop]
            step = linear_step_of(store, own, targets[outputs.start : outputs.stop])
        self.change_std = None
        if opened.base is not None and opened.base.record.change_std is not None:
            self.change_std = np.asarray(opened.base.record.change_std)  # of what the base says
        elif recipe.task.output == "residual":
            own_std = change_std(self.samples, step)
            self.change_std = np.concatenate(ranks.of_channels(own_std), axis=-1)
        self.task = ForecastObjective(
            change_std=None if self.change_std is None else self.change_std[..., outputs],
            std_hours=recipe.task.chain_hours,
            area_weights=latitude_weights(store.latitude),
            target_indices=targets,
            layout=self.samples.layout,
            linear=step,
        ).to(ranks.device)
        self.task.complete = ranks.complete
        if needs_all:
            self.task.own_inputs = slice(inputs.start, inputs.stop)
        if rolls_out:
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
            "change_std": None if self.change_std is None else self.change_std.ravel().tolist(),
            "step_hours": self.samples.step_hours,
            **self._if_any(),
        }

    def _if_any(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if (base := self.opened.base) is not None:
            found["base_channels"] = base.channels_of(self.opened.store)
            found["base_periods"] = [list(period) for period in base.seen]
        if self.cycle is not None:
            found["daily_cycle_hours"] = self.cycle.hours.tolist()
            found["daily_cycle"] = self.cycle.to_text()
        if self.linear_weights is not None:
            found["linear_step"] = to_text(self.linear_weights)
        if self.chain is not None:
            found["chain"] = self.chain.to_text()
        return found


def training_windows(
    store: Store,
    recipe: ForecastRecipe,
    period: Period,
    statistics: Statistics,
    inputs: range | None = None,
    outputs: range | None = None,
    expected: Cycle | None = None,
    chain: RegressionChain | None = None,
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
        expected=expected,
        chain=chain,
        memory_mebibytes=data.memory_mebibytes,
        inputs=inputs,
        outputs=outputs,
    )


def daily_cycle(store: Store, recipe: ForecastRecipe) -> Cycle | None:
    """What states are departures from; None where a recipe asks for none.

    Raises:
        ValueError: as `check_departures`.
    """
    if not recipe.data.departures:
        return None
    rows, columns = store.shape[2:]
    check_departures(recipe, store, (rows, columns))
    return Cycle.of(store, recipe.data.train)


def chain_of(store: Store, recipe: ForecastRecipe, cycle: Cycle | None) -> RegressionChain | None:
    """Fit the chain of regressions that a recipe starts from; None where it asks for none.

    Raises:
        ValueError: as `fit_chain`.
    """
    task = recipe.task
    if not task.chain_hours:
        return None
    assert cycle is not None
    return fit_chain(store, recipe.data.train, cycle, task.chain_hours, task.chain_channels)


class Dated(Protocol):
    """A store, or one that will be: its channels and times."""

    @property
    def channels(self) -> ChannelSet:
        """Its channels."""

    @property
    def times(self) -> NDArray[np.datetime64]:
        """Its times."""

    @property
    def step_hours(self) -> int | None:
        """Hours between its times; None where they differ."""

    def time_indices(self, period: Period) -> NDArray[np.int64]:
        """Return the positions of the times within a period."""


def check_departures(recipe: ForecastRecipe, store: Dated, grid: tuple[int, int]) -> None:
    """Refuse a daily cycle that is too large to be kept with each checkpoint.

    Raises:
        ValueError: it is.
    """
    if not recipe.data.departures:
        return
    inside = store.times[store.time_indices(recipe.data.train)]
    size, said = cycle_bytes(inside, store.step_hours or 24, (len(store.channels), *grid))
    if size > MOST_BYTES:
        raise ValueError(
            f"data.departures keeps {said} with each checkpoint, which must be at most "
            f"{MOST_BYTES // 2**20} MiB: set it to false, or take fewer channels or a coarser grid."
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
