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
from sciml_dchag.training.not_finite import first_not_finite, in_words
from sciml_dchag.training.observed import Observed
from sciml_dchag.training.optim import (
    AveragedWeights,
    ShardedAdamW,
    all_finite,
    learning_rate,
    scale_and_clip_gradient,
)
from sciml_dchag.training.precision import LossScale, autocast, compute_dtype, exact_modules
from sciml_dchag.training.stability import Watch
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
        self.watch = Watch(self.model, self.optimizer, ranks, recipe.training)
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
            watched = self.watch.due(self.step + 1)
            found, observed, asked = self.take_step(batch, rate_now, writer, watched=watched)
            if observed is not None and log is not None:
                log.watched(self.step, observed.record(), **observed.summary())
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

    def take_step(
        self, batch: Batch, rate: float, writer: CheckpointWriter | None, *, watched: bool
    ) -> tuple[dict[str, float], Observed | None, bool]:
        """Take one step, or skip it where a batch has nothing to score or its gradient overflows.

        Args:
            batch: this rank's samples of the step.
            rate: the learning rate.
            writer: of the run's checkpoints, if there is one.
            watched: whether the step is looked at.

        Returns:
            What the log holds of it, if this step is logged, what was seen of it, if it is watched,
            and whether a rank is asked to stop.

        Raises:
            FloatingPointError: the loss is not finite, or no loss scale gives a finite gradient.
        """
        with self.watch.hooked() if watched else contextlib.nullcontext():
            error, weight, asked = self._gradients(batch)
        found: dict[str, float] = {}
        observed = None
        step, config = self.step + 1, self.recipe.training
        if not bool(weight > 0):  # summed over all ranks, so that all decide the same
            self.skipped_steps += 1
        else:
            if watched:
                self.watch.take_gradients()
            norm, scale = self._scaled_gradient(weight), self.scale.value
            finite = math.isfinite(norm)
            if step % config.log_every == 0 or not finite or step == config.steps:
                found["loss"] = float(self.ranks.sum(error) / weight)
            self._require_finite(found.get("loss", 0.0), norm, batch, writer)
            if finite:
                found["gradient_norm"] = norm
                self.scale.passed(norm)
                self._update(rate)
            self.watch.passed(step, error, weight, norm)
            if watched:
                if finite:
                    self.watch.take_update()
                observed = self.watch.finish(step, scale)
        self.optimizer.zero_grad()  # no part of what a checkpoint is of
        self.step += 1
        return found, observed, bool(asked > 0)

    def _require_finite(
        self, loss: float, norm: float, batch: Batch, writer: CheckpointWriter | None
    ) -> None:
        """Refuse a step that no smaller loss scale makes finite, naming what was first not finite.

        Raises:
            FloatingPointError: on all ranks.
        """
        if math.isfinite(loss) and (math.isfinite(norm) or self.scale.overflowed()):
            return
        what = f"The loss is {loss} at step {self.step + 1}"
        if math.isfinite(loss):
            at = f" at a loss scale of {2 * self.scale.value:g}" if self.scale.on else ""
            what = f"The gradient's norm is {norm} at step {self.step + 1}{at}"
        raise self._diverged(writer, what, self._first_not_finite(batch))

    def _first_not_finite(self, batch: Batch) -> str:
        """Repeat a step's passes and say what of them was first not finite, on all ranks."""
        self._begin_step()
        factor = self._factor(parts := self._split(batch))

        def loss(part: Batch) -> torch.Tensor:
            error = self._error(part)[0]
            return error if factor is None else error * factor.to(error.dtype)

        mine = first_not_finite(self.model, parts, loss)
        numbers = [
            self.step * self.recipe.training.batch + self.own_samples[p] for p in mine.places
        ]
        return in_words(self.ranks.every((mine, numbers)), self.data.samples)

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
        self._begin_step()
        parts = self._split(batch)
        sums = torch.zeros(2, dtype=torch.float64, device=self.ranks.device)
        factor = self._factor(parts)
        for part in parts:
            if isinstance(self.model, FSDPModule):
                self.model.set_requires_gradient_sync(part is parts[-1])
            error, weight = self._error(part)
            (error if factor is None else error * factor.to(error.dtype)).backward()
            sums += torch.stack([error.detach().double(), weight])
        asked = sums.new_tensor(float(stopping.asked()))
        weight, ranks_asked = self.ranks.sum(torch.stack([sums[1], asked]))
        return sums[0], weight, ranks_asked

    def _begin_step(self) -> None:
        """Forget gradients, and let dropout depend on seed, step and samples alone.

        So that a resumed run, or a step that is repeated, draws the same.
        """
        self.model.train()
        self.optimizer.zero_grad()
        number, count = self.ranks.data
        torch.manual_seed((self.recipe.seed + SEED_STRIDE * (self.step + 1)) * count + number)

    def _factor(self, parts: list[Batch]) -> torch.Tensor | None:
        """What the sum of errors is multiplied by in float16: the loss scale over all weights.

        Of the mean, whose gradients are alike whatever the size of a batch.
        """
        if not self.scale.on:
            return None
        weights = [self.data.weight(part.to(self.ranks.device)) for part in parts]
        return self.scale.value / self.ranks.sum(torch.stack(weights).sum())

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

    def _diverged(
        self, writer: CheckpointWriter | None, what: str, first: str = ""
    ) -> FloatingPointError:
        """Say what to do about a run that cannot be carried on with."""
        then = "starts again"
        if writer is not None:
            writer.finish()  # every rank is here: what was being written is from before
            if (last := last_checkpoint(writer.folder)) is not None:
                then = f"resumes from {last}"
        exact = ", name the module in training.float32_modules" if self.scale.on else ""
        return FloatingPointError(
            f"{what}{first}: lower training.learning_rate, with which the same command {then}"
            f"{exact}, or check the data with `sciml-dchag check`."
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
