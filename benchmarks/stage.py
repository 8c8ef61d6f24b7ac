"""The channel stage on a CPU: plain torch, compiled by Numba, and the bare products that it needs.

Forward and backward in float32 on one thread, all in turn in one process, CPU time. The products
are plain ones of torch: three of the pixels, three that form the maps once a step (not `dchag-l`),
and three for the output of each partition's attention, and for value and output of the last one.

    python benchmarks/stage.py --shapes 0 2 --rounds 3
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from record import alternate, provenance

from sciml_dchag.models import absorbed
from sciml_dchag.models.aggregation import ChannelAggregation

SHAPES = [(80, 512, 2048, 4), (500, 512, 1024, 4), (80, 1024, 1024, 2), (1024, 2048, 512, 4)]
"""Channels, embedding, locations and side of a patch."""
PARTITIONS = {"single": 1, "dchag-c": 4, "dchag-l": 4}


def products(rows: int, inner: int, columns: int) -> Callable[[], object]:
    """Return a product and those of its two gradients."""
    a, b = torch.randn(rows, inner), torch.randn(inner, columns)
    grad = torch.randn(rows, columns)
    return lambda: (a @ b, a.t() @ grad, grad @ b.t())


def stage(kind: str, shape: tuple[int, int, int, int], compiled: bool) -> Callable[[], object]:
    """Return a forward and backward pass of the channel stage."""
    channels, embed_dim, locations, patch = shape
    torch.manual_seed(0)
    module = ChannelAggregation(
        channels=channels, patch_pixels=patch**2, embed_dim=embed_dim, heads=16, kind=kind,
        partitions=PARTITIONS[kind],
    )  # fmt: skip
    x = torch.randn(1, locations, channels, patch**2)

    def run() -> None:
        absorbed.WORTH_LOADING = 2**27 if compiled else 2**62
        module.zero_grad(set_to_none=True)
        module(x).square().mean().backward()

    return run


def measure(shape: tuple[int, int, int, int], rounds: int) -> None:
    """Print what the stage takes of each kind, in milliseconds and over its products."""
    channels, D, N, patch = shape
    pixels = channels * (patch**2 + 1)
    sizes = {"pixels": (N, pixels, D), "maps": (pixels, D, D), "output": (N, D, D)}
    sides = {name: products(*size) for name, size in sizes.items()}
    for kind in PARTITIONS:
        for name, compiled in (("torch", False), ("numba", True)):
            sides[f"{kind} {name}"] = stage(kind, shape, compiled)
    took = {k: 1e3 * v["cpu_seconds"]["min"] for k, v in alternate(sides, rounds).items()}
    print(shape, *(f"{name} {took[name]:.0f} ms" for name in ("pixels", "maps", "output")))
    for kind, partitions in PARTITIONS.items():
        outputs = {"single": 1, "dchag-c": partitions + 2, "dchag-l": 2}[kind]
        maps = 0 if kind == "dchag-l" else took["maps"]
        all_products = took["pixels"] + maps + outputs * took["output"]
        for name in ("torch", "numba"):
            ms = took[f"{kind} {name}"]
            print(
                f"  {kind} {name}: {ms:.0f} ms, {ms / all_products:.2f} of all products, "
                f"{ms / took['pixels']:.2f} of those of the pixels"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shapes", type=int, nargs="+", default=[0, 1, 2], help="of SHAPES")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(provenance())
    for index in options.shapes:
        measure(SHAPES[index], options.rounds)


if __name__ == "__main__":
    main()
