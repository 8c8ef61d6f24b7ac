"""Scores the objects found in the test images beside baselines of the same labels and split."""

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
from sciml_dchag.plants.detect.baselines import BASELINES, score_baselines
from sciml_dchag.plants.detect.boxes import Floats, Found
from sciml_dchag.plants.detect.config import DetectPlantsRecipe
from sciml_dchag.plants.detect.detector import PlantDetector
from sciml_dchag.plants.detect.plots import plot_boxes
from sciml_dchag.plants.detect.predict import table_of, write_table
from sciml_dchag.plants.detect.scores import DEFINITIONS, LABELS, BoxSums, scores_table
from sciml_dchag.plants.detect.training import BoxStore
from sciml_dchag.training.checkpoint import RECORD
from sciml_dchag.training.detection import LEAST_PROBABILITY, TRIED
from sciml_dchag.training.evaluation import BEST, Evaluation
from sciml_dchag.training.logbook import read_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEYS = ("metric",)
CHOSEN_BY = {"f1": "the highest F1", "counts": "the least absolute error of counts"}
DRAWN_IMAGES = 6
"""Test images that are drawn with their boxes."""


def evaluate(
    run: Path, recipe: DetectPlantsRecipe, *, progress: Progress | None = None
) -> Evaluation:
    """Score a run on its store's test images and write the evaluation into its folder.

    Args:
        run: the run folder with its checkpoints.
        recipe: says which store and labels.
        progress: called for images.

    Raises:
        ValueError: no test image with a label image, a store or labels that do not fit the
            checkpoint, or several processes.
    """
    evaluated_on_one_process("Detectors")
    opened = BoxStore(recipe)
    truth = {cube: opened.boxes(cube) for cube in opened.labelled_test()}
    detector = PlantDetector(run, opened.store, recipe.parallel.device)
    if difference := opened.difference(detector.checkpoint):
        raise ValueError(
            f"{detector.path} is of a run {difference}: set data.store and data.objects to those "
            f"of the run."
        )
    score, chosen_on = choose_score(opened, detector, progress)
    found = _find(detector, truth, recipe, progress)
    sums = BoxSums()
    for cube, boxes in truth.items():
        sums.add(found[cube], boxes, score)
    others = score_baselines(opened, list(truth), progress)
    table = scores_table({"model": sums.scores(), **others})
    counted = {cube: one.at_least(score) for cube, one in found.items()}
    folder = run / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    write_table(table_of(list(counted), list(counted.values())), folder / "boxes.csv")
    evaluation = dataclasses.replace(
        _evaluation(folder, opened, detector, table, (score, chosen_on)),
        figures=_draw(run, opened, counted, truth),
        tables=(("Objects found in the test images.", "boxes.csv"),),
    )
    write_evaluation(evaluation)
    return evaluation


def choose_score(
    opened: BoxStore, detector: PlantDetector, progress: Progress | None = None
) -> tuple[float, str]:
    """Return the least probability of what counts as found, and in words what it comes from."""
    if score := opened.recipe.evaluation.score:
        return score, "the recipe"
    truth, chosen_on = opened.known("validation"), "the validation images"
    if not truth:
        truth, chosen_on = opened.known("train"), "the training images"
    found = _find(detector, truth, opened.recipe, progress)
    choose_by, best = opened.recipe.evaluation.choose_by, -np.inf
    for tried in TRIED:
        sums = BoxSums()
        for cube, boxes in truth.items():
            sums.pair(found[cube].at_least(tried), boxes)
        good = sums.f1() if choose_by == "f1" else -sums.count_error()
        if good > best:
            best, score = good, float(tried)
    return score, f"{CHOSEN_BY[choose_by]} on {chosen_on}"


def _find(
    detector: PlantDetector,
    truth: dict[str, Floats],
    recipe: DetectPlantsRecipe,
    progress: Progress | None,
) -> dict[str, Found]:
    """All that is found in some images."""
    found = detector.find(
        list(truth), batch=recipe.evaluation.batch, progress=progress,
        most_overlap=recipe.evaluation.most_overlap,
    )  # fmt: skip
    return dict(zip(truth, found, strict=True))


def _evaluation(
    folder: Path,
    opened: BoxStore,
    detector: PlantDetector,
    table: pd.DataFrame,
    chosen: tuple[float, str],
) -> Evaluation:
    """Gather what was found, but for pictures."""
    recipe, store, truth = opened.recipe, opened.store, opened.known("test")
    config, data = detector.model.config, detector.data
    number = sum(len(boxes) for boxes in truth.values())
    notes = [
        f"{len(truth)} test images with {number:,} objects; none was used in training, statistics "
        f"or choices.",
        f"Model and baselines learn from the same training images: {data.labelled} with "
        f"{data.objects:,} objects.",
        f"What counts as found has a probability of {chosen[0]:.2f} or more, from {chosen[1]}.",
    ]
    if not store.is_reflectance:
        notes.append(f"The store holds the {store.quantity}, which has no colours to find by.")
    if store.simulated:
        notes.insert(0, "The images are synthetic: scores say nothing about real plants.")
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
        terms={name: text for name, text in BASELINES.items() if name in table},
        provenance=provenance_in_words(
            recipe.data.store, store.attrs, detector.path / RECORD, detector.checkpoint.step
        ),
        notes=tuple(notes),
        settings={
            "Objects": f"{recipe.data.objects}, "
            + (f"pieces of {recipe.task.label}" if recipe.task.label else "one per number")
            + f", at least {recipe.task.least_pixels} pixels",
            LEAST_PROBABILITY: f"{chosen[0]:.2f}",
            "Images": "{} x {} pixels".format(*recipe.data.image_size)
            + (", cut to their plants" if recipe.data.crop else ""),
            "Model": f"{shape_in_words(config)}, pyramid of {config.pyramid_dim}",
            "Seed": str(recipe.seed),
        },
        attribution=store.attribution,
    )


def _summary(table: pd.DataFrame) -> str:
    """Say how many objects are found, and what the best baselines reach."""
    others = [name for name in BASELINES if name in table]
    scores = table.set_index("metric")[["model", *others]].astype(float)
    f1, count = scores.loc["f1"], scores.loc["count_percent"]
    beside = ""
    if len(finding := f1.iloc[1:].dropna()):  # a number finds nothing
        best = str(finding.idxmax())
        beside = f", of the best baseline ({in_a_sentence(best)}) {f1[best]:.2f}"
    nearest = str(count.iloc[1:].idxmin())
    return (
        f"F1 of boxes at IoU 0.5 is {f1['model']:.2f}{beside}; counts are {count['model']:.1f} % "
        f"off on average, of the best baseline ({in_a_sentence(nearest)}) {count[nearest]:.1f} %."
    )


def _draw(
    run: Path, opened: BoxStore, found: dict[str, Found], truth: dict[str, Floats]
) -> tuple[tuple[str, str], ...]:
    """Draw all pictures; return caption and file of each."""
    folder, pictures = run / "evaluation", []

    def keep(figure: Figure, name: str, caption: str) -> None:
        save_figure(figure, folder / "figures" / f"{name}.png", opened.store.attribution)
        pictures.append((caption, f"figures/{name}.png"))

    # The worst counts first: what is wrong is what is to be looked at.
    worst = sorted(found, key=lambda cube: -abs(len(found[cube]) - len(truth[cube])))
    keep(
        plot_boxes(opened.store, {cube: found[cube] for cube in worst[:DRAWN_IMAGES]}, truth),
        "objects",
        "Test images whose counts are farthest off, with what is found and what is drawn.",
    )
    if records := read_log(run / "log.jsonl"):
        keep(plot_training(records), "training", "Training loss.")
    return tuple(pictures)
