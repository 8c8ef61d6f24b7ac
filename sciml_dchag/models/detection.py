"""The head that finds objects: at each cell of a pyramid what is there and where its box ends.

Anchor-free and decoupled: what is there and where its box ends are two branches; each side of a box
is a distribution over distances (Li et al. 2020, arXiv 2006.04388). The head is the same at all
levels, in units of their cells.

Shapes: B batch, A cells of all levels, E width, N = 4 BINS + classes + attributes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml_dchag.models.hooks import unchanged
from sciml_dchag.models.layers import LayerNorm, Linear
from sciml_dchag.models.pyramid import ChannelPixels, Pyramid

BINS = 16
"""Distances from a cell's centre to a side of a box: 0, 1, ... 15 cells."""
RARE = 0.01
"""Probability that a cell starts with: few cells hold an object."""


class Convolution(nn.Module):
    """3 x 3 convolution, layer norm over features, GELU; around the globe where columns are."""

    def __init__(self, width: int, *, wraps: bool) -> None:
        super().__init__()
        self.wraps = wraps
        # As a linear map of a cell's surroundings: one kind of layer, one kind of start.
        self.mix = Linear(9 * width, width)
        self.norm = LayerNorm(width)

    def forward(self, x_BEhw: Tensor) -> Tensor:
        """(B, E, h, w) -> (B, E, h, w)."""
        x = F.pad(x_BEhw, (1, 1, 0, 0), mode="circular" if self.wraps else "constant")
        weight = self.mix.weight.unflatten(1, (-1, 3, 3))
        x = F.conv2d(x, weight, self.mix.bias, padding=(1, 0))
        return F.gelu(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class DetectionHead(nn.Module):
    """A pyramid, and on each of its levels two branches of two convolutions and a linear map.

    One branch says what is there (logits by class), the other where its box ends (logits over
    distances to left, top, right and bottom) and what is measured of it (attributes).
    """

    def __init__(self, pyramid: Pyramid, *, classes: int, attributes: int, wraps: bool) -> None:
        super().__init__()
        width = pyramid.middle.out_features
        self.pyramid, self.classes, self.attributes = pyramid, classes, attributes
        self.what = nn.Sequential(*(Convolution(width, wraps=wraps) for _ in range(2)))
        self.where = nn.Sequential(*(Convolution(width, wraps=wraps) for _ in range(2)))
        self.score = RareLinear(width, classes)
        self.extent = Linear(width, 4 * BINS)
        self.measure = Linear(width, attributes) if attributes else None
        # Where ranks that compute the same part, each with the errors of its own samples.
        self.enter: Callable[[Tensor], Tensor] = unchanged

    @property
    def pixels(self) -> ChannelPixels:
        """What maps the pixels of all channels."""
        return self.pyramid.pixels

    def forward(
        self, features_BLD: Tensor, x_BCHW: Tensor, available_BCHW: Tensor | None = None
    ) -> Tensor:
        """Return what each cell says, (B, A, N): 4 x BINS of distances, classes, attributes."""
        levels = []
        for level in self.pyramid(features_BLD, x_BCHW, available_BCHW):
            what, where = (
                branch(level).flatten(2).transpose(1, 2) for branch in (self.what, self.where)
            )
            said = [self.extent(where), self.score(what)]
            if self.measure is not None:
                said.append(self.measure(where))
            levels.append(torch.cat(said, dim=-1))
        return self.enter(torch.cat(levels, dim=1))


class RareLinear(Linear):
    """A linear map to logits of what is rare."""

    def reset_parameters(self) -> None:
        """Draw start values such that each logit starts near that of `RARE`."""
        super().reset_parameters()
        nn.init.constant_(self.bias, -math.log(1 / RARE - 1))


def cells_of(image_size: tuple[int, int], patch: int) -> tuple[Tensor, Tensor]:
    """Centres (A, 2) as x, y in pixels, and sides (A,), of the cells of all levels, in order."""
    centres, sides = [], []
    for side in (patch // 2, patch, 2 * patch):
        rows, columns = (pixels // side for pixels in image_size)
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centres.append((torch.stack([x, y], dim=-1).flatten(0, 1) + 0.5) * side)
        sides.append(torch.full((rows * columns,), float(side)))
    return torch.cat(centres), torch.cat(sides)
