"""The training loop of a forecaster, on one process.

What is learnt is `tasks.forecast`'s, the samples are `data.forecast_windows`'s.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sciml_dchag.config import Recipe, save_recipe, to_mapping
from sciml_dchag.data.forecast_windows import (
    ForecastBatch,
    ForecastWindows,
    input_channels,
    load_batches,
)
from sciml_dchag.data.statistics import Statistics
from sciml_dchag.data.store import Period, Store, iso
from sciml_dchag.evaluation.weights import latitude_weights
from sciml_dchag.models import ModelConfig, build_model
from sciml_dchag.tasks.forecast import ForecastTask
from sciml_dchag.training.checkpoint import (
    Checkpoint,
    drop_older,
    find_checkpoint,
    last_checkpoint,
    load_checkpoint,
    save_best,
    save_checkpoint,
)
from sciml_dchag.training.logbook import Logbook
from sciml_dchag.training.optim import build_optimizer, build_schedule

SEED_STRIDE = 1_000_003
"""Keeps the seeds of the steps of one run apart from those of runs with neighbouring seeds."""

Progress = Callable[[int, int, str], None]
"""Called with what is done, what there is to do, and what it is."""


@dataclass(frozen=True)
class TrainingResult:
    """What a call of `train` did."""

    checkpoint: Path
    """The checkpoint to forecast with."""
    steps: int
    """Optimizer steps done in all."""
    seconds: float
    """Time spent in this call."""
    stopped_early: bool
    """Whether validation ended the training."""


def train(
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = True,
    progress: Progress | None = None,
    console: Callable[[str], None] | None = None,
) -> TrainingResult:
    """Train a recipe's forecaster into a run folder.

    Args:
        recipe: the recipe; its store must exist.
        run: the run folder, `runs/NAME`.
        resume: go on from the last checkpoint of the folder, if there is one.
        progress: told of every optimizer step.
        console: told of every record of the log.

    Raises:
        ValueError: store and recipe do not fit together, or a run of another recipe lies there.
        FileExistsError: the folder holds a run and `resume` is False.
        FloatingPointError: the loss is no longer finite.
    """
    started = time.monotonic()
    store = Store.open(recipe.data.store)
    check_periods(store, recipe)
    statistics = training_statistics(store, recipe)
    folder = run / "checkpoints"
    previous = _previous(folder, recipe, resume)
    trainer = _Trainer(recipe, store, statistics, previous)
    run.mkdir(parents=True, exist_ok=True)
    save_recipe(recipe, run / "recipe.yaml")
    first = 0 if previous is None else previous.step
    with Logbook(run, first_step=first, console=console) as log:
        stopped_early = trainer.run(folder, log, progress)
    seconds = time.monotonic() - started
    return TrainingResult(find_checkpoint(run), trainer.step, seconds, stopped_early)


def training_statistics(store: Store, recipe: Recipe) -> Statistics:
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


def check_periods(store: Store, recipe: Recipe) -> None:
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
    store: Store, recipe: Recipe, period: Period, statistics: Statistics
) -> ForecastWindows:
    """Build the samples of a period as a recipe asks for them."""
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
    )


def complete_model_config(recipe: Recipe, store: Store) -> ModelConfig:
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


def change_std(windows: ForecastWindows, most: int = 256) -> NDArray[np.float64]:
    """Standard deviation of the change over a lead time, by target channel, normalised.

    From up to `most` samples spread over the period, area-weighted.
    """
    weights = latitude_weights(windows.store.latitude)[:, None]
    count = min(most, len(windows))
    squares = []
    for position in np.linspace(0, len(windows) - 1, count).astype(int):
        sample = windows[int(position)]
        now = sample.states[0, 0, windows.target_indices].double().numpy()
        squares.append(np.nanmean((sample.targets[0, 0].numpy() - now) ** 2 * weights, (1, 2)))
    return np.maximum(np.sqrt(np.nanmean(squares, 0)), 1e-6)


def choose_device() -> torch.device:
    """Take an accelerator where torch finds one, else the CPU."""
    accelerator = torch.accelerator.current_accelerator()
    return accelerator if accelerator is not None else torch.device("cpu")


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context that forward passes run in."""
    use = precision == "bfloat16" or (precision == "auto" and device.type != "cpu")
    if not use:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


class _Trainer:
    """The state of a training run; everything that a checkpoint keeps is an attribute here."""

    def __init__(
        self, recipe: Recipe, store: Store, statistics: Statistics, previous: Checkpoint | None
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.store, self.statistics = recipe, store, statistics
        self.device = choose_device()
        self.windows = training_windows(store, recipe, recipe.data.train, statistics)
        self.validation = None
        if recipe.data.validation and recipe.training.validate_every:
            self.validation = training_windows(store, recipe, recipe.data.validation, statistics)
        residual = recipe.task.output == "residual"
        if previous is not None:
            saved = previous.change_std
            self.change_std = None if saved is None else np.asarray(saved)
        else:
            self.change_std = change_std(self.windows) if residual else None
        self.task = ForecastTask(
            target_indices=self.windows.target_indices,
            change_std=self.change_std,
            latitude=store.latitude,
            state_channels=len(store.channels),
        ).to(self.device)
        config = complete_model_config(recipe, store)
        self.model = build_model(config, recipe.seed).to(self.device)
        decay = recipe.training.ema_decay
        self.ema = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
        )
        self.optimizer = build_optimizer(self.model, recipe.training)
        self.schedule = build_schedule(self.optimizer, recipe.training)
        self.step = 0
        self.best_validation, self.validations_since_best = math.inf, 0
        if previous is not None:
            self._restore(previous)

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.model.load_state_dict(checkpoint.model)
        if self.ema is not None and checkpoint.ema is not None:
            self.ema.module.load_state_dict(checkpoint.ema)
            self.ema.n_averaged.fill_(1)  # later updates average, they do not copy
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.step = checkpoint.step
        self.schedule.last_epoch = checkpoint.step
        self.best_validation = checkpoint.best_validation
        self.validations_since_best = checkpoint.validations_since_best

    def run(self, folder: Path, log: Logbook, progress: Progress | None) -> bool:
        """Train to the last step, or until validation has not improved for long enough."""
        config = self.recipe.training
        loader = load_batches(
            self.windows,
            batch=config.batch,
            first_step=self.step,
            last_step=config.steps,
            workers=self.recipe.data.workers,
        )
        since, since_step = time.monotonic(), self.step
        for batch in loader:
            batch = batch.to(self.device)
            self.model.train()
            # Dropout depends on seed and step alone, so that a resumed run draws the same.
            torch.manual_seed(self.recipe.seed + SEED_STRIDE * (self.step + 1))
            with autocast(config.precision, self.device):
                loss = self.task.loss(
                    self.model, batch.states, batch.constants, batch.targets, batch.lead_hours
                )
            norm = self._update(loss)
            last = self.step == config.steps
            if self.step % config.log_every == 0 or last:
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"The loss is {value} at step {self.step}: lower training.learning_rate "
                        f"or check the data with `sciml-dchag check`."
                    )
                samples = (self.step - since_step) * config.batch
                rate = samples / max(time.monotonic() - since, 1e-9)
                since, since_step = time.monotonic(), self.step
                log.record(
                    self.step,
                    loss=value,
                    gradient_norm=float(norm),
                    learning_rate=float(self.schedule.get_last_lr()[0]),
                    samples_per_second=rate,
                )
            if progress is not None:
                progress(self.step, config.steps, "training")
            if config.validate_every and (self.step % config.validate_every == 0 or last):
                self._validate(folder, log)
            enough = bool(config.patience) and self.validations_since_best >= config.patience
            if self.step % config.checkpoint_every == 0 or last or enough:
                kept = save_checkpoint(self.checkpoint(complete=last or enough), folder)
                drop_older(folder, keep=kept)
            if enough:
                return True
        return False

    def _update(self, loss: torch.Tensor) -> torch.Tensor:
        """Take one optimizer step and return the norm of the gradient."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        limit = self.recipe.training.clip_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.optimizer.step()
        self.schedule.step()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        self.step += 1
        return norm

    def _validate(self, folder: Path, log: Logbook) -> None:
        """Score the validation period, once through, and keep the best weights."""
        if self.validation is None:
            return
        model = self.model if self.ema is None else self.ema.module
        model.eval()
        batch = self.recipe.training.batch
        total = 0.0
        for start in range(0, len(self.validation), batch):
            numbers = range(start, min(start + batch, len(self.validation)))
            b = ForecastBatch.stack([self.validation[n] for n in numbers]).to(self.device)
            with torch.no_grad(), autocast(self.recipe.training.precision, self.device):
                loss = self.task.loss(model, b.states, b.constants, b.targets, b.lead_hours)
            total += float(loss) * len(numbers)
        value = total / len(self.validation)
        log.record(self.step, validation_loss=value)
        if value < self.best_validation:
            self.best_validation, self.validations_since_best = value, 0
            save_best(self.checkpoint(), folder)
        else:
            self.validations_since_best += 1

    def checkpoint(self, *, complete: bool = False) -> Checkpoint:
        """Gather what the run consists of."""
        statistics = self.statistics
        return Checkpoint(
            step=self.step,
            complete=complete,
            recipe=to_mapping(self.recipe),
            model_config=to_mapping(self.model.config),
            model=self.model.state_dict(),
            ema=None if self.ema is None else self.ema.module.state_dict(),
            optimizer=self.optimizer.state_dict(),
            best_validation=self.best_validation,
            validations_since_best=self.validations_since_best,
            channels=self.store.channels.names,
            mean=statistics.mean.tolist(),
            std=statistics.std.tolist(),
            change_std=None if self.change_std is None else self.change_std.tolist(),
            grid_sha256=self.store.grid_sha256,
            statistics_period=list(statistics.period),
            step_hours=self.windows.step_hours,
        )


# Changing these goes on with the same run: they say how long and how, not what is learnt.
_FREE = {
    "data": ("store", "workers", "memory_mebibytes"),
    "training": ("steps", "log_every", "checkpoint_every", "validate_every", "patience"),
}


def _what_is_learnt(recipe: Recipe | dict[str, Any], section: str) -> str:
    """Return a section's settings that make one run another, as text to compare."""
    values = (to_mapping(recipe) if isinstance(recipe, Recipe) else recipe)[section]
    if isinstance(values, dict):
        values = {k: v for k, v in values.items() if k not in _FREE.get(section, ())}
    return json.dumps(values, sort_keys=True)


def _previous(folder: Path, recipe: Recipe, resume: bool) -> Checkpoint | None:
    """Find the checkpoint to go on from, refusing one of another recipe."""
    last = last_checkpoint(folder)
    if last is None:
        return None
    if not resume:
        raise FileExistsError(
            f"{folder.parent} already holds a trained run: resume it with --resume auto, choose "
            f"another name, or remove the folder."
        )
    checkpoint = load_checkpoint(last)
    for section in ("seed", "data", "model", "task", "training"):
        was, now = _what_is_learnt(checkpoint.recipe, section), _what_is_learnt(recipe, section)
        if was != now:
            raise ValueError(
                f"{folder.parent} holds a run with other settings in {section!r}: restore them, "
                f"choose another name with --set name=NAME, or remove the folder."
            )
    return checkpoint
