"""Leaves of synthetic poplars counted by a detector.

    python benchmarks/count_poplars.py WORK --seeds 0 1 2 --splits test

Simulates images of one poplar each with label images of its leaves in WORK (the extra `simulate`),
prepares a store, trains a detector, and writes WORK/scores.csv, one row per seed and split: errors
of counts beside those of the mean number and of a watershed. A leaf counts if 12 pixels of it or
more are seen. What is there is used again. SYNTHETIC: says nothing about real plants.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.feature import peak_local_max

import sciml_dchag as sd
from sciml_dchag.pipeline import train
from sciml_dchag.plants.detect.baselines import APART, score_baselines
from sciml_dchag.plants.detect.detector import PlantDetector
from sciml_dchag.plants.detect.evaluate import choose_score
from sciml_dchag.plants.detect.scores import BoxSums, count_scores
from sciml_dchag.plants.detect.training import BoxStore
from sciml_dchag.plants.simulate.poplars import simulate_poplars
from sciml_dchag.tasks import recipe_from_mapping

SIZE, BANDS, IMAGES, TEST, VALIDATION = (96, 192), 12, 260, 60, 40
LEAST_NDVI = 0.4
"""Of plants, for the line."""


def main() -> None:
    """Prepare what is not there, train, and write the scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--splits", nargs="+", default=["validation"], help="What to score.")
    parser.add_argument("--steps", type=int, default=300, help="Of training.")
    options = parser.parse_args()
    simulate(options.work)
    rows = []
    for seed in options.seeds:
        rows += scores(options.work, seed, options.steps, options.splits)
        print(pd.DataFrame(rows).to_string(index=False), flush=True)
    rows += of_baselines(options.work, options.steps, options.splits)
    pd.DataFrame(rows).to_csv(options.work / "scores.csv", index=False, float_format="%.4f")


def simulate(work: Path) -> None:
    """Make images, their split, and the store."""
    images, table = work / "images", work / "split.csv"
    if not images.exists():
        work.mkdir(parents=True, exist_ok=True)
        simulate_poplars(images, cubes=IMAGES, size=SIZE, bands=BANDS, labels=True, seed=3)
        drawn = pd.read_csv(images / "traits.csv").rename(columns={"cube": "image"})
        order = np.random.default_rng(0).permutation(IMAGES)
        split = np.full(IMAGES, "train", object)
        split[order[:TEST]] = "test"
        split[order[TEST : TEST + VALIDATION]] = "validation"
        drawn.assign(split=split)[["image", "split"]].to_csv(table, index=False)
    if not (work / "store.zarr").exists():
        sd.plants.prepare(
            images, work / "store.zarr", bands="native", clip=(0.0, 1.0), mask="none",
            table=str(table), quicklooks=False,
        )  # fmt: skip


def scores(work: Path, seed: int, steps: int, splits: list[str]) -> list[dict[str, Any]]:
    """Train a detector, unless that is done, and score it."""
    run, settings = work / "runs" / f"{steps}_{seed}", recipe(work, seed, steps)
    train(recipe_from_mapping(settings), run)  # what was interrupted is resumed
    opened = BoxStore(recipe_from_mapping(settings))
    detector, rows = PlantDetector(run, opened.store), []
    score, _ = choose_score(opened, detector)
    for split in splits:
        truth = opened.known(split)
        sums = BoxSums()
        overlap = opened.recipe.evaluation.most_overlap
        found = detector.find(list(truth), most_overlap=overlap)
        for boxes, one in zip(truth.values(), found, strict=True):
            sums.add(one, boxes, score)
        head = {"by": "model", "seed": seed, "split": split, "images": len(truth)}
        rows.append({**head, "score": score, **sums.scores()})
    return rows


def of_baselines(work: Path, steps: int, splits: list[str]) -> list[dict[str, Any]]:
    """Score what the model must beat."""
    opened, rows = BoxStore(recipe_from_mapping(recipe(work, 0, steps))), []
    for split in splits:
        cubes = list(opened.known(split))
        by = score_baselines(opened, cubes) | {"line": line_through_basins(opened, cubes)}
        rows += [
            {"by": name, "split": split, "images": len(cubes), **one} for name, one in by.items()
        ]
    return rows


def line_through_basins(opened: BoxStore, cubes: list[str]) -> dict[str, float]:
    """Errors of counts by a line through numbers of basins and areas of plants.

    Fitted on training images; the least distance of basins is that of the least error there.
    """
    training, known = opened.known("train"), [opened.boxes(cube) for cube in cubes]
    truth = np.array([len(boxes) for boxes in training.values()])
    seen = {cube: basins(opened, cube) for cube in (*training, *cubes)}
    fits = []
    for at in range(len(APART)):
        X, Y = (
            np.array([[1.0, seen[cube][-1], seen[cube][at]] for cube in some])
            for some in (training, cubes)
        )
        line = np.linalg.lstsq(X, truth, rcond=None)[0]
        fits.append((float(np.abs(X @ line - truth).mean()), Y @ line))
    counted = min(fits, key=lambda fit: fit[0])[1]
    errors = counted - np.array([len(boxes) for boxes in known])
    return count_scores(errors, sum(map(len, known)))


def basins(opened: BoxStore, cube: str) -> list[float]:
    """Numbers of basins of the distance from the edge of plants by `APART`, and plants' pixels."""
    values, nm = opened.store.reflectance(cube), opened.store.wavelength_nm
    red, infrared = (values[np.abs(nm - wanted).argmin()] for wanted in (670, 800))
    plants = infrared - red > LEAST_NDVI * (infrared + red)
    distance = ndimage.distance_transform_edt(plants)
    numbers = [len(peak_local_max(distance, min_distance=apart)) for apart in APART]
    return [*map(float, numbers), float(plants.sum())]


def recipe(work: Path, seed: int, steps: int) -> dict[str, Any]:
    """The recipe of a detector of leaves."""
    return {
        "name": "poplars", "seed": seed,
        "data": {"store": str(work / "store.zarr"), "objects": str(work / "images" / "leaves"),
                 "image_size": list(SIZE), "crop": False},
        "model": {"embed_dim": 64, "depth": 2, "heads": 4, "patch": 8, "aggregation": "single",
                  "partitions": 1, "pyramid_dim": 32},
        "task": {"kind": "detect-plants", "label": 0, "least_pixels": 12},
        "evaluation": {"choose_by": "counts", "most_overlap": 0.4},
        "training": {"steps": steps, "batch": 8, "learning_rate": 2.0e-3, "warmup_steps": 40,
                     "weight_decay": 0.05, "ema_decay": 0.98, "log_every": 25},
    }  # fmt: skip


if __name__ == "__main__":
    main()
