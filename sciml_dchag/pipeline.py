"""All steps of a recipe in order: prepare, train, predict, evaluate; finished ones are skipped.

Each step is done by the recipe's task; here is only what follows what, and when a step is finished.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciml_dchag.config import Recipe, save_recipe, to_mapping
from sciml_dchag.files.resumable import Progress
from sciml_dchag.files.writable import require_writable
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.tasks import load_recipe, task_of
from sciml_dchag.training import trainer
from sciml_dchag.training.checkpoint import (
    RECORD,
    find_checkpoint,
    last_checkpoint,
    read_checkpoint,
)
from sciml_dchag.training.evaluation import SCORES, Evaluation
from sciml_dchag.training.task import Task
from sciml_dchag.training.trainer import TrainingResult

Console = Callable[[str], None]


@dataclass(frozen=True)
class PipelineResult:
    """What a pipeline has left."""

    run: Path
    """The run folder."""
    evaluation: Evaluation
    """The scores, and where they are written."""


def run_recipe(
    recipe: Recipe,
    run: Path,
    *,
    progress: Progress | None = None,
    console: Console = lambda line: None,
) -> PipelineResult:
    """Do all that a recipe asks for, step by step.

    A step is skipped when what it makes is there and was made from the same settings and the
    same checkpoint.

    Raises:
        ValueError, OSError: as the steps do; finished steps stay finished.
    """
    task = task_of(recipe)
    require_writable(run / "recipe.yaml")
    if not Path(recipe.data.store).exists():
        task.check_scored()
    try:
        task.prepare(progress, console)
    except FileNotFoundError as error:
        raise FileNotFoundError(recipe.with_command(str(error))) from error
    task.check_scored()
    _train_unless_done(task, run, progress, console)
    newest = (find_checkpoint(run) / RECORD).stat().st_mtime
    same = _same_evaluation(recipe, run)

    def finished(path: Path) -> bool:
        return same and path.exists() and path.stat().st_mtime >= newest

    if (predictions := task.predictions(run)) is not None:
        if finished(predictions):
            console(f"predict: {predictions} is there")
        else:
            console(f"predict: {predictions}")
            task.predict(run, progress)
    if finished(scores := run / "evaluation" / SCORES):
        console(f"evaluate: {scores} is there")
    else:
        console("evaluate: scores beside the baselines")
        task.evaluate(run, progress=progress)
    save_recipe(recipe, run / "recipe.yaml")
    return PipelineResult(run, Evaluation.read(run))


def train(
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = True,
    progress: Progress | None = None,
    console: Console | None = None,
) -> TrainingResult:
    """Train a recipe's model into a run folder; see `training.trainer.train`."""
    return trainer.train(task_of(recipe), run, resume=resume, progress=progress, console=console)


def evaluate(
    run: Path,
    recipe: Recipe | None = None,
    *,
    parallel: ParallelConfig | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a run on its test data.

    Args:
        run: the run folder.
        recipe: says what is scored; None is the run's own.
        parallel: degrees of `fsdp` and `tp`; `dp` takes the ranks that they leave.
        progress: called for what is scored.

    Raises:
        FileNotFoundError: `run` is no run folder, or holds no checkpoint.
        PermissionError: nothing can be written in it.
        ValueError: as the task does.
    """
    recipe = recipe or load_recipe(require_run(run) / "recipe.yaml")
    require_writable(run / "evaluation" / SCORES)
    # The degrees of the training say nothing of the ranks that are here now; its device may stay.
    parallel = parallel or recipe.parallel.elsewhere()
    return task_of(recipe).evaluate(run, parallel=parallel, progress=progress)


def require_run(run: Path) -> Path:
    """Refuse what is no run folder.

    Raises:
        FileNotFoundError: there is no recipe in it.
    """
    if not (run / "recipe.yaml").is_file():
        raise FileNotFoundError(
            f"{run} is no run folder: name one that `sciml-dchag train` has written, such as "
            f"runs/NAME."
        )
    return run


def _train_unless_done(
    task: Task[Any], run: Path, progress: Progress | None, console: Console
) -> None:
    """Train a recipe's model, unless its run folder holds it, trained to the end."""
    recipe = task.recipe
    if (last := last_checkpoint(run / "checkpoints")) is not None:
        checkpoint, wanted = read_checkpoint(last), to_mapping(recipe)
        if checkpoint.complete and all(
            checkpoint.recipe[section] == wanted[section]
            for section in ("seed", "data", "model", "task", "training")
        ):
            console(f"train: {last} is there")
            return
    console(f"train: {recipe.training.steps} steps of {recipe.training.batch} samples")
    result = trainer.train(task, run, progress=progress, console=console)
    console(f"train: {result.steps} steps done, {result.seconds:.0f} s")


def _same_evaluation(recipe: Recipe, run: Path) -> bool:
    """Say whether the run's recipe, as last completed, asked for the same scores."""
    saved = run / "recipe.yaml"
    if not saved.is_file():
        return False
    before = to_mapping(load_recipe(saved))
    return bool(before["evaluation"] == to_mapping(recipe)["evaluation"])
