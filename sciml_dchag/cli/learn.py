"""`train`, `replay`, `evaluate` and `export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sciml_dchag.cli.console import Command, ProgressBar, out, require_one_process, say, show
from sciml_dchag.cli.options import overwrite_option, recipe_options, set_option

if TYPE_CHECKING:
    from sciml_dchag.training.evaluation import Evaluation


@click.command(cls=Command)
@recipe_options
@click.option(
    "--resume",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="auto resumes from the run's last checkpoint.",
)
def train(recipe: Path, overrides: tuple[str, ...], runs: Path, resume: str) -> None:
    """Train the model of RECIPE into runs/NAME.

    \b
    Example:
      sciml-dchag train pipelines/gcm80_forecast.yaml --set training.steps=100
      torchrun --nproc-per-node 4 -m sciml_dchag train RECIPE --set parallel.tp=2
    """
    from sciml_dchag.pipeline import train as train_run
    from sciml_dchag.tasks import load_recipe

    loaded = load_recipe(recipe, overrides)
    run = runs / loaded.name
    with ProgressBar() as progress:
        result = train_run(loaded, run, resume=resume == "auto", progress=progress, console=say)
    if result.skipped_steps:
        say(
            f"{result.skipped_steps} of {result.steps} steps had nothing to score and changed "
            f"nothing: raise training.batch, or prepare data with fewer missing values."
        )
    if result.overflowed_steps:
        say(
            f"{result.overflowed_steps} of {result.steps} steps had a gradient too large for "
            f"float16 at their loss scale and changed nothing; a few are usual."
        )
    say(f"Checkpoint: {result.checkpoint}")
    say(f"Score it: sciml-dchag evaluate {run}")


@click.command(cls=Command)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("step", type=int)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@set_option
def replay(run: Path, step: int, as_json: bool, overrides: tuple[str, ...]) -> None:
    """Repeat STEP of RUN, from the nearest checkpoint before it, with everything watched.

    Prints, for each module, its largest output and gradient, and for each parameter what of its
    gradient 16 bits lose. A step whose loss is not finite ends with the name of the first module
    that made it so, and with the samples. Writes nothing. --set tries another setting, such as
    training.float32_modules.

    \b
    Example:
      sciml-dchag replay runs/demo-weather 120
      sciml-dchag replay runs/A 9120 --set 'training.float32_modules=[head]'
    """
    from sciml_dchag.parallel.runtime import started_ranks
    from sciml_dchag.pipeline import require_run
    from sciml_dchag.tasks import load_recipe, task_of
    from sciml_dchag.training.replay import of_one_process
    from sciml_dchag.training.replay import replay as replay_step

    recipe = load_recipe(require_run(run) / "recipe.yaml", overrides)
    recipe = of_one_process(recipe, started_ranks())
    with ProgressBar() as progress:
        told = None if as_json else say
        seen = replay_step(task_of(recipe), run, step, progress=progress, console=told)
    if as_json:
        click.echo(json.dumps(seen.record(), indent=2))
        return
    for line in seen.lines():
        say(line)


@click.command(cls=Command)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    default=None,
    help="Another evaluated run: print the difference in percent instead.",
)
@set_option
def evaluate(run: Path, against: Path | None, overrides: tuple[str, ...]) -> None:
    """Score RUN on its test data beside simple baselines.

    A forecaster is scored on its test period beside persistence and climatology, a masked
    autoencoder on its test images beside the mean spectrum and a PCA.

    Processes that torchrun starts share out the initial times, in batches of evaluation.batch,
    whatever the mesh of the training; --set parallel.tp=N (or fsdp) shares out a model that is too
    large for one.

    \b
    Example:
      sciml-dchag evaluate runs/demo-weather
      sciml-dchag evaluate runs/A --against runs/B
      torchrun --nproc-per-node 4 -m sciml_dchag evaluate runs/A --set parallel.tp=2
    """
    from sciml_dchag.pipeline import evaluate as evaluate_run
    from sciml_dchag.pipeline import require_run
    from sciml_dchag.tasks import load_recipe

    if against is not None:
        require_one_process("evaluate --against")
        _compare(require_run(run), require_run(against))
        return
    # The degrees of the training say nothing of the ranks that are here now; its device may stay.
    path = require_run(run) / "recipe.yaml"
    device = f"parallel={{device: {load_recipe(path).parallel.device}}}"
    recipe = load_recipe(path, (device, *overrides))
    with ProgressBar() as progress:
        evaluation = evaluate_run(run, recipe, parallel=recipe.parallel, progress=progress)
    show_evaluation(evaluation)


def show_evaluation(evaluation: Evaluation) -> None:
    """Print the first scores, what to know of them, and where all of it lies."""
    from sciml_dchag.figures.tables import scores_table

    first = evaluation.first_rows
    gain = evaluation.skill(evaluation.reference).loc[first.index]
    show(scores_table(first, evaluation.keys, gain.rename(evaluation.reference)))
    for sentence in (evaluation.summary, *evaluation.notes):
        out.print(sentence, style="dim", highlight=False)
    if evaluation.attribution:
        out.print(evaluation.attribution, style="dim", highlight=False)
    for name, path in evaluation.paths.items():
        say(f"{name}: {path}")


def _compare(run: Path, against: Path) -> None:
    from sciml_dchag.figures.tables import comparison_table
    from sciml_dchag.files.atomic import written_beside
    from sciml_dchag.training.evaluation import Evaluation, compare

    one = Evaluation.read(run)
    found = compare(one, Evaluation.read(against))
    shown = found if not one.shown else found.merge(one.first_rows[list(one.keys)])
    show(comparison_table(shown, one.keys, run.name, against.name))
    path = run / "evaluation" / f"against_{against.name}.csv"
    with written_beside(path) as partial:
        found.to_csv(partial, index=False, na_rep="nan", lineterminator="\n")
    say(f"Table: {path}")


@click.command(cls=Command)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@overwrite_option
def export(checkpoint: Path, model: Path, overwrite: bool) -> None:
    """Write the weights of CHECKPOINT (a checkpoint or run folder) to MODEL, one safetensors file.

    The file carries the architecture, the channels and their statistics, and does not know how many
    ranks trained it.

    \b
    Example:
      sciml-dchag export runs/demo-weather demo.safetensors
    """
    from sciml_dchag.training.export import export as export_model

    say(f"Model: {export_model(checkpoint, model, overwrite=overwrite)}")
