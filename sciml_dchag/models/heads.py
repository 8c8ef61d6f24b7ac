"""From features to the pixels of every output channel.

Shapes: B batch, L locations, D width of the features, C output channels, P pixels of a patch,
G partitions, K channel slots of a partition.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sciml_dchag.models.hooks import local, unchanged
from sciml_dchag.models.layers import Linear
from sciml_dchag.models.tokenizer import ChannelLayout


class ChannelHead(nn.Module):
    """A linear map of its own for every output channel, from features to the pixels of a patch.

    Stacked along the channels' layout, (G, K, D, P), so that it splits by channel over ranks as
    the tokenizer does.
    """

    def __init__(
        self, *, channels: int, partitions: int, patch_pixels: int, embed_dim: int
    ) -> None:
        super().__init__()
        self.full_layout = ChannelLayout(channels, partitions, may_be_empty=True)
        self.layout = self.full_layout  # of this process's own partitions
        self.enter: Callable[[Tensor], Tensor] = unchanged
        stacked = (self.layout.partitions, self.layout.slots)
        self.weight = nn.Parameter(torch.empty(*stacked, embed_dim, patch_pixels))
        self.bias = nn.Parameter(torch.empty(*stacked, patch_pixels))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw start values, padding slots zero."""
        nn.init.trunc_normal_(self.weight, std=0.02)
        filled = self.layout.filled_GSK.flatten(1)[..., None, None]
        self.weight.mul_(filled.to(self.weight.device))
        self.bias.zero_()

    def forward(self, features_BLD: Tensor) -> Tensor:
        """Predict pixels: (B, L, D) -> (B, L, C, P)."""
        features = self.enter(features_BLD)
        pixels_BLGKP = torch.einsum("bld,gkdp->blgkp", features, local(self.weight))
        pixels_BLGKP = pixels_BLGKP + local(self.bias)
        return self.layout.to_channels(pixels_BLGKP)


class ForecastHead(ChannelHead):
    """Two layers of (Linear, GELU) before the map of every channel."""

    def __init__(
        self, *, channels: int, partitions: int, patch_pixels: int, embed_dim: int
    ) -> None:
        super().__init__(
            channels=channels,
            partitions=partitions,
            patch_pixels=patch_pixels,
            embed_dim=embed_dim,
        )
        self.hidden = nn.Sequential(
            Linear(embed_dim, embed_dim), nn.GELU(), Linear(embed_dim, embed_dim), nn.GELU()
        )

    def forward(self, features_BLD: Tensor) -> Tensor:
        """Predict pixels: (B, L, D) -> (B, L, C, P)."""
        return super().forward(self.hidden(features_BLD))
