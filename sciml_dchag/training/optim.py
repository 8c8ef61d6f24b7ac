"""AdamW without decay on embeddings, norms and biases; warm-up and cosine."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from sciml_dchag.config import TrainingConfig


def decays(name: str) -> bool:
    """Say whether weight decay applies: to projection weights, not to embeddings, norms, biases.

    The learnt query of an aggregation is an embedding, too.
    """
    return not (
        "embedding" in name
        or "norm" in name
        or name.endswith(("bias", ".query", "partial.weight", "group_weight"))
    )


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Build AdamW (Loshchilov and Hutter 2019) with two groups of parameters."""
    named = list(model.named_parameters())
    groups = [
        {"params": [p for n, p in named if decays(n)], "weight_decay": config.weight_decay},
        {"params": [p for n, p in named if not decays(n)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)


def build_schedule(optimizer: torch.optim.Optimizer, config: TrainingConfig) -> LambdaLR:
    """Rise linearly over the warm-up, then fall as a cosine to the final rate at the last step."""
    floor = config.final_learning_rate / config.learning_rate

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    return LambdaLR(optimizer, factor)
