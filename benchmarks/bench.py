"""Ratios that must not get worse: measured anew and compared with those that were kept.

Each is how many times less CPU time one side takes than another, both in turn in one process, so
that it hardly depends on the machine: the channel stage absorbed against its tokens formed, a whole
training step so, and loading samples against training on them. A ratio below 0.75 of the kept one
is a failure. About ten minutes on two cores with nothing beside.

    python benchmarks/bench.py           # compares with benchmarks/results/bench.json
    python benchmarks/bench.py --keep    # keeps what it measures
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from ladder import Loop, Rung
from loader import batches, random_store, trainer
from record import alternate, provenance, write_json

from sciml_dchag.models.aggregation import ChannelAggregation

KEPT = Path(__file__).parent / "results" / "bench.json"
ALLOWED = 0.75
SHAPES = [(80, 512, 1024, 4), (500, 512, 256, 4), (80, 1024, 512, 2)]
"""Channels, embedding, locations and side of a patch."""


def stage(kind: str, implementation: str, shape: tuple[int, int, int, int]) -> Callable[[], None]:
    """Return a forward and backward pass of the channel stage."""
    channels, embed_dim, locations, patch = shape
    torch.manual_seed(0)
    module = ChannelAggregation(
        channels=channels, patch_pixels=patch**2, embed_dim=embed_dim, heads=embed_dim // 64,
        kind=kind, partitions=1 if kind == "single" else 4, implementation=implementation,
    )  # fmt: skip
    x = torch.randn(1, locations, channels, patch**2)

    def run() -> None:
        module.zero_grad(set_to_none=True)
        module(x).square().mean().backward()

    return run


def ratio(slow: Callable[[], object], fast: Callable[[], object], rounds: int = 3) -> float:
    """Return how many times less CPU time the second takes."""
    found = alternate({"slow": slow, "fast": fast}, rounds)
    return found["slow"]["cpu_seconds"]["median"] / found["fast"]["cpu_seconds"]["median"]


def measure() -> dict[str, float]:
    """Measure every ratio."""
    found: dict[str, float] = {}

    def note(name: str, value: float) -> None:
        found[name] = round(value, 3)
        print(f"{name}: {value:.2f}", flush=True)

    for shape in SHAPES:
        for kind in ("single", "dchag-c", "dchag-l"):
            sides = (stage(kind, side, shape) for side in ("materialised", "absorbed"))
            note(f"stage {kind} {shape}, absorbed", ratio(*sides))
    plain, absorbed = (
        Loop("small", Rung(attention="fused", optimizer="fused", implementation=side), "cpu")
        for side in ("materialised", "absorbed")
    )
    note("step of small, absorbed", ratio(lambda: plain.step(0), lambda: absorbed.step(0), 2))
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(Path(folder) / "random.zarr", 64)
        loaded = batches(store, batch=8, memory_mebibytes=0)
        train = trainer(store, next(loaded))
        note("training on a batch, loading it", ratio(train, lambda: next(loaded)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--keep", action="store_true", help="keep the ratios as those to compare with"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure()
    if options.keep:
        write_json(KEPT, {"benchmark": "bench", "machine": provenance(), "ratios": found})
        return
    kept = json.loads(KEPT.read_text())["ratios"]
    worse = [name for name, value in found.items() if value < ALLOWED * kept.get(name, 0)]
    for name in worse:
        print(f"WORSE {name}: {found[name]:.2f}, kept {kept[name]:.2f}")
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
