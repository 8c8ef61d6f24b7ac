"""Modules that compute in float32 where the others compute in 16 bits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

WRAPPED = "_checkpoint_wrapped_module"
"""Where a block lies that is recomputed."""


def may_be_exact(model: nn.Module) -> list[str]:
    """Names of the modules that are called by themselves, and of whom that can be asked.

    What lies within the channel stage or the head is not: they read their parts' parameters.
    """
    whole = ("aggregation", "control.aggregation", "head")
    return [
        name
        for name, module in model.named_modules()
        if name
        and not name.startswith(tuple(f"{stage}." for stage in whole))
        and not isinstance(module, nn.ModuleList)
    ]


def keep_exact(model: nn.Module, names: Collection[str]) -> None:
    """Let modules compute in float32 under autocast, whatever they are given.

    Args:
        model: on its ranks or not.
        names: of modules, as they are on one process; of `may_be_exact`.
    """
    for module in named_exactly(model, names):
        module.forward = partial(_exactly, module.forward)


def named_exactly(model: nn.Module, names: Collection[str]) -> Iterator[nn.Module]:
    """Find modules by the names that they have on one process, innermost first."""
    by_name = {name.replace(f".{WRAPPED}", ""): module for name, module in model.named_modules()}
    for name in sorted(names, key=lambda name: -name.count(".")):
        yield by_name[name]


def within(model: nn.Module, names: Collection[str]) -> set[int]:
    """Return the identities of modules of some names and of all that lie within them."""
    return {id(part) for module in named_exactly(model, names) for part in module.modules()}


def _exactly(forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    tensors = [value for value in given if isinstance(value, Tensor)]
    with torch.autocast(tensors[0].device.type, enabled=False):
        return forward(
            *map(_in_float32, given), **{key: _in_float32(value) for key, value in named.items()}
        )


def _in_float32(value: Any) -> Any:
    low = isinstance(value, Tensor) and value.is_floating_point() and value.itemsize < 4
    return value.float() if low else value
