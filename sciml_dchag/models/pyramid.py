"""Features at three scales for finding objects: half a patch, a patch, two patches.

A simple pyramid on a plain vision transformer's last features (Li et al. 2022, arXiv 2203.16527),
whose finest level also sees the pixels of every channel, which features of whole patches blur.

Shapes: B batch, C channels, H x W image, L locations, D embedding, E width of the pyramid, G
partitions, K channel slots of a partition, F cells of the finest level, Q pixels of such a cell.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sciml_dchag.models.hooks import local, unchanged
from sciml_dchag.models.layers import Linear
from sciml_dchag.models.tokenizer import ChannelLayout, patchify


class ChannelPixels(nn.Module):
    """One linear map of all channels' pixels, summed over channels: no channel has a token.

    Stacked along the channels' layout, (G, K, Q, E), as the tokenizer is, so that ranks each map
    their own channels; `leave` then sums over ranks.
    """

    def __init__(self, *, channels: int, partitions: int, cell_pixels: int, width: int) -> None:
        super().__init__()
        self.full_layout = ChannelLayout(channels, partitions, may_be_empty=True)
        self.layout = self.full_layout  # of this process's own partitions
        self.leave: Callable[[Tensor], Tensor] = unchanged
        stacked = (self.layout.partitions, self.layout.slots)
        self.weight = nn.Parameter(torch.empty(*stacked, cell_pixels, width))
        self.bias = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw start values: sums of unit variance for normalised pixels, padding slots zero."""
        bound = (3 / (self.layout.channels * self.weight.shape[2])) ** 0.5
        filled = self.layout.filled_GSK.flatten(1)[..., None, None].to(self.weight.device)
        self.weight.uniform_(-bound, bound).mul_(filled)
        self.bias.zero_()

    def forward(self, x_BFCQ: Tensor, available_BFCQ: Tensor | None = None) -> Tensor:
        """Map pixels, of which missing ones count as their channel's mean: -> (B, F, E)."""
        if available_BFCQ is not None:
            x_BFCQ = x_BFCQ * available_BFCQ
        slots_BFGKQ = self.layout.to_slots(x_BFCQ).flatten(3, 4)
        weight = local(self.weight)
        if self.layout.padding:  # slots without a channel of their own hold another one's pixels
            weight = weight * self.layout.filled_GSK.flatten(1)[..., None, None]
        summed = torch.einsum("bfgkq,gkqe->bfe", slots_BFGKQ, weight)
        return self.leave(summed) + self.bias


class FinestLevel(nn.Module):
    """Features of patches at half a patch, by a transposed convolution, and all channels' pixels.

    Each brought to the width of the pyramid by a linear map, and added.
    """

    def __init__(
        self,
        *,
        channels: int,
        partitions: int,
        image_size: tuple[int, int],
        patch: int,
        embed_dim: int,
        width: int,
    ) -> None:
        super().__init__()
        self.rows, self.columns = (side // patch for side in image_size)
        self.cell = patch // 2
        self.pixels = ChannelPixels(
            channels=channels, partitions=partitions, cell_pixels=self.cell**2, width=width
        )
        # A transposed convolution of 2 x 2 in steps of 2: cells do not overlap.
        self.fine = Linear(embed_dim, 4 * width)

    def finest(
        self, features_BLD: Tensor, x_BCHW: Tensor, available_BCHW: Tensor | None = None
    ) -> Tensor:
        """Return the map of half a patch: (B, h, w, E)."""
        rows, columns = self.rows, self.columns
        cells = patchify(x_BCHW, self.cell)
        known = None if available_BCHW is None else patchify(available_BCHW, self.cell)
        pixels = self.pixels(cells, known).unflatten(1, (2 * rows, 2 * columns))
        quarters = self.fine(features_BLD).unflatten(2, (2, 2, -1))
        quarters = (
            quarters.unflatten(1, (rows, columns)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        )
        return pixels + quarters


class Pyramid(FinestLevel):
    """From features of patches, and pixels, to maps of three scales, the finest first.

    A transposed convolution, the features themselves, and the mean of 2 x 2 of them, each brought
    to the width of the pyramid by a linear map.
    """

    def __init__(
        self,
        *,
        channels: int,
        partitions: int,
        image_size: tuple[int, int],
        patch: int,
        embed_dim: int,
        width: int,
    ) -> None:
        super().__init__(
            channels=channels, partitions=partitions, image_size=image_size, patch=patch,
            embed_dim=embed_dim, width=width,
        )  # fmt: skip
        self.middle = Linear(embed_dim, width)
        self.coarse = Linear(embed_dim, width)

    def forward(
        self, features_BLD: Tensor, x_BCHW: Tensor, available_BCHW: Tensor | None = None
    ) -> list[Tensor]:
        """Return the maps (B, E, h, w): of half a patch, of a patch and of two patches."""
        grid_BDhw = features_BLD.unflatten(1, (self.rows, self.columns)).permute(0, 3, 1, 2)
        pooled = nn.functional.avg_pool2d(grid_BDhw, 2).permute(0, 2, 3, 1)
        maps = (
            self.finest(features_BLD, x_BCHW, available_BCHW),
            self.middle(features_BLD).unflatten(1, (self.rows, self.columns)),
            self.coarse(pooled),
        )
        return [one.permute(0, 3, 1, 2) for one in maps]
