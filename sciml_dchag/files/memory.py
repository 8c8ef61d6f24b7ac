"""How much memory this process may take, and whether shared memory holds what loaders pass on."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

SHARED = Path("/dev/shm")
"""Where loader processes leave their batches on Linux."""


def memory_bytes() -> int:
    """Return the most memory that this process may take: the machine's, a container's, a limit."""
    bounds = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        bounds.append(limit)
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a bound
        bounds.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(bounds)


def in_gibibytes(size: float) -> str:
    """Return a number of bytes in words."""
    return f"{size / 2**30:.3g} GiB"


def require_shared_memory(needed: int, folder: Path = SHARED) -> None:
    """Refuse loader processes where shared memory does not hold their batches.

    Args:
        needed: bytes of the batches that wait at one time.
        folder: where shared memory lies.

    Raises:
        OSError: it is not there, not writable or too small.
    """
    if not sys.platform.startswith("linux"):
        return
    fix = "set data.workers to 0, or give the machine or container more shared memory"
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise OSError(f"Loader processes need {folder}, which cannot be written to: {fix}.")
    file_system = os.statvfs(folder)
    free = file_system.f_bavail * file_system.f_frsize
    if free < needed:
        raise OSError(
            f"{folder} has {free / 2**20:.3g} MiB left and loader processes (data.workers) need "
            f"{needed / 2**20:.3g} MiB for their batches: {fix}."
        )
