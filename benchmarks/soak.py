"""Loads batches, trains and forecasts for minutes: memory, descriptors and threads must stay.

Each works on a store of the embedded sample, again and again in one process. What the process has
is looked at after a third of the time, when all is warm, and at the end.

    python benchmarks/soak.py --minutes 20 --json benchmarks/results/soak.json
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults import CASES, RECIPE, SMALL
from record import provenance, write_json

from sciml_dchag.pipeline import train
from sciml_dchag.tasks import load_recipe
from sciml_dchag.training.batches import load_batches
from sciml_dchag.weather.forecast.predict import predict_period
from sciml_dchag.weather.store.store import Store
from sciml_dchag.weather.windows import ForecastWindows

GROWTH_MIB = 32
"""More than an allocator keeps back now and then."""


def now() -> dict[str, float]:
    """What this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory_mib": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - Path keeps one open
        "threads": threading.active_count(),
    }


def soak(work: Callable[[int], object], seconds: float) -> dict[str, Any]:
    """Repeat work; what the process had once it was warm, and has at the end."""
    started, rounds, warm = time.monotonic(), 0, None
    while time.monotonic() - started < seconds:
        work(rounds)
        rounds += 1
        if warm is None and time.monotonic() - started > seconds / 3:
            warm = now()
    return {"rounds": rounds, "warm": warm or now(), "end": now()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20, help="in all, a third for each")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        from sciml_dchag.cli.main import main as command

        command(list(CASES["prepare-weather"].arguments), standalone_mode=False)
        Path("recipe.yaml").write_text(RECIPE)
        store = Store.open("weather.zarr")
        statistics = store.statistics()
        windows = ForecastWindows(
            store, (None, None), mean=statistics.mean, std=statistics.std,
            targets=store.channels.names, lead_hours=(6, 6),
        )  # fmt: skip
        recipe = load_recipe("recipe.yaml", [*SMALL, "training.steps=20"])
        train(recipe, Path("run"))

        def load(_: int) -> None:
            for _batch in load_batches(windows, batch=8, first_step=0, last_step=60, workers=0):
                pass

        works: dict[str, Callable[[int], object]] = {
            "loader": load,
            "train": lambda number: train(recipe, Path(f"run-{number}")),
            "predict": lambda number: predict_period(
                "run", f"out-{number}.zarr", store="weather.zarr", lead_hours=[6, 12]
            ),
        }
        found, grown = {}, []
        for name, work in works.items():
            found[name] = soak(work, options.minutes * 20)
            warm, end = found[name]["warm"], found[name]["end"]
            print(f"{name}: {found[name]['rounds']} rounds, {warm} to {end}", flush=True)
            more = {key: end[key] - warm[key] for key in warm}
            if more["memory_mib"] > GROWTH_MIB or more["descriptors"] > 2 or more["threads"] > 2:
                grown.append(name)
        os.chdir("/")
    if options.json:
        write_json(options.json, {"machine": provenance(), "found": found, "grown": grown})
    sys.exit(f"{', '.join(grown)} grew" if grown else 0)


if __name__ == "__main__":
    main()
