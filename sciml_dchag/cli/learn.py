"""`train`, `evaluate`, `predict` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sciml_dchag.cli.console import Command, ProgressBar, out, require_one_process, show
from sciml_dchag.cli.options import (
    device_option,
    folder_option,
    overwrite_option,
    recipe_options,
    run_folder,
)

if TYPE_CHECKING:
    from sciml_dchag.plants.masked.config import MaskedRecipe


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
    from sciml_dchag.tasks import load_recipe
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
    if result.skipped_steps:
        out.print(
            f"{result.skipped_steps} of {result.steps} steps had nothing to score and changed "
            f"nothing: raise training.batch, or prepare data with fewer missing values.",
            highlight=False,
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
    from sciml_dchag.plants.masked.config import MaskedRecipe
    from sciml_dchag.tasks import load_recipe, require_forecast
    from sciml_dchag.weather.forecast.evaluate import evaluate as evaluate_run
    from sciml_dchag.weather.forecast.report import scores_table
    from sciml_dchag.weather.scores.compare import (
        compare_runs,
        comparison_table,
        write_comparison_csv,
    )

    if against is not None:
        require_one_process("evaluate --against")
        kinds = [load_recipe(run_folder(r) / "recipe.yaml").model.head for r in (run, against)]
        if kinds == ["masked", "masked"]:
            _compare_plants(run, against)
            return
        if "masked" in kinds:
            raise ValueError(
                f"One of {run} and {against} forecasts and the other one reconstructs: compare "
                f"runs of one task."
            )
        differences = compare_runs(run_folder(run), run_folder(against))
        path = run / "evaluation" / f"against_{against.name}.csv"
        show(comparison_table(differences, run.name, against.name))
        out.print(f"Table: {write_comparison_csv(path, differences)}", highlight=False)
        return
    # The degrees of the training say nothing of the ranks that are here now; its device may stay.
    path = run_folder(run) / "recipe.yaml"
    device = f"parallel={{device: {load_recipe(path).parallel.device}}}"
    recipe = load_recipe(path, (device, *overrides))
    if isinstance(recipe, MaskedRecipe):
        _evaluate_plants(run, recipe)
        return
    recipe = require_forecast(recipe, "evaluate")
    with ProgressBar() as progress:
        evaluation = evaluate_run(run, recipe, parallel=recipe.parallel, progress=progress)
    show(scores_table(evaluation.shown, evaluation.units))
    out.print(f"Report: {evaluation.folder / 'report.html'}", highlight=False)


def _compare_plants(run: Path, against: Path) -> None:
    from sciml_dchag.plants.masked.evaluate import comparison_table
    from sciml_dchag.plants.masked.scores import read_scores_csv

    one, other = (
        read_scores_csv(run_folder(r) / "evaluation" / "scores.csv") for r in (run, against)
    )
    show(comparison_table(one, other, run.name, against.name))


def _evaluate_plants(run: Path, recipe: MaskedRecipe) -> None:
    from sciml_dchag.plants.masked.evaluate import evaluate, scores_table

    require_one_process("evaluate of a masked autoencoder")
    with ProgressBar() as progress:
        evaluation = evaluate(run, recipe, progress=progress)
    show(scores_table(evaluation.rows))
    for note in evaluation.notes:
        out.print(note, style="dim", highlight=False)
    out.print(f"Scores: {evaluation.folder / 'scores.csv'}", highlight=False)
    out.print(f"Pictures: {evaluation.folder / 'figures'}", highlight=False)


@click.command(cls=Command)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("place", metavar="FORECASTS|STORE", type=click.Path(path_type=Path))
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=None,
    help="Store with the initial states; the run's own by default.",
)
@folder_option("Folder of reconstructions; STORE's name with _reconstructed beside it by default.")
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
    help="Initial times, or passes over a crop, that are computed at once.",
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
@device_option
@overwrite_option
def predict(
    checkpoint: Path, place: Path, store: Path | None, folder: Path | None, start: str | None,
    end: str | None, every_hours: int | None, lead_hours: str | None, batch: int, tp: int,
    fsdp: int, device: str | None, overwrite: bool,
) -> None:  # fmt: skip
    """Apply CHECKPOINT (a checkpoint or run folder): forecast, or reconstruct images.

    A forecaster writes FORECASTS (.zarr or .nc), from the initial times of its store; the Zarr
    store has WeatherBench 2's layout. A masked autoencoder reads the images of STORE (or of every
    store in a folder) and writes what it makes of each pixel from others, as a store and as ENVI
    files. An interrupted call goes on where it stopped when it is repeated.

    Processes that torchrun starts share out the initial times of forecasts, whatever the mesh of
    the training; --tp and --fsdp share out a model that is too large for one.

    \b
    Example:
      sciml-dchag predict runs/demo-weather runs/demo-weather/forecasts/test.zarr --lead-hours 6,24
      torchrun --nproc-per-node 4 -m sciml_dchag predict runs/A forecasts.zarr --tp 2
      sciml-dchag predict runs/demo-plants runs/demo-plants/store.zarr --out reconstructions
    """
    from sciml_dchag.config import from_mapping
    from sciml_dchag.parallel.config import ParallelConfig
    from sciml_dchag.training.checkpoint import read_checkpoint
    from sciml_dchag.weather.forecast.predict import predict_period

    saved = read_checkpoint(checkpoint)
    if saved.kind == "masked":
        of_forecasts = (store, start, end, every_hours, lead_hours)
        if any(option is not None for option in of_forecasts) or (tp, fsdp) != (1, 1):
            raise ValueError(
                "--store, --start, --end, --every-hours, --lead-hours, --tp and --fsdp are for "
                "forecasts, and this is a masked autoencoder: leave them out."
            )
        _reconstruct(checkpoint, place, folder, batch, device, overwrite)
        return
    if folder is not None:
        raise ValueError("--out is for reconstructions: a forecaster writes FORECASTS.")

    with ProgressBar() as progress:
        path = predict_period(
            checkpoint, place, store=store, period=(start, end), every_hours=every_hours,
            lead_hours=_hours(lead_hours), batch=batch, overwrite=overwrite,
            parallel=from_mapping(
                ParallelConfig,
                {"tp": tp, "fsdp": fsdp, "device": device or saved.device},
            ),
            progress=progress,
        )  # fmt: skip
    out.print(f"Forecasts: {path}", highlight=False)


def _reconstruct(
    checkpoint: Path,
    place: Path,
    folder: Path | None,
    batch: int,
    device: str | None,
    overwrite: bool,
) -> None:
    from sciml_dchag.plants.masked.reconstruct import find_stores, reconstruct_store

    require_one_process("predict with a masked autoencoder")
    of_folder = not place.name.endswith(".zarr")
    target = folder or place.with_name(f"{place.stem}_reconstructed")
    for store in find_stores(place):
        if of_folder and (target / store.name).exists() and not overwrite:
            out.print(f"{target / store.name} is there", highlight=False, markup=False)
            continue
        with ProgressBar() as progress:
            path = reconstruct_store(
                checkpoint, store, target, batch=batch, overwrite=overwrite, device=device,
                progress=progress,
            )  # fmt: skip
        out.print(f"Reconstructions: {path}", highlight=False, markup=False)
    out.print(f"ENVI: {target / 'envi'}", highlight=False, markup=False)


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
