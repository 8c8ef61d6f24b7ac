"""`train`, `evaluate`, `predict` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sciml_dchag.cli.console import Command, ProgressBar, out, require_one_process
from sciml_dchag.cli.options import overwrite_option, recipe_options, run_folder

if TYPE_CHECKING:
    from sciml_dchag.config import MaskedRecipe


@click.command(cls=Command)
@recipe_options
@click.option(
    "--resume",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="auto goes on from the run's last checkpoint.",
)
def train(recipe: Path, overrides: tuple[str, ...], runs: Path, resume: str) -> None:
    """Train the model of RECIPE into runs/NAME.

    \b
    Example:
      sciml-dchag train pipelines/gcm80_forecast.yaml --set training.steps=100
      torchrun --nproc-per-node 4 -m sciml_dchag train RECIPE --set parallel.tp=2
    """
    from sciml_dchag.config import load_recipe
    from sciml_dchag.training.trainer import train as train_run

    loaded = load_recipe(recipe, overrides)
    with ProgressBar() as progress:
        result = train_run(
            loaded,
            runs / loaded.name,
            resume=resume == "auto",
            progress=progress,
            console=lambda line: out.print(line, highlight=False),
        )
    out.print(f"Checkpoint: {result.checkpoint}", highlight=False)
    out.print(f"Score it: sciml-dchag evaluate {runs / loaded.name}", highlight=False)


@click.command(cls=Command)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    default=None,
    help="Another evaluated run: print the difference in percent instead.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a knob, such as evaluation.lead_hours=[24,72]; repeatable.",
)
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
    from sciml_dchag.config import MaskedRecipe, load_recipe, require_forecast
    from sciml_dchag.evaluation.compare import (
        compare_runs,
        comparison_table,
        write_comparison_csv,
    )
    from sciml_dchag.evaluation.evaluate import evaluate as evaluate_run
    from sciml_dchag.evaluation.report import scores_table

    if against is not None:
        require_one_process("evaluate --against")
        differences = compare_runs(run_folder(run), run_folder(against))
        path = run / "evaluation" / f"against_{against.name}.csv"
        out.print(comparison_table(differences, run.name, against.name))
        out.print(f"Table: {write_comparison_csv(path, differences)}", highlight=False)
        return
    # The degrees of the training say nothing of the ranks that are here now.
    recipe = load_recipe(run_folder(run) / "recipe.yaml", ("parallel={}", *overrides))
    if isinstance(recipe, MaskedRecipe):
        _evaluate_plants(run, recipe)
        return
    recipe = require_forecast(recipe, "evaluate")
    with ProgressBar() as progress:
        evaluation = evaluate_run(run, recipe, parallel=recipe.parallel, progress=progress)
    out.print(scores_table(evaluation.shown, evaluation.units))
    out.print(f"Report: {evaluation.folder / 'report.html'}", highlight=False)


def _evaluate_plants(run: Path, recipe: MaskedRecipe) -> None:
    from sciml_dchag.evaluation.evaluate_plants import evaluate_plants, scores_table

    require_one_process("evaluate of a masked autoencoder")
    with ProgressBar() as progress:
        evaluation = evaluate_plants(run, recipe, progress=progress)
    out.print(scores_table(evaluation.rows))
    for note in evaluation.notes:
        out.print(note, style="dim", highlight=False)
    out.print(f"Scores: {evaluation.folder / 'scores.csv'}", highlight=False)
    out.print(f"Pictures: {evaluation.folder / 'figures'}", highlight=False)


@click.command(cls=Command)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("forecasts", type=click.Path(path_type=Path))
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=None,
    help="Store with the initial states; the run's own by default.",
)
@click.option("--start", default=None, help="First initial time; the test period's by default.")
@click.option("--end", default=None, help="Last initial time, included.")
@click.option(
    "--every-hours",
    type=click.IntRange(min=1),
    default=None,
    help="Hours between initial times; every time of the store by default.",
)
@click.option(
    "--lead-hours",
    default=None,
    metavar="HOURS",
    help="Lead times, such as 24,72,240; the recipe's by default.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Initial times that are forecast at once, and dealt to processes.",
)
@click.option(
    "--tp",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that share out the model's channels, heads and features.",
)
@click.option(
    "--fsdp",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that share out the storage of parameters.",
)
@overwrite_option
def predict(
    checkpoint: Path, forecasts: Path, store: Path | None, start: str | None, end: str | None,
    every_hours: int | None, lead_hours: str | None, batch: int, tp: int, fsdp: int,
    overwrite: bool,
) -> None:  # fmt: skip
    """Forecast with CHECKPOINT (a file or run folder) into FORECASTS (.zarr or .nc).

    The Zarr store has WeatherBench 2's layout. An interrupted call goes on where it stopped when
    it is repeated, on any number of processes.

    Processes that torchrun starts share out the initial times, whatever the mesh of the training;
    --tp and --fsdp share out a model that is too large for one.

    \b
    Example:
      sciml-dchag predict runs/demo-weather runs/demo-weather/forecasts/test.zarr --lead-hours 6,24
      torchrun --nproc-per-node 4 -m sciml_dchag predict runs/A forecasts.zarr --tp 2
    """
    from sciml_dchag.inference.predict import predict_period
    from sciml_dchag.parallel.mesh import ParallelConfig

    with ProgressBar() as progress:
        path = predict_period(
            checkpoint, forecasts, store=store, period=(start, end), every_hours=every_hours,
            lead_hours=_hours(lead_hours), batch=batch, overwrite=overwrite,
            parallel=ParallelConfig(tp=tp, fsdp=fsdp), progress=progress,
        )  # fmt: skip
    out.print(f"Forecasts: {path}", highlight=False)


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
    from sciml_dchag.inference.export import export as export_model

    out.print(f"Model: {export_model(checkpoint, model, overwrite=overwrite)}", highlight=False)


def _hours(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a list of hours: write, say, 24,72.", param_hint="--lead-hours"
        ) from None
