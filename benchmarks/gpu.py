"""The channel stage and the whole training step on one accelerator, beside what it can do at most.

What the card does at most is measured first: a product of two matrices in bfloat16, and a copy.
Then, at each size, the channel stage by itself (forward and backward pass, pixels in bfloat16,
parameters float32, no gradient of the pixels) in both implementations, and the training step of a
forecaster (forward and backward pass, fused AdamW), with tokens a second and the share of the
measured product rate that the step's own products reach. `products` are those that the stage needs
whatever the form: pixels times values forward and twice backward (`three products`), and beside
them the maps that are formed, output projections and the attention over partitions.

Times are medians of events on the device after three warm-up rounds, implementations in turn. A
stage by itself is shorter than launching it: its time is taken with the processor ahead, as it is
within a long step, and beside it with the launches that a stage alone would wait for. A step's time
has its launches. What does not fit is left out.

    python benchmarks/gpu.py --json benchmarks/results/gpu/NAME.json
"""

from __future__ import annotations

import argparse
import gc
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from paper import planned_peak
from record import provenance, write_json
from torch.utils.flop_counter import FlopCounterMode

from sciml_dchag.config.common import TrainingConfig
from sciml_dchag.models.aggregation import ChannelAggregation
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import build_model
from sciml_dchag.objectives.forecast import planned_loss
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.planning.step import simulate_step
from sciml_dchag.training.optim import ShardedAdamW

STAGES = [  # channels, embedding, heads, rows, pixels of a patch
    (80, 512, 8, 8192, 4),
    (80, 1024, 16, 4096, 16),
    (128, 2048, 32, 4096, 16),
    (500, 512, 8, 4096, 16),
    (512, 2048, 32, 4096, 16),
    (1024, 2048, 32, 4096, 16),
]
STEPS = [  # name, embedding, depth, heads, channels, image, patch, batch
    ("small", 512, 8, 8, 80, (128, 256), 4, 4),
    ("base", 1024, 12, 16, 80, (128, 256), 4, 2),
    ("1p7b", 2048, 32, 32, 128, (128, 256), 4, 2),
    ("1p7b", 2048, 32, 32, 512, (128, 256), 4, 2),
    ("1p7b", 2048, 32, 32, 1024, (128, 256), 4, 2),
]
KINDS = ("single", "dchag-c", "dchag-l")
PARTITIONS = 4


def milliseconds(
    runs: dict[str, Callable[[], object]], rounds: int, ahead: bool = True
) -> dict[str, dict[str, float]]:
    """Time each in turn on the device, after three rounds that do not count."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 3):
        for name, run in runs.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            if ahead:
                torch.cuda._sleep(50_000_000)  # about 30 ms, in which the processor gets ahead
            start.record()
            run()
            end.record()
            torch.cuda.synchronize()
            if number >= 3:
                found[name].append(start.elapsed_time(end))
    return {
        name: {"median": statistics.median(v), "min": min(v), "max": max(v), "rounds": len(v)}
        for name, v in found.items()
    }


def card() -> dict[str, Any]:
    """Name the card and measure what it does at most."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    take = torch.empty(2**31, device="cuda", dtype=torch.uint8)
    put = torch.empty_like(take)
    found = milliseconds({"product": lambda: a @ b, "copy": lambda: put.copy_(take)}, 10)
    return {
        "card": torch.cuda.get_device_name(),
        "product_flops": 2 * 8192**3 / found["product"]["median"] * 1e3,
        "copied_bytes_a_second": 2 * 2**31 / found["copy"]["median"] * 1e3,
    }


def forget() -> None:
    """Give the card's memory back."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def stage_products(C: int, D: int, N: int, P: int, kind: str) -> tuple[float, float]:
    """FLOPs of the three products of pixels, and of all that the stage needs."""
    three = 3 * 2.0 * N * C * P * D
    projections = 3 * 2.0 * N * D * D * (PARTITIONS if kind == "dchag-c" else 1)
    maps = 0.0 if kind == "dchag-l" else 3 * 2.0 * C * P * D * D
    final = 0.0 if kind == "single" else 3 * 2.0 * N * D * D * (2 if kind == "dchag-c" else 1)
    return three, three + projections + maps + final


def measure_stage(case: tuple[int, ...], kind: str, rate: float, rounds: int) -> dict[str, Any]:
    """Time the channel stage in both implementations."""
    C, D, h, N, P = case
    x = torch.randn(1, N, C, P, device="cuda")
    runs: dict[str, Callable[[], object]] = {}
    peaks: dict[str, float] = {}
    for implementation in ("absorbed", "materialised"):
        torch.manual_seed(0)
        module = ChannelAggregation(
            channels=C, patch_pixels=P, embed_dim=D, heads=h, kind=kind,
            partitions=1 if kind == "single" else PARTITIONS, implementation=implementation,
        ).to("cuda")  # fmt: skip

        def run(module: ChannelAggregation = module) -> None:
            module.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16):
                out = module(x)
            out.float().square().mean().backward()

        forget()
        before = torch.cuda.memory_allocated()
        try:
            run()
        except torch.OutOfMemoryError:
            continue
        finally:
            module.zero_grad(set_to_none=True)
        peaks[implementation] = (torch.cuda.max_memory_allocated() - before) / 2**30
        runs[implementation] = run
    forget()
    times, launched = milliseconds(runs, rounds), milliseconds(runs, rounds, ahead=False)
    three, needed = stage_products(C, D, N, P, kind)
    floor = needed / rate * 1e3
    return {
        "channels": C, "embed_dim": D, "heads": h, "rows": N, "patch_pixels": P, "kind": kind,
        "milliseconds": times, "milliseconds_with_launches": launched, "peak_gibibytes": peaks,
        "three_products_ms": three / rate * 1e3,
        "products_ms": floor, "times_products": times["absorbed"]["median"] / floor,
    }  # fmt: skip


def measure_step(case: tuple[Any, ...], kind: str, rate: float, rounds: int) -> dict[str, Any]:
    """Time the training step of a forecaster, and compare its memory with the planner's."""
    name, D, depth, heads, channels, image, patch, batch = case
    inputs = tuple(f"c{i}" for i in range(channels))
    config = ModelConfig(
        embed_dim=D, depth=depth, heads=heads, patch=patch, aggregation=kind,
        partitions=1 if kind == "single" else PARTITIONS, image_size=image,
        input_channels=inputs, output_channels=inputs,
    )  # fmt: skip
    forget()
    with torch.device("cuda"):
        model = build_model(config)
    optimizer = ShardedAdamW(model, TrainingConfig())
    x = torch.randn(batch, channels, *image, device="cuda")
    hours = torch.full((batch,), 6.0, device="cuda")

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            out = model(x, hours)
        (out.float() - x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    with FlopCounterMode(display=False) as counter:
        step()
    flops = counter.get_total_flops()
    forget()
    times = milliseconds({"step": step}, rounds, ahead=False)["step"]
    peak = torch.cuda.max_memory_allocated() / 2**30
    reserved = torch.cuda.max_memory_reserved() / 2**30
    seconds = times["median"] / 1e3
    locations = image[0] * image[1] // patch**2
    planned = None
    if name == "1p7b" and kind == "dchag-c":
        alone = ParallelConfig(dp=1, fsdp=1, tp=1)
        planned = planned_peak(
            simulate_step(config, alone, loss=planned_loss, samples=batch, precision=torch.bfloat16)
        )
    result = {
        "model": name, "channels": channels, "batch": batch, "kind": kind,
        "parameters": sum(p.numel() for p in model.parameters()), "milliseconds": times,
        "tokens_a_second": batch * locations / seconds,
        "channel_patches_a_second": batch * locations * channels / seconds,
        "flops": flops, "share_of_product_rate": flops / seconds / rate,
        "peak_gibibytes": peak, "planned_gibibytes": planned and planned / 2**30,
        "reserved_gibibytes": reserved,
    }  # fmt: skip
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=["stages", "steps"])
    options = parser.parse_args()
    torch.manual_seed(0)
    found = card()
    rate = found["product_flops"]
    print(
        f"{found['card']}, torch {torch.__version__}: products {rate / 1e12:.0f} TFLOP/s, "
        f"copies {found['copied_bytes_a_second'] / 1e12:.2f} TB/s"
    )
    result: dict[str, Any] = {
        "benchmark": "gpu",
        "machine": provenance(),
        **found,
        "stages": [],
        "steps": [],
    }
    for case in STAGES if options.only != "steps" else []:
        for kind in KINDS:
            row = measure_stage(case, kind, rate, options.rounds)
            result["stages"].append(row)
            ms = {name: round(t["median"], 3) for name, t in row["milliseconds"].items()}
            print(
                f"stage {case} {kind}: {ms} ms, products {row['products_ms']:.3f} ms "
                f"(three {row['three_products_ms']:.3f}), {row['times_products']:.2f} times; GiB "
                f"{ {k: round(v, 2) for k, v in row['peak_gibibytes'].items()} }",
                flush=True,
            )
    for case in STEPS if options.only != "stages" else []:
        for kind in KINDS:
            row = measure_step(case, kind, rate, options.rounds)
            result["steps"].append(row)
            print(
                f"step {row['model']} {row['channels']} channels {kind}: "
                f"{row['milliseconds']['median']:.1f} ms, {row['tokens_a_second']:.0f} tokens/s, "
                f"{row['share_of_product_rate']:.1%} of the product rate, peak "
                f"{row['peak_gibibytes']:.1f} GiB",
                flush=True,
            )
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
