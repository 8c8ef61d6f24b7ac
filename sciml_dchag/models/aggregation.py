"""D-CHAG: from C channels to one token a location, in two exact implementations.

**What is computed.** At each location every channel is a patch of pixels x_c and, by its own
affine map, a token t_c = x_c W_c + beta_c (`tokenizer.py`). Channels are split into G partitions:

    partial aggregation   the channels of a partition -> one token     G tokens a location
    final aggregation     G tokens -> one token                        1 token a location

`dchag-c` aggregates partially by cross-attention with one learnt query, `dchag-l` by a learnt
weighted sum; `single` has one cross-attention over all channels and nothing after it (ClimaX).
A tree of N groups aggregates within each group first and the N results after that. Only the G
tokens ever need to leave the rank that owns a partition (Tsaris et al., arXiv 2506.21411): one
process computes `gather` as nothing, many as one AllGather. A rank's layout, parameters and pixels
are those of its own partitions (`parallel.apply`); no line here asks which rank it is.

**How.** `materialised` is the formula as it stands: tokens (B, L, C, D), their keys and values.
`absorbed` never forms them. The tokens are linear in the pixels (a constant pixel of value one
carries beta) and the query does not depend on the input, so for head i

    score of channel c   q_i . k_{c,i} / sqrt(d)  =  x_c A_{c,i},    A_{c,i} = W_c K_i q_i / sqrt(d)
    output of head i     sum_c a_{c,i} t_c V_i    =  sum_c (a_{c,i} x_c) Z_{c,i},  Z_{c,i} = W_c V_i

and the attention weights a scale P + 1 pixels instead of D features. A and Z are formed once for
the whole batch; the rest is `absorbed.py`'s. Attention over tokens (final, and of a tree) needs
no keys and values either: sum_g a_{g,i} t_g is formed before the one product with V_i. Both
implementations have the same parameters and agree to rounding.

Shapes: B batch, L locations, C channels, P pixels of a patch, D embedding, h heads, d = D / h,
G partitions, S groups of a tree, K channel slots of a group, N = B * L, M tokens or channels that
one attention runs over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sciml_dchag.models.absorbed import absorbed_attention, token_attention
from sciml_dchag.models.config import AggregationKind, Implementation
from sciml_dchag.models.hooks import local, unchanged
from sciml_dchag.models.masking import masked_logsumexp, masked_softmax
from sciml_dchag.models.spectral import WavelengthTokenizer
from sciml_dchag.models.tokenizer import ChannelLayout, ChannelTokenizer, append_one


class ChannelAggregation(nn.Module):
    """The channel stage: pixels of all channels in, one token a location out.

    Args:
        channels: C.
        patch_pixels: P.
        embed_dim: D.
        heads: h, divides D.
        kind: `single`, `dchag-c` or `dchag-l`.
        partitions: G. For `single` it is how parameters are stored and nothing else: its attention
            is over the channels of all partitions.
        tree: groups that each partition is split into; 0 for one layer.
        implementation: `absorbed` or `materialised`; the parameters are the same.
        wavelength_nm: of every channel, if what it is follows from that; none for parameters of
            its own.
    """

    def __init__(
        self,
        *,
        channels: int,
        patch_pixels: int,
        embed_dim: int,
        heads: int,
        kind: AggregationKind,
        partitions: int = 1,
        tree: int = 0,
        implementation: Implementation = "absorbed",
        wavelength_nm: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.implementation = implementation
        self.full_layout = ChannelLayout(channels, partitions, max(tree, 1))
        self.layout = self.full_layout  # of this process's own partitions
        self.tokenizer: ChannelTokenizer | WavelengthTokenizer
        if wavelength_nm:
            self.tokenizer = WavelengthTokenizer(
                self.layout, patch_pixels, embed_dim, wavelength_nm
            )
        else:
            self.tokenizer = ChannelTokenizer(self.layout, patch_pixels, embed_dim)
        self.partial: PartialCrossAttention | PartialLinear
        if kind == "dchag-l":
            self.partial = PartialLinear(self.layout, tree)
        else:
            attentions = 1 if kind == "single" else partitions
            self.partial = PartialCrossAttention(attentions, embed_dim, heads)
        self.final = None if kind == "single" else PartialCrossAttention(1, embed_dim, heads)
        self.gather: Callable[[Tensor], Tensor] = unchanged
        self.gather_channel_tokens: Callable[[Tensor], Tensor] = unchanged

    def forward(self, x_BLCP: Tensor, available_BLC: Tensor | None = None) -> Tensor:
        """Aggregate: (B, L, C, P) -> (B, L, D).

        Args:
            x_BLCP: pixels, from `patchify`.
            available_BLC: False where a channel is missing at a location; its pixels then have no
                effect. A location without any channel gives the output bias alone.
        """
        mask = self.layout.mask(None)
        if available_BLC is not None:
            mask_of_tokens = self.tokenizer.layout.mask(available_BLC)
            assert mask_of_tokens is not None
            mask = self.gather_channel_tokens(mask_of_tokens)
        tokens_BLGD = self.partial_tokens(x_BLCP, mask)
        if self.final is None:
            return tokens_BLGD.squeeze(2)
        tokens_BLGD = self.gather(tokens_BLGD)
        present_BL11G = None
        if available_BLC is not None and mask is not None:
            present_BL11G = self.gather(mask.flatten(3).any(3))[:, :, None, None]
        attend = self.final.over_tokens if self.implementation == "absorbed" else self.final
        return attend(tokens_BLGD[:, :, None, None], present_BL11G).squeeze((2, 3))

    def partial_tokens(self, x_BLCP: Tensor, mask_BLGSK: Tensor | None) -> Tensor:
        """Turn each partition's channels into one token: (B, L, C, P) -> (B, L, G, D)."""
        x_BLGSKP = self.tokenizer.layout.to_slots(x_BLCP)
        maps_GSKPD = self.tokenizer.affine()
        single = self.final is None  # one attention over the channels of all partitions
        if single and mask_BLGSK is not None:
            mask_BLGSK = mask_BLGSK.flatten(2)[:, :, None, None]
        if self.implementation == "absorbed":
            if single:
                x_BLGSKP = x_BLGSKP.flatten(2, 4)[:, :, None, None]
                maps_GSKPD = maps_GSKPD.flatten(0, 2)[None, None]
            tokens_BLGSD = self.partial.absorbed(x_BLGSKP, maps_GSKPD, mask_BLGSK)
        else:
            tokens_BLGSKD = torch.einsum("blgskp,gskpd->blgskd", append_one(x_BLGSKP), maps_GSKPD)
            tokens_BLGSKD = self.gather_channel_tokens(tokens_BLGSKD)
            if single:
                tokens_BLGSKD = tokens_BLGSKD.flatten(2, 4)[:, :, None, None]
            tokens_BLGSD = self.partial(tokens_BLGSKD, mask_BLGSK)
        if self.layout.groups == 1:
            return tokens_BLGSD.squeeze(3)
        present_BLGS = None if mask_BLGSK is None else mask_BLGSK.any(-1)
        return self.partial.join_groups(
            tokens_BLGSD, present_BLGS, absorbed=self.implementation == "absorbed"
        )


class PartialCrossAttention(nn.Module):
    """G cross-attentions side by side, each with its own weights and one learnt query.

    ClimaX's variable aggregation: no norm, no residual; q, k, v without bias, output projection
    with one. Every parameter is stacked along the partitions, (G, ...), so that a rank's share is
    a slice of dim 0. In a tree all groups of a partition and both levels use the same weights.

    `own`, `enter`, `leave` and `combine` are where `parallel.apply` reaches in, if ranks share out
    the heads or the channels of one attention: parameters, inputs and outputs of what a rank
    computes, and the merging of attentions over different channels.
    """

    def __init__(self, partitions: int, embed_dim: int, heads: int) -> None:
        super().__init__()
        self.head_dim = embed_dim // heads
        self.own: Callable[[Tensor], Tensor] = local
        self.enter: Callable[[Tensor], Tensor] = unchanged
        self.leave: Callable[[Tensor], Tensor] = unchanged
        self.combine: Callable[[Tensor, Tensor], Tensor] | None = None
        self.buffer_numbers: int | None = None  # of the absorbed form; None suits the device
        G, D = partitions, embed_dim
        self.query = nn.Parameter(torch.empty(G, D))
        self.query_weight = nn.Parameter(torch.empty(G, D, D))
        self.key_weight = nn.Parameter(torch.empty(G, D, D))
        self.value_weight = nn.Parameter(torch.empty(G, D, D))
        self.output_weight = nn.Parameter(torch.empty(G, D, D))
        self.output_bias = nn.Parameter(torch.empty(G, D))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw start values: Xavier for the projections, a small normal query, no bias."""
        bound = (6 / (2 * self.query.shape[-1])) ** 0.5
        for weight in (self.query_weight, self.key_weight, self.value_weight, self.output_weight):
            weight.uniform_(-bound, bound)
        nn.init.trunc_normal_(self.query, std=0.02)
        self.output_bias.zero_()

    def forward(self, tokens_BLGSMD: Tensor, mask_BLGSM: Tensor | None = None) -> Tensor:
        """Attend over materialised tokens: (B, L, G, S, M, D) -> (B, L, G, S, D)."""
        tokens = self.enter(tokens_BLGSMD)
        mask = None if mask_BLGSM is None else mask_BLGSM[..., None]
        keys = torch.einsum("blgsmd,gde->blgsme", tokens, self.own(self.key_weight))
        values = torch.einsum("blgsmd,gde->blgsme", tokens, self.own(self.value_weight))
        keys, values = (kv.unflatten(-1, (-1, self.head_dim)) for kv in (keys, values))
        scores = torch.einsum("blgsmhd,ghd->blgsmh", keys, self._scaled_query())
        attention = masked_softmax(scores, mask, dim=-2).to(values.dtype)
        mixed = torch.einsum("blgsmh,blgsmhd->blgshd", attention, values)
        if self.combine is not None:
            mixed = self.combine(mixed, masked_logsumexp(scores, mask, dim=-2))
        return self._project(mixed.flatten(-2))

    def over_tokens(self, tokens_BLGSMD: Tensor, mask_BLGSM: Tensor | None = None) -> Tensor:
        """Compute the same without keys and values, where no other rank has tokens of its own."""
        B, L, G, S = tokens_BLGSMD.shape[:4]
        tokens, kappa_GDh = self.enter(tokens_BLGSMD), self._kappa()
        value_GDhd = self.own(self.value_weight).unflatten(-1, (-1, self.head_dim))
        mask = None if mask_BLGSM is None else mask_BLGSM.expand(B, L, -1, -1, -1)
        masks = [None] * G if mask is None else [m.flatten(0, 2) for m in mask.unbind(2)]
        each = zip(tokens.unbind(2), kappa_GDh.unbind(), value_GDhd.unbind(), masks, strict=True)
        attended = [
            token_attention(t.flatten(0, 2), k, v, m, self.buffer_numbers).view(B, L, S, -1)
            for t, k, v, m in each
        ]
        return self._project(torch.stack(attended, dim=2))

    def absorbed(self, x_BLGSKP: Tensor, maps_GSKPD: Tensor, mask_BLGSK: Tensor | None) -> Tensor:
        """Attend over channels straight from their pixels: -> (B, L, G, S, D)."""
        B, L, G, S = x_BLGSKP.shape[:4]
        x_BLGSKP, maps_GSKPD = self.enter(x_BLGSKP), self.enter(maps_GSKPD)
        kappa_GDh, value_weight = self._kappa(), self.own(self.value_weight)
        # One plain product a partition: a batched one of few large matrices is slower. Taken apart
        # at once: a gradient of each index is as large as all, mostly zeros.
        maps = maps_GSKPD.unbind()
        score_maps = torch.cat([m @ k for m, k in zip(maps, kappa_GDh.unbind(), strict=True)])
        value_maps = torch.cat([m @ v for m, v in zip(maps, value_weight.unbind(), strict=True)])
        mask_NJK = None
        if mask_BLGSK is not None:
            mask_NJK = mask_BLGSK.expand(B, L, -1, -1, -1).flatten(2, 3).flatten(0, 1)
        mixed_NJD, logsumexp_NJh = absorbed_attention(
            x_BLGSKP.flatten(2, 3).flatten(0, 1), score_maps, value_maps, mask_NJK,
            self.combine is not None, self.buffer_numbers,
        )  # fmt: skip
        mixed = mixed_NJD.view(B, L, G, S, -1)
        if self.combine is not None:
            assert logsumexp_NJh is not None
            heads = mixed.unflatten(-1, (-1, self.head_dim))
            mixed = self.combine(heads, logsumexp_NJh.view(B, L, G, S, -1)).flatten(-2)
        return self._project(mixed)

    def join_groups(
        self, tokens_BLGSD: Tensor, present_BLGS: Tensor | None, *, absorbed: bool
    ) -> Tensor:
        """Aggregate the tokens of a tree's groups: (B, L, G, S, D) -> (B, L, G, D)."""
        attend = self.over_tokens if absorbed else self
        present = None if present_BLGS is None else present_BLGS[:, :, :, None]
        return attend(tokens_BLGSD[:, :, :, None], present).squeeze(3)

    def _scaled_query(self) -> Tensor:
        """q_i / sqrt(d): (G, h, d)."""
        query = torch.einsum("gd,gde->ge", self.own(self.query), self.own(self.query_weight))
        return query.unflatten(-1, (-1, self.head_dim)) / self.head_dim**0.5

    def _kappa(self) -> Tensor:
        """Tokens to scores, key weight times scaled query: (G, D, h)."""
        key_GDhd = self.own(self.key_weight).unflatten(-1, (-1, self.head_dim))
        return torch.einsum("gDhd,ghd->gDh", key_GDhd, self._scaled_query())

    def _project(self, x_BLGSD: Tensor) -> Tensor:
        out = torch.einsum("blgsd,gde->blgse", x_BLGSD, local(self.output_weight))
        # In the product's precision: it is what ranks gather.
        return self.leave(out) + local(self.output_bias)[:, None].to(out.dtype)


class PartialLinear(nn.Module):
    """G weighted sums of tokens, the same for all locations and features.

    A partition's token is sum_c w_c t_c + bias; C weights and one bias a partition in all. In a
    tree the S groups of a partition share their K weights, and S further weights join them. The
    sum of a missing channel lacks its term.
    """

    def __init__(self, layout: ChannelLayout, tree: int) -> None:
        super().__init__()
        G, K = layout.partitions, layout.slots_per_group
        self.layout = layout
        self.weight = nn.Parameter(torch.empty(G, K))
        self.bias = nn.Parameter(torch.zeros(G))
        self.group_weight = nn.Parameter(torch.empty(G, tree)) if tree else None
        self.group_bias = nn.Parameter(torch.zeros(G)) if tree else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw start values as torch.nn.Linear does: uniform within 1 / sqrt(inputs)."""
        for weight in (self.weight, self.group_weight):
            if weight is not None:
                bound = weight.shape[1] ** -0.5
                weight.uniform_(-bound, bound)
        # Slots that no group fills have no effect: zero, so that two runs compare equal.
        self.weight.mul_(self.layout.filled_GSK.any(1).to(self.weight.device))
        self.bias.zero_()
        if self.group_bias is not None:
            self.group_bias.zero_()

    def forward(self, tokens_BLGSKD: Tensor, mask_BLGSK: Tensor | None = None) -> Tensor:
        """Sum materialised tokens: (B, L, G, S, K, D) -> (B, L, G, S, D)."""
        if mask_BLGSK is not None:
            tokens_BLGSKD = tokens_BLGSKD * mask_BLGSK[..., None]
        summed = torch.einsum("blgskd,gk->blgsd", tokens_BLGSKD, local(self.weight))
        return summed + local(self.bias)[:, None, None].to(summed.dtype)

    def absorbed(self, x_BLGSKP: Tensor, maps_GSKPD: Tensor, mask_BLGSK: Tensor | None) -> Tensor:
        """Sum straight from the pixels, one product a group: -> (B, L, G, S, D)."""
        weighted_GSKPD = maps_GSKPD * local(self.weight)[:, None, :, None, None]
        of_pixels, constant_GSKD = weighted_GSKPD[..., :-1, :], weighted_GSKPD[..., -1, :]
        if mask_BLGSK is None:
            constant = constant_GSKD.sum(2)
        else:
            x_BLGSKP = x_BLGSKP * mask_BLGSK[..., None]
            constant = torch.einsum(
                "blgsk,gskd->blgsd", mask_BLGSK.to(x_BLGSKP.dtype), constant_GSKD
            )
        summed = torch.einsum("blgskp,gskpd->blgsd", x_BLGSKP, of_pixels) + constant
        return summed + local(self.bias)[:, None, None].to(summed.dtype)

    def join_groups(
        self, tokens_BLGSD: Tensor, present_BLGS: Tensor | None, *, absorbed: bool
    ) -> Tensor:
        """Sum the tokens of a tree's groups: (B, L, G, S, D) -> (B, L, G, D)."""
        assert self.group_weight is not None and self.group_bias is not None
        if present_BLGS is not None:
            tokens_BLGSD = tokens_BLGSD * present_BLGS[..., None]
        summed = torch.einsum("blgsd,gs->blgd", tokens_BLGSD, local(self.group_weight))
        return summed + local(self.group_bias)[:, None]
