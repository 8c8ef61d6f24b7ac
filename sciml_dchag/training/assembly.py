"""What a training run is put together from: its store's statistics, periods, samples and sizes.

The loop is `trainer`'s.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.config import ForecastRecipe, TrainingConfig
from sciml_dchag.data.forecast_windows import ForecastWindows, input_channels
from sciml_dchag.data.statistics import Statistics
from sciml_dchag.data.store import Period, Store, iso
from sciml_dchag.evaluation.weights import latitude_weights
from sciml_dchag.models import ModelConfig


def training_statistics(store: Store, recipe: ForecastRecipe) -> Statistics:
    """Read the store's statistics, refusing those of another period, grid or channel set.

    Raises:
        ValueError: they do not belong to the recipe's training period.
    """
    statistics = store.statistics()
    statistics.require(
        period=store.period(recipe.data.train),
        grid_sha256=store.grid_sha256,
        channels=store.channels,
    )
    return statistics


def check_periods(store: Store, recipe: ForecastRecipe) -> None:
    """Refuse a test or validation period that shares a time with another one.

    Raises:
        ValueError: the first shared time and the two periods.
    """
    data = recipe.data
    periods = {"train": data.train, "validation": data.validation, "test": data.test}
    indices = {name: store.time_indices(p) for name, p in periods.items() if p is not None}
    for one, other in itertools.combinations(indices, 2):
        shared = np.intersect1d(indices[one], indices[other])
        if len(shared):
            raise ValueError(
                f"data.{one} and data.{other} share {iso(store.times[shared[0]])}: a period must "
                f"not touch another, so change one of them."
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
    data = recipe.data
    inputs = input_channels(store.channels, data.history_hours, data.static, data.forcings)
    return dataclasses.replace(
        recipe.model,
        input_channels=tuple(inputs.names),
        output_channels=tuple(recipe.task.targets or store.channels.names),
        image_size=(len(store.latitude), len(store.longitude)),
    )


def own_samples(training: TrainingConfig, number: int, count: int) -> range:
    """Return the samples of a step's batch that one of the ranks of parallel.dp x fsdp trains on.

    Args:
        training: with the batch over all ranks.
        number: which of the ranks, from 0.
        count: how many they are.

    Raises:
        ValueError: the batch cannot be dealt out evenly.
    """
    micro = training.micro_batch or 1
    if training.batch % (count * micro):
        raise ValueError(
            f"training.batch {training.batch} cannot be dealt to {count} rank(s) of parallel.dp x "
            f"fsdp in micro-batches of {micro}: make it a multiple of {count * micro}."
        )
    share = training.batch // count
    return range(number * share, (number + 1) * share)


def change_std(windows: ForecastWindows, most: int = 256) -> NDArray[np.float64]:
    """Standard deviation of the change over a lead time, by target channel, normalised.

    From up to `most` samples spread over the period, area-weighted.
    """
    weights = latitude_weights(windows.store.latitude)[:, None]
    count = min(most, len(windows))
    squares = []
    for position in np.linspace(0, len(windows) - 1, count).astype(int):
        sample = windows[int(position)]
        now = sample.now[0].double().numpy()
        squares.append(np.nanmean((sample.targets[0, 0].numpy() - now) ** 2 * weights, (1, 2)))
    return np.maximum(np.sqrt(np.nanmean(squares, 0)), 1e-6)
