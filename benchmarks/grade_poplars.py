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
from sklearn.cross_decomposition import PLSRegression
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import cross_val_score

import sciml_dchag as sd
from sciml_dchag.pipeline import train
from sciml_dchag.plants.grade.baselines import fit_and_apply
from sciml_dchag.plants.grade.grader import Grader
from sciml_dchag.plants.grade.labels import BACKGROUND, LESION
from sciml_dchag.plants.grade.scores import grade_scores
from sciml_dchag.plants.grade.training import GradeStore
from sciml_dchag.plants.simulate.poplars import simulate_poplars
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.tasks import recipe_from_mapping

BOUNDS = (0.02, 0.07, 0.13, 0.19)
"""Fractions of leaf that are lesion from which on an image has grade 1, 2, 3 and 4."""
SIZE, IMAGES, TEST, VALIDATION = (64, 128), 200, 70, 20
STORES: dict[str, dict[str, Any]] = {
    "500": {"bands": "native"},
    "500d": {"bands": "native", "derivative": (21, 2), "mask": "none"},
    "3": {"bands": "460,550,640"},
}
"""How each store is prepared; `500d` has derivatives of spectra by wavelength."""
STEPS = 200
PIXELS, LINE = 400, 60
"""Pixels of an image that a discriminant is fitted on, and images of the line through its sums."""


def main() -> None:
    """Prepare what is not there, train, and write the scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--splits", nargs="+", default=["validation"], help="What to score.")
    parser.add_argument("--bands", nargs="+", default=["500d", "3"], choices=list(STORES))
    options = parser.parse_args()
    simulate(options.work)
    rows = []
    for seed in options.seeds:
        for bands in options.bands:
            rows += scores(options.work, bands, seed, options.splits)
            print(pd.DataFrame(rows[-len(options.splits) :]).to_string(index=False), flush=True)
    for bands in ("500", "3"):
        rows += of_baselines(options.work, bands, options.splits)
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
    for name, settings in STORES.items():
        if not (work / f"{name}.zarr").exists():
            sd.plants.prepare(
                images, work / f"{name}.zarr", clip=(0.0, 1.0), table=str(table), quicklooks=False,
                **settings,
            )  # fmt: skip


def scores(work: Path, bands: str, seed: int, splits: list[str]) -> list[dict[str, Any]]:
    """Train a grader, unless that is done, and score it."""
    run, store = work / "runs" / f"{bands}_{seed}", CubeStore.open(work / f"{bands}.zarr")
    train(recipe_from_mapping(recipe(work, bands, seed)), run)  # what was interrupted is resumed
    grader, rows = Grader(run, store), []
    for split in splits:
        cubes = store.split(split)
        said = grader.grade(cubes, batch=8)["grade"]
        rows.append({**row(store, bands, split, "model", said), "seed": seed})
    return rows


def of_baselines(work: Path, bands: str, splits: list[str]) -> list[dict[str, Any]]:
    """Score what is fitted on the same training images and bands without a network."""
    opened, rows = GradeStore(recipe_from_mapping(recipe(work, bands, 0))), []
    cubes = [cube for split in splits for cube in opened.store.split(split)]
    images = {cube: opened.store.reflectance(cube) for cube in opened.store.split("train") + cubes}
    said = {
        "mean spectrum": graded(mean_spectra(opened, images, cubes)),
        "pixels": graded(shares_of_pixels(opened, images, cubes)),
    }
    if bands == "3":
        said |= {
            name: one["grade"].to_numpy() for name, one in fit_and_apply(opened, cubes).items()
        }
    for split in splits:
        chosen = np.isin(cubes, opened.store.split(split))
        rows += [row(opened.store, bands, split, name, one[chosen]) for name, one in said.items()]
    print(pd.DataFrame(rows).to_string(index=False), flush=True)
    return rows


def graded(shares: Any) -> Any:
    """Grades of fractions of leaf that are lesion."""
    return np.searchsorted(BOUNDS, shares, "right")


def mean_spectra(opened: GradeStore, images: dict[str, Any], cubes: list[str]) -> Any:
    """Fractions of lesions by partial least squares on the logarithm of mean spectra of plants.

    The number of components is that of the least error in five folds of the training images.
    """
    store, training = opened.store, opened.store.split("train")

    def spectrum(cube: str) -> Any:
        mean = np.nanmean(images[cube][:, store.plants(cube) > 0], axis=1)
        return np.log(mean) - np.log(mean).mean()

    known, wanted = (np.stack([spectrum(cube) for cube in some]) for some in (training, cubes))
    shares = np.array([opened.lesion_percent(cube) / 100 for cube in training])
    errors = {
        parts: -cross_val_score(
            PLSRegression(parts), known, shares, cv=5, scoring="neg_mean_absolute_error"
        ).mean()
        for parts in range(1, min(16, known.shape[1]))
    }
    best = min(errors, key=lambda parts: errors[parts])
    return PLSRegression(best).fit(known, shares).predict(wanted).ravel()


def shares_of_pixels(opened: GradeStore, images: dict[str, Any], cubes: list[str]) -> Any:
    """Fractions of lesions by a linear discriminant of single pixels, and a line through them."""
    store, training, draw = opened.store, opened.store.split("train"), np.random.default_rng(0)

    def pixels(cube: str) -> Any:
        return np.nan_to_num(images[cube].reshape(len(store.channels), -1).T)

    X, Y = [], []
    for cube in training:
        chosen = draw.choice(SIZE[0] * SIZE[1], PIXELS, replace=False)
        X.append(pixels(cube)[chosen])
        assert opened.lesions is not None
        labels = opened.lesions.read(cube, store.size(cube))
        assert labels is not None
        Y.append(labels.ravel()[chosen])
    linear = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1e-4)
    linear.fit(np.concatenate(X), np.concatenate(Y))

    def share(cube: str) -> float:
        found = linear.predict(pixels(cube))
        return float((found == LESION).sum() / max((found != BACKGROUND).sum(), 1))

    truth = [opened.lesion_percent(cube) / 100 for cube in training[:LINE]]
    line = np.polyfit([share(cube) for cube in training[:LINE]], truth, 1)
    return np.polyval(line, [share(cube) for cube in cubes])


def row(store: CubeStore, bands: str, split: str, by: str, said: Any) -> dict[str, Any]:
    """Scores of grades that are given to the images of a split."""
    truth = store.table.loc[store.split(split), "grade"].to_numpy().astype(np.int64)
    found = grade_scores(np.asarray(said).astype(np.int64), truth, len(BOUNDS) + 1)
    return {"by": by, "bands": bands, "split": split, "images": len(truth), **found}


def recipe(work: Path, bands: str, seed: int) -> dict[str, Any]:
    """The recipe of a grader of these images, but for the bands the same."""
    # One step of hundreds of bands at once would change what they sum to by much.
    maps = ("head.level.pixels.weight", "aggregation.tokenizer.*")
    slower = 0.1 if bands != "3" else 1.0
    rates = [{"parameters": name, "factor": slower} for name in maps]
    return {
        "name": "poplars", "seed": seed,
        "data": {"store": str(work / f"{bands}.zarr"), "lesions": str(work / "images" / "lesions"),
                 "image_size": [side // 2 for side in SIZE], "crop": False},
        "model": {"embed_dim": 64, "depth": 2, "heads": 4, "patch": 4, "aggregation": "single",
                  "partitions": 1, "pyramid_dim": 32},
        "task": {"kind": "grade", "column": "grade", "grades": len(BOUNDS) + 1},
        "training": {"steps": STEPS, "batch": 8, "learning_rate": 3.0e-3, "warmup_steps": 30,
                     "weight_decay": 0.05, "log_every": 25, "rates": rates},
    }  # fmt: skip


if __name__ == "__main__":
    main()
