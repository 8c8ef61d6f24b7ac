"""The absorbed aggregation against the usual, materialised one: time and peak memory.

One forward and backward pass of the channel stage at the shape of the paper's weather model. Time:
both sides in turn in one process, after a warm-up; medians. Memory: each side in a fresh process,
by how much the pass raises its peak resident memory over what stands before (parameters, pixels).

    python benchmarks/aggregation.py --json benchmarks/results/aggregation.json
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from common import alternate, arguments, peak_memory, spread, write
from torch import Tensor, nn

from sciml_dchag.models.aggregation import ChannelAggregation

SHAPE = {"channels": 80, "embed_dim": 512, "heads": 16}
LOCATIONS, PATCH_PIXELS = 2048, 16


def build(kind: str, partitions: int, implementation: str) -> nn.Module:
    torch.manual_seed(0)
    return ChannelAggregation(
        **SHAPE, patch_pixels=PATCH_PIXELS, kind=kind, partitions=partitions,  # type: ignore[arg-type]
        implementation=implementation,  # type: ignore[arg-type]
    )  # fmt: skip


def pixels() -> Tensor:
    return torch.randn(16, LOCATIONS // 16, SHAPE["channels"], PATCH_PIXELS)


def one_pass(module: nn.Module, x: Tensor) -> Callable[[], None]:
    def run() -> None:
        module.zero_grad(set_to_none=True)
        module(x).square().sum().backward()

    return run


def memory_pass(
    kind: str, partitions: int, implementation: str, threads: int, ready: Callable[[], None]
) -> None:
    torch.set_num_threads(threads)
    module, x = build(kind, partitions, implementation), pixels()
    torch.randn(256, 256) @ torch.randn(256, 256)  # the libraries' own buffers
    run = one_pass(module, x)
    ready()
    run()


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--kind", choices=["single", "dchag-c", "dchag-l"], default="single")
    parser.add_argument("--partitions", type=int, default=4, help="of dchag-c and dchag-l")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    partitions = 1 if options.kind == "single" else options.partitions
    x = pixels()
    modules = {name: build(options.kind, partitions, name) for name in ("materialised", "absorbed")}
    outputs = [m(x).detach() for m in modules.values()]
    difference = float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max())
    seconds = alternate(
        {name: one_pass(module, x) for name, module in modules.items()}, options.repeats
    )
    result: dict[str, object] = {
        "shape": {**SHAPE, "locations": LOCATIONS, "patch_pixels": PATCH_PIXELS},
        "kind": options.kind,
        "partitions": partitions,
        "output_difference": difference,
    }
    peaks = {}
    for name in modules:
        peaks[name] = peak_memory(memory_pass, options.kind, partitions, name, options.threads)
        times = spread(seconds[name])
        result[name] = {"seconds": times, "peak_bytes": peaks[name]}
        print(
            f"{name:<13} {times['median']:.3f} s ({times['min']:.3f} to {times['max']:.3f}), "
            f"peak {peaks[name] / 1e6:.0f} MB"
        )
    faster = spread(seconds["materialised"])["median"] / spread(seconds["absorbed"])["median"]
    smaller = peaks["materialised"] / peaks["absorbed"]
    write({**result, "ratio_time": faster, "ratio_memory": smaller}, options.json)
    print(f"outputs differ by {difference:.1e} of the largest")
    print(f"absorbed is {faster:.1f} times faster and takes {smaller:.1f} times less memory")


if __name__ == "__main__":
    main()
