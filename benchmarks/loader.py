"""How much faster the loader feeds samples than the `small` model trains on them.

A store of the 80 channels of era5_80 at 5.625 degrees (random values: reading does not care) is
written to a temporary folder. In turn, in one process: batches of 8 read from the store, without
and with the cache in memory; and optimizer steps of the `small` preset, all 80 channels in and out,
patch 4. Samples per second, medians. The store was just written, so it comes from the page cache.

    python benchmarks/loader.py --json benchmarks/results/loader.json
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from pathlib import Path

import dask.array
import numpy as np
import torch
import xarray as xr
from common import alternate, arguments, write

from sciml_dchag.channels import ChannelSet
from sciml_dchag.config import TrainingConfig
from sciml_dchag.data.forecast_windows import ForecastWindows, load_batches
from sciml_dchag.data.store import Store, write_store
from sciml_dchag.models import ModelConfig, build_model
from sciml_dchag.prepare.grids import Grid
from sciml_dchag.tasks.forecast import ForecastTask
from sciml_dchag.training.optim import build_optimizer

BATCH, TIMES = 8, 480


def make_store(path: Path) -> Store:
    grid, channels = Grid.named("5.625"), ChannelSet.of("era5_80").names
    values = dask.array.random.default_rng(0).normal(
        size=(TIMES, len(channels), *grid.shape), chunks=(24, -1, -1, -1)
    )
    state = xr.DataArray(
        values.astype(np.float32),
        dims=("time", "channel", "latitude", "longitude"),
        coords={
            "time": np.datetime64("2000-01-01", "ns") + np.arange(TIMES) * np.timedelta64(6, "h"),
            "channel": channels,
            "latitude": grid.latitude,
            "longitude": grid.longitude,
        },
    )
    attrs = {
        "title": "Random values", "attribution": "Random values", "simulated": 1,
        "grid": "5.625", "grid_kind": grid.kind, "grid_sha256": grid.content_hash,
    }  # fmt: skip
    return Store.open(write_store(state, path, attrs=attrs))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        result = compare(make_store(Path(folder) / "random.zarr"), options.repeats)
    for name in ("train", "read", "cached"):
        print(f"{name:<7} {result[name]:.0f} samples/s")
    ratio = result["read"] / result["train"]
    write({**result, "batch": BATCH, "ratio": ratio}, options.json)
    print(f"the loader feeds {ratio:.1f} times as fast as `small` trains")


def compare(store: Store, repeats: int) -> dict[str, float]:
    names = store.channels.names
    unit = {"mean": np.zeros(len(names)), "std": np.ones(len(names))}
    loaders = {}
    for name, memory in (("read", 0), ("cached", 4096)):
        loaders[name] = ForecastWindows(
            store, (None, None), **unit, targets=names, lead_hours=(6, 6),
            memory_mebibytes=memory,
        )  # fmt: skip
    config = dataclasses.replace(
        ModelConfig(size="small", patch=4),
        input_channels=tuple(names), output_channels=tuple(names),
        image_size=(len(store.latitude), len(store.longitude)),
    )  # fmt: skip
    model = build_model(config)
    optimizer = build_optimizer(model, TrainingConfig())
    task = ForecastTask(
        target_indices=range(len(names)), change_std=np.ones(len(names)),
        latitude=store.latitude, state_channels=len(names),
    )  # fmt: skip
    batch = next(iter(load_batches(loaders["read"], batch=BATCH, first_step=0, last_step=1,
                                   workers=0)))  # fmt: skip

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        task.loss(model, batch.states, batch.constants, batch.targets, batch.lead_hours).backward()
        optimizer.step()

    def feed(windows: ForecastWindows, batches: int) -> None:
        for _ in load_batches(windows, batch=BATCH, first_step=0, last_step=batches, workers=0):
            pass

    batches = {"train": 1, "read": 20, "cached": 20}
    sides = {
        "train": train,
        "read": lambda: feed(loaders["read"], batches["read"]),
        "cached": lambda: feed(loaders["cached"], batches["cached"]),
    }
    seconds = alternate(sides, repeats)
    return {
        name: batches[name] * BATCH / statistics.median(times) for name, times in seconds.items()
    }


if __name__ == "__main__":
    main()
