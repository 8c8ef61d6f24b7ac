"""What a training run begins with: its store, and the checkpoint that it goes on from.

Every rank opens both by itself; `same_on_all_ranks` says what they must see alike.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sciml_dchag.config import Recipe, to_mapping
from sciml_dchag.data.statistics import Statistics
from sciml_dchag.data.store import Store, iso
from sciml_dchag.training.assembly import check_periods, training_statistics
from sciml_dchag.training.checkpoint import Checkpoint, last_checkpoint, read_checkpoint


@dataclass(frozen=True)
class Beginning:
    """What a run begins with."""

    store: Store
    """The store, opened."""
    statistics: Statistics
    """Its statistics over the training period."""
    checkpoint: Path | None
    """The checkpoint to go on from; None begins anew."""


def begin(recipe: Recipe, run: Path, *, resume: bool) -> Beginning:
    """Open a recipe's store and find the checkpoint to go on from.

    Raises:
        ValueError: store and recipe do not fit together, or the run folder holds a run of another
            recipe or of a store with other channels, grid, times or statistics.
        FileNotFoundError: there is no store, or it has no statistics.
        FileExistsError: the folder holds a run and `resume` is False.
    """
    store = Store.open(recipe.data.store)
    check_periods(store, recipe)
    statistics = training_statistics(store, recipe)
    last = last_checkpoint(run / "checkpoints")
    if last is not None:
        if not resume:
            raise FileExistsError(
                f"{run} already holds a trained run: resume it with --resume auto, choose another "
                f"name, or remove the folder."
            )
        checkpoint = read_checkpoint(last)
        _require_same_recipe(run, checkpoint, recipe)
        _require_same_store(run, checkpoint, store, statistics)
    return Beginning(store, statistics, last)


def same_on_all_ranks(beginning: Beginning, recipe: Recipe) -> dict[str, tuple[str, str]]:
    """Say what this rank sees of what all ranks must see alike, and the cure of a difference.

    Of the store this covers channels, times, grid, and statistics to the last bit, which follow
    from the states of the training period; it reads no states, so that a difference in those of
    another period is not seen.
    """
    store, statistics = beginning.store, beginning.statistics
    arrays = (statistics.mean, statistics.std, statistics.minimum, statistics.maximum)
    names = store.channels.names
    times = f"{len(store.times)} from {iso(store.times[0])} to {iso(store.times[-1])}"
    one_recipe = "give all ranks the same recipe file and the same --set"
    one_store = f"let all ranks read the same {store.path}, or copy it to each machine again"
    one_folder = "let all ranks see the same run folder, on a file system that they share"
    last = beginning.checkpoint
    settings = json.dumps(to_mapping(recipe), sort_keys=True).encode()
    return {
        "recipes": (f"recipe {_hash(settings)}", one_recipe),
        "channels in the store": (
            f"{len(names)} ({names[0]} to {names[-1]}, {_hash(json.dumps(names).encode())})",
            one_store,
        ),
        "times in the store": (f"{times} ({_hash(store.times.tobytes())})", one_store),
        "grids in the store": (f"grid {store.grid_sha256[:8]}", one_store),
        "statistics in the store": (
            f"statistics {_hash(*(array.tobytes() for array in arrays))} of "
            f"{' to '.join(statistics.period)}",
            one_store,
        ),
        "checkpoints to go on from": (last.name if last else "none", one_folder),
    }


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:8]


# Changing these goes on with the same run: they say how long and how, not what is learnt.
_FREE = {
    "data": ("store", "workers", "memory_mebibytes"),
    "training": (
        "steps", "log_every", "checkpoint_every", "validate_every", "patience", "micro_batch",
    ),
}  # fmt: skip


def _what_is_learnt(values: dict[str, Any], section: str) -> str:
    """Return a section's settings that make one run another, as text to compare."""
    settings = values[section]
    if isinstance(settings, dict):
        settings = {k: v for k, v in settings.items() if k not in _FREE.get(section, ())}
    return json.dumps(settings, sort_keys=True)


def _require_same_recipe(run: Path, checkpoint: Checkpoint, recipe: Recipe) -> None:
    now = to_mapping(recipe)
    for section in ("seed", "data", "model", "task", "training"):
        if _what_is_learnt(checkpoint.recipe, section) != _what_is_learnt(now, section):
            raise ValueError(
                f"{run} holds a run with other settings in {section!r}: restore them, choose "
                f"another name with --set name=NAME, or remove the folder."
            )


def _require_same_store(
    run: Path, checkpoint: Checkpoint, store: Store, statistics: Statistics
) -> None:
    """Refuse to go on with a store that has been prepared differently, or another one."""
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
        f"{run} holds a run {difference}: set data.store to the store that it began with, choose "
        f"another name with --set name=NAME, or remove the folder."
    )
