"""The training loop of a forecaster, on one process or as one of many.

What is learnt is `tasks.forecast`'s, the samples are `data.forecast_windows`'s, who else is there
`parallel.runtime`'s. Every rank goes through the same calls in the same order.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule

from sciml_dchag.config import Recipe, save_recipe, to_mapping
from sciml_dchag.data.forecast_windows import ForecastBatch, load_batches
from sciml_dchag.data.statistics import Statistics
from sciml_dchag.data.store import Store
from sciml_dchag.parallel.apply import own_channels
from sciml_dchag.parallel.runtime import Ranks, joined
from sciml_dchag.parallel.start import build_on_ranks
from sciml_dchag.tasks.forecast import ForecastTask
from sciml_dchag.training.assembly import (
    change_std,
    complete_model_config,
    own_samples,
    training_windows,
)
from sciml_dchag.training.beginning import Beginning, begin, same_on_all_ranks
from sciml_dchag.training.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    find_checkpoint,
    load_tensors,
    read_checkpoint,
    tensors_of,
)
from sciml_dchag.training.logbook import Logbook
from sciml_dchag.training.optim import (
    AveragedWeights,
    build_optimizer,
    build_schedule,
    clip_gradient,
)

SEED_STRIDE = 1_000_003
"""Keeps the seeds of the steps of one run apart from those of runs with neighbouring seeds."""
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)

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
    """Train a recipe's forecaster into a run folder; under torchrun, as one of its processes.

    Args:
        recipe: the recipe; its store must exist.
        run: the run folder, `runs/NAME`, which all processes see.
        resume: go on from the last checkpoint of the folder, if there is one.
        progress: told of every optimizer step, on the first rank.
        console: told of every record of the log, on the first rank.

    Raises:
        ValueError: store, recipe and number of ranks do not fit together, ranks see different
            stores, recipes, checkpoints or package versions, or a run of another recipe or store
            lies there.
        FileExistsError: the folder holds a run and `resume` is False.
        FloatingPointError: the loss is no longer finite.
    """
    started = time.monotonic()

    def look() -> tuple[Beginning, dict[str, tuple[str, str]]]:
        found = begin(recipe, run, resume=resume)
        return found, same_on_all_ranks(found, recipe)

    with joined(recipe.parallel) as ranks, contextlib.ExitStack() as stack:
        beginning = ranks.agree(look)
        trainer = _Trainer(recipe, beginning.store, beginning.statistics, ranks)
        log = None
        if beginning.checkpoint is not None:
            trainer.restore(beginning.checkpoint)
        if ranks.first:
            run.mkdir(parents=True, exist_ok=True)
            save_recipe(recipe, run / "recipe.yaml")
            log = stack.enter_context(Logbook(run, first_step=trainer.step, console=console))
        writer = stack.enter_context(CheckpointWriter(run / "checkpoints", ranks))
        stopped_early = trainer.run(writer, log, progress if ranks.first else None)
    seconds = time.monotonic() - started
    return TrainingResult(find_checkpoint(run), trainer.step, seconds, stopped_early)


def compute_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return what products are computed in, if not in the parameters' own precision."""
    use = precision == "bfloat16" or (precision == "auto" and device.type != "cpu")
    return torch.bfloat16 if use else None


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context that forward passes run in."""
    dtype = compute_dtype(precision, device)
    if dtype is None:
        return contextlib.nullcontext()
    # Every weight is used once a forward pass: a cache of their casts would only hold memory.
    return torch.autocast(device.type, dtype=dtype, cache_enabled=False)


class _Trainer:
    """The state of a training run; everything that a checkpoint keeps is an attribute here."""

    def __init__(self, recipe: Recipe, store: Store, statistics: Statistics, ranks: Ranks) -> None:
        self.recipe, self.store, self.statistics, self.ranks = recipe, store, statistics, ranks
        self.own_samples = own_samples(recipe.training, *ranks.data)
        self.config = complete_model_config(recipe, store)
        dtype = compute_dtype(recipe.training.precision, ranks.device)
        self.model = build_on_ranks(self.config, recipe.seed, ranks, recipe.parallel, dtype)
        inputs, outputs = own_channels(self.model, ranks.mesh)
        # A rollout feeds forecasts of all channels back, so that it needs all inputs.
        rolls_out = recipe.task.rollout_steps > 1
        windows = partial(
            training_windows, store, recipe, statistics=statistics,
            inputs=None if rolls_out else inputs, outputs=outputs,
        )  # fmt: skip
        self.windows = windows(recipe.data.train)
        self.validation = None
        if recipe.data.validation and recipe.training.validate_every:
            self.validation = windows(recipe.data.validation)
        self.change_std = None
        if recipe.task.output == "residual":
            self.change_std = np.concatenate(ranks.of_channels(change_std(self.windows)))
        self.task = ForecastTask(
            change_std=None if self.change_std is None else self.change_std[outputs],
            latitude=store.latitude,
            target_indices=store.channels.indices(self.config.output_channels),
            state_channels=len(store.channels),
        ).to(ranks.device)
        self.task.complete = ranks.complete
        if rolls_out:
            self.task.own_inputs = slice(inputs.start, inputs.stop)
            self.task.join = ranks.channel_joiner(len(outputs))
        self.optimizer = build_optimizer(self.model, recipe.training)
        self.schedule = build_schedule(self.optimizer, recipe.training)
        decay = recipe.training.ema_decay
        self.average = AveragedWeights(self.model, decay) if decay else None
        self.step = 0
        self.best_validation, self.validations_since_best = math.inf, 0

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint, whatever the mesh that wrote it."""
        checkpoint, tensors = read_checkpoint(path), self.tensors()
        load_tensors(path, tensors)
        set_optimizer_state_dict(self.model, self.optimizer, tensors["optimizer"], options=_FLAT)
        self.step = self.schedule.last_epoch = checkpoint.step
        best = checkpoint.best_validation
        self.best_validation = math.inf if best is None else best
        self.validations_since_best = checkpoint.validations_since_best

    def tensors(self) -> dict[str, Any]:
        """Everything of a checkpoint that lies in tensors; shares their memory."""
        optimizer = get_optimizer_state_dict(self.model, self.optimizer, options=_FLAT)
        tensors = {"model": tensors_of(self.model), "optimizer": optimizer}
        return tensors if self.average is None else {**tensors, "average": self.average.average}

    def run(self, writer: CheckpointWriter, log: Logbook | None, progress: Progress | None) -> bool:
        """Train to the last step, or until validation has not improved for long enough."""
        config = self.recipe.training
        loader = load_batches(
            self.windows,
            batch=config.batch,
            own=self.own_samples,
            first_step=self.step,
            last_step=config.steps,
            workers=self.recipe.data.workers,
        )
        since, since_step = time.monotonic(), self.step
        for batch in loader:
            error, weight = self._gradients(batch)
            norm = self._update()
            last = self.step == config.steps
            if self.step % config.log_every == 0 or last:
                value = float(self.ranks.sum(error) / weight)
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"The loss is {value} at step {self.step}: lower training.learning_rate "
                        f"or check the data with `sciml-dchag check`."
                    )
                samples = (self.step - since_step) * config.batch
                rate = samples / max(time.monotonic() - since, 1e-9)
                since, since_step = time.monotonic(), self.step
                if log is not None:
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
                self._validate(writer, log)
            enough = bool(config.patience) and self.validations_since_best >= config.patience
            if self.step % config.checkpoint_every == 0 or last or enough:
                writer.save("step", self.checkpoint(complete=last or enough), self.tensors())
            if enough:
                return True
        return False

    def _gradients(self, batch: ForecastBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Add up the gradient of a step's loss; return this rank's error and all ranks' weight."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        # Dropout depends on seed, step and samples alone, so that a resumed run draws the same.
        number, count = self.ranks.data
        torch.manual_seed((self.recipe.seed + SEED_STRIDE * (self.step + 1)) * count + number)
        parts = batch.split(self.recipe.training.micro_batch or len(batch.targets))
        weight = self.ranks.sum(self.task.weight(batch.targets.to(self.ranks.device)))
        # FSDP averages gradients over the ranks of different samples, where a sum is wanted.
        scale = count / weight
        errors = []
        for part in parts:
            if isinstance(self.model, FSDPModule):
                self.model.set_requires_gradient_sync(part is parts[-1])
            error = self._error(part)
            (error * scale.to(error.dtype)).backward()
            errors.append(error.detach().double())
        return torch.stack(errors).sum(), weight

    def _error(self, batch: ForecastBatch) -> torch.Tensor:
        tensors = batch.to(self.ranks.device).tensors
        with autocast(self.recipe.training.precision, self.ranks.device):
            return self.task.squared_error(self.model, *tensors)

    def _update(self) -> torch.Tensor:
        """Take one optimizer step and return the norm of the gradient."""
        limit = self.recipe.training.clip_norm
        norm = clip_gradient(self.model.parameters(), limit, self.ranks.mesh)
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update()
        self.step += 1
        return norm

    def _validate(self, writer: CheckpointWriter, log: Logbook | None) -> None:
        """Score the validation period, once through, and keep the best weights."""
        if self.validation is None:
            return
        self.model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.ranks.device)
        averaged = contextlib.nullcontext() if self.average is None else self.average.in_place()
        with torch.no_grad(), averaged:
            for start in range(0, len(self.validation), self.recipe.training.batch):
                batch = self._validation_batch(start)
                sums[0] += self._error(batch)
                sums[1] += self.task.weight(batch.targets.to(self.ranks.device))
        error, weight = self.ranks.sum(sums)
        value = float(error / weight)
        if log is not None:
            log.record(self.step, validation_loss=value)
        if value < self.best_validation:
            self.best_validation, self.validations_since_best = value, 0
            writer.save("best", self.checkpoint(), self.tensors())
        else:
            self.validations_since_best += 1

    def _validation_batch(self, start: int) -> ForecastBatch:
        """Return this rank's samples of a batch; past the end, the last one without a target."""
        assert self.validation is not None
        end = len(self.validation)
        numbers = [start + number for number in self.own_samples]
        samples = [self.validation[min(number, end - 1)] for number in numbers]
        batch = ForecastBatch.stack(samples)
        batch.targets[[number >= end for number in numbers]] = math.nan
        return batch

    def checkpoint(self, *, complete: bool = False) -> Checkpoint:
        """Gather what the run consists of, beside the tensors."""
        statistics, best = self.statistics, self.best_validation
        return Checkpoint(
            step=self.step,
            complete=complete,
            recipe=to_mapping(self.recipe),
            model_config=to_mapping(self.config),
            averaged=self.average is not None,
            best_validation=best if math.isfinite(best) else None,
            validations_since_best=self.validations_since_best,
            channels=self.store.channels.names,
            mean=statistics.mean.tolist(),
            std=statistics.std.tolist(),
            change_std=None if self.change_std is None else self.change_std.tolist(),
            grid_sha256=self.store.grid_sha256,
            statistics_period=list(statistics.period),
            step_hours=self.windows.step_hours,
        )
