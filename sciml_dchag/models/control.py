"""New inputs for a trained model that stays as it is (ControlNet, arXiv 2302.05543).

A branch has a channel stage of its own for the new channels, and for the base's beside them where
that is asked for, copies of the base's first blocks, and linear layers that start at zero: one on
the way in, one from each copy to the base's block (as for plain transformers in PixArt-delta, arXiv
2401.05252). Until they have learnt, and for a sample that has none of the new inputs, the base's
answer is given to the bit.

Shapes: B batch, L locations, D embedding, C channels of the branch, P pixels of a patch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml_dchag.models.aggregation import ChannelAggregation
from sciml_dchag.models.hooks import local, unchanged
from sciml_dchag.models.layers import TransformerBlock

BRANCH = "control."
"""Begins the names of a branch's parameters; all others are the base's."""


class ZeroLinear(nn.Linear):
    """A linear layer that starts at zero, so that nothing comes through before it has learnt.

    Ranks may use its parameters apart, each on its own locations.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.own: Callable[[Tensor], Tensor] = local

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Map features: (B, L, D) -> (B, L, D)."""
        return F.linear(x_BLD, self.own(self.weight), self.own(self.bias))

    def reset_parameters(self) -> None:
        """Start at zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class ControlBranch(nn.Module):
    """From new channels to what is added after the base's first blocks.

    Args:
        aggregation: of the branch's channels.
        embed_dim: D.
        heads: of the blocks.
        blocks: N, copies of the base's first ones.
        dropout: as in the base.
        new: which of the branch's channels the base does not have.
    """

    def __init__(
        self,
        aggregation: ChannelAggregation,
        *,
        embed_dim: int,
        heads: int,
        blocks: int,
        dropout: float,
        new: Sequence[int],
    ) -> None:
        super().__init__()
        self.on = True
        self.new = list(new)
        self.aggregation = aggregation
        self.enter = ZeroLinear(embed_dim, embed_dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(embed_dim, heads, dropout) for _ in range(blocks)
        )
        self.leave = nn.ModuleList(ZeroLinear(embed_dim, embed_dim) for _ in range(blocks))
        # Where ranks that share the locations out part, as in the backbone.
        self.part: Callable[[Tensor], Tensor] = unchanged

    def begin(
        self, x_BLCP: Tensor, available_BLC: Tensor | None
    ) -> Callable[[int, Tensor], Tensor]:
        """Take the new channels in, and return what is called after each block of the base.

        Args:
            x_BLCP: pixels of the branch's channels.
            available_BLC: False where one is missing; None where none is.

        Returns:
            A function of a block's number and its output (B, L, D); number -1 is the base's tokens
            before the first block. It returns the output with the branch's addition.
        """
        entered_BLD = self.part(self.enter(self.aggregation(x_BLCP, available_BLC)))
        present_B11 = None
        if available_BLC is not None:
            present_B11 = available_BLC[:, :, self.new].flatten(1).any(1)[:, None, None]
        stream: list[Tensor] = []

        def after(number: int, x_BLD: Tensor) -> Tensor:
            if number < 0:
                stream.append(x_BLD + entered_BLD)
                return x_BLD
            if number >= len(self.blocks):
                return x_BLD
            stream.append(self.blocks[number](stream.pop()))
            added = x_BLD + self.leave[number](stream[0])
            return added if present_B11 is None else torch.where(present_B11, added, x_BLD)

        return after

    @torch.no_grad()
    def copy_blocks(self, base: nn.ModuleList) -> None:
        """Start the blocks as copies of the base's first ones."""
        for own, other in zip(self.blocks, base, strict=False):
            own.load_state_dict(other.state_dict())
