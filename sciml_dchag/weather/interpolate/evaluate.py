"""Scores interpolated states of the test period beside other ways to interpolate, and reports."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sciml_dchag.figures.report import write_evaluation
from sciml_dchag.figures.saving import save_figure
from sciml_dchag.figures.tables import heading
from sciml_dchag.figures.training import plot_training
from sciml_dchag.files.atomic import written_beside
from sciml_dchag.files.provenance import provenance_in_words
from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.summary import shape_in_words
from sciml_dchag.parallel.runtime import evaluated_on_one_process
from sciml_dchag.training.checkpoint import RECORD
from sciml_dchag.training.evaluation import BEST, Evaluation
from sciml_dchag.training.logbook import read_log
from sciml_dchag.weather.interpolate.baselines import BASELINES
from sciml_dchag.weather.interpolate.config import InterpolateRecipe
from sciml_dchag.weather.interpolate.plots import plot_depths, plot_errors
from sciml_dchag.weather.interpolate.scorer import Scorer
from sciml_dchag.weather.store.layout import iso

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEYS = ("metric", "channel", "window_hours", "elapsed_hours")
LABELS = {"rmse": "RMSE"}
DEFINITIONS = {
    "rmse": "Root of the mean squared error at one time within the window, weighted by area."
}


def evaluate(
    run: Path, recipe: InterpolateRecipe, *, progress: Progress | None = None
) -> Evaluation:
    """Score a run on its recipe's test period and write the evaluation into its folder.

    Args:
        run: the run folder with its checkpoints.
        recipe: says which store and times.
        progress: called for windows.

    Raises:
        ValueError: as `Scorer`, or several processes.
    """
    evaluated_on_one_process("Interpolators")
    scorer = Scorer(run, recipe)
    scorer.run(progress)
    folder = run / "evaluation"
    evaluation = dataclasses.replace(
        _evaluation(folder, scorer), figures=_draw(run, scorer), tables=_objects(folder, scorer)
    )
    write_evaluation(evaluation)
    return evaluation


def _evaluation(folder: Path, scorer: Scorer) -> Evaluation:
    """Gather what was found, but for pictures and further tables."""
    recipe, store, model = scorer.recipe, scorer.store, scorer.interpolator
    config, table = model.model.config, scorer.table()
    terms = {heading(name): text for name, text in BASELINES.items()}
    return Evaluation(
        folder=folder,
        title=f"Interpolation scores: {recipe.name}",
        table=table,
        keys=KEYS,
        reference=BEST,
        summary=_summary(table),
        headline="rmse",
        labels=LABELS,
        definitions=DEFINITIONS,
        terms=terms | next(iter(scorer.objects.values())).terms(),
        provenance=provenance_in_words(
            recipe.data.store, store.attrs, model.path / RECORD, model.checkpoint.step
        ),
        notes=_notes(scorer),
        settings={
            "Training period": " to ".join(store.period(recipe.data.train)),
            "Test period": " to ".join(store.period(recipe.data.test or (None, None))),
            "Model": f"{shape_in_words(config)}, added to {recipe.task.start}",
            "Windows": ", ".join(f"{hours} h" for hours in model.window_hours),
            "Seed": str(recipe.seed),
        },
        attribution=store.attribution,
    )


def _notes(scorer: Scorer) -> tuple[str, ...]:
    """What a reader must know of the scores."""
    times = scorer.store.times
    windows = "; ".join(
        f"{len(starts)} windows of {window} h, {iso(times[starts[0]])} to "
        f"{iso(times[starts[-1]])} UTC"
        for window, starts in scorer.starts.items()
    )
    notes = [
        f"{windows}. None of the test period was used in training, statistics or the daily cycle.",
        f"Times between are those of the store, every {scorer.step} h; finer ones cannot be scored "
        f"with it.",
    ]
    if scorer.store.simulated:
        notes.append("The data are simulated: scores say nothing about the real atmosphere.")
    return tuple(notes)


def _summary(table: pd.DataFrame) -> str:
    """Compare the model with the best baseline in the middle of the windows, and count rows."""
    best = table[list(BASELINES)].min(axis=1)
    middle = (2 * table["elapsed_hours"] - table["window_hours"]).abs()
    row = middle.idxmin()
    name = table.loc[row, list(BASELINES)].astype(float).idxmin()
    below = int((table["model"] < best).sum())
    return (
        f"RMSE of {table.loc[row, 'channel']} {table.loc[row, 'elapsed_hours']} h into windows of "
        f"{table.loc[row, 'window_hours']} h is {table.loc[row, 'model']:.3g} "
        f"{table.loc[row, 'units']}, that of the best baseline ({heading(str(name))}) "
        f"{best[row]:.3g}; the model is below every baseline in {below} of {len(table)} rows."
    )


def _objects(folder: Path, scorer: Scorer) -> tuple[tuple[str, str], ...]:
    """Write how lows and highs are found; return caption and file."""
    first = next(iter(scorer.objects.values()))
    if not first.kinds:
        return ()
    folder.mkdir(parents=True, exist_ok=True)
    with written_beside(folder / "objects.csv") as partial:
        scorer.objects_table().to_csv(partial, index=False, na_rep="nan", lineterminator="\n")
    return ((first.caption, "objects.csv"),)


def _draw(run: Path, scorer: Scorer) -> tuple[tuple[str, str], ...]:
    """Draw all pictures; return caption and file of each."""
    folder, found = run / "evaluation", []

    def keep(figure: Figure, name: str, caption: str) -> None:
        save_figure(figure, folder / "figures" / f"{name}.png", scorer.store.attribution)
        found.append((caption, f"figures/{name}.png"))

    keep(plot_errors(scorer.table()), "rmse_within", "RMSE within windows; both ends are exact.")
    objects = scorer.objects_table()
    if len(objects):
        caption = "Depth of what is found, minus the truth's: what fades is below zero."
        keep(plot_depths(objects), "depth_within", caption)
    if records := read_log(run / "log.jsonl"):
        keep(plot_training(records), "training", "Training loss.")
    return tuple(found)
