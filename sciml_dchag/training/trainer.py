"""The training loop, on one process or as one of many.

What is learnt, and from which samples, is the `task`'s; who else is there is
`parallel.runtime`'s. Every rank goes through the same calls in the same order.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from sciml_dchag.config import Recipe, save_recipe, to_mapping
from sciml_dchag.config.parts import frozen_of
from sciml_dchag.files.locks import locked
from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.parallel import stopping
from sciml_dchag.parallel.apply import freeze, plain_name
from sciml_dchag.parallel.build import build_on_ranks
from sciml_dchag.parallel.runtime import Ranks, joined
from sciml_dchag.training.batches import Batch, Samples, load_batches, stack
from sciml_dchag.training.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    find_checkpoint,
    last_checkpoint,
    load_tensors,
    read_checkpoint,
    tensors_of,
)
from sciml_dchag.training.control import Base, completed, put_in, read_base, require_same_base
from sciml_dchag.training.logbook import Logbook
from sciml_dchag.training.optim import (
    AveragedWeights,
    ShardedAdamW,
    all_finite,
    learning_rate,
    scale_and_clip_gradient,
)
from sciml_dchag.training.start import (
    Start,
    continues_finished,
    find_start,
    fingerprint_of,
    own_samples,
)
from sciml_dchag.training.start_from import StartReport, start_from
from sciml_dchag.training.task import Task, TrainingStore

SEED_STRIDE = 1_000_003
"""Keeps the seeds of the steps of one run apart from those of runs with neighbouring seeds."""


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
    skipped_steps: int
    """Steps in all whose batch had nothing to score, which changed nothing."""


def train(
    task: Task[Any],
    run: Path,
    *,
    resume: bool = True,
    progress: Progress | None = None,
    console: Callable[[str], None] | None = None,
) -> TrainingResult:
    """Train a task's model into a run folder; under torchrun, as one of its processes.

    Args:
        task: the recipe's task; its store must exist.
        run: the run folder, `runs/NAME`, which all processes see.
        resume: resume from the last checkpoint of the folder, if there is one.
        progress: called for every optimizer step, on the first rank.
        console: called for every record of the log, on the first rank.

    Raises:
        ValueError: store, recipe and number of ranks do not fit together, ranks see different
            stores, recipes, checkpoints or package versions, or a run of another recipe or store
            lies there.
        FileExistsError: the folder holds a run and `resume` is False.
        StoppedError: SIGTERM or SIGUSR1 came; the step's checkpoint is kept.
        FloatingPointError: the loss or the weights are no longer finite; the last checkpoint is
            from before.
    """
    started = time.monotonic()
    recipe = task.recipe

    def look() -> tuple[Start, dict[str, tuple[str, str]]]:
        found = find_start(task, run, resume=resume)
        return found, fingerprint_of(found, recipe)

    with joined(recipe.parallel) as ranks, contextlib.ExitStack() as stack:
        # Before anything is looked at, which another process may be writing.
        ranks.from_first(lambda: stack.enter_context(locked(run / ".lock", run)))
        start = ranks.agree(look)
        base = ranks.agree(lambda: _find_base(start.store)) if recipe.model.control.base else None
        trainer = _Trainer(recipe, start.store, ranks, base)
        log = None
        report = None
        if start.checkpoint is not None:
            restored = trainer.restore(start.checkpoint)
            if console is not None and (longer := continues_finished(restored, recipe.training)):
                console(f"{longer[0].upper()}{longer[1:]}.")
        elif other := recipe.training.start_from:
            report = ranks.agree(lambda: _start_from(trainer.model, other))
            trainer.restart_average()
        if ranks.first:
            run.mkdir(parents=True, exist_ok=True)
            save_recipe(recipe, run / "recipe.yaml")
            if report is not None and console is not None:
                console(f"Start from {recipe.training.start_from}: {report}")
            log = stack.enter_context(Logbook(run, first_step=trainer.step, console=console))
        writer = stack.enter_context(CheckpointWriter(run / "checkpoints", ranks))
        stack.enter_context(stopping.noted())
        stopped_early = trainer.run(writer, log, progress if ranks.first else None)
    seconds = time.monotonic() - started
    return TrainingResult(
        find_checkpoint(run), trainer.step, seconds, stopped_early, trainer.skipped_steps
    )


def _find_base(store: TrainingStore) -> tuple[Base, dict[str, tuple[str, str]]]:
    """Read the base of a control branch; say what must be the same on all ranks."""
    base = read_base(store.model_config())
    fix = f"let all ranks see the same {base.path}, on a file system that they share"
    return base, {"bases of model.control": (base.sha256[:8], fix)}


def _start_from(
    model: ChannelTransformer, path: str
) -> tuple[StartReport, dict[str, tuple[str, str]]]:
    """Start from another model's weights; say what this rank took, the same as all."""
    report = start_from(model, path)
    fix = f"let all ranks see the same {path}, on a file system that they share"
    return report, {"weights to start from": (str(report), fix)}


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

    def __init__(
        self, recipe: Recipe, store: TrainingStore, ranks: Ranks, base: Base | None = None
    ) -> None:
        self.recipe, self.ranks = recipe, ranks
        self.own_samples = own_samples(recipe.training, *ranks.data)
        self.config = store.model_config()
        if base is not None:
            self.config = completed(self.config, base)
        dtype = compute_dtype(recipe.training.precision, ranks.device)
        self.model = build_on_ranks(self.config, recipe.seed, ranks, recipe.parallel, dtype)
        if base is not None:
            put_in(self.model, base)
        names = [plain_name(name) for name, _ in self.model.named_parameters()]
        freeze(self.model, frozen_of(names, recipe.training))
        self.data = store.training_data(self.model, ranks)
        self.optimizer = ShardedAdamW(self.model, recipe.training)
        decay = recipe.training.ema_decay
        self.average = AveragedWeights(self.model, decay) if decay else None
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
            error, weight, asked = self._gradients(batch)
            scored = bool(weight > 0)  # summed over all ranks, so that all decide the same
            rate_now = learning_rate(config, self.step)
            if scored:
                found = {"gradient_norm": self._update(weight, rate_now)}
            else:
                found = {}
                self.skipped_steps += 1
                self.optimizer.zero_grad()  # no part of what a checkpoint is of
            self.step += 1
            last = self.step == config.steps
            if self.step % config.log_every == 0 or last:
                if scored:
                    found = {"loss": self.ranks.sum(error) / weight, **found}
                    if not math.isfinite(value := float(found["loss"])):
                        raise self._diverged(writer, f"The loss is {value} at step {self.step}")
                samples = (self.step - since_step) * config.batch
                rate = samples / max(time.monotonic() - since, 1e-9)
                since, since_step = time.monotonic(), self.step
                if log is not None:
                    log.record(
                        self.step,
                        **{name: float(value) for name, value in found.items()},
                        learning_rate=rate_now,
                        samples_per_second=rate,
                        **({"skipped_steps": self.skipped_steps} if self.skipped_steps else {}),
                    )
            if progress is not None:
                progress(self.step, config.steps, "training")
            if config.validate_every and (self.step % config.validate_every == 0 or last):
                self._validate(writer, log)
            enough = bool(config.patience) and self.validations_since_best >= config.patience
            stop = bool(asked > 0) and not (last or enough)
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
        for part in parts:
            if isinstance(self.model, FSDPModule):
                self.model.set_requires_gradient_sync(part is parts[-1])
            error, weight = self._error(part)
            error.backward()
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

    def _update(self, weight: torch.Tensor, rate: float) -> torch.Tensor:
        """Take one optimizer step and return the norm of the gradient.

        Args:
            weight: of the whole batch; the gradient so far is that of the sum of errors.
            rate: the learning rate.
        """
        # FSDP averages gradients over the ranks of different samples, where a sum is wanted.
        scale = self.ranks.data[1] / weight
        limit = self.recipe.training.clip_norm
        norm = scale_and_clip_gradient(self.model.parameters(), scale, limit, self.ranks.mesh)
        self.optimizer.set_rate(rate)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        return norm

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
            data=self.data.record(),
        )
