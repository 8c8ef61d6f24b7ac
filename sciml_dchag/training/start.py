"""What a training run begins with: its store, the checkpoint to resume from, a rank's samples.

Every rank opens the first two by itself; `fingerprint_of` says what must be the same for all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciml_dchag.config import Recipe, TrainingConfig, to_mapping
from sciml_dchag.training.checkpoint import Checkpoint, last_checkpoint, read_checkpoint
from sciml_dchag.training.optim import learning_rate
from sciml_dchag.training.task import Fingerprint, Task, TrainingStore, short_hash


@dataclass(frozen=True)
class Start:
    """What a run begins with."""

    store: TrainingStore
    """The recipe's store, opened."""
    checkpoint: Path | None
    """The checkpoint to resume from; None starts again."""


def find_start(task: Task[Any], run: Path, *, resume: bool) -> Start:
    """Open a recipe's store and find the checkpoint to resume from.

    Raises:
        ValueError: store and recipe do not fit together, or the run folder holds a run of another
            recipe or of another store.
        FileNotFoundError: there is no store, or it has no statistics.
        FileExistsError: the folder holds a run and `resume` is False.
    """
    store = task.open()
    last = last_checkpoint(run / "checkpoints")
    if last is not None:
        if not resume:
            raise FileExistsError(
                f"{run} already holds a trained run: resume it with `resume=True`, choose another "
                f"name, or remove the folder."
            )
        checkpoint = read_checkpoint(last)
        _require_same_recipe(run, checkpoint, task.recipe)
        _require_same(store, checkpoint, run)
    return Start(store, last)


def require_same_run(task: Task[Any], run: Path, last: Path) -> Checkpoint:
    """Read the checkpoint that a run would resume from, if it is of this recipe.

    Args:
        task: of the recipe; its store is looked at where it is there.
        run: the run folder, for a message.
        last: the checkpoint.

    Raises:
        ValueError: a checkpoint of another recipe or another store, or a damaged one.
    """
    checkpoint = read_checkpoint(last)
    _require_same_recipe(run, checkpoint, task.recipe)
    if Path(task.recipe.data.store).exists():
        _require_same(task.open(), checkpoint, run)
    return checkpoint


def continues_finished(checkpoint: Checkpoint, training: TrainingConfig) -> str | None:
    """Say what more steps do to a run that had ended; None where there are no more."""
    if not checkpoint.complete or training.steps <= checkpoint.step:
        return None
    planned = checkpoint.recipe["training"]["steps"]
    return (
        f"the run ended at step {checkpoint.step} of {planned}: up to step {training.steps} it "
        f"continues at the learning rate of a cosine of {training.steps} steps, "
        f"{learning_rate(training, checkpoint.step):.2g} at first, not at the "
        f"{training.final_learning_rate:.2g} that it ended with"
    )


def _require_same(store: TrainingStore, checkpoint: Checkpoint, run: Path) -> None:
    if difference := store.difference(checkpoint):
        raise ValueError(
            f"{run} holds a run {difference}: set data.store to the store that it began with, "
            f"choose another name with `name=NAME`, or remove the folder."
        )


def fingerprint_of(start: Start, recipe: Recipe) -> Fingerprint:
    """Say what this rank sees of what must be the same on all, and how to fix a difference."""
    one_recipe = "give all ranks the same recipe file and the same --set"
    one_folder = "let all ranks see the same run folder, on a file system that they share"
    last = start.checkpoint
    settings = json.dumps(to_mapping(recipe), sort_keys=True).encode()
    return {
        "recipes": (f"recipe {short_hash(settings)}", one_recipe),
        **start.store.fingerprint(),
        "checkpoints to resume from": (last.name if last else "none", one_folder),
    }


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


# Changing these goes on with the same run: they say how long and how, not what is learnt.
_FREE = {
    "data": ("store", "workers", "memory_mebibytes"),
    "training": (
        "steps", "log_every", "checkpoint_every", "validate_every", "patience", "micro_batch",
        "watch_every",
    ),
}  # fmt: skip
# So do these as long as the run has not ended: one that diverged is resumed at a lower rate, or
# with more modules in float32.
_FREE_UNTIL_THE_END = {
    "training": (
        "learning_rate", "final_learning_rate", "epsilon", "float32_modules", "loss_scale",
        "loss_scale_steps",
    ),
}  # fmt: skip


def _what_is_learnt(values: dict[str, Any], section: str, ended: bool) -> str:
    """Return a section's settings that make one run another, as text to compare."""
    settings, free = values[section], _FREE.get(section, ())
    if not ended:
        free += _FREE_UNTIL_THE_END.get(section, ())
    if isinstance(settings, dict):
        settings = {k: v for k, v in settings.items() if k not in free}
    return json.dumps(settings, sort_keys=True)


def _require_same_recipe(run: Path, checkpoint: Checkpoint, recipe: Recipe) -> None:
    now = to_mapping(recipe)
    for section in ("seed", "data", "model", "task", "training"):
        saved = checkpoint.recipe
        if isinstance(now[section], dict):
            # A key that an earlier version did not have is at its default.
            defaults = to_mapping(type(getattr(recipe, section))())
            saved = {**saved, section: {**defaults, **saved[section]}}
        was, wanted = (
            _what_is_learnt(values, section, checkpoint.complete) for values in (saved, now)
        )
        if was != wanted:
            raise ValueError(
                f"{run} holds a run with other settings in {section!r}: restore them, choose "
                f"another name with `name=NAME`, or remove the folder."
            )
