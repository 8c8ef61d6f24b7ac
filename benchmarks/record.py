"""What every benchmark has in common: where it ran, how two sides are compared and kept.

Times are taken alternately, one side after the other in one process, so that whatever else the
machine does meets both; the ratio is that of the medians. CPU time is kept beside wall time: on a
machine that is shared it tells more.
"""

from __future__ import annotations

import datetime
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def provenance() -> dict[str, Any]:
    """Say on what machine, with which code and when a benchmark runs."""
    return {
        "cpu": _cpu_model(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def alternate(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, Any]]:
    """Time each side `rounds` times, in turn, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in sides}
    for counted in [False, *[True] * rounds]:
        for name, run in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if counted:
                seconds[name].append(time.perf_counter() - wall)
                cpu_seconds[name].append(time.process_time() - cpu)
    return {
        name: {"seconds": spread(seconds[name]), "cpu_seconds": spread(cpu_seconds[name])}
        for name in sides
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest of repeated measurements, and their number."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "rounds": len(values),
    }


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Keep a result, with a line break at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """Return the commit, marked where tracked files differ from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
