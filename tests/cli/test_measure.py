"""`plan --measure` times steps of a recipe on this machine, and of changes to it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from sciml_dchag.tasks import load_recipe, task_of
from sciml_dchag.training.logbook import read_log
from sciml_dchag.training.measured import CHANGES, WARM_UP, measure
from sciml_dchag.training.trainer import train

Call = Callable[..., Result]


def test_steps_are_those_of_training(work: Path, tmp_path: Path) -> None:
    recipe = load_recipe(work / "runs" / "small" / "recipe.yaml", ())
    task = task_of(recipe.replace(training=dict(steps=WARM_UP + 2, log_every=1)))
    train(task, tmp_path / "run")
    found = measure(task, 2)
    assert found.loss == read_log(tmp_path / "run" / "log.jsonl")[-1]["loss"]
    fastest, slowest = found.seconds
    assert 0 < fastest <= 2 / found.samples_per_second <= slowest


def test_each_change_is_a_row_and_nothing_is_written(work: Path, call: Call) -> None:
    recipe = work / "runs" / "small" / "recipe.yaml"
    done = call("plan", recipe, "--measure", "2", overrides=("training.steps=100",))
    assert done.exit_code == 0, done.output
    for name in CHANGES:
        assert name in done.output or name == "products in float32"  # which a CPU does anyway


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "Give --gpus"),
        (("--measure", "--gpus", "2"), "--measure is about this machine"),
        (("--measure", "0"), "0 is not in the range"),
    ],
)
def test_wrong_options_are_refused(
    call: Call, options: tuple[str, ...], message: str, work: Path
) -> None:
    done = call("plan", work / "runs" / "small" / "recipe.yaml", *options)
    assert done.exit_code == 2 and message in done.output
