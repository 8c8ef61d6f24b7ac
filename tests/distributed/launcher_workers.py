"""What ranks do in the tests of `rank_launcher`."""

import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.parallel.mesh import build_mesh


def state() -> dict[str, Any]:
    """What a call finds on a rank, and its process."""
    return {
        "process": os.getpid(),
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "groups": len(dist.distributed_c10d._world.pg_map),
        "gloo threads": len(list(Path("/proc/self/task").glob("*"))),
        "drawn": (float(torch.rand(())), np.random.rand(), random.random()),
    }


def disturb(folder: str) -> list[float]:
    """Change whatever a call can change, and compute on a mesh."""
    mesh = build_mesh(ParallelConfig(tp=2, fsdp=1), 2, "cpu")
    total = torch.ones(1)
    dist.all_reduce(total, group=mesh.get_group("tp"))
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    os.environ["LEFT_BEHIND"] = "1"
    os.chdir(folder)
    return total.tolist()


def on_rank_1(does: str) -> None:
    """Let the second rank fail or end, while the first one waits for it."""
    if dist.get_rank() == 1:
        if does == "raise":
            raise ValueError("a rank's own error")
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()
