"""The steps of a training run, and its state between them.

Every rank goes through the same calls in the same order.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from sciml_dchag.config import Recipe, to_mapping
from sciml_dchag.config.parts import frozen_of
from sciml_dchag.files.resumable import Progress
from sciml_dchag.parallel import stopping
from sciml_dchag.parallel.apply import freeze, plain_name
from sciml_dchag.parallel.build import build_on_ranks
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.training.batches import Batch, Samples, load_batches, stack
from sciml_dchag.training.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    last_checkpoint,
    load_tensors,
    read_checkpoint,
    tensors_of,
)
from sciml_dchag.training.control import Base, completed, put_in, require_same_base
from sciml_dchag.training.logbook import Logbook
from sciml_dchag.training.optim import (
    AveragedWeights,
    ShardedAdamW,
    all_finite,
    learning_rate,
    scale_and_clip_gradient,
)
from sciml_dchag.training.precision import LossScale, autocast, compute_dtype, exact_modules
from sciml_dchag.training.start import own_samples
from sciml_dchag.training.task import TrainingStore

SEED_STRIDE = 1_000_003
"""Keeps the seeds of the steps of one run apart from those of runs with neighbouring seeds."""


class TrainingLoop:
    """The state of a training run; everything that a checkpoint keeps is an attribute here."""

    def __init__(
        self, recipe: Recipe, store: TrainingStore, ranks: Ranks, base: Base | None = None
    ) -> None:
        self.recipe, self.ranks = recipe, ranks
        self.own_samples = own_samples(recipe.training, *ranks.data)
        self.config = store.model_config()
        if base is not None:
            self.config = completed(self.config, base)
        dtype = compute_dtype(recipe.training.precision, ranks.device)
        exact = exact_modules(self.config, recipe.training)
        self.model = build_on_ranks(self.config, recipe.seed, ranks, recipe.parallel, dtype, exact)
        if base is not None:
            put_in(self.model, base)
        names = [plain_name(name) for name, _ in self.model.named_parameters()]
        freeze(self.model, frozen_of(names, recipe.training))
        self.data = store.training_data(self.model, ranks)
        self.optimizer = ShardedAdamW(self.model, recipe.training)
        decay = recipe.training.ema_decay
        self.average = AveragedWeights(self.model, decay) if decay else None
        self.scale = LossScale(recipe.training)
        self.step, self.skipped_steps = 0, 0
        self.best_validation, self.validations_since_best = math.inf, 0

    def restart_average(self) -> None:
        """Average from the present weights on."""
        if self.average is not None:
            self.average = AveragedWeights(self.model, self.recipe.training.ema_decay)

    def restore(self, path: Path) -> Checkpoint:
        """Go on from a checkpoint, whatever the mesh that wrote it."""
        checkpoint, tensors = read_checkpoint(path), self.tensors()
        require_same_base(checkpoint, self.config, path)
        load_tensors(path, tensors)
        self.step, self.skipped_steps = checkpoint.step, checkpoint.skipped_steps
        if self.scale.on:
            self.scale.overflows = checkpoint.overflowed_steps
            self.scale.value = checkpoint.loss_scale
            self.scale.steps = checkpoint.loss_scale_steps
        best = checkpoint.best_validation
        self.best_validation = math.inf if best is None else best
        self.validations_since_best = checkpoint.validations_since_best
        return checkpoint

    def tensors(self) -> dict[str, Any]:
        """Everything of a checkpoint that lies in tensors; shares their memory."""
        tensors = {"model": tensors_of(self.model), "optimizer": self.optimizer.tensors()}
        return tensors if self.average is None else {**tensors, "average": self.average.average}

    def run(self, writer: CheckpointWriter, log: Logbook | None, progress: Progress | None) -> bool:
        """Train to the last step, or until validation has not improved for long enough."""
        config = self.recipe.training
        loader = load_batches(
            self.data.samples,
            batch=config.batch,
            own=self.own_samples,
            first_step=self.step,
            last_step=config.steps,
            workers=self.recipe.data.workers,
            pin_memory=self.ranks.device.type == "cuda",
        )
        since, since_step = time.monotonic(), self.step
        for batch in loader:
            rate_now = learning_rate(config, self.step)
            found, asked = self._take_step(batch, rate_now, writer)
            last = self.step == config.steps
            if self.step % config.log_every == 0 or last:
                samples = (self.step - since_step) * config.batch
                rate = samples / max(time.monotonic() - since, 1e-9)
                since, since_step = time.monotonic(), self.step
                if log is not None:
                    log.record(
                        self.step,
                        **found,
                        learning_rate=rate_now,
                        samples_per_second=rate,
                        **self._counts(),
                    )
            if progress is not None:
                progress(self.step, config.steps, "training")
            if config.validate_every and (self.step % config.validate_every == 0 or last):
                self._validate(writer, log)
            enough = bool(config.patience) and self.validations_since_best >= config.patience
            stop = asked and not (last or enough)
            if self.step % config.checkpoint_every == 0 or last or enough or stop:
                self._save(writer, "step", complete=last or enough)
            if stop:
                writer.finish()
                raise stopping.StoppedError(
                    f"Stopped by a signal after step {self.step} of {config.steps}, whose "
                    f"checkpoint is kept in {writer.folder}: the same command resumes from it."
                )
            if enough:
                return True
        return False

    def _take_step(
        self, batch: Batch, rate: float, writer: CheckpointWriter
    ) -> tuple[dict[str, float], bool]:
        """Take one step, or skip it where a batch has nothing to score or its gradient overflows.

        Returns:
            What the log holds of it, if this step is logged, and whether a rank is asked to stop.

        Raises:
            FloatingPointError: the loss is not finite, or no loss scale gives a finite gradient.
        """
        error, weight, asked = self._gradients(batch)
        found: dict[str, float] = {}
        if not bool(weight > 0):  # summed over all ranks, so that all decide the same
            self.skipped_steps += 1
        else:
            norm = self._scaled_gradient(weight)
            finite = math.isfinite(norm)
            logged = (self.step + 1) % self.recipe.training.log_every == 0
            if logged or not finite or self.step + 1 == self.recipe.training.steps:
                found["loss"] = float(self.ranks.sum(error) / weight)
            if not math.isfinite(found.get("loss", 0.0)):
                raise self._diverged(writer, f"The loss is {found['loss']} at step {self.step + 1}")
            if finite:
                found["gradient_norm"] = norm
                self.scale.passed(norm)
                self._update(rate)
            elif not self.scale.overflowed():
                at = f" at a loss scale of {2 * self.scale.value:g}" if self.scale.on else ""
                what = f"The gradient's norm is {norm} at step {self.step + 1}{at}"
                raise self._diverged(writer, what)
        self.optimizer.zero_grad()  # no part of what a checkpoint is of
        self.step += 1
        return found, bool(asked > 0)

    def _counts(self) -> dict[str, float]:
        """What the log says of steps that changed nothing, and of the loss scale."""
        counts = {"skipped_steps": self.skipped_steps, "overflowed_steps": self.scale.overflows}
        scale = {"loss_scale": self.scale.value} if self.scale.on else {}
        return {**scale, **{name: count for name, count in counts.items() if count}}

    def _gradients(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Add up the gradient of a step's loss.

        Returns:
            This rank's error, all ranks' weight, and how many ranks are asked to stop.
        """
        self.model.train()
        self.optimizer.zero_grad()
        # Dropout depends on seed, step and samples alone, so that a resumed run draws the same.
        number, count = self.ranks.data
        torch.manual_seed((self.recipe.seed + SEED_STRIDE * (self.step + 1)) * count + number)
        parts = self._split(batch)
        sums = torch.zeros(2, dtype=torch.float64, device=self.ranks.device)
        factor = None
        if self.scale.on:  # of the mean, whose gradients are alike whatever the size of a batch
            weights = [self.data.weight(part.to(self.ranks.device)) for part in parts]
            factor = self.scale.value / self.ranks.sum(torch.stack(weights).sum())
        for part in parts:
            if isinstance(self.model, FSDPModule):
                self.model.set_requires_gradient_sync(part is parts[-1])
            error, weight = self._error(part)
            (error if factor is None else error * factor.to(error.dtype)).backward()
            sums += torch.stack([error.detach().double(), weight])
        asked = sums.new_tensor(float(stopping.asked()))
        weight, ranks_asked = self.ranks.sum(torch.stack([sums[1], asked]))
        return sums[0], weight, ranks_asked

    def _split(self, batch: Batch) -> list[Batch]:
        return batch.split(self.recipe.training.micro_batch or len(batch))

    def _error(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Move a micro-batch to the device; return its error and its weight."""
        batch = batch.to(self.ranks.device)
        with autocast(self.recipe.training.precision, self.ranks.device):
            error = self.data.error(self.model, batch)
        return error, self.data.weight(batch)

    def _scaled_gradient(self, weight: torch.Tensor) -> float:
        """Scale the gradient to that of the mean loss, clip it, and return its norm before that.

        Args:
            weight: of the whole batch; the gradient so far is that of the sum of errors, or in
                float16 of the mean loss times the loss scale.
        """
        # FSDP averages gradients over the ranks of different samples, where a sum is wanted.
        count = torch.tensor(float(self.ranks.data[1]), dtype=torch.float64, device=weight.device)
        scale = count / (self.scale.value if self.scale.on else weight)
        limit = self.recipe.training.clip_norm
        return float(
            scale_and_clip_gradient(self.model.parameters(), scale, limit, self.ranks.mesh)
        )

    def _update(self, rate: float) -> None:
        """Take one optimizer step at a learning rate."""
        self.optimizer.set_rate(rate)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()

    def _save(self, writer: CheckpointWriter, name: str, *, complete: bool = False) -> None:
        """Write a checkpoint, unless something in it is not finite on any rank."""
        tensors = self.tensors()
        broken = torch.tensor(float(not all_finite(tensors)), device=self.ranks.device)
        if self.ranks.sum(broken) > 0:
            raise self._diverged(writer, f"The weights are no longer finite at step {self.step}")
        writer.save(name, self.checkpoint(complete=complete), tensors)

    def _diverged(self, writer: CheckpointWriter, what: str) -> FloatingPointError:
        """Say what to do about a run that cannot be carried on with."""
        writer.finish()  # every rank is here: what was being written is from before
        last = last_checkpoint(writer.folder)
        then = "starts again" if last is None else f"resumes from {last}"
        return FloatingPointError(
            f"{what}: lower training.learning_rate, with which the same command {then}, or check "
            f"the data with `sciml-dchag check`."
        )

    def _validate(self, writer: CheckpointWriter, log: Logbook | None) -> None:
        """Score the validation period, once through, and keep the best weights."""
        validation = self.data.validation
        if validation is None:
            return
        self.model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.ranks.device)
        averaged = contextlib.nullcontext() if self.average is None else self.average.in_place()
        with torch.no_grad(), averaged:
            for start in range(0, len(validation), self.recipe.training.batch):
                for part in self._split(self._validation_batch(validation, start)):
                    error, weight = self._error(part)
                    sums += torch.stack([error.double(), weight])
        error, weight = self.ranks.sum(sums)
        value = float(error / weight)
        if log is not None:
            log.record(self.step, validation_loss=value)
        if value < self.best_validation:
            self.best_validation, self.validations_since_best = value, 0
            self._save(writer, "best")
        else:
            self.validations_since_best += 1

    def _validation_batch(self, validation: Samples[Batch], start: int) -> Batch:
        """Return this rank's samples of a batch; past the end, the last one, counting nothing."""
        end = len(validation)
        numbers = [start + number for number in self.own_samples]
        batch = stack([validation[min(number, end - 1)] for number in numbers])
        return self.data.without(batch, [number >= end for number in numbers])

    def checkpoint(self, *, complete: bool = False) -> Checkpoint:
        """Gather what the run consists of, beside the tensors."""
        best = self.best_validation
        return Checkpoint(
            step=self.step,
            complete=complete,
            recipe=to_mapping(self.recipe),
            model_config=to_mapping(self.config),
            averaged=self.average is not None,
            best_validation=best if math.isfinite(best) else None,
            validations_since_best=self.validations_since_best,
            skipped_steps=self.skipped_steps,
            overflowed_steps=self.scale.overflows,
            loss_scale=self.scale.value,
            loss_scale_steps=self.scale.steps,
            data=self.data.record(),
        )
