"""The vision transformer after the channel stage: where, when, blocks, norm.

Shapes: B batch, L locations, V locations that are seen, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sciml_dchag.models.hooks import unchanged
from sciml_dchag.models.layers import LayerNorm, Linear, TransformerBlock, sine_cosine_2d


def nothing_after(number: int, x_BLD: Tensor) -> Tensor:
    """Return a block's output as it is."""
    return x_BLD


class Backbone(nn.Module):
    """Position and lead-time embeddings, transformer blocks and a final norm.

    Both embeddings are added after the channels have been aggregated (ClimaX, arXiv 2301.10343,
    section 3.2). Positions start as sine-cosine codes and are learnt; the lead time enters as
    Linear(1 -> D) of hours / 100, where the task has one.
    """

    def __init__(
        self,
        *,
        rows: int,
        columns: int,
        embed_dim: int,
        depth: int,
        heads: int,
        dropout: float,
        lead_time: bool,
    ) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.position_embedding = nn.Parameter(torch.empty(rows * columns, embed_dim))
        self.lead_time_embedding = Linear(1, embed_dim) if lead_time else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(embed_dim, heads, dropout) for _ in range(depth)
        )
        self.norm = LayerNorm(embed_dim)
        # Where ranks that share the locations out between a block's products part and meet.
        self.part: Callable[[Tensor], Tensor] = unchanged
        self.meet: Callable[[Tensor], Tensor] = unchanged
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start the positions as their sine-cosine code."""
        code = sine_cosine_2d(self.rows, self.columns, self.position_embedding.shape[1])
        self.position_embedding.copy_(code)

    def forward(
        self,
        tokens_BLD: Tensor,
        lead_hours_B: Tensor | None = None,
        locations_BV: Tensor | None = None,
        after: Callable[[int, Tensor], Tensor] = nothing_after,
    ) -> Tensor:
        """Transform: (B, L, D) and hours (B,) -> (B, L, D).

        Given V locations of each sample, the tokens are of those: (B, V, D) -> (B, V, D). What
        `after` returns of each block's number and output goes on; number -1 is what the first block
        is given.
        """
        position = self.position_embedding
        x = tokens_BLD + (position if locations_BV is None else position[locations_BV])
        if self.lead_time_embedding is not None:
            assert lead_hours_B is not None
            x = x + self._lead_time(lead_hours_B)[:, None]
        x = after(-1, self.part(self.dropout(x)))
        for number, block in enumerate(self.blocks):
            x = after(number, block(x))
        return self.meet(self.norm(x))

    def _lead_time(self, lead_hours_B: Tensor) -> Tensor:
        """Embed hours (B,) -> (B, D), at least in float32: 505 and 506 differ in the ninth bit."""
        assert self.lead_time_embedding is not None
        weight, bias = self.lead_time_embedding.weight, self.lead_time_embedding.bias
        exact = torch.promote_types(weight.dtype, torch.float32)
        device = weight.device.type
        with torch.autocast(device, enabled=False):
            hours_B1 = lead_hours_B[:, None].to(exact) / 100
            embedded = nn.functional.linear(hours_B1, weight.to(exact), bias.to(exact))
        # Autocast leaves sums their precision; a model of low precision keeps its own throughout.
        return embedded if torch.is_autocast_enabled(device) else embedded.to(weight.dtype)
