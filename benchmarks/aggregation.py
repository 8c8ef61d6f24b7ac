"""The absorbed channel aggregation against the materialised one: time and peak memory of a step.

A step is one forward and one backward pass of the channel stage (tokenizer and aggregation) in
float32, all parameters receiving gradients, the pixels none, as in training.

Time: both sides alternately in one process, median of several rounds after one that does not
count. Peak memory: each side in a process of its own, the peak of resident memory during one step
(VmHWM, reset before the step) over what was resident before it; inputs and parameters are there
before and do not count, gradients do. A step of few pixels goes first, which loads the libraries.
Linux alone.

`--reference multihead` compares with `torch.nn.MultiheadAttention` over materialised tokens
instead of our own materialised implementation (kind `single` alone).

    python benchmarks/aggregation.py --json benchmarks/results/aggregation.json
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from record import alternate, provenance, write_json
from torch import Tensor, nn

from sciml_dchag.models.aggregation import ChannelAggregation


class MultiheadReference(nn.Module):
    """The same function in torch's own attention: one token a channel, one query."""

    def __init__(self, ours: ChannelAggregation, heads: int) -> None:
        super().__init__()
        self.tokenizer, attention = ours.tokenizer, ours.partial
        self.query = nn.Parameter(attention.query.detach().clone())
        dim = self.query.shape[-1]
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        weights = (attention.query_weight, attention.key_weight, attention.value_weight)
        with torch.no_grad():
            self.attention.in_proj_weight.copy_(torch.cat([w[0].t() for w in weights]))
            self.attention.out_proj.weight.copy_(attention.output_weight[0].t())

    def forward(self, x_BLCP: Tensor) -> Tensor:
        """Aggregate: (B, L, C, P) -> (B, L, D)."""
        tokens = torch.einsum("blcp,cpd->blcd", x_BLCP, self.tokenizer.weight[0])
        tokens = tokens + (self.tokenizer.bias + self.tokenizer.channel_embedding)[0]
        tokens_NCD = tokens.flatten(0, 1)
        query = self.query.expand(len(tokens_NCD), 1, -1)
        out = self.attention(query, tokens_NCD, tokens_NCD, need_weights=False)[0]
        return out.view(*x_BLCP.shape[:2], -1)


def build(side: str, options: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    single = options.kind == "single"
    module = ChannelAggregation(
        channels=options.channels,
        patch_pixels=options.patch**2,
        embed_dim=options.embed_dim,
        heads=options.heads,
        kind=options.kind,
        partitions=1 if single else options.partitions,
        implementation="materialised" if side == "materialised" else "absorbed",
    )
    return MultiheadReference(module, options.heads) if side == "multihead" else module


def step(module: nn.Module, x_BLCP: Tensor) -> Callable[[], None]:
    def run() -> None:
        module.zero_grad(set_to_none=True)
        module(x_BLCP).square().mean().backward()

    return run


def pixels(options: argparse.Namespace, locations: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, locations, options.channels, options.patch**2, generator=generator)


def peak_mebibytes(side: str, options: argparse.Namespace) -> float:
    """Measure one step's peak over what was resident before; for a process of its own."""
    module, x = build(side, options), pixels(options, options.locations)
    step(module, pixels(options, 2))()
    module.zero_grad(set_to_none=True)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to what is resident now
    before = status_kibibytes("VmRSS")
    step(module, x)()
    return (status_kibibytes("VmHWM") - before) / 1024


def status_kibibytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field + ":")).split()[1])


def peak_in_child(side: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", side]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kind", default="single", choices=["single", "dchag-c", "dchag-l"])
    parser.add_argument(
        "--reference", default="materialised", choices=["materialised", "multihead"]
    )
    parser.add_argument("--channels", type=int, default=80)
    parser.add_argument("--embed-dim", type=int, default=512)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--locations", type=int, default=2048, help="batch times locations")
    parser.add_argument("--patch", type=int, default=4)
    parser.add_argument("--partitions", type=int, default=4, help="of dchag-c and dchag-l")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)  # what a child process is asked
    options = parser.parse_args()
    if options.reference == "multihead" and options.kind != "single":
        parser.error("--reference multihead is for --kind single.")
    return options


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.peak_of:
        print(peak_mebibytes(options.peak_of, options))
        return
    names = (options.reference, "absorbed")
    x = pixels(options, options.locations)
    sides = alternate({name: step(build(name, options), x) for name in names}, options.rounds)
    for name in names:
        sides[name]["peak_mebibytes"] = peak_in_child(name)
    reference, absorbed = (sides[name] for name in names)
    ratio = {
        "seconds": reference["seconds"]["median"] / absorbed["seconds"]["median"],
        "cpu_seconds": reference["cpu_seconds"]["median"] / absorbed["cpu_seconds"]["median"],
        "peak_memory": reference["peak_mebibytes"] / absorbed["peak_mebibytes"],
    }
    machine = provenance()
    print(f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}")
    for name, side in sides.items():
        s, cpu = side["seconds"], side["cpu_seconds"]["median"]
        print(
            f"{name:13s} {s['median']:7.3f} s ({s['min']:.3f} to {s['max']:.3f}), "
            f"CPU time {cpu:7.3f} s, peak memory {side['peak_mebibytes']:6.0f} MiB"
        )
    if options.json:
        settings = {k: v for k, v in vars(options).items() if k not in ("json", "peak_of")}
        result = {"benchmark": "aggregation", "settings": settings, "machine": machine}
        write_json(options.json, {**result, "sides": sides, "ratio": ratio})
    print(
        f"ratio: {ratio['seconds']:.1f} times faster ({ratio['cpu_seconds']:.1f} in CPU time), "
        f"{ratio['peak_memory']:.1f} times less peak memory"
    )


if __name__ == "__main__":
    main()
