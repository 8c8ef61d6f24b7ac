"""Scores the grades of the test images beside baselines of the same table and split."""

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
from sciml_dchag.files.provenance import provenance_in_words
from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.summary import shape_in_words
from sciml_dchag.parallel.runtime import evaluated_on_one_process
from sciml_dchag.plants.grade.baselines import BASELINES, fit_and_apply
from sciml_dchag.plants.grade.config import GradeRecipe
from sciml_dchag.plants.grade.grader import Grader
from sciml_dchag.plants.grade.labels import UNKNOWN
from sciml_dchag.plants.grade.plots import plot_confusion, plot_lesions
from sciml_dchag.plants.grade.predict import write_table
from sciml_dchag.plants.grade.scores import DEFINITIONS, LABELS, scores_table
from sciml_dchag.plants.grade.training import GradeStore
from sciml_dchag.training.checkpoint import RECORD
from sciml_dchag.training.evaluation import BEST, Evaluation
from sciml_dchag.training.logbook import read_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEYS = ("metric",)
DRAWN_IMAGES = 6
"""Test images that are drawn with their lesions."""


def evaluate(run: Path, recipe: GradeRecipe, *, progress: Progress | None = None) -> Evaluation:
    """Score a run on its store's test images and write the evaluation into its folder.

    Args:
        run: the run folder with its checkpoints.
        recipe: says which store and labels.
        progress: called for images.

    Raises:
        ValueError: no test image with a label, a store or labels that do not fit the checkpoint, or
            several processes.
    """
    evaluated_on_one_process("Graders")
    opened = GradeStore(recipe)
    test = opened.labelled_test()
    drawn = opened.drawn(test)
    grader = Grader(run, opened.store, recipe.parallel.device)
    if difference := opened.difference(grader.checkpoint):
        raise ValueError(
            f"{grader.path} is of a run {difference}: set data.store and data.lesions to those of "
            f"the run."
        )
    said = grader.grade(test, batch=recipe.evaluation.batch, progress=progress)
    truth = pd.DataFrame(
        {
            "grade": [opened.grades[cube] for cube in test],
            "lesion_percent": [
                opened.lesion_percent(cube) if cube in drawn else np.nan for cube in test
            ],
        },
        index=said.index,
    )
    others = fit_and_apply(opened, test, progress)
    table = scores_table({"model": said, **others}, truth, recipe.task.grades)
    folder = run / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    write_table(said.join(truth.add_prefix("true_")), folder / "grades.csv")
    evaluation = dataclasses.replace(
        _evaluation(folder, opened, grader, table, truth),
        figures=_draw(run, opened, grader, said, truth),
        tables=(("Grades of the test images.", "grades.csv"),),
    )
    write_evaluation(evaluation)
    return evaluation


def _evaluation(
    folder: Path, opened: GradeStore, grader: Grader, table: pd.DataFrame, truth: pd.DataFrame
) -> Evaluation:
    """Gather what was found, but for pictures."""
    recipe, store = opened.recipe, opened.store
    data = grader.data
    graded = int((truth["grade"] != UNKNOWN).sum())
    counts = np.bincount(truth["grade"][truth["grade"] != UNKNOWN], minlength=recipe.task.grades)
    notes = [
        f"{graded} test images with a grade ({', '.join(map(str, counts))} of each), "
        f"{int(truth['lesion_percent'].notna().sum())} with drawn lesions; none was used in "
        f"training, statistics or choices.",
        f"Model and baselines learn from the same {data.graded} graded training images and "
        f"{data.drawn} with drawn lesions.",
    ]
    if not store.is_reflectance:
        notes.append(f"The store holds the {store.quantity}, which has no colours to grade by.")
    if store.simulated:
        notes.insert(0, "The images are synthetic: scores say nothing about real plants.")
    return Evaluation(
        folder=folder,
        title=f"Grading scores: {recipe.name}",
        table=table,
        keys=KEYS,
        reference=BEST,
        summary=_summary(table),
        headline="accuracy",
        labels=LABELS,
        definitions=DEFINITIONS,
        terms={name: text for name, text in BASELINES.items() if name in table},
        provenance=provenance_in_words(
            recipe.data.store, store.attrs, grader.path / RECORD, grader.checkpoint.step
        ),
        notes=tuple(notes),
        settings={
            "Grades": f"{recipe.task.column}, 0 to {recipe.task.grades - 1}",
            "Lesions": recipe.data.lesions or "not drawn",
            "Images": "{} x {} pixels".format(*recipe.data.image_size)
            + (", cut to their plants" if recipe.data.crop else ""),
            "Model": shape_in_words(grader.model.config),
            "Seed": str(recipe.seed),
        },
        attribution=store.attribution,
    )


def _summary(table: pd.DataFrame) -> str:
    """Say how many grades are right, and what the best baseline reaches."""
    scores = table.set_index("metric")
    accuracy, kappa = scores.loc["accuracy"], scores.loc["kappa"]
    others = [name for name in BASELINES if name in scores]
    if np.isnan(accuracy["model"]):
        error = scores.loc["ratio_error", others].astype(float)
        return (
            f"The fraction of lesions is {scores.at['ratio_error', 'model']:.2f} percentage points "
            f"off on average, of the best baseline ({in_a_sentence(str(error.idxmin()))}) "
            f"{error.min():.2f}."
        )
    best = str(accuracy[others].astype(float).idxmax())
    return (
        f"{accuracy['model']:.1%} of grades are right, with a weighted kappa of "
        f"{kappa['model']:.2f}; of the best baseline ({in_a_sentence(best)}) "
        f"{accuracy[best]:.1%} and {kappa[best]:.2f}."
    )


def _draw(
    run: Path, opened: GradeStore, grader: Grader, said: pd.DataFrame, truth: pd.DataFrame
) -> tuple[tuple[str, str], ...]:
    """Draw all pictures; return caption and file of each."""
    folder, pictures = run / "evaluation", []

    def keep(figure: Figure, name: str, caption: str) -> None:
        save_figure(figure, folder / "figures" / f"{name}.png", grader.store.attribution)
        pictures.append((caption, f"figures/{name}.png"))

    known = truth["grade"] != UNKNOWN
    if known.any():
        keep(
            plot_confusion(said[known], truth[known], grader.recipe.task.grades),
            "grades",
            "True and given grades of the test images.",
        )
    # The worst of each true grade first: what is wrong is what is to be looked at.
    worst = (said["severity"] - truth["grade"]).abs().sort_values(ascending=False).index
    if grader.data.drawn:
        cubes = [str(cube) for cube in worst[:DRAWN_IMAGES]]
        keep(
            plot_lesions(grader, cubes, said, truth, opened.lesions),
            "lesions",
            "Test images whose grades are farthest off, with what is taken for lesion and what is "
            "drawn.",
        )
    if records := read_log(run / "log.jsonl"):
        keep(plot_training(records), "training", "Training loss.")
    return tuple(pictures)
