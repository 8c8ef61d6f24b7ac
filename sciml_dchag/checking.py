"""Looking before work starts: what of a recipe would fail.

Reads metadata, and of local sources the first values, so that it is safe on a login node and done
in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sciml_dchag.config import Recipe
from sciml_dchag.parallel.runtime import choose_device
from sciml_dchag.tasks import task_of
from sciml_dchag.training.checkpoint import last_checkpoint
from sciml_dchag.training.control import preview_base
from sciml_dchag.training.optim import parts_in_words
from sciml_dchag.training.start import continues_finished, require_same_run
from sciml_dchag.training.start_from import preview_start
from sciml_dchag.training.task import Attempt, Task


@dataclass(frozen=True)
class Finding:
    """One thing that a check has found."""

    verdict: Literal["ok", "note", "fails"]
    """Whether it is fine, worth knowing, or would fail."""
    what: str
    """A sentence; for a failure, with the fix."""


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
            what = " ".join(str(error).split())
            missing = isinstance(error, FileNotFoundError)
            findings.append(Finding("fails", recipe.with_command(what) if missing else what))
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
    if recipe.model.control.base:
        attempt(lambda: preview_base(task.expected_model()))
    if recipe.training.freeze or recipe.training.rates:
        attempt(lambda: parts_in_words(task.expected_model(), recipe.training))
    try:
        choose_device(recipe.parallel.device)
    except ValueError as error:  # a login node may lack what the job will have
        note(str(error))
    _check_run(task, runs / recipe.name, attempt, note)
    return findings


def _check_run(task: Task[Any], run: Path, attempt: Attempt, note: Callable[[str], None]) -> None:
    """Look at what training would resume, and at whether it is ever validated."""
    training = task.recipe.training
    if (last := last_checkpoint(run / "checkpoints")) is not None:

        def resumed() -> str:
            checkpoint = require_same_run(task, run, last)
            if longer := continues_finished(checkpoint, training):
                note(longer)
            return f"`train` resumes from {last}, step {checkpoint.step} of {training.steps}"

        attempt(resumed)
    if training.validate_every and training.validate_every > training.steps:
        note(
            f"training.validate_every {training.validate_every} is beyond the last of "
            f"{training.steps} steps: the run is validated once, at its end"
        )
