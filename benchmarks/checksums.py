"""What comparing checksums costs of reading: samples of a store, in random order, with and without.

A store of `era5_80` at 5.625 degrees (80 channels on 32 x 64) of random numbers lies in the
system's cache, the hardest case: no disk hides the work. Two readers of the same file take turns.
A checksum is compared when a process reads a chunk first, so the cost is measured for the first
pass over all times and for one of later passes, of bare reads and of batches of a loader.

    python benchmarks/checksums.py --json benchmarks/results/checksums.json
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from loader import random_store
from record import alternate, provenance, write_json

from sciml_dchag.training.batches import load_batches
from sciml_dchag.weather.store.store import Store
from sciml_dchag.weather.windows import ForecastWindows


def opened(path: Path, compared: bool) -> Store:
    """Open a store, indices read; without comparing, all chunks count as compared."""
    store = Store.open(path)
    reader = store._shards
    assert reader is not None
    for block in range(-(-store.shape[0] // store.block_times)):
        reader._index(block)
        reader._seen[block][:] = not compared
    return store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=512, help="times in the store")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--passes", type=int, default=20, help="over all times, as in a training")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = random_store(Path(folder) / "random.zarr", options.times).path
        order = np.random.default_rng(0).permutation(options.times)

        def reading(compared: bool, passes: int) -> Callable[[], None]:
            def read() -> None:
                store = opened(path, compared)
                for time in np.tile(order, passes):
                    store.read([int(time)])

            return read

        def loading(compared: bool) -> Callable[[], None]:
            def load() -> None:
                store = opened(path, compared)
                statistics = store.statistics()
                windows = ForecastWindows(
                    store, (None, None), mean=statistics.mean, std=statistics.std,
                    targets=store.channels.names, lead_hours=(6, 6),
                )  # fmt: skip
                steps = options.passes * (options.times // 8)
                for _ in load_batches(windows, batch=8, first_step=0, last_step=steps, workers=0):
                    pass

            return load

        cases = {
            "reads, first pass": lambda compared: reading(compared, 1),
            f"reads, {options.passes} passes": lambda compared: reading(compared, options.passes),
            f"batches, {options.passes} epochs": loading,
        }
        found = {}
        for name, case in cases.items():
            rounds = options.rounds if "first" in name else max(3, options.rounds // 5)
            sides = alternate({"compared": case(True), "not compared": case(False)}, rounds)
            ratio = {
                kind: sides["compared"][kind]["min"] / sides["not compared"][kind]["min"]
                for kind in ("seconds", "cpu_seconds")
            }
            found[name] = {**sides, "ratio": ratio}
            print(f"{name}: {ratio['seconds']:.3f} of the time, {ratio['cpu_seconds']:.3f} of CPU")
    if options.json:
        settings = {k: v for k, v in vars(options).items() if k != "json"}
        write_json(options.json, {"machine": provenance(), "settings": settings, "cases": found})


if __name__ == "__main__":
    main()
