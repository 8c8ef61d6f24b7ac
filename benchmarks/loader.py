"""How fast a store feeds the loader, against how fast the `small` model trains on this machine.

A store of `era5_80` at 5.625 degrees (80 channels on 32 x 64, six-hourly) is made of random numbers
in a temporary folder. Three sides take turns in one process: batches from the loader that keeps
the period in memory, batches from the loader that reads every sample from the store (the files lie
in the system's cache, as they were written a moment ago; random order, random lead times), and
optimizer steps of `small` (patch 4, all 80 channels in and out) on batches that are already there.
No loader processes: workers would only add to what is measured here.

The ratio is samples a second loaded over samples a second trained, from medians.

    python benchmarks/loader.py --json benchmarks/results/loader.json
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from record import alternate, provenance, write_json

from sciml_dchag.channels import ChannelSet
from sciml_dchag.config import TrainingConfig
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import build_model
from sciml_dchag.objectives.forecast import ForecastObjective
from sciml_dchag.objectives.layout import InputLayout
from sciml_dchag.training.batches import load_batches
from sciml_dchag.training.optim import ShardedAdamW
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.store.statistics import compute_statistics
from sciml_dchag.weather.store.store import Store
from sciml_dchag.weather.store.writing import write_store
from sciml_dchag.weather.windows import ForecastBatch, ForecastWindows


def random_store(path: Path, times: int) -> Store:
    channels, grid = ChannelSet.of("era5_80"), Grid.named("5.625")
    generator = np.random.default_rng(0)
    values = generator.standard_normal((times, len(channels), *grid.shape), dtype=np.float32)
    state = xr.DataArray(
        values,
        dims=("time", "channel", "latitude", "longitude"),
        coords={
            "time": np.datetime64("2001-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h"),
            "channel": channels.names,
            "latitude": grid.latitude,
            "longitude": grid.longitude,
        },
    )
    attrs = {
        "title": "Random numbers for a benchmark",
        "attribution": "Random numbers, not observations.",
        "simulated": 1,
        "grid": grid.name,
        "grid_kind": grid.kind,
        "grid_sha256": grid.content_hash,
    }
    return Store.open(
        write_store(state, path, attrs=attrs, finish=lambda place: compute_statistics(place))
    )


def batches(store: Store, batch: int, memory_mebibytes: int) -> Iterator[ForecastBatch]:
    statistics = store.statistics()
    windows = ForecastWindows(
        store,
        (None, None),
        mean=statistics.mean,
        std=statistics.std,
        targets=store.channels.names,
        lead_hours=(6, 120),
        memory_mebibytes=memory_mebibytes,
    )
    endless = 10**9 // batch
    return iter(load_batches(windows, batch=batch, first_step=0, last_step=endless, workers=0))


def trainer(store: Store, batch: ForecastBatch) -> Callable[[], None]:
    """Return one optimizer step of `small`, as training makes it."""
    torch.manual_seed(0)
    names = tuple(store.channels.names)
    config = ModelConfig(
        size="small",
        patch=4,
        input_channels=names,
        output_channels=names,
        image_size=(len(store.latitude), len(store.longitude)),
    )
    model = build_model(config)
    optimizer = ShardedAdamW(model, TrainingConfig())
    task = ForecastObjective(
        change_std=np.ones(len(names)),
        area_weights=latitude_weights(store.latitude),
        target_indices=range(len(names)),
        layout=InputLayout(channels=names),
    )

    def step() -> None:
        optimizer.zero_grad()
        error = task.squared_error(model, *batch.tensors)
        (error / task.weight(batch.targets)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=256, help="six-hourly times in the store")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=8, help="loaded a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(Path(folder) / "random.zarr", options.times)
        cached = batches(store, options.batch, memory_mebibytes=10**6)
        uncached = batches(store, options.batch, memory_mebibytes=0)
        step = trainer(store, next(cached))

        def load(source: Iterator[ForecastBatch]) -> Callable[[], None]:
            return lambda: [None for _ in itertools.islice(source, options.batches)] and None

        sides = alternate(
            {"from memory": load(cached), "from the store": load(uncached), "training": step},
            options.rounds,
        )
    for name, side in sides.items():
        samples = options.batch * (1 if name == "training" else options.batches)
        side["samples_per_second"] = samples / side["seconds"]["median"]
        side["samples_per_cpu_second"] = samples / side["cpu_seconds"]["median"]
    training = sides["training"]
    ratio = {
        name: {
            "seconds": side["samples_per_second"] / training["samples_per_second"],
            "cpu_seconds": side["samples_per_cpu_second"] / training["samples_per_cpu_second"],
        }
        for name, side in sides.items()
        if name != "training"
    }
    machine = provenance()
    print(f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}")
    for name, side in sides.items():
        print(
            f"{name:14s} {side['samples_per_second']:8.1f} samples/s, "
            f"{side['samples_per_cpu_second']:8.1f} a second of CPU time"
        )
    if options.json:
        settings = {k: v for k, v in vars(options).items() if k != "json"}
        result = {"benchmark": "loader", "settings": settings, "machine": machine}
        write_json(options.json, {**result, "sides": sides, "ratio": ratio})
    words = ", ".join(
        f"{r['seconds']:.1f} {name} ({r['cpu_seconds']:.1f} in CPU time)"
        for name, r in ratio.items()
    )
    print(f"ratio of loading to training: {words}")


if __name__ == "__main__":
    main()
