"""Scoring interpolated states of the test period beside other ways to interpolate.

Squared errors are summed over windows and cells, weighted by their areas, in float64.

Shapes: B windows, C channels, H x W grid; all in physical units.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.figures.report import write_evaluation
from sciml_dchag.figures.saving import save_figure
from sciml_dchag.figures.tables import heading
from sciml_dchag.figures.training import plot_training
from sciml_dchag.files.atomic import written_beside
from sciml_dchag.files.provenance import provenance_in_words
from sciml_dchag.files.resumable import Progress
from sciml_dchag.parallel.runtime import started_ranks
from sciml_dchag.training.checkpoint import RECORD
from sciml_dchag.training.evaluation import BEST, Evaluation
from sciml_dchag.training.logbook import read_log
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.interpolate.baselines import BASELINES, cubic, linear
from sciml_dchag.weather.interpolate.config import InterpolateRecipe
from sciml_dchag.weather.interpolate.interpolator import Interpolator
from sciml_dchag.weather.interpolate.training import BetweenStore
from sciml_dchag.weather.objects.quantity import Quantity, quantity_of
from sciml_dchag.weather.objects.scores import ObjectScores
from sciml_dchag.weather.store.layout import iso
from sciml_dchag.weather.store.store import Store

KEYS = ("metric", "channel", "window_hours", "elapsed_hours")
LABELS = {"rmse": "RMSE"}
DEFINITIONS = {
    "rmse": "Root of the mean squared error at one time within the window, weighted by area."
}
NAMES = ("model", *BASELINES)
Totals = dict[tuple[str, int, int], NDArray[np.float64]]


def check_objects(recipe: InterpolateRecipe, store: Store) -> Quantity | None:
    """Return what the lows and highs to be scored are of; None where none are.

    Raises:
        ValueError: no such channel, or one that is no pressure or geopotential.
    """
    if not recipe.evaluation.objects:
        return None
    channel = store.channels[recipe.evaluation.objects_channel]
    return quantity_of(channel.name, channel.units, channel.long_name, channel.variable)


class Scorer:
    """A checkpoint on windows of a period, and sums of squared errors.

    Args:
        run: the run folder.
        recipe: says which store and times.

    Raises:
        ValueError: no test period, one too short, or a store that does not fit the checkpoint.
    """

    def __init__(self, run: Path, recipe: InterpolateRecipe) -> None:
        if recipe.data.test is None:
            raise ValueError("The recipe has no data.test: name the first and last time to score.")
        self.recipe, opened = recipe, BetweenStore(recipe)
        self.store = opened.store
        self.interpolator = Interpolator(run, self.store, recipe.parallel.device)
        if difference := opened.difference(self.interpolator.checkpoint):
            raise ValueError(
                f"{self.interpolator.path} is of a run {difference}: set data.store to the store "
                f"of the run."
            )
        self.step = self.interpolator.step_hours
        self.starts = {hours: self._starts(hours) for hours in self.interpolator.window_hours}
        self.area = latitude_weights(self.store.latitude)[:, None]
        self.squares: Totals = {}
        self.counts: dict[tuple[int, int], NDArray[np.float64]] = {}
        quantity, names = check_objects(recipe, self.store), self.store.channels.names
        self.objects = {
            hours: ObjectScores(
                recipe.evaluation.objects, recipe.evaluation.objects_channel, quantity, names,
                NAMES, self.elapsed(hours), (self.store.latitude, self.store.longitude),
            )
            for hours in self.starts
        }  # fmt: skip

    def elapsed(self, window: int) -> list[int]:
        """The times of the store within a window, hours since its start."""
        return list(range(self.step, window, self.step))

    def _starts(self, window: int) -> NDArray[np.int64]:
        """Starts of windows within the test period whose outer times the store has, too."""
        assert self.recipe.data.test is not None
        inside, steps = self.store.time_indices(self.recipe.data.test), window // self.step
        fits = inside[
            (inside + steps <= inside[-1])
            & (inside >= steps)
            & (inside + 2 * steps < len(self.store.times))
        ]
        if every := self.recipe.evaluation.every_hours:
            since = (self.store.times[fits] - self.store.times[inside[0]]) / np.timedelta64(1, "h")
            fits = fits[since % every == 0]
        if not len(fits):
            raise ValueError(
                f"The test period {self.recipe.data.test[0]} to {self.recipe.data.test[1]} has no "
                f"window of {window} h with a time of the store {window} h before and after it, "
                f"which the cubic needs: lengthen it."
            )
        return fits

    def run(self, progress: Progress | None) -> None:
        """Score all windows."""
        batch, done = self.recipe.evaluation.batch, 0
        total = sum(len(starts) for starts in self.starts.values())
        for window, starts in self.starts.items():
            for begin in range(0, len(starts), batch):
                block = starts[begin : begin + batch]
                self._score(window, block)
                done += len(block)
                if progress is not None:
                    progress(done, total, "scoring")

    def _score(self, window: int, starts: NDArray[np.int64]) -> None:
        steps, times = window // self.step, self.store.times
        outer = [self.store.read(starts + shift * steps) for shift in (-1, 0, 1, 2)]
        means = [self.interpolator.expected(times[starts + k * steps]) for k in (-1, 0, 1, 2)]
        before, a, b, after = (state - mean for state, mean in zip(outer, means, strict=True))
        everything = np.arange(len(self.store.channels))
        for tau in self.elapsed(window):
            at, s = starts + tau // self.step, tau / window
            truth, mean = self.store.read(at), self.interpolator.expected(times[at])
            found = self.interpolator.between(outer[1], outer[2], times[starts], window, tau)
            fields = {
                "linear": linear(outer[1], outer[2], s),
                "linear_of_departures": mean + linear(a, b, s),
                "cubic_of_departures": mean + cubic(before, a, b, after, s),
                **found,
            }
            # The same cells for all: where any of them is missing, none counts.
            known = np.isfinite(truth) & np.all([np.isfinite(f) for f in fields.values()], axis=0)
            count = (known * self.area).sum((0, 2, 3))
            self.counts[window, tau] = self.counts.get((window, tau), 0.0) + count
            for name in NAMES:
                error = np.where(known, fields[name].astype(np.float64) - truth, 0.0)
                key = (name, window, tau)
                squares = (error**2 * self.area).sum((0, 2, 3))
                self.squares[key] = self.squares.get(key, np.zeros(len(count))) + squares
                self.objects[window].update(name, tau, everything, fields[name], truth)

    def table(self) -> pd.DataFrame:
        """One row per channel, window and time within it."""
        rows = []
        for place, channel in enumerate(self.store.channels):
            for (window, tau), count in self.counts.items():
                with np.errstate(invalid="ignore", divide="ignore"):
                    errors = {
                        name: float(np.sqrt(self.squares[name, window, tau][place] / count[place]))
                        for name in NAMES
                    }
                rows.append(
                    {"metric": "rmse", "channel": channel.name, "window_hours": window,
                     "elapsed_hours": tau, "units": channel.units, "perfect": 0.0, **errors}
                )  # fmt: skip
        return pd.DataFrame(rows)

    def objects_table(self) -> pd.DataFrame:
        """Lows and highs by window and time within it; empty where none are asked for."""
        tables = []
        for window, scores in self.objects.items():
            table = scores.table().rename(columns={"lead_hours": "elapsed_hours"})
            table.insert(0, "window_hours", window)
            tables.append(table)
        return pd.concat(tables, ignore_index=True)


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
    if started_ranks() > 1:
        raise ValueError(
            "Interpolators are evaluated on one process, and torchrun has started several: start "
            "it without torchrun."
        )
    scorer = Scorer(run, recipe)
    scorer.run(progress)
    store, model, table = scorer.store, scorer.interpolator, scorer.table()
    config, starts = model.checkpoint.model_config, scorer.starts
    folder = run / "evaluation"
    evaluation = Evaluation(
        folder=folder,
        title=f"Interpolation scores: {recipe.name}",
        table=table,
        keys=KEYS,
        reference=BEST,
        summary=_summary(table),
        headline="rmse",
        labels=LABELS,
        definitions=DEFINITIONS,
        terms={heading(name): text for name, text in BASELINES.items()}
        | next(iter(scorer.objects.values())).terms(),
        figures=_draw(run, store.attribution),
        tables=_objects(folder, scorer),
        provenance=provenance_in_words(
            recipe.data.store, store.attrs, model.path / RECORD, model.checkpoint.step
        ),
        notes=(
            "; ".join(
                f"{len(fits)} windows of {window} h, {iso(store.times[fits[0]])} to "
                f"{iso(store.times[fits[-1]])} UTC" for window, fits in starts.items()
            ) + ". None of the test period was used in training, statistics or the daily cycle.",
            f"Times between are those of the store, every {scorer.step} h; finer ones cannot be "
            f"scored with it.",
            *(["The data are simulated: scores say nothing about the real atmosphere."]
              if store.simulated else []),
        ),
        settings={
            "Training period": " to ".join(store.period(recipe.data.train)),
            "Test period": " to ".join(store.period(recipe.data.test or (None, None))),
            "Model": f"{config['aggregation']}, {config['partitions']} partition(s), "
            f"{config['depth']} blocks of {config['embed_dim']}, patch {config['patch']}, added to "
            f"{recipe.task.start}",
            "Windows": ", ".join(f"{hours} h" for hours in model.window_hours),
            "Seed": str(recipe.seed),
        },
        attribution=store.attribution,
    )  # fmt: skip
    write_evaluation(evaluation)
    return evaluation


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


def _draw(run: Path, attribution: str) -> tuple[tuple[str, str], ...]:
    """Draw the training's loss; return caption and file."""
    records = read_log(run / "log.jsonl")
    if not records:
        return ()
    folder = run / "evaluation"
    save_figure(plot_training(records), folder / "figures" / "training.png", attribution)
    return (("Training loss.", "figures/training.png"),)
