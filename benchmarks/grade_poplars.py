"""Grades of synthetic poplars with lesions: 500 bands against three of the same images.

    python benchmarks/grade_poplars.py WORK --seeds 0 1 2

Simulates glasshouse scenes with label images in WORK (the extra `simulate`), grades them by the
fraction of leaf that is lesion, prepares one store of all bands and one of three, trains a grader
on each, and writes WORK/scores.csv, one row per bands, seed, split and metric. What is there is
used again. SYNTHETIC: says nothing about real plants.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import sciml_dchag as sd
from sciml_dchag.pipeline import train
from sciml_dchag.plants.grade.grader import Grader
from sciml_dchag.plants.grade.scores import grade_scores
from sciml_dchag.plants.simulate.poplars import simulate_poplars
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.tasks import recipe_from_mapping

BOUNDS = (0.02, 0.07, 0.13, 0.19)
"""Fractions of leaf that are lesion from which on an image has grade 1, 2, 3 and 4."""
BANDS = {"500": "native", "3": "460,550,640"}
SIZE, IMAGES, TEST, VALIDATION = (64, 128), 200, 70, 20
STEPS = 300


def main() -> None:
    """Prepare what is not there, train, and write the scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--splits", nargs="+", default=["validation"], help="What to score.")
    parser.add_argument("--bands", nargs="+", default=list(BANDS), choices=list(BANDS))
    options = parser.parse_args()
    simulate(options.work)
    rows = []
    for seed in options.seeds:
        for bands in options.bands:
            rows += scores(options.work, bands, seed, options.splits)
            print(pd.DataFrame(rows[-len(options.splits) :]).to_string(index=False), flush=True)
    pd.DataFrame(rows).to_csv(options.work / "scores.csv", index=False, float_format="%.4f")


def simulate(work: Path) -> None:
    """Make images, their table of grades, and both stores."""
    images, table = work / "images", work / "grades.csv"
    if not images.exists():
        work.mkdir(parents=True, exist_ok=True)
        simulate_poplars(images, cubes=IMAGES, size=SIZE, scene="glasshouse", labels=True, seed=2)
        drawn = pd.read_csv(images / "traits.csv").rename(columns={"cube": "image"})
        drawn["grade"] = np.searchsorted(BOUNDS, drawn["lesion_share"], "right")
        order = np.random.default_rng(0).permutation(IMAGES)
        split = np.full(IMAGES, "train", object)
        split[order[:TEST]] = "test"
        split[order[TEST : TEST + VALIDATION]] = "validation"
        drawn.assign(split=split)[["image", "grade", "split"]].to_csv(table, index=False)
    for name, bands in BANDS.items():
        if not (work / f"{name}.zarr").exists():
            sd.plants.prepare(
                images, work / f"{name}.zarr", bands=bands, clip=(0.0, 1.0), table=str(table),
                quicklooks=False,
            )  # fmt: skip


def scores(work: Path, bands: str, seed: int, splits: list[str]) -> list[dict[str, Any]]:
    """Train a grader, unless it is there, and score it."""
    run, store = work / "runs" / f"{bands}_{seed}", CubeStore.open(work / f"{bands}.zarr")
    if not (run / "checkpoints").exists():
        train(recipe_from_mapping(recipe(work, bands, seed)), run)
    grader, rows = Grader(run, store), []
    for split in splits:
        cubes = store.split(split)
        truth = store.table.loc[cubes, "grade"].to_numpy().astype(np.int64)
        found = grade_scores(grader.grade(cubes)["grade"].to_numpy(), truth, len(BOUNDS) + 1)
        rows.append({"bands": bands, "seed": seed, "split": split, "images": len(cubes), **found})
    return rows


def recipe(work: Path, bands: str, seed: int) -> dict[str, Any]:
    """The recipe of a grader of these images, but for the bands the same."""
    return {
        "name": "poplars", "seed": seed,
        "data": {"store": str(work / f"{bands}.zarr"), "lesions": str(work / "images" / "lesions"),
                 "image_size": list(SIZE), "crop": False},
        "model": {"embed_dim": 64, "depth": 2, "heads": 4, "patch": 8, "aggregation": "single",
                  "partitions": 1, "pyramid_dim": 32},
        "task": {"kind": "grade", "column": "grade", "grades": len(BOUNDS) + 1},
        "training": {"steps": STEPS, "batch": 8, "learning_rate": 3.0e-3, "warmup_steps": 30,
                     "weight_decay": 0.05, "log_every": 25},
    }  # fmt: skip


if __name__ == "__main__":
    main()
