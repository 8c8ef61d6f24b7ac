"""A training run, on one process or as one of many: what it begins with, and its end.

What is learnt, and from which samples, is the `task`'s; who else is there is
`parallel.runtime`'s. Every rank goes through the same calls in the same order.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciml_dchag.config import save_recipe
from sciml_dchag.files.locks import locked
from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.parallel import stopping
from sciml_dchag.parallel.runtime import joined
from sciml_dchag.training.checkpoint import (
    CheckpointWriter,
    find_checkpoint,
)
from sciml_dchag.training.control import Base, read_base
from sciml_dchag.training.logbook import Logbook
from sciml_dchag.training.loop import TrainingLoop
from sciml_dchag.training.start import (
    Start,
    continues_finished,
    find_start,
    fingerprint_of,
)
from sciml_dchag.training.start_from import StartReport, start_from
from sciml_dchag.training.task import Task, TrainingStore


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
    overflowed_steps: int = 0
    """Steps in all whose gradient was not finite at their loss scale, which changed nothing."""


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
        trainer = TrainingLoop(recipe, start.store, ranks, base)
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
        find_checkpoint(run), trainer.step, seconds, stopped_early, trainer.skipped_steps,
        trainer.scale.overflows,
    )  # fmt: skip


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
