"""The transformer block: attention on `scaled_dot_product_attention`, a two-layer MLP, pre-norm.

Shapes: B batch, L locations, D embedding, h heads, d = D / h.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml_dchag.models.hooks import local
from sciml_dchag.models.tokenizer import sine_cosine


class Linear(nn.Linear):
    """A linear layer that starts as Xavier, which keeps the variance at any width, bias zero.

    The usual truncated normal of 0.02 suits widths near a thousand; at 128 it starves the trunk
    of gradient, most of all through the head's two hidden layers.
    """

    def reset_parameters(self) -> None:
        """Draw start values."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class LayerNorm(nn.LayerNorm):
    """A layer norm whose parameters ranks may use apart, each on its own locations."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim)
        self.own: Callable[[Tensor], Tensor] = local

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Bring each token's features to mean 0 and variance 1, then scale and shift them."""
        # Sharded parameters may arrive in bfloat16 where autocast keeps the tokens in float32.
        exact = torch.promote_types(self.weight.dtype, x_BLD.dtype)
        weight, bias = self.own(self.weight).to(exact), self.own(self.bias).to(exact)
        return F.layer_norm(x_BLD, self.normalized_shape, weight, bias, self.eps)


class SelfAttention(nn.Module):
    """Multi-head self-attention over locations, with biases but the key's.

    q, k and v are three layers, not one, so that each can be split by heads over ranks. A bias of
    the key adds the same to all scores of a query, which a softmax does not see.
    """

    def __init__(self, embed_dim: int, heads: int) -> None:
        super().__init__()
        self.head_dim = embed_dim // heads
        self.query = Linear(embed_dim, embed_dim)
        self.key = Linear(embed_dim, embed_dim, bias=False)
        self.value = Linear(embed_dim, embed_dim)
        self.output = Linear(embed_dim, embed_dim)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Attend: (B, L, D) -> (B, L, D)."""
        q, k, v = (
            layer(x_BLD).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed_BhLd = F.scaled_dot_product_attention(q, k, v)
        return self.output(mixed_BhLd.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), with an MLP of four times the width."""

    def __init__(self, embed_dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(embed_dim)
        self.attention = SelfAttention(embed_dim, heads)
        self.mlp_norm = LayerNorm(embed_dim)
        self.mlp_in = Linear(embed_dim, 4 * embed_dim)
        self.mlp_out = Linear(4 * embed_dim, embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Mix locations, then features: (B, L, D) -> (B, L, D)."""
        x = x_BLD + self.dropout(self.attention(self.attention_norm(x_BLD)))
        hidden = F.gelu(self.mlp_in(self.mlp_norm(x)))
        return x + self.dropout(self.mlp_out(hidden))


def sine_cosine_2d(rows: int, columns: int, dim: int) -> Tensor:
    """Two-dimensional sine-cosine code, half of it for the row: (rows * columns, dim)."""
    row = sine_cosine(torch.arange(rows), dim // 2)[:, None].expand(-1, columns, -1)
    column = sine_cosine(torch.arange(columns), dim // 2)[None].expand(rows, -1, -1)
    return torch.cat([row, column], dim=-1).flatten(0, 1)
