"""New inputs for a trained forecaster: a control branch, full fine-tuning, and the base trained on.

Real data: ERA5 sea level pressure and 850 hPa vorticity, 5.625 degrees, December 2025 to mid
February 2026 (in the package). A base learns 6 h forecasts of pressure from pressure alone. Then
pressure 6 h before and vorticity are new inputs, with all training times or the last 15 days
(60 times) alone, for the same number of steps each. Scored is the area-weighted RMSE of 1 to 14
February, once, with the last weights; nothing is chosen on it.

    python benchmarks/control.py --folder benchmarks/results/control --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path
from typing import Any

from record import provenance, write_json

import sciml_dchag as sd
from sciml_dchag.tasks import recipe_from_mapping

ALL, LAST = ["2025-12-01T00", "2026-01-31T18"], ["2026-01-17T00", "2026-01-31T18"]
TEST = ("2026-02-01T00", "2026-02-14T18")
NEW = ["msl@-6h", "vo850", "vo850@-6h"]
BASE_STEPS, STEPS = 600, 250


def mapping(name: str, store: Path, train: list[str], seed: int, steps: int) -> dict[str, Any]:
    """A recipe of the smallest useful forecaster."""
    return {
        "name": name,
        "seed": seed,
        "data": {"store": str(store), "train": train},
        "model": {
            "embed_dim": 64, "depth": 3, "heads": 4, "patch": 4, "aggregation": "single",
            "partitions": 1,
        },
        "task": {"kind": "forecast", "targets": ["msl"]},
        "training": {
            "steps": steps, "batch": 8, "warmup_steps": steps // 10, "learning_rate": 1e-3,
            "log_every": steps, "checkpoint_every": steps,
        },
    }  # fmt: skip


def stores(folder: Path) -> dict[str, Path]:
    """Pressure alone, and both channels for each training period, whose statistics they have."""
    made = {}
    for name, channels, period in (
        ("base", ["msl"], ALL), ("all", ["msl", "vo850"], ALL), ("last", ["msl", "vo850"], LAST),
    ):  # fmt: skip
        made[name] = folder / f"{name}.zarr"
        sd.weather.prepare(
            sd.sample("era5_msl_vo850"), made[name], channels=channels, grid="5.625",
            statistics_period=tuple(period),
        )  # fmt: skip
    return made


def error(run: Path, store: Path, *, branch: bool = True) -> float:
    """RMSE of pressure at 6 h over the test days, Pa."""
    model = sd.open(run)
    states = sd.open(store)
    if not branch:
        model.model.control.on = False
    forecast = model.forecast(states, leads=[6], period=TEST)
    scored = sd.score(forecast, states, metrics=("rmse",))
    return float(scored["mean_sea_level_pressure"].sel(metric="rmse").squeeze())


def one_seed(seed: int, folder: Path, made: dict[str, Path]) -> list[dict[str, Any]]:
    """Train the base and all that starts from it."""
    rows: list[dict[str, Any]] = []

    def run(kind: str, times: str, recipe: dict[str, Any]) -> Path:
        place, started = folder / f"{kind}-{times}-{seed}", time.process_time()
        sd.train(recipe_from_mapping(recipe), place)
        rows.append({
            "seed": seed, "times": times, "kind": kind,
            "rmse_pa": error(place, Path(recipe["data"]["store"])),
            "cpu_seconds": time.process_time() - started,
        })  # fmt: skip
        print(rows[-1], flush=True)
        return place

    base = run("base", "all", mapping("base", made["base"], ALL, seed, BASE_STEPS))
    for times, train in (("all", ALL), ("last", LAST)):
        for kind in ("control", "fine-tuned"):
            recipe = mapping(kind, made[times], train, seed, STEPS)
            recipe["data"]["history_hours"] = [-6]
            if kind == "control":
                recipe["model"]["control"] = {"base": str(base), "channels": NEW}
            else:
                recipe["training"]["start_from"] = str(base)
            run(kind, times, recipe)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        made = stores(Path(work))
        for seed in options.seeds:
            rows += one_seed(seed, Path(work), made)
            with (options.folder / "control.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0], lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
    write_json(options.folder / "control.json", {**provenance(), "seeds": options.seeds})


if __name__ == "__main__":
    main()
