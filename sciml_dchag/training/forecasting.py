"""What training a forecaster asks of a weather store; see `subject`."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml_dchag.config import ForecastRecipe
from sciml_dchag.data.forecast_windows import ForecastBatch
from sciml_dchag.data.store import Store, iso
from sciml_dchag.models import ChannelTransformer, ModelConfig
from sciml_dchag.parallel.apply import own_channels
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.tasks.forecast import ForecastTask
from sciml_dchag.training.assembly import (
    change_std,
    check_periods,
    complete_model_config,
    training_statistics,
    training_windows,
)
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.training.subject import Alike, short_hash


class ForecastSubject:
    """A weather store that a recipe's forecaster is trained on.

    Raises:
        ValueError: store and recipe do not fit together.
        FileNotFoundError: there is no store, or it has no statistics.
    """

    def __init__(self, recipe: ForecastRecipe) -> None:
        self.recipe = recipe
        self.store = Store.open(recipe.data.store)
        check_periods(self.store, recipe)
        self.statistics = training_statistics(self.store, recipe)

    def model_config(self) -> ModelConfig:
        """Fill in channels and grid."""
        return complete_model_config(self.recipe, self.store)

    def lesson(self, model: ChannelTransformer, ranks: Ranks) -> ForecastLesson:
        """Read the training period's statistics of change and build the task."""
        return ForecastLesson(self, model, ranks)

    def alike(self) -> Alike:
        """Name channels, times, grid, and statistics to the last bit.

        The last follow from the states of the training period; no states are read, so that a
        difference in those of another period is not seen.
        """
        store, statistics = self.store, self.statistics
        arrays = (statistics.mean, statistics.std, statistics.minimum, statistics.maximum)
        names = store.channels.names
        times = f"{len(store.times)} from {iso(store.times[0])} to {iso(store.times[-1])}"
        cure = f"let all ranks read the same {store.path}, or copy it to each machine again"
        return {
            "channels in the store": (
                f"{len(names)} ({names[0]} to {names[-1]}, "
                f"{short_hash(json.dumps(names).encode())})",
                cure,
            ),
            "times in the store": (f"{times} ({short_hash(store.times.tobytes())})", cure),
            "grids in the store": (f"grid {store.grid_sha256[:8]}", cure),
            "statistics in the store": (
                f"statistics {short_hash(*(array.tobytes() for array in arrays))} of "
                f"{' to '.join(statistics.period)}",
                cure,
            ),
        }

    def require_same(self, run: Path, checkpoint: Checkpoint) -> None:
        """Refuse to go on with a store that has been prepared differently, or another one."""
        store, statistics = self.store, self.statistics
        was, now = checkpoint.channels, store.channels.names
        if was != now:
            changed = [f"lacks {name}" for name in was if name not in now]
            changed += [f"adds {name}" for name in now if name not in was]
            difference = f"whose store had {len(was)} channels where {store.path} has {len(now)}"
            difference += f" and {(changed or ['has them in another order'])[0]}"
        elif checkpoint.grid_sha256 != store.grid_sha256:
            difference = f"on another grid than that of {store.path}"
        elif store.step_hours not in (None, checkpoint.step_hours):  # uneven is refused elsewhere
            difference = (
                f"in steps of {checkpoint.step_hours} h where {store.path} has {store.step_hours} h"
            )
        elif not (
            np.allclose(checkpoint.mean, statistics.mean, rtol=1e-5)
            and np.allclose(checkpoint.std, statistics.std, rtol=1e-5)
        ):
            difference = f"whose store had other statistics than {store.path} has"
        else:
            return
        raise ValueError(
            f"{run} holds a run {difference}: set data.store to the store that it began with, "
            f"choose another name with --set name=NAME, or remove the folder."
        )


class ForecastLesson:
    """Windows of the training and validation periods, and the task."""

    def __init__(self, subject: ForecastSubject, model: ChannelTransformer, ranks: Ranks) -> None:
        recipe, store = subject.recipe, subject.store
        self.subject = subject
        inputs, outputs = own_channels(model, ranks.mesh)
        # A rollout feeds forecasts of all channels back, so that it needs all inputs.
        rolls_out = recipe.task.rollout_steps > 1
        windows = partial(
            training_windows, store, recipe, statistics=subject.statistics,
            inputs=None if rolls_out else inputs, outputs=outputs,
        )  # fmt: skip
        self.samples = windows(recipe.data.train)
        self.validation = None
        if recipe.data.validation and recipe.training.validate_every:
            self.validation = windows(recipe.data.validation)
        self.change_std = None
        if recipe.task.output == "residual":
            self.change_std = np.concatenate(ranks.of_channels(change_std(self.samples)))
        self.task = ForecastTask(
            change_std=None if self.change_std is None else self.change_std[outputs],
            latitude=store.latitude,
            target_indices=store.channels.indices(model.config.output_channels),
            state_channels=len(store.channels),
        ).to(ranks.device)
        self.task.complete = ranks.complete
        if rolls_out:
            self.task.own_inputs = slice(inputs.start, inputs.stop)
            self.task.join = ranks.channel_joiner(len(outputs))

    def error(self, model: ChannelTransformer, batch: ForecastBatch) -> Tensor:
        """Sum the latitude-weighted squared errors."""
        return self.task.squared_error(model, *batch.tensors)

    def weight(self, batch: ForecastBatch) -> Tensor:
        """Sum the latitude weights of what is known."""
        return self.task.weight(batch.targets)

    def silence(self, batch: ForecastBatch, absent: list[bool]) -> ForecastBatch:
        """Take the targets of some samples away."""
        targets = batch.targets.clone()
        targets[torch.tensor(absent)] = math.nan
        return ForecastBatch(
            batch.inputs, batch.now, batch.later_constants, targets, batch.lead_hours
        )

    def record(self) -> dict[str, Any]:
        """Channels, statistics, grid and time step."""
        store, statistics = self.subject.store, self.subject.statistics
        return {
            "channels": store.channels.names,
            "mean": statistics.mean.tolist(),
            "std": statistics.std.tolist(),
            "change_std": None if self.change_std is None else self.change_std.tolist(),
            "grid_sha256": store.grid_sha256,
            "statistics_period": list(statistics.period),
            "step_hours": self.samples.step_hours,
        }
