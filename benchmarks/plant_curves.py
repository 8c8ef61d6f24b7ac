"""Masked training on a real hyperspectral image: one process against D-CHAG over two ranks.

The paper's figure 11 in small: the embedded maize kernel (raw counts to reflectance with its own
references, column by column; the 428 bands from 400 to 900 nm, each standardised), patches of 6
pixels of which 75 % are hidden, four mirrored copies a step, 50 steps. It is one small image,
learnt by heart: what is compared is the loss of two ways to compute it, and nothing else.

In float64, where both sides agree to 1e-12. In float32 they part by up to 1e-3 within 50 steps
(dchag-c, width 64): where a gradient is rounding alone, as those of an attention that is still
nearly uniform are, AdamW makes whole steps of it. Width 16 stays below 1e-5 (`--float32`).

    python benchmarks/plant_curves.py --folder benchmarks/results/plant_curves
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from record import provenance, write_json
from torch import Tensor
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from sciml_dchag.config import TrainingConfig
from sciml_dchag.figures.saving import save_figure
from sciml_dchag.figures.style import SOFT_INK, label_ends, new_figure, quiet_axes
from sciml_dchag.files.samples import sample_path
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.objectives.masked import MaskedObjective
from sciml_dchag.parallel.apply import own_channels
from sciml_dchag.parallel.build import build_on_ranks
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.parallel.runtime import Ranks, joined
from sciml_dchag.training.optim import ShardedAdamW, scale_and_clip_gradient

STEPS, BATCH, PATCH = 50, 4, 6
LINES, BANDS, COLUMNS = 31, 580, 43
KINDS = ("dchag-c", "dchag-l")
COLOURS = {"dchag-c": "#0f62a8", "dchag-l": "#b0793a"}
ATTRIBUTION = "Maize kernel: PlantCV hyperspectral tutorial, CC-BY 4.0"
EQUAL = 1e-17
"""Where a difference of nothing is drawn on a logarithmic axis."""


def read_counts(name: str) -> NDArray[np.float64]:
    """Raw counts of an ENVI file, band-interleaved by line: (lines, bands, columns)."""
    counts = np.fromfile(sample_path(name), "<u2")
    return counts.reshape(LINES, BANDS, COLUMNS).astype(np.float64)


def wavelengths_nm() -> NDArray[np.float64]:
    header = sample_path("maize_kernel").with_suffix(".hdr").read_text()
    listed = header.split("wavelength = {")[1].split("}")[0]
    return np.array([float(text) for text in listed.split(",")])


def images() -> Tensor:
    """Four mirrored copies of the reflectance, each band standardised: (4, 428, 30, 42)."""
    dark = read_counts("maize_dark").mean(0)
    white = read_counts("maize_white").mean(0)
    reflectance = (read_counts("maize_kernel") - dark) / (white - dark)
    nm = wavelengths_nm()
    cube = reflectance[:, (nm >= 400) & (nm <= 900)].transpose(1, 0, 2)
    cube = cube[:, : LINES // PATCH * PATCH, : COLUMNS // PATCH * PATCH]
    mean, std = cube.mean((1, 2), keepdims=True), cube.std((1, 2), keepdims=True)
    one = torch.from_numpy((cube - mean) / std)
    return torch.stack([one, one.flip(1), one.flip(2), one.flip(1, 2)])


def masked_losses(
    kind: str, ranks: Ranks, tp: int, embed_dim: int, dtype: torch.dtype
) -> list[float]:
    """Train a masked autoencoder and return every step's loss on hidden pixels."""
    torch.set_default_dtype(dtype)
    try:
        return _train(kind, ranks, tp, embed_dim)
    finally:
        torch.set_default_dtype(torch.float32)


def _train(kind: str, ranks: Ranks, tp: int, embed_dim: int) -> list[float]:
    data = images().to(torch.get_default_dtype())
    channels = tuple(f"band {i}" for i in range(data.shape[1]))
    config = ModelConfig(
        head="masked", embed_dim=embed_dim, depth=2, heads=4, patch=PATCH, partitions=4,
        aggregation=kind, input_channels=channels, output_channels=channels,
        image_size=(data.shape[2], data.shape[3]),
    )  # fmt: skip
    training = TrainingConfig(
        steps=STEPS, warmup_steps=10, learning_rate=3e-4, weight_decay=0.05, betas=(0.9, 0.95)
    )
    model = build_on_ranks(config, 0, ranks, ParallelConfig(fsdp=1, tp=tp))
    optimizer = ShardedAdamW(model, training)
    task = MaskedObjective(
        seed=0, image_size=config.image_size, patch=PATCH, channels=len(channels)
    )
    everything = task.own_inputs
    inputs, outputs = own_channels(model, ranks.mesh)
    losses = []
    for step in range(STEPS):
        masks = task.draw([(step, index) for index in range(BATCH)])
        task.own_inputs = task.own_outputs = everything
        weight = task.weights(data, *masks)[0].to(data.dtype)
        task.own_inputs, task.own_outputs = inputs, outputs
        optimizer.zero_grad()
        own = data[:, inputs.start : inputs.stop]
        hidden_error = task.squared_errors(model, own, *masks)[0]
        (hidden_error / weight).backward()
        unscaled = torch.ones((), dtype=torch.float64)
        scale_and_clip_gradient(model.parameters(), unscaled, training.clip_norm, ranks.mesh)
        optimizer.step()
        losses.append(float(ranks.sum(hidden_error) / weight))
    return losses


def alone(kind: str, embed_dim: int, dtype: torch.dtype) -> list[float]:
    return masked_losses(kind, Ranks(device=torch.device("cpu")), 1, embed_dim, dtype)


def masked_losses_on_ranks(kind: str, embed_dim: int, dtype: torch.dtype) -> list[float]:
    """The same as one of two ranks."""
    torch.set_num_threads(1)
    with joined(ParallelConfig(fsdp=1, tp=2)) as ranks:
        return masked_losses(kind, ranks, 2, embed_dim, dtype)


def together(kind: str, embed_dim: int, dtype: torch.dtype) -> list[float]:
    """The same on two gloo ranks that torchrun's launcher starts."""
    launch = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, run_id="plant_curves", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=0, local_addr="localhost",
    )  # fmt: skip
    launched = elastic_launch(launch, masked_losses_on_ranks)
    found: list[float] = launched(kind, embed_dim, dtype)[0]
    return found


def draw(curves: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Figure:
    """Losses above, their relative differences below."""
    title = "Same masked loss on one process and two ranks"
    figure = new_figure(8.2, 6.2, title, "a maize kernel, 75 % hidden")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    steps = np.arange(1, STEPS + 1)
    ends = []
    for kind, (one, two) in curves.items():
        above.plot(steps, one, color=COLOURS[kind], linewidth=5, alpha=0.28)
        above.plot(steps, two, color=COLOURS[kind], linewidth=1.1)
        height = np.maximum(np.abs(two / one - 1), EQUAL)
        below.plot(steps, height, color=COLOURS[kind], linewidth=0.7, marker="o", markersize=3)
        ends.append((float(height[-1]), f"{kind}, tp 2", COLOURS[kind]))
    above.plot([], [], color=SOFT_INK, linewidth=5, alpha=0.28, label="one process")
    above.plot([], [], color=SOFT_INK, linewidth=1.1, label="two ranks")
    above.legend(frameon=False, fontsize=9, labelcolor=SOFT_INK)
    above.set_ylabel("mean squared error of hidden pixels")
    below.set_ylabel("relative difference")
    below.set_xlabel("optimizer step")
    below.set_yscale("log")
    below.set_ylim(EQUAL / 5, 2e-4)
    ticks = {EQUAL: "equal", 1e-15: "$10^{-15}$", 1e-10: "$10^{-10}$", 1e-5: "$10^{-5}$"}
    below.set_yticks(list(ticks), list(ticks.values()))
    below.minorticks_off()
    below.axhline(1e-5, color=SOFT_INK, linewidth=0.8, linestyle=(0, (4, 3)))
    below.set_xlim(0, STEPS)
    for axes in (above, below):
        quiet_axes(axes)
    figure.draw_without_rendering()
    names = {kind: f"{kind}, tp 2" for kind in curves}
    label_ends(above, [(float(two[-1]), names[k], COLOURS[k]) for k, (_, two) in curves.items()])
    label_ends(below, [*ends, (1e-5, "asked for", SOFT_INK)])
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where results go")
    parser.add_argument("--float32", action="store_true", help="single precision, width 16")
    options = parser.parse_args()
    setting = (16, torch.float32) if options.float32 else (32, torch.float64)
    torch.set_num_threads(1)  # as each rank
    curves = {
        kind: (np.array(alone(kind, *setting)), np.array(together(kind, *setting)))
        for kind in KINDS
    }
    options.folder.mkdir(parents=True, exist_ok=True)
    with (options.folder / "losses.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *(f"{kind} on {n}" for kind in KINDS for n in (1, 2))])
        for step in range(STEPS):
            row = [repr(float(side[step])) for kind in KINDS for side in curves[kind]]
            writer.writerow([step + 1, *row])
    apart = {kind: float(np.abs(two / one - 1).max()) for kind, (one, two) in curves.items()}
    about = {
        "benchmark": "plant_curves",
        "command": "python benchmarks/plant_curves.py --folder benchmarks/results/plant_curves",
        "attribution": ATTRIBUTION,
        "largest_relative_difference_of_loss": apart,
        "machine": provenance(),
    }
    write_json(options.folder / "about.json", about)
    save_figure(draw(curves), options.folder / "losses.png", ATTRIBUTION)
    for kind, value in apart.items():
        print(f"{kind}: largest difference {value:.1e}")


if __name__ == "__main__":
    main()
