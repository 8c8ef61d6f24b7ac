"""What the benchmarks share: the machine, paired timing, peak memory, and the result file."""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Make a parser with `--json` and `--threads`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here too")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default 2)")
    return parser


def machine() -> dict[str, Any]:
    """Describe what a figure was measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [ln for ln in cpuinfo.read_text().splitlines() if ln.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit,
        "date": datetime.date.today().isoformat(),
    }


def alternate(
    sides: dict[str, Callable[[], object]], repeats: int, *, warm_up: int = 1
) -> dict[str, list[float]]:
    """Time several functions in turn, so that a change of the machine's load meets all of them.

    Returns:
        Wall seconds of each repeat by side, the warm-up left out.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(-warm_up, repeats):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {
        "median": statistics.median(seconds),
        "min": min(seconds),
        "max": max(seconds),
    }


def peak_memory(run: Callable[..., None], *args: object) -> float:
    """Bytes by which a call raises a fresh process's peak resident memory, as the kernel counts.

    `run` receives `args` and a function to call once everything that is not to count is in
    place; that resets the peak.
    """
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    process = context.Process(target=_measured, args=(queue, run, args))
    process.start()
    result = queue.get(timeout=600)
    process.join()
    return float(result)


def _measured(queue: Any, run: Callable[..., None], args: tuple[object, ...]) -> None:
    base: list[int] = []

    def ready() -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
        base.append(_status("VmRSS"))

    run(*args, ready)
    queue.put(_status("VmHWM") - base[0])


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(ln for ln in lines if ln.startswith(field)).split()[1])


def write(result: dict[str, Any], path: Path | None) -> None:
    """Write the result with the machine it was measured on."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**result, "machine": machine()}, indent=2) + "\n")
