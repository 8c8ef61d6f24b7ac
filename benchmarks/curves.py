"""Training loss of one process against that of ranks that share out the channels, over 50 steps.

The paper's figures 11 and 12 in small: real ERA5 (the embedded sample, prepared as
`pipelines/msl_forecast.yaml` says, with a further time of history and insolation, so that 8 input
channels can be shared out over 4 ranks), the demo's model without rollouts, no dropout, float32,
the same seed, steps of 4 samples. Trained by `sciml-dchag train`, on one process and under torchrun
on gloo ranks of one thread each: D-CHAG with cross-attention and with linear partial aggregation at
tp 2, one attention over all channels (`single`) at tp 4. Every step's loss is kept.

Both sides compute the same function in another order, so that they part by rounding alone, which
training amplifies from step to step.

    python benchmarks/curves.py --folder benchmarks/results/curves
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from matplotlib.figure import Figure
from numpy.typing import NDArray
from record import provenance, write_json

from sciml_dchag.config import from_mapping
from sciml_dchag.figures.saving import save_figure
from sciml_dchag.figures.style import SOFT_INK, label_ends, new_figure, quiet_axes
from sciml_dchag.files.samples import recipe_path, resolve_samples
from sciml_dchag.training.logbook import read_log
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.prepare.era5 import prepare_era5
from sciml_dchag.weather.store.store import Store

STEPS = 50
KINDS = {"dchag-c": 2, "dchag-l": 2, "single": 4}
"""Ranks of tp by aggregation."""
COLOURS = {"dchag-c": "#0f62a8", "dchag-l": "#b0793a", "single": "#4d7c4a"}
EQUAL = 2e-8
"""Where a difference of nothing is drawn on a logarithmic axis: below what float32 tells apart."""
Curves = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Loss by step of one process and of the ranks, by aggregation."""


def recipe_of(kind: str, store: Path) -> dict[str, Any]:
    recipe: dict[str, Any] = yaml.safe_load(recipe_path("msl_forecast").read_text())
    recipe["name"] = kind
    recipe["data"]["store"] = str(store)
    recipe["data"]["history_hours"] = [-6, -12, -18]
    recipe["data"]["forcings"].append("insolation")
    recipe["model"].update(aggregation=kind, partitions=4)
    recipe["task"]["rollout_steps"] = 1
    recipe["training"].update(steps=STEPS, warmup_steps=10, ema_decay=0.0, log_every=1)
    return recipe


def prepare(path: Path) -> Store:
    recipe = from_mapping(ForecastRecipe, recipe_of("dchag-c", path))
    prepare_era5(
        resolve_samples(recipe.prepare.sources),
        path,
        channels=recipe.prepare.channels,
        grid=recipe.prepare.grid,
        statistics_period=recipe.data.train,
        climatology=recipe.prepare.climatology,
    )
    return Store.open(path)


def train(kind: str, ranks: int, folder: Path) -> NDArray[np.float64]:
    """Train as a user does, and return every step's loss."""
    recipe = folder / f"{kind}.yaml"
    recipe.write_text(yaml.safe_dump(recipe_of(kind, folder / "era5.zarr")))
    runs = folder / f"runs_on_{ranks}"
    launcher = [] if ranks == 1 else ["torch.distributed.run", "--nproc-per-node", str(ranks), "-m"]
    words = ["train", str(recipe), "--runs", str(runs), "--set", f"parallel.tp={ranks}"]
    subprocess.run(
        [sys.executable, "-m", *launcher, "sciml_dchag", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    losses = np.array([r["loss"] for r in read_log(runs / kind / "log.jsonl") if "loss" in r])
    assert len(losses) == STEPS
    return losses


def difference(one: NDArray[np.float64], ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Relative to the loss of one process."""
    return np.abs(ranks - one) / one


def draw(curves: Curves) -> Figure:
    """Losses above, their relative differences below."""
    title = "Same loss on one process and on ranks"
    figure = new_figure(8.2, 6.2, title, "embedded ERA5 sample, float32, no dropout")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    steps = np.arange(1, STEPS + 1)
    for kind, (one, ranks) in curves.items():
        above.plot(steps, one, color=COLOURS[kind], linewidth=5, alpha=0.28)
        above.plot(steps, ranks, color=COLOURS[kind], linewidth=1.1)
        height = np.maximum(difference(one, ranks), EQUAL)
        below.plot(steps, height, color=COLOURS[kind], linewidth=0.7, alpha=0.4)
        below.plot(steps, height, color=COLOURS[kind], linewidth=0, marker="o", markersize=3)
    above.plot([], [], color=SOFT_INK, linewidth=5, alpha=0.28, label="one process")
    above.plot([], [], color=SOFT_INK, linewidth=1.1, label="ranks")
    above.legend(frameon=False, fontsize=9, labelcolor=SOFT_INK)
    above.set_ylabel("training loss")
    below.set_ylabel("relative difference")
    below.set_xlabel("optimizer step")
    below.set_yscale("log")
    below.set_ylim(EQUAL / 1.4, 2e-5)
    ticks = {EQUAL: "equal", 1e-7: "$10^{-7}$", 1e-6: "$10^{-6}$", 1e-5: "$10^{-5}$"}
    below.set_yticks(list(ticks), list(ticks.values()))
    below.minorticks_off()
    below.axhline(1e-5, color=SOFT_INK, linewidth=0.8, linestyle=(0, (4, 3)))
    below.set_xlim(0, STEPS)
    for axes in (above, below):
        quiet_axes(axes)
    figure.draw_without_rendering()
    names = {kind: f"{kind}, tp {KINDS[kind]}" for kind in curves}
    label_ends(above, [(float(r[-1]), names[k], COLOURS[k]) for k, (_, r) in curves.items()])
    ends = [
        (max(float(difference(*c)[-1]), EQUAL), names[k], COLOURS[k]) for k, c in curves.items()
    ]
    label_ends(below, [*ends, (1e-5, "tolerance of the tests", SOFT_INK)])
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where results go")
    options = parser.parse_args()
    torch.set_num_threads(1)  # as each process of the runs
    machine = provenance()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store = prepare(folder / "era5.zarr")
        curves = {}
        for kind, ranks in KINDS.items():
            curves[kind] = train(kind, 1, folder), train(kind, ranks, folder)
            print(f"{kind}: largest difference {difference(*curves[kind]).max():.1e}", flush=True)
        recipe = recipe_of("KIND", Path("STORE"))
        attribution = store.attribution
    options.folder.mkdir(parents=True, exist_ok=True)
    with (options.folder / "losses.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        sides = [(k, n, i) for k, tp in KINDS.items() for i, n in enumerate((1, tp))]
        writer.writerow(["step", *(f"{kind} on {ranks}" for kind, ranks, _ in sides)])
        for step in range(STEPS):
            writer.writerow([step + 1, *(repr(float(curves[k][i][step])) for k, _, i in sides)])
    apart = {
        f"{kind}, tp {KINDS[kind]}": {
            "largest": float(difference(*pair).max()),
            "of_the_last_step": float(difference(*pair)[-1]),
        }
        for kind, pair in curves.items()
    }
    about = {
        "benchmark": "curves",
        "command": "python benchmarks/curves.py --folder benchmarks/results/curves",
        "attribution": attribution,
        "recipe": recipe,
        "relative_difference_of_loss": apart,
        "machine": machine,
    }
    write_json(options.folder / "about.json", about)
    save_figure(draw(curves), options.folder / "losses.png", attribution)


if __name__ == "__main__":
    main()
