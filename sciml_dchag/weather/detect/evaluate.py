"""Scores the objects that a detector finds in the test period beside the classical finder's."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sciml_dchag.figures.report import write_evaluation
from sciml_dchag.figures.saving import save_figure
from sciml_dchag.figures.tables import in_a_sentence
from sciml_dchag.figures.training import plot_training
from sciml_dchag.files.atomic import written_beside
from sciml_dchag.files.provenance import provenance_in_words
from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.summary import shape_in_words
from sciml_dchag.parallel.runtime import evaluated_on_one_process
from sciml_dchag.training.checkpoint import RECORD
from sciml_dchag.training.detection import LEAST_PROBABILITY, LEAST_SCORE, TRIED
from sciml_dchag.training.evaluation import BEST, Evaluation
from sciml_dchag.training.logbook import read_log
from sciml_dchag.weather.detect.baselines import BASELINES, FinderBaselines
from sciml_dchag.weather.detect.config import DetectRecipe
from sciml_dchag.weather.detect.detector import Detector
from sciml_dchag.weather.detect.labels import Located
from sciml_dchag.weather.detect.plots import plot_found
from sciml_dchag.weather.detect.predict import table_of
from sciml_dchag.weather.detect.scorer import (
    DEFINITIONS,
    LABELS,
    ObjectSums,
    scores_table,
)
from sciml_dchag.weather.detect.training import DetectStore, times_with_history
from sciml_dchag.weather.store.layout import iso
from sciml_dchag.weather.training_store import require_test

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEYS = ("metric", "object")


class _Scorer:
    """A checkpoint on the test period."""

    def __init__(self, run: Path, recipe: DetectRecipe) -> None:
        test = require_test(recipe.data)
        self.recipe, self.opened = recipe, DetectStore(recipe)
        self.store = self.opened.store
        self.detector = Detector(run, self.store, recipe.parallel.device)
        if difference := self.opened.difference(self.detector.checkpoint):
            raise ValueError(
                f"{self.detector.path} is of a run {difference}: set data.store and data.objects "
                f"to those of the run."
            )
        self.baselines = None
        if channel := recipe.evaluation.finder_channel:
            self.baselines = FinderBaselines(
                self.store, channel, self.detector.kinds, self.detector.attributes
            )
        self.indices = times_with_history(recipe, self.store, test)
        self.score, self.chosen_on = recipe.evaluation.score, "the recipe"

    def sums(self) -> ObjectSums:
        """Sums over no time."""
        return ObjectSums(
            self.opened.grid, self.detector.kinds, self.detector.attributes,
            self.recipe.evaluation.within_km,
        )  # fmt: skip

    def choose_score(self, progress: Progress | None) -> None:
        """Take the least probability of the highest F1 in the validation period."""
        if self.score:
            return
        data = self.recipe.data
        self.chosen_on = "the validation period" if data.validation else "the training period"
        indices = times_with_history(self.recipe, self.store, data.validation or data.train)
        found = self._find(indices, progress)
        truth = [self.opened.objects(time) for time in self.store.times[indices]]
        best = -1.0
        for score in TRIED:
            sums = self.sums()
            for one, true in zip(found, truth, strict=True):
                sums.pair(one.at(one.scores >= score), true)
            if (f1 := sums.f1()) > best:
                best, self.score = f1, float(score)

    def _find(self, indices: np.ndarray, progress: Progress | None) -> list[Located]:
        evaluation = self.recipe.evaluation
        return self.detector.find(
            indices, batch=evaluation.batch, least_score=LEAST_SCORE,
            most_overlap=evaluation.most_overlap, progress=progress,
        )  # fmt: skip

    def run(self, progress: Progress | None) -> tuple[pd.DataFrame, list[Located]]:
        """Score the test period: the table, and what was found at each time."""
        self.choose_score(progress)
        found = self._find(self.indices, progress)
        names = ("model", *(BASELINES if self.baselines else ()))
        sums = {name: self.sums() for name in names}
        for one, index in zip(found, self.indices, strict=True):
            truth = self.opened.objects(self.store.times[index])
            sums["model"].add(one, truth, self.score)
            for name, other in (self.baselines.find(int(index)) if self.baselines else {}).items():
                sums[name].add(other, truth, 0.0)
        kept = [one.at(one.scores >= self.score) for one in found]
        return scores_table(sums), kept


def evaluate(run: Path, recipe: DetectRecipe, *, progress: Progress | None = None) -> Evaluation:
    """Score a run on its recipe's test period and write the evaluation into its folder.

    Args:
        run: the run folder with its checkpoints.
        recipe: says which store, objects and times.
        progress: called for times.

    Raises:
        ValueError: no test period, a store or table that does not fit the checkpoint, a channel
            that the classical finder does not take, or several processes.
    """
    evaluated_on_one_process("Detectors")
    scorer = _Scorer(run, recipe)
    table, found = scorer.run(progress)
    folder = run / "evaluation"
    evaluation = dataclasses.replace(
        _evaluation(folder, scorer, table),
        figures=_draw(run, scorer, found),
        tables=_objects(folder, scorer, found),
    )
    write_evaluation(evaluation)
    return evaluation


def _evaluation(folder: Path, scorer: _Scorer, table: pd.DataFrame) -> Evaluation:
    """Gather what was found, but for pictures and further tables."""
    recipe, store, model = scorer.recipe, scorer.store, scorer.detector
    config, times = model.model.config, store.times[scorer.indices]
    notes = [
        f"{len(times)} times, {iso(times[0])} to {iso(times[-1])} UTC; none of the test period was "
        f"used in training or statistics.",
        f"What counts as found has a probability of {scorer.score:.2f} or more, from "
        f"{scorer.chosen_on}.",
    ]
    if store.simulated:
        notes.append("The data are simulated: scores say nothing about the real atmosphere.")
    return Evaluation(
        folder=folder,
        title=f"Detection scores: {recipe.name}",
        table=table,
        keys=KEYS,
        reference=BEST,
        summary=_summary(table),
        headline="f1",
        labels=LABELS,
        definitions=DEFINITIONS,
        terms=BASELINES if scorer.baselines else {},
        provenance=provenance_in_words(
            recipe.data.store, store.attrs, model.path / RECORD, model.checkpoint.step
        ),
        notes=tuple(notes),
        settings={
            "Objects": recipe.data.objects,
            LEAST_PROBABILITY: f"{scorer.score:.2f}",
            "Training period": " to ".join(store.period(recipe.data.train)),
            "Test period": " to ".join(store.period(recipe.data.test or (None, None))),
            "Model": f"{shape_in_words(config)}, pyramid of {config.pyramid_dim}",
            "Seed": str(recipe.seed),
        },
        attribution=store.attribution,
    )


def _summary(table: pd.DataFrame) -> str:
    """Say how many objects are found, how far away, and what the best baseline finds."""
    scores = table.set_index(["metric", "object"])
    f1, away = (scores.loc[(name, "objects")] for name in ("f1", "place_error"))
    names = [name for name in BASELINES if name in table.columns]
    said = f"F1 of objects is {f1['model']:.2f}, their place {away['model']:.0f} km off on average"
    if not names:
        return f"{said}."
    best = f1[names].astype(float).idxmax()
    return (
        f"{said}; of the best baseline ({in_a_sentence(str(best))}) F1 is {f1[best]:.2f} and the "
        f"place {away[best]:.0f} km off."
    )


def _objects(folder: Path, scorer: _Scorer, found: list[Located]) -> tuple[tuple[str, str], ...]:
    """Write what was found; return caption and file."""
    folder.mkdir(parents=True, exist_ok=True)
    table = table_of(scorer.detector, scorer.store.times[scorer.indices], found)
    with written_beside(folder / "boxes.csv") as partial:
        table.to_csv(partial, index=False, float_format="%.4f", lineterminator="\n")
    return (("Objects found in the test period.", "boxes.csv"),)


def _draw(run: Path, scorer: _Scorer, found: list[Located]) -> tuple[tuple[str, str], ...]:
    """Draw all pictures; return caption and file of each."""
    folder, pictures = run / "evaluation", []

    def keep(figure: Figure, name: str, caption: str) -> None:
        save_figure(figure, folder / "figures" / f"{name}.png", scorer.store.attribution)
        pictures.append((caption, f"figures/{name}.png"))

    index = int(scorer.indices[0])
    truth = scorer.opened.objects(scorer.store.times[index])
    keep(
        plot_found(scorer.detector, index, found[0], truth),
        "objects",
        "Objects found at the first time of the test period, and the true ones.",
    )
    if records := read_log(run / "log.jsonl"):
        keep(plot_training(records), "training", "Training loss.")
    return tuple(pictures)
