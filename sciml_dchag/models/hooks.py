"""Where `parallel.apply` reaches into a model, whose code is the same on one process and on many.

On one process both functions do nothing. What takes their place is `parallel.collectives`'.
"""

from __future__ import annotations

from torch import Tensor


def local(parameter: Tensor) -> Tensor:
    """Return what this process computes with: the whole parameter, or its shard of it."""
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def unchanged(x: Tensor) -> Tensor:
    """Return x: what a process that is alone does where several would communicate."""
    return x
