"""The masked autoencoder's decoder: from features where it was seen to features everywhere.

He et al., Masked Autoencoders Are Scalable Vision Learners (arXiv 2111.06377), section 3. Narrow
and shallow, as it is thrown away once the encoder has learnt; over tp the same is computed on
every rank. The maps to each channel's pixels are `heads.ChannelHead`'s.

Shapes: B batch, L locations, V locations that were seen, D embedding, E the decoder's width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sciml_dchag.models.layers import LayerNorm, Linear, TransformerBlock, sine_cosine_2d


class MaskedDecoder(nn.Module):
    """A learnt token where nothing was seen, positions, transformer blocks and a final norm.

    Args:
        rows, columns: of locations; L is their product.
        embed_dim: D.
        decoder_dim: E.
        depth, heads: of its transformer blocks.
        dropout: as in the backbone.
    """

    def __init__(
        self,
        *,
        rows: int,
        columns: int,
        embed_dim: int,
        decoder_dim: int,
        depth: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.narrow = Linear(embed_dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.empty(decoder_dim))
        self.position_embedding = nn.Parameter(torch.empty(rows * columns, decoder_dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(decoder_dim, heads, dropout) for _ in range(depth)
        )
        self.norm = LayerNorm(decoder_dim)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start the positions as their sine-cosine code and the token as small noise."""
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        code = sine_cosine_2d(self.rows, self.columns, self.position_embedding.shape[1])
        self.position_embedding.copy_(code)

    def forward(self, features_BVD: Tensor, visible_BV: Tensor) -> Tensor:
        """Fill in what was not seen: (B, V, D) -> (B, L, E).

        Args:
            features_BVD: of the locations that were seen.
            visible_BV: which these are, each once in a sample.
        """
        seen_BVE = self.narrow(features_BVD)
        B, V, E = seen_BVE.shape
        unseen_BLE = self.mask_token.to(seen_BVE.dtype).expand(B, self.rows * self.columns, E)
        x = unseen_BLE.scatter(1, visible_BV[..., None].expand(B, V, E), seen_BVE)
        x = self.dropout(x + self.position_embedding)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)
