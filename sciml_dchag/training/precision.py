"""What products are computed in, and how small gradients survive it: autocast and loss scaling."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from sciml_dchag.config import TrainingConfig
from sciml_dchag.config.parts import matching
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import build_model
from sciml_dchag.parallel.exact import keep_exact, may_be_exact

MOST_SCALE = 2.0**48
LEAST_SCALE = 2.0**-24
"""Beyond these no loss scale helps."""
ENOUGH = 2.0**10
"""A scaled gradient of this norm has few elements that float16 keeps subnormal: a millionth of its
square is that of a number near one. No element is larger than the norm, so that none overflows."""


def compute_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return what products are computed in, if not in the parameters' own precision."""
    if precision == "float16":
        return torch.float16
    use = precision == "bfloat16" or (precision == "auto" and device.type != "cpu")
    return torch.bfloat16 if use else None


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context that forward passes run in."""
    dtype = compute_dtype(precision, device)
    if dtype is None:
        return contextlib.nullcontext()
    # Every weight is used once a forward pass: a cache of their casts would only hold memory.
    return torch.autocast(device.type, dtype=dtype, cache_enabled=False)


def exact_modules(config: ModelConfig, training: TrainingConfig) -> frozenset[str]:
    """Return the names of the modules that a recipe keeps in float32.

    Raises:
        ValueError: a pattern of `training.float32_modules` matches none.
    """
    if not training.float32_modules:
        return frozenset()
    with torch.device("meta"):
        names = may_be_exact(build_model(config))
    key = "training.float32_modules"
    return frozenset(
        name
        for pattern in training.float32_modules
        for name in matching(pattern, names, key, what="module")
    )


def keep_as_trained(model: nn.Module, config: ModelConfig, training: TrainingConfig) -> None:
    """Let a trained model, built for predictions, keep in float32 what its training kept."""
    keep_exact(model, exact_modules(config, training))


class LossScale:
    """What the mean loss is multiplied by before its gradient is taken in float16.

    Gradients smaller than 2^-25 are zero in float16, larger ones than 65504 infinite (Micikevicius
    et al. 2018, arXiv 1710.03740). The scale is a power of two, so that it changes no digit: halved
    when the gradient's norm is not finite, which skips the step, and doubled after so many steps
    without that. The norm is that of all ranks, so that all have the same scale. It also tells how
    far a first scale is from a good one, which depends on the number of pixels and channels that a
    mean goes over: up to the first overflow the scale is doubled after each step whose scaled norm
    is below `ENOUGH`.

    Args:
        config: precision, first scale, and steps after which it is doubled.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.on = config.precision == "float16"
        self.value = config.loss_scale if self.on else 1.0
        self.steps, self.overflows = 0, 0
        """Steps since it was changed; steps so far that overflowed."""
        self._growth = config.loss_scale_steps

    def passed(self, norm: float) -> None:
        """Take note of a step whose gradient had a finite norm, at a scale of 1."""
        self.steps += 1
        small = not self.overflows and norm * self.value < ENOUGH
        if self._growth and (small or self.steps >= self._growth):
            self.value, self.steps = min(2 * self.value, MOST_SCALE), 0

    def overflowed(self) -> bool:
        """Halve after a gradient that was not finite; say whether another step is worth trying."""
        self.value, self.steps = self.value / 2, 0
        self.overflows += 1
        return self.on and self.value >= LEAST_SCALE
