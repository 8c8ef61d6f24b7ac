"""Traits of real leaves: PLSR against masked autoencoders of spectra, learnt on PROSPECT.

    python benchmarks/skill_leaves.py leaf_spectra_traits.csv

The table has one row per leaf: `Species_Code`, `H20_g_m2`, `LMA_g_m2`, `N_g_m2` and reflectance in
percent at each nm (`Wave_500` to `Wave_2400`). Reflectance is averaged over 5 nm, 380 bands.

A masked autoencoder of the package learns 1,000 spectra of PROSPECT-D (traits drawn evenly from
ranges that are usual for leaves, with a gain, an offset as of a clip's gloss, and noise), and then
by masking, without traits, the real ones. Two ways to put a spectrum to it:

- `line`: 38 locations of 10 neighbouring bands each, three quarters of the locations hidden;
- `pixel`: an image of one pixel with 380 bands, of whose 38 runs half are hidden.

Ridge and PLS regression on what the encoder makes of whole spectra are scored beside PLS, ridge and
the best two bands on the spectra, by nested cross-validation by row (5 folds) and by species (4
folds of the 8 species). All kinds of features are listed: the best of them is chosen with
hindsight, for the autoencoders. A seed is that of start values, simulated leaves and folds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from record import provenance, write_json

from sciml_dchag.config import TrainingConfig
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer, build_model
from sciml_dchag.objectives.masked import MaskedObjective
from sciml_dchag.plants.traits.nested_regression import predict_out_of_fold, r2_score
from sciml_dchag.training.optim import ShardedAdamW, learning_rate, scale_and_clip_gradient

Array = NDArray[np.float64]
Features = dict[str, tuple[Array, tuple[str, ...]]]
"""By name: (leaves, features), and the regressors that they are given to."""

TRAITS = {"water": "H20_g_m2", "LMA": "LMA_g_m2", "N": "N_g_m2"}
FIRST_NM, WIDTH, BANDS, BLOCK = 500, 5, 380, 10
SIMULATED, STEPS, FINE_STEPS, BATCH = 1000, 800, 200, 32
RANGES = {
    "n": (1.0, 2.6), "cab": (5.0, 80.0), "car": (1.0, 20.0), "cbrown": (0.0, 0.3),
    "cw": (0.004, 0.035), "cm": (0.001, 0.010), "ant": (0.0, 4.0),
}  # fmt: skip
"""PROSPECT-D's parameters: structure, pigments in ug cm-2, water and dry matter in g cm-2."""
FOLDS = {"row": 5, "species": 4}
REGIONS = 6
"""Parts of the spectrum whose features are averaged one by one."""


def read_leaves(path: Path) -> tuple[Array, dict[str, Array], NDArray[np.str_]]:
    """Return reflectance (leaves, 380), traits by name and species."""
    table = pd.read_csv(path)
    names = [f"Wave_{nm}" for nm in range(FIRST_NM, FIRST_NM + WIDTH * BANDS)]
    reflectance = table[names].to_numpy() / 100
    traits = {name: table[column].to_numpy(float) for name, column in TRAITS.items()}
    species = table["Species_Code"].to_numpy(str)
    return reflectance.reshape(len(table), BANDS, WIDTH).mean(axis=2), traits, species


def simulate_leaves(seed: int) -> Array:
    """Return reflectance of PROSPECT-D leaves, (leaves, 380)."""
    from prosail.prospect_d import run_prospect

    rng = np.random.default_rng([seed, 1])
    first = FIRST_NM - 400  # PROSPECT begins at 400 nm
    spectra = []
    for _ in range(SIMULATED):
        leaf = {name: rng.uniform(*limits) for name, limits in RANGES.items()}
        spectra.append(run_prospect(**leaf)[1][first : first + WIDTH * BANDS])
    clean = np.array(spectra).reshape(SIMULATED, BANDS, WIDTH).mean(axis=2)
    gain = rng.lognormal(0, 0.03, (SIMULATED, 1))
    gloss = rng.uniform(0, 0.03, (SIMULATED, 1))
    return clean * gain + gloss + rng.normal(0, 0.001, clean.shape)


class Line:
    """A spectrum as a row of blocks of bands, most of which are hidden."""

    size, channels = (1, BANDS // BLOCK), BLOCK
    masking: ClassVar[dict[str, Any]] = {"mask_ratio": 0.75}

    @staticmethod
    def images(spectra: Array) -> torch.Tensor:
        """Return (B, 10, 1, 38)."""
        blocks = spectra.reshape(len(spectra), 1, BANDS // BLOCK, BLOCK)
        return torch.from_numpy(blocks.transpose(0, 3, 1, 2).astype(np.float32).copy())


class Pixel:
    """A spectrum as one pixel of many bands, half of which are hidden."""

    size, channels = (1, 1), BANDS
    masking: ClassVar[dict[str, Any]] = {
        "mask_ratio": 0.0, "channel_mask_ratio": 0.5, "channel_groups": BANDS // BLOCK,
    }  # fmt: skip

    @staticmethod
    def images(spectra: Array) -> torch.Tensor:
        """Return (B, 380, 1, 1)."""
        return torch.from_numpy(spectra.astype(np.float32)[:, :, None, None])


Layout = type[Line] | type[Pixel]


def learn(
    model: ChannelTransformer, layout: Layout, spectra: Array, steps: int, rate: float, seed: int
) -> float:
    """Train by masking; return the mean squared error of hidden bands of the last 50 steps."""
    objective = MaskedObjective(
        seed=seed, image_size=layout.size, patch=1, channels=layout.channels, **layout.masking
    )
    training = TrainingConfig(
        steps=steps, warmup_steps=steps // 10, learning_rate=rate, weight_decay=0.05,
        betas=(0.9, 0.95),
    )  # fmt: skip
    optimizer = ShardedAdamW(model, training)
    images, rng = layout.images(spectra), np.random.default_rng([seed, 2])
    losses = []
    for step in range(steps):
        optimizer.set_rate(learning_rate(training, step))
        batch = images[torch.from_numpy(rng.integers(len(images), size=BATCH))]
        masks = objective.draw([(step, index) for index in range(BATCH)])
        weight = objective.weights(batch, *masks)[0].float()
        optimizer.zero_grad()
        loss = objective.squared_errors(model, batch, *masks)[0] / weight
        loss.backward()
        one = torch.ones((), dtype=torch.float64)
        scale_and_clip_gradient(model.parameters(), one, training.clip_norm, None)
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses[-50:]))


@torch.no_grad()
def encode(model: ChannelTransformer, layout: Layout, spectra: Array) -> Array:
    """Return features of whole spectra, (leaves, locations, D)."""
    images = layout.images(spectra)
    every = torch.arange(layout.size[1]).expand(len(images), -1)
    return model.encode(images, visible_BV=every).double().numpy()


def autoencoder_features(
    layout: Layout, simulated: Array, real: Array, seed: int
) -> tuple[dict[str, Array], dict[str, float]]:
    """Learn an autoencoder; return features before and after the real spectra, and its losses."""
    mean, std = simulated.mean(axis=0), simulated.std(axis=0)
    names = tuple(f"band {number}" for number in range(layout.channels))
    config = ModelConfig(
        head="masked", embed_dim=64, depth=3, heads=4, patch=1, aggregation="dchag-c",
        partitions=2 if layout is Line else 4, decoder_dim=64, decoder_depth=1,
        input_channels=names, output_channels=names, image_size=layout.size,
    )  # fmt: skip
    model = build_model(config, seed)
    normal = (real - mean) / std
    losses = {
        "simulated": learn(model, layout, (simulated - mean) / std, STEPS, 2e-3, seed),
    }
    before = encode(model, layout, normal)
    losses["real"] = learn(model, layout, normal, FINE_STEPS, 5e-4, seed + 1000)
    return {"simulated": before, "fine-tuned": encode(model, layout, normal)}, losses


def all_features(real: Array, seed: int) -> tuple[Features, dict[str, dict[str, float]]]:
    """Return what regressions are given, baselines first, and the autoencoders' losses."""
    simulated = simulate_leaves(seed)
    features: Features = {"spectrum": (real, ("pls", "ridge", "two-band"))}
    losses = {}
    for name, layout in (("line", Line), ("pixel", Pixel)):
        began = time.process_time()
        made, losses[name] = autoencoder_features(layout, simulated, real, seed)
        for state, tokens in made.items():
            features[f"{name}, {state}"] = (tokens.mean(axis=1), ("ridge", "pls"))
        if layout is Line:
            parts = np.array_split(made["fine-tuned"], REGIONS, axis=1)
            regions = np.concatenate([part.mean(axis=1) for part in parts], axis=1)
            features["line, by region"] = (regions, ("ridge", "pls"))
            features["spectrum and line"] = (np.concatenate([real, regions], 1), ("pls",))
        seconds = time.process_time() - began
        print(f"seed {seed}, {name}: {losses[name]}, {seconds:.0f} s of CPU", flush=True)
    return features, losses


def score(
    features: Features, traits: dict[str, Array], species: NDArray[np.str_], seed: int
) -> list[dict[str, object]]:
    """Return R2 of every trait, division, kind of features and regressor."""
    rows: list[dict[str, object]] = []
    groups = {"row": np.arange(len(species)).astype(str), "species": species}
    cases = [(f"{name}: {how}", X, how) for name, (X, hows) in features.items() for how in hows]
    for trait, y in traits.items():
        for division, folds in FOLDS.items():
            for name, X, how in cases:
                found = predict_out_of_fold(
                    X, y, groups[division], regressor=how, folds=folds, seed=seed
                )
                r2 = r2_score(y, found.predicted)
                rows.append({"trait": trait, "by": division, "features": name, "r2": r2})
            print(f"seed {seed}: {trait} by {division}", flush=True)
    return [{**row, "seed": seed} for row in rows]


def summary(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Return mean, least and largest R2 over seeds."""
    kept = pd.DataFrame(rows).groupby(["trait", "by", "features"], sort=False)["r2"]
    return kept.agg(["mean", "min", "max"]).round(3).reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("leaves", type=Path, help="the table of spectra and traits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds")
    parser.add_argument("--out", type=Path, help="where the result is written, JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    real, traits, species = read_leaves(options.leaves)
    rows, losses = [], {}
    for number, seed in enumerate(options.seeds):
        features, losses[seed] = all_features(real, seed)
        rows += score(features, traits, species, seed)
        table = summary(rows)
        print(table.to_string(), flush=True)
        if options.out:  # after each seed, so that a long run leaves what it has
            about = {
                "benchmark": "skill_leaves",
                "command": "python benchmarks/skill_leaves.py leaf_spectra_traits.csv --out "
                "benchmarks/results/skill_leaves.json",
                "leaves": len(real), "seeds": options.seeds[: number + 1],
                "cpu_seconds": round(time.process_time()),
                "loss_of_hidden_bands": losses, "r2": table.to_dict("records"), "by_seed": rows,
                "machine": provenance(),
            }  # fmt: skip
            write_json(options.out, about)


if __name__ == "__main__":
    main()
