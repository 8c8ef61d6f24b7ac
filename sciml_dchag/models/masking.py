"""Softmax over what is there, and its logarithm of sums."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_softmax(scores: Tensor, mask: Tensor | None, dim: int) -> Tensor:
    """Softmax over the True entries of a mask; all zero where there is none.

    At least float32, whatever the scores' precision.
    """
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if mask is None:
        return scores.softmax(dim)
    # The finite minimum, not -inf: a row without any channel must not become NaN.
    attention = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim)
    return attention.masked_fill(~mask, 0.0)


def masked_logsumexp(scores: Tensor, mask: Tensor | None, dim: int) -> Tensor:
    """Logarithm of the sum that `masked_softmax` divides by; very negative where all is masked."""
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.logsumexp(dim)
