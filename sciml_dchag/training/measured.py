"""Measures what a recipe's training steps take on this machine, as it says and with one change."""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sciml_dchag.files.resumable import Progress
from sciml_dchag.parallel.runtime import Ranks, joined, started_ranks
from sciml_dchag.training.batches import load_batches
from sciml_dchag.training.control import read_base
from sciml_dchag.training.loop import TrainingLoop
from sciml_dchag.training.optim import learning_rate
from sciml_dchag.training.task import Task

CHANGES: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "as the recipe says": {},
    "products in float32": {"training": {"precision": "float32"}},
    "products in bfloat16": {"training": {"precision": "bfloat16"}},
    "products in float16": {"training": {"precision": "float16"}},
    "tokens of all channels formed": {"model": {"implementation": "materialised"}},
    "blocks compiled": {"parallel": {"compile": True}},
    "blocks recomputed selectively": {"parallel": {"activation_checkpointing": "selective"}},
    "blocks recomputed": {"parallel": {"activation_checkpointing": "blocks"}},
    "one sample at a time": {"training": {"micro_batch": 1}},
}
"""A recipe, and one change each to how fast it trains and not to what it learns."""
WARM_UP = 3
"""Steps that do not count: the first load libraries and tune kernels."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What some steps took."""

    samples_per_second: float
    """From the median step."""
    seconds: tuple[float, float]
    """Of the fastest step, and of the slowest."""
    loss: float
    """Of the last step; steps are the same whatever the change."""
    peak_bytes: int | None
    """Allocated on the accelerator at the worst moment; None on a CPU."""


def measure(task: Task[Any], steps: int, progress: Progress | None = None) -> Measured:
    """Train some steps from the start and time them; nothing is written.

    Args:
        task: of the recipe; its store must exist.
        steps: that count; a few more come first.
        progress: called for each step.

    Raises:
        ValueError: torchrun has started several processes, or what the recipe asks for is not
            possible.
        FloatingPointError: a loss is not finite.
    """
    if started_ranks() > 1:
        raise ValueError(
            "Steps are measured on one process, and torchrun has started several: start it "
            "without torchrun."
        )
    config = task.recipe.training
    with joined(task.recipe.parallel) as ranks, _peak_of(ranks) as peak:
        store = task.open()
        base = read_base(store.model_config()) if task.recipe.model.control.base else None
        loop = TrainingLoop(task.recipe, store, ranks, base)
        batches = load_batches(
            loop.data.samples, batch=config.batch, own=loop.own_samples, first_step=0,
            last_step=WARM_UP + steps, workers=0,
        )  # fmt: skip
        seconds, loss = [], math.nan
        for number, batch in enumerate(batches, start=1):
            since = time.perf_counter()
            found, *_ = loop.take_step(batch, learning_rate(config, loop.step), None, watched=False)
            _wait_for(ranks)
            seconds.append(time.perf_counter() - since)
            loss = found.get("loss", loss)
            if progress is not None:
                progress(number, WARM_UP + steps, "steps")
        counted = seconds[WARM_UP:]
        return Measured(
            samples_per_second=config.batch / statistics.median(counted),
            seconds=(min(counted), max(counted)), loss=loss, peak_bytes=peak(),
        )  # fmt: skip


def _wait_for(ranks: Ranks) -> None:
    if ranks.device.type != "cpu":
        torch.accelerator.synchronize()


@contextlib.contextmanager
def _peak_of(ranks: Ranks) -> Iterator[Any]:
    """Give what is allocated at the worst moment of a context, and the memory back after it."""
    on_cuda = ranks.device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    yield lambda: torch.cuda.max_memory_allocated() if on_cuda else None
    gc.collect()
    if on_cuda:
        torch.cuda.empty_cache()
