"""New inputs for a trained forecaster: a control branch, full fine-tuning, and the base trained on.

Real data: ERA5 sea level pressure and 850 hPa vorticity, 5.625 degrees, December 2025 to mid
February 2026 (in the package). A base learns 6 h forecasts of pressure from pressure alone. Then
pressure 6 h before and vorticity are new inputs, with all training times or the last 15 days
(60 times) alone, for the same number of steps each. Scored is the area-weighted RMSE with the last
weights. Learning rates are chosen on the last eleven days of January, which are then no training
days; with those chosen, 1 to 14 February is scored once.

    python benchmarks/control.py --days validation --folder benchmarks/results/control --seeds 3 \
        --rates 3e-4 1e-3 3e-3
    python benchmarks/control.py --days test --folder benchmarks/results/control --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import provenance, write_json

import sciml_dchag as sd
from sciml_dchag.tasks import recipe_from_mapping

NEW = ["msl@-6h", "vo850", "vo850@-6h"]
BASE_STEPS, STEPS = 600, 250
CHOSEN = {"base": 1e-3, "base trained on": 3e-3, "control": 2e-2, "fine-tuned": 3e-3}
"""Learning rate of each kind, the best on validation days."""
BRANCH = {"channels": NEW, "blocks": 1, "with_base": True}
"""The best on validation days with the last 60 times."""


@dataclass(frozen=True)
class Days:
    """What is trained and scored on: first and last times."""

    all: tuple[str, str]
    last: tuple[str, str]
    scored: tuple[str, str]


DAYS = {
    "validation": Days(
        ("2025-12-01T00", "2026-01-20T18"), ("2026-01-06T00", "2026-01-20T18"),
        ("2026-01-21T00", "2026-01-31T18"),
    ),
    "test": Days(
        ("2025-12-01T00", "2026-01-31T18"), ("2026-01-17T00", "2026-01-31T18"),
        ("2026-02-01T00", "2026-02-14T12"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """Where the runs of some days are kept."""

    days: Days
    work: Path

    def store(self, times: str, *, base: bool) -> Path:
        """The store whose statistics are those of the training times; pressure alone for a base."""
        place = self.work / f"{'base' if base else times}.zarr"
        if not place.exists():
            sd.weather.prepare(
                sd.sample("era5_msl_vo850"), place, channels=["msl"] if base else ["msl", "vo850"],
                grid="5.625", statistics_period=getattr(self.days, "all" if base else times),
            )  # fmt: skip
        return place

    def run(
        self, kind: str, times: str, seed: int, rate: float, start: Path | None
    ) -> tuple[Path, dict[str, Any]]:
        """Train one model and score it.

        Args:
            kind: one of `CHOSEN`.
            times: `all` or `last`.
            seed: of start values and samples.
            rate: the learning rate.
            start: the trained base; None for the base itself.
        """
        alone = kind.startswith("base")
        store = self.store(times, base=alone)
        steps = BASE_STEPS if start is None else STEPS
        recipe: dict[str, Any] = {
            "name": "control",
            "seed": seed,
            "data": {
                "store": str(store), "train": list(getattr(self.days, times)),
                "history_hours": [] if alone else [-6],
            },
            "model": {
                "embed_dim": 64, "depth": 3, "heads": 4, "patch": 4, "aggregation": "single",
                "partitions": 1,
            },
            "task": {"kind": "forecast", "targets": ["msl"]},
            "training": {
                "steps": steps, "batch": 8, "warmup_steps": steps // 10, "learning_rate": rate,
                "log_every": steps, "checkpoint_every": steps,
            },
        }  # fmt: skip
        if kind == "control":
            recipe["model"]["control"] = {"base": str(start), **BRANCH}
        elif start is not None:
            recipe["training"]["start_from"] = str(start)
        place, started = self.work / f"{kind}-{times}-{seed}-{rate}", time.process_time()
        sd.train(recipe_from_mapping(recipe), place)
        row = {
            "seed": seed, "times": times, "kind": kind, "rate": rate,
            "rmse_pa": round(self.error(place, store), 2),
            "cpu_seconds": round(time.process_time() - started, 1),
        }  # fmt: skip
        print(row, flush=True)
        return place, row

    def error(self, run: Path, store: Path) -> float:
        """RMSE of pressure at 6 h over the scored days, Pa."""
        states = sd.open(store)
        forecast = sd.open(run).forecast(states, leads=[6], period=self.days.scored)
        scored = sd.score(forecast, states, metrics=("rmse",))
        return float(scored["mean_sea_level_pressure"].sel(metric="rmse").squeeze())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", choices=DAYS, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", help="of all kinds; those chosen if none")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(DAYS[options.days], Path(work))
        for seed in options.seeds:
            base, row = bench.run("base", "all", seed, CHOSEN["base"], None)
            rows.append(row)
            for times, kind in (
                ("all", "control"), ("last", "control"), ("last", "fine-tuned"),
                ("all", "fine-tuned"), ("all", "base trained on"),
            ):  # fmt: skip
                for rate in options.rates or [CHOSEN[kind]]:
                    rows.append(bench.run(kind, times, seed, rate, base)[1])
                    with (options.folder / f"{options.days}.csv").open("w", newline="") as file:
                        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
                        writer.writeheader()
                        writer.writerows(rows)
    write_json(options.folder / f"{options.days}.json", {**provenance(), "seeds": options.seeds})


if __name__ == "__main__":
    main()
