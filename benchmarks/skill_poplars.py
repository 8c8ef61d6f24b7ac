"""Traits of synthetic plants in a glasshouse: embeddings beside mean spectra and indices.

    python benchmarks/skill_poplars.py --out benchmarks/results/skill_poplars.json

SYNTHETIC: `simulate poplars --scene glasshouse`, 60 images of 12 genotypes, 32 x 48 pixels in 60
bands. A masked autoencoder learns the images of 4 genotypes in 5, without traits (patches of one
pixel, crops of 16 x 16, half of the locations and half of the band groups hidden); `probe` then
regresses traits by image, with nested cross-validation that keeps genotypes together. Plants are
the drawn leaves (pixels that are half leaf or more), as one plant an image, so that no error of a
mask is in the comparison.

Beside what `probe` compares stand quantiles of each index over the pixels of the plants (10, 25,
50, 75 and 90 %), which need no learning. A seed is that of images, start values and folds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from record import provenance, write_json

import sciml_dchag as sd
from sciml_dchag.config import TrainingConfig
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.plants.masked.config import CubesConfig, MaskedConfig, MaskedRecipe
from sciml_dchag.plants.opened import PlantStore
from sciml_dchag.plants.simulate.glasshouse_scene import SHARES, draw_in_glasshouse
from sciml_dchag.plants.simulate.simple_scene import PHOTOSYNTHESIS
from sciml_dchag.plants.traits.indices import reached_indices
from sciml_dchag.plants.traits.nested_regression import predict_out_of_fold, r2_score

IMAGES, SIZE, BANDS, FOLDS = 60, (32, 48), 60, 5
TRAITS = (*SHARES, "cab_ug_cm2", "car_ug_cm2", PHOTOSYNTHESIS)
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
OURS = "embedding"


def make_store(folder: Path, seed: int) -> PlantStore:
    """Simulate images, keep the drawn leaves as masks, and prepare a store."""
    raw, masks = folder / "poplars", folder / "masks"
    sd.plants.simulate_poplars(
        raw, cubes=IMAGES, size=SIZE, bands=BANDS, scene="glasshouse", seed=seed
    )
    masks.mkdir()
    for index in range(IMAGES):
        drawn = draw_in_glasshouse(seed, index, SIZE)
        np.save(masks / f"{drawn.name}.npy", (drawn.canopy.leaf_share() >= 0.5).astype(np.uint8))
    return sd.plants.prepare(
        raw, folder / "poplars.zarr", white=str(raw / "white_reference.hdr"),
        dark=str(raw / "dark_reference.hdr"), white_reflectance="0.99", bands="native",
        mask=str(masks), table=str(raw / "traits.csv"), split="0.8/0/0.2", group_by="genotype",
        quicklooks=False,
    )  # fmt: skip


def recipe(store: PlantStore, seed: int, steps: int) -> MaskedRecipe:
    """Return how the autoencoder learns."""
    return MaskedRecipe(
        name="skill-poplars", seed=seed,
        data=CubesConfig(store=str(store.path), image_size=(16, 16), crops=6),
        model=ModelConfig(
            head="masked", embed_dim=64, depth=3, heads=4, patch=1, aggregation="dchag-c",
            partitions=4, decoder_dim=64, decoder_depth=1,
        ),
        task=MaskedConfig(mask_ratio=0.5, channel_mask_ratio=0.5, channel_groups=15),
        training=TrainingConfig(
            steps=steps, batch=8, learning_rate=2e-3, warmup_steps=steps // 10, weight_decay=0.05,
            log_every=100,
        ),
    )  # fmt: skip


def index_quantiles(store: PlantStore) -> pd.DataFrame:
    """Return quantiles of each index over the pixels of plants, a row per image."""
    names = reached_indices(store.wavelength_nm)[0]
    rows = {}
    for cube in store.names:
        image = store[cube]
        on_plant = image.mask.to_numpy() > 0
        maps = {name: sd.plants.index(name, image).to_numpy()[on_plant] for name in names}
        rows[cube] = {
            f"{name} {share}": float(np.nanquantile(values, share))
            for name, values in maps.items()
            for share in QUANTILES
        }
    return pd.DataFrame(rows).T


def one_seed(folder: Path, seed: int, steps: int) -> list[dict[str, Any]]:
    """Return R2 of each trait, kind of features and regressor."""
    began = time.process_time()
    store = make_store(folder, seed)
    print(f"seed {seed}: store after {time.process_time() - began:.0f} s CPU", flush=True)
    run = sd.train(recipe(store, seed, steps), folder / "run")
    print(f"seed {seed}: trained after {time.process_time() - began:.0f} s CPU", flush=True)
    embeddings = run.embed(store, folder / "embeddings")
    table = folder / "poplars" / "traits.csv"
    probed = sd.plants.probe(
        embeddings.path, table, traits=TRAITS, group="genotype", folds=FOLDS, seed=seed,
        out=folder / "probe",
    )  # fmt: skip
    columns = ["trait", "features", "regressor", "r2"]
    rows: list[dict[str, Any]] = probed.scores[columns].to_dict("records")
    quantiles, traits = index_quantiles(store), pd.read_csv(table, index_col="cube")
    X = quantiles.loc[traits.index].dropna(axis=1).to_numpy()
    for trait in TRAITS:
        for regressor in ("ridge", "pls"):
            y = traits[trait].to_numpy()
            found = predict_out_of_fold(
                X, y, traits["genotype"].tolist(), regressor=regressor, folds=FOLDS, seed=seed
            )
            rows.append(
                {"trait": trait, "features": "index quantiles", "regressor": regressor,
                 "r2": r2_score(y, found.predicted)}
            )  # fmt: skip
    print(f"seed {seed}: done after {time.process_time() - began:.0f} s CPU", flush=True)
    return [row | {"seed": seed} for row in rows]


def summary(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return mean, least and largest R2 over seeds, of the better regressor of each seed."""
    best = pd.DataFrame(rows).groupby(["trait", "features", "seed"], sort=False)["r2"].max()
    over_seeds = best.groupby(["trait", "features"], sort=False).agg(["mean", "min", "max"])
    return over_seeds.round(3).reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds")
    parser.add_argument("--steps", type=int, default=400, help="of training")
    parser.add_argument("--out", type=Path, help="where the result is written, JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for number, seed in enumerate(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows += one_seed(Path(folder), seed, options.steps)
        table = summary(rows)
        wide = table.pivot_table(index="trait", columns="features", values="mean", sort=False)
        print(wide.to_string(), flush=True)
        if options.out:  # after each seed, so that a long run leaves what it has
            about = {
                "benchmark": "skill_poplars", "data": "SYNTHETIC",
                "command": "python benchmarks/skill_poplars.py --out "
                "benchmarks/results/skill_poplars.json",
                "seeds": options.seeds[: number + 1], "steps": options.steps,
                "cpu_seconds": round(time.process_time()),
                "r2": table.to_dict("records"), "by_seed": rows, "machine": provenance(),
            }  # fmt: skip
            write_json(options.out, about)


if __name__ == "__main__":
    main()
