"""What each way of training faster brings: one rung after the other, and each by itself.

From a plain loop (float32, attention written out, an optimizer that goes through the parameters one
by one, tokens of all channels formed) one change is added at a time; beside that each change is
made to the plain loop alone. Of every rung: samples a second, the share of the machine's measured
rate of products (in the rung's own precision), peak memory, and the loss after 20 steps on the same
batches from the same start, as a part of the plain loop's: a rung that changes the answer shows it.

Beside it stand the figures of Meta's study of training vision transformers in PyTorch on 8 A100 and
more, which are theirs and not measured here: 1.51 times the samples a second of DDP in float32 at
224 pixels with FSDP, 16 bits and other changes together, 1.86 at 256 pixels, 2.18 in full float16,
1.83 at 64 GPUs.

    python benchmarks/ladder.py --size base --json benchmarks/results/ladder/NAME.json
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import provenance, spread, write_json
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import build_model
from sciml_dchag.parallel.apply import parallelize
from sciml_dchag.parallel.config import ParallelConfig

SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(embed_dim=64, depth=2, heads=2, channels=16, image=(16, 32), patch=4, batch=4),
    "small": dict(embed_dim=512, depth=4, heads=8, channels=80, image=(32, 64), patch=2, batch=4),
    "base": dict(
        embed_dim=1024, depth=12, heads=16, channels=80, image=(128, 256), patch=4, batch=2
    ),
}
STEPS = 20
STUDY = {
    "DDP float32 to all changes, 224 pixels": 1.51,
    "the same at 256 pixels": 1.86,
    "the same in full float16": 2.18,
    "on 64 GPUs": 1.83,
}


@dataclasses.dataclass(frozen=True)
class Rung:
    """How a loop trains; the defaults are the plain one."""

    attention: str = "written out"
    optimizer: str = "one by one"
    implementation: str = "materialised"
    precision: str = "float32"
    recomputation: str = "none"
    compiled: bool = False


CHANGES: dict[str, dict[str, Any]] = {
    "attention fused (SDPA)": {"attention": "fused"},
    "AdamW foreach": {"optimizer": "foreach"},
    "AdamW fused": {"optimizer": "fused"},
    "channel stage absorbed": {"implementation": "absorbed"},
    "bfloat16 autocast": {"precision": "bfloat16"},
    "blocks compiled": {"compiled": True},
    "blocks recomputed, selectively": {"recomputation": "selective"},
    "blocks recomputed": {"recomputation": "blocks"},
}
CLIMBED = list(CHANGES)[:6]
"""Changes that the ladder keeps; the others save memory, and are measured on its top."""


class Loop:
    """A model that trains as a rung says, on the same batches whatever the rung."""

    def __init__(self, size: str, rung: Rung, device: str) -> None:
        shape = SIZES[size]
        names = tuple(f"c{i}" for i in range(shape["channels"]))
        config = ModelConfig(
            embed_dim=shape["embed_dim"], depth=shape["depth"], heads=shape["heads"],
            patch=shape["patch"], image_size=shape["image"], aggregation="dchag-c", partitions=4,
            implementation=rung.implementation, dropout=0.0,
            input_channels=names, output_channels=names,
        )  # fmt: skip
        self.rung, self.device, self.batch = rung, device, shape["batch"]
        self.model: nn.Module = build_model(config, seed=0).to(device)
        options = ParallelConfig(compile=rung.compiled, activation_checkpointing=rung.recomputation)
        parallelize(self.model, None, options)
        how = {
            "one by one": {"foreach": False},
            "foreach": {"foreach": True},
            "fused": {"fused": True},
        }
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=1e-4,
            **how[rung.optimizer],  # type: ignore[arg-type]
        )
        generator = torch.Generator().manual_seed(1)
        smooth = torch.randn(STEPS, self.batch, 1, *shape["image"], generator=generator)
        noise = torch.randn(STEPS, self.batch, len(names), *shape["image"], generator=generator)
        self.x = (smooth + 0.3 * noise).to(device)
        self.target = smooth.roll(1, -1).to(device)
        self.hours = torch.full((self.batch,), 6.0, device=device)

    def step(self, number: int) -> Tensor:
        """Train on a batch, and return its loss."""
        cast: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if self.rung.precision != "float32":
            dtype = getattr(torch, self.rung.precision)
            cast = torch.autocast(self.device, dtype, cache_enabled=False)
        written_out = sdpa_kernel(SDPBackend.MATH)
        with written_out if self.rung.attention == "written out" else contextlib.nullcontext():
            with cast:
                out = self.model(self.x[number % STEPS], self.hours)
            loss = (out.float() - self.target[number % STEPS]).square().mean()
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def product_rate(precision: str, device: str) -> float:
    """Measure the FLOP/s of a product of two matrices."""
    n = 8192 if device != "cpu" else 1024
    a, b = (torch.randn(n, n, device=device, dtype=getattr(torch, precision)) for _ in range(2))
    return 2 * n**3 / min(seconds_of(lambda: a @ b, device) for _ in range(5))


def seconds_of(run: Callable[[], object], device: str) -> float:
    synchronize(device)
    since = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - since


def measure(size: str, rung: Rung, device: str, rounds: int) -> dict[str, Any]:
    """Train 20 steps, which warm up too, then time steps."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    loop = Loop(size, rung, device)
    loss = float([loop.step(number) for number in range(STEPS)][-1])
    flops = 0
    if not rung.compiled:
        with FlopCounterMode(display=False) as counter:
            loop.step(0)
        flops = counter.get_total_flops()
    times = [seconds_of(lambda: loop.step(0), device) for _ in range(rounds)]
    return {
        "rung": dataclasses.asdict(rung), "loss": loss, "seconds": spread(times), "flops": flops,
        "samples_a_second": loop.batch / spread(times)["median"],
        "peak_gibibytes": None if device == "cpu" else torch.cuda.max_memory_allocated() / 2**30,
    }  # fmt: skip


def rungs() -> dict[str, Rung]:
    """All that is measured: the ladder, each change alone, and what saves memory on its top."""
    found = {"plain": Rung()}
    top = Rung()
    for name in CLIMBED:
        top = dataclasses.replace(top, **CHANGES[name])
        found[f"+ {name}"] = top
    for name in CLIMBED:
        found[f"{name}, alone"] = dataclasses.replace(Rung(), **CHANGES[name])
    eager = dataclasses.replace(top, compiled=False)
    for name in CHANGES:
        if name not in CLIMBED:
            found[f"top without compilation, {name}"] = dataclasses.replace(eager, **CHANGES[name])
    return found


def say(name: str, row: dict[str, Any]) -> None:
    memory = "" if row["peak_gibibytes"] is None else f", {row['peak_gibibytes']:.1f} GiB"
    print(
        f"{name:45s} {row['samples_a_second']:8.2f} samples/s, {row['times_plain']:5.2f} times, "
        f"{row['share_of_product_rate']:5.1%} of the rate{memory}, "
        f"loss {row['loss_change']:+.1e}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rates = {p: product_rate(p, options.device) for p in ("float32", "bfloat16")}
    machine = provenance()
    if options.device != "cpu":
        machine["card"] = torch.cuda.get_device_name()
    print(machine.get("card", machine["cpu"]), *(f"{p} {r:.2e} FLOP/s" for p, r in rates.items()))
    found: dict[str, dict[str, Any]] = {}
    for name, rung in rungs().items():
        found[name] = row = measure(options.size, rung, options.device, options.rounds)
        plain = found["plain"]
        # What is compiled is not counted: as many as before it was.
        flops = row["flops"] or found.get("+ bfloat16 autocast", plain)["flops"]
        row["share_of_product_rate"] = flops / row["seconds"]["median"] / rates[rung.precision]
        row["times_plain"] = row["samples_a_second"] / plain["samples_a_second"]
        row["loss_change"] = row["loss"] / plain["loss"] - 1
        say(name, row)
    if options.json:
        settings = {"size": options.size, **SIZES[options.size], "steps": STEPS}
        result = {"benchmark": "ladder", "machine": machine, "settings": settings}
        result |= {"product_rates": rates, "rungs": found, "metas_study": STUDY}
        write_json(options.json, result)


if __name__ == "__main__":
    main()
