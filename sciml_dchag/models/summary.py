"""An architecture in words: its parameters, and what they take of memory."""

from __future__ import annotations

import math

import torch

from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import build_model, count_parameters


def shape_in_words(config: ModelConfig) -> str:
    """Say what a model is made of, in a few words."""
    return (
        f"{config.aggregation}, {config.partitions} partition(s), {config.depth} blocks of "
        f"{config.embed_dim}, patch {config.patch}"
    )


def in_words(config: ModelConfig) -> str:
    """Say in a line how large a model is; nothing of it is allocated.

    Raises:
        ValueError: channels or image size are not set.
    """
    with torch.device("meta"):
        parameters = count_parameters(build_model(config))
    # Weights, gradients and AdamW's two moments, float32.
    gibibytes = 16 * parameters / 2**30
    locations = math.prod(config.image_size) // config.patch**2
    return (
        f"model: {parameters:,} parameters, {gibibytes:.2f} GiB with gradients and optimizer, "
        f"{len(config.input_channels)} channels in, {len(config.output_channels)} out, "
        f"{locations} locations"
    )
