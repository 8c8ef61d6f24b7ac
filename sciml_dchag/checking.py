"""Looking before work starts: what a path holds, and what of a recipe would fail.

Reads metadata alone, so that both are safe on a login node and done in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sciml_dchag.config import Recipe
from sciml_dchag.parallel.runtime import choose_device
from sciml_dchag.tasks import DESCRIBERS, named, task_class, task_of
from sciml_dchag.training.checkpoint import RECORD, last_checkpoint, read_checkpoint
from sciml_dchag.training.start_from import preview_start


@dataclass(frozen=True)
class Finding:
    """One thing that a check has found."""

    verdict: Literal["ok", "note", "fails"]
    """Whether it is fine, worth knowing, or would fail."""
    what: str
    """A sentence; for a failure, with the fix."""


def describe(path: str) -> dict[str, Any]:
    """Describe raw files, a store, a forecast store, a run folder or a checkpoint.

    Raises:
        FileNotFoundError, ValueError: there is nothing, or nothing known.
    """
    place = Path(path)
    if (place / RECORD).is_file() or (place / "checkpoints").is_dir():
        return _describe_checkpoint(place)
    for describer in DESCRIBERS:
        facts: dict[str, Any] | None = named(describer)(path)
        if facts is not None:
            return facts
    raise ValueError(f"{path} holds nothing that is known here: name raw files, a store or a run.")


def check_recipe(recipe: Recipe, runs: Path = Path("runs")) -> list[Finding]:
    """Say of each part of a recipe whether it would work.

    Args:
        recipe: the recipe, whose own consistency is checked when it is made.
        runs: folder of the run folders.
    """
    findings: list[Finding] = []

    def attempt(check: Callable[[], str]) -> bool:
        try:
            findings.append(Finding("ok", check()))
        except (ValueError, OSError, ImportError) as error:
            findings.append(Finding("fails", " ".join(str(error).split())))
        return findings[-1].verdict == "ok"

    def note(sentence: str) -> None:
        findings.append(Finding("note", sentence))

    if not recipe.data.store:
        findings.append(Finding("fails", "data.store is empty: say where the store is to be."))
        return findings
    if not Path(recipe.data.store).exists():
        note(f"store {recipe.data.store} is not there yet: `run` prepares it")
    task = task_of(recipe)
    task.check(attempt, note)
    if other := recipe.training.start_from:
        attempt(lambda: f"start from {other}: {preview_start(task.expected_model(), other)}")
    try:
        choose_device(recipe.parallel.device)
    except ValueError as error:  # a login node may lack what the job will have
        note(str(error))
    if (last := last_checkpoint(runs / recipe.name / "checkpoints")) is not None:
        note(f"{last} is there: `train` resumes from it")
    return findings


def _describe_checkpoint(place: Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(place)
    model = checkpoint.model_config
    return {
        "kind": "checkpoint",
        "run": checkpoint.recipe["name"],
        "step": checkpoint.step,
        "training": "ended" if checkpoint.complete else "not ended",
        "model": f"{model['aggregation']}, {model['depth']} blocks of {model['embed_dim']}",
        **task_class(checkpoint.recipe).describe(checkpoint, place),
    }
