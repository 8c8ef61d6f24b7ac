"""Repeats one step of a run, from the nearest checkpoint before it, with everything watched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sciml_dchag.config import Recipe
from sciml_dchag.files.resumable import Progress
from sciml_dchag.parallel.runtime import joined
from sciml_dchag.training.batches import load_batches
from sciml_dchag.training.checkpoint import RECORD, read_checkpoint
from sciml_dchag.training.control import read_base
from sciml_dchag.training.loop import TrainingLoop
from sciml_dchag.training.observed import Observed
from sciml_dchag.training.optim import learning_rate
from sciml_dchag.training.start import require_same_run
from sciml_dchag.training.start_from import start_from
from sciml_dchag.training.task import Task


def replay(
    task: Task[Any],
    run: Path,
    step: int,
    *,
    progress: Progress | None = None,
    console: Callable[[str], None] | None = None,
) -> Observed:
    """Repeat a step of a run and look at all of it; nothing is written.

    The steps from the checkpoint up to it are repeated, too. On another number of ranks of dp x
    fsdp than the run's, dropout draws other numbers.

    Args:
        task: of the run's recipe; its store must exist.
        run: the run folder.
        step: counted from 1.
        progress: called for each repeated step.
        console: told which checkpoint it begins from.

    Raises:
        ValueError: no such step, one whose batch has nothing to score, or a run of another recipe
            or store.
        FloatingPointError: the loss of a step is not finite; it names the module that made it so.
    """
    config = task.recipe.training
    if not 1 <= step <= config.steps:
        raise ValueError(f"Step {step} is not one of the run's: name one from 1 to {config.steps}.")
    begin = _nearest(run, step)
    with joined(task.recipe.parallel) as ranks:
        if begin is not None:
            require_same_run(task, run, begin)
        store = task.open()
        base = read_base(store.model_config()) if task.recipe.model.control.base else None
        loop = TrainingLoop(task.recipe, store, ranks, base)
        if begin is not None:
            loop.restore(begin)
        elif config.start_from:
            start_from(loop.model, config.start_from)
        if console is not None and ranks.first:
            console(f"Repeating steps {loop.step + 1} to {step}, from {begin or 'the start'}.")
        batches = load_batches(
            loop.data.samples, batch=config.batch, own=loop.own_samples, first_step=loop.step,
            last_step=step, workers=0,
        )  # fmt: skip
        observed = None
        for batch in batches:
            last, rate = loop.step + 1 == step, learning_rate(config, loop.step)
            _, observed, _ = loop.take_step(batch, rate, None, watched=last)
            if progress is not None and ranks.first:
                progress(loop.step, step, "replay")
    if observed is None:
        raise ValueError(f"Step {step} had nothing to score and changed nothing: name another one.")
    return observed


def of_one_process(recipe: Recipe, count: int) -> Recipe:
    """Return the recipe of a run as so many processes can repeat it."""
    return recipe if count > 1 else recipe.replace(parallel=dict(dp=1, fsdp=1, tp=1))


def _nearest(run: Path, step: int) -> Path | None:
    """Find the latest checkpoint from before a step; None to begin at the start."""
    found = [
        (read_checkpoint(record.parent).step, record.parent)
        for record in (run / "checkpoints").glob(f"*/{RECORD}")
        if record.parent.suffix not in (".partial", ".old")
    ]
    return max(((at, path) for at, path in found if at < step), default=(0, None))[1]
