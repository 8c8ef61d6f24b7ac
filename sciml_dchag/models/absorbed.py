"""The absorbed form's kernels: attention over channels straight from their pixels, and over tokens
without their keys and values.

Why these are the same functions as attention over tokens stands in `aggregation`; here is how they
are computed without forming anything large. Nothing of the model is known here.

Shapes: N rows (batch and locations), K channels, P pixels of a patch with the constant one,
M tokens, D features, h heads of d features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def buffer_numbers(device_type: str) -> int:
    """How many numbers the buffer of scaled pixels holds at most.

    On the CPU 2^20, about what the second-level caches of two cores hold; an accelerator is better
    served by few large steps.
    """
    return 2**20 if device_type == "cpu" else 2**26


def masked_softmax(scores: Tensor, mask: Tensor | None, dim: int) -> Tensor:
    """Softmax over the True entries of a mask; all zero where there is none.

    At least float32, whatever the scores' precision.
    """
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if mask is None:
        return scores.softmax(dim)
    # The finite minimum, not -inf: a row without any channel must not become NaN.
    attention = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim)
    return attention.masked_fill(~mask, 0.0)


def masked_logsumexp(scores: Tensor, mask: Tensor | None, dim: int) -> Tensor:
    """Logarithm of the sum that `masked_softmax` divides by; very negative where all is masked."""
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.logsumexp(dim)


def absorbed_attention(
    x_NKP: Tensor,
    score_maps_KPh: Tensor,
    value_maps_KPD: Tensor,
    mask_BLK: Tensor | None,
    with_logsumexp: bool = False,
    numbers: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Attend over K channels from their pixels: (N, K, P) -> (N, D), in autocast's precision.

    Args:
        x_NKP: pixels, the last of each patch being one.
        score_maps_KPh: A, pixels to scores; the last pixel's row carries the constant.
        value_maps_KPD: Z, pixels to values.
        mask_BLK: False where a channel is missing; broadcasts over the batch.
        with_logsumexp: return that of the scores too, (N, h), for merging with other channels.
        numbers: that the buffer holds; None for what suits the device.
    """
    device, dtype = x_NKP.device.type, _compute_dtype(x_NKP)
    mask_NK = None
    if mask_BLK is not None:
        locations = mask_BLK.shape[1]
        mask_NK = mask_BLK.expand(x_NKP.shape[0] // locations, -1, -1).flatten(0, 1)
    x, score_maps, value_maps = (t.to(dtype) for t in (x_NKP, score_maps_KPh, value_maps_KPD))
    return _AbsorbedAttention.apply(  # type: ignore[no-untyped-call]
        x, score_maps, value_maps, mask_NK, with_logsumexp, numbers or buffer_numbers(device)
    )


def token_attention(
    tokens_NMD: Tensor,
    score_map_Dh: Tensor,
    value_map_Dhd: Tensor,
    mask_NM: Tensor | None,
    numbers: int | None = None,
) -> Tensor:
    """Attend over M tokens that share their maps: (N, M, D) -> (N, h, d), in autocast's precision.

    Args:
        tokens_NMD: tokens.
        score_map_Dh: tokens to scores, key weight times query.
        value_map_Dhd: tokens to values.
        mask_NM: False where a token is missing.
        numbers: that the buffer holds; None for what suits the device.
    """
    numbers = numbers or buffer_numbers(tokens_NMD.device.type)
    dtype = _compute_dtype(tokens_NMD)
    tokens, score_map, value_map = (t.to(dtype) for t in (tokens_NMD, score_map_Dh, value_map_Dhd))
    attended: Tensor = _TokenAttention.apply(  # type: ignore[no-untyped-call]
        tokens, score_map, value_map.transpose(0, 1), mask_NM, numbers
    )
    return attended


def _compute_dtype(x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _refuse_second_derivatives() -> None:
    if torch.is_grad_enabled():  # the gradient is to be differentiated again (create_graph)
        raise NotImplementedError(
            "model.implementation absorbed has no second derivatives: set it to materialised, "
            "which has the same parameters, or leave create_graph out."
        )


class _AbsorbedAttention(torch.autograd.Function):
    """out_i = sum_c (a_{c,i} x_c) Z_{c,i} for every head i, with a = softmax_c(x_c A_c).

    The product of attention and pixels, (n, K P) for one head and n locations, is formed in one
    small buffer, and formed again in the backward pass; kept between are x, a, A and Z. The
    elementwise work is bound by memory: the buffer must stay in the cache.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_NKP: Tensor,
        score_maps_KPh: Tensor,
        value_maps_KPD: Tensor,
        mask_NK: Tensor | None,
        with_logsumexp: bool,
        numbers: int,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.numbers = numbers
        N, K, P = x_NKP.shape
        h = score_maps_KPh.shape[-1]
        value_maps = value_maps_KPD.reshape(K * P, h, -1).transpose(0, 1).contiguous()
        attention_hNK = x_NKP.new_empty(h, N, K)
        mixed_Nhd = x_NKP.new_empty(N, h, value_maps.shape[-1])
        logsumexp_Nh = None
        if with_logsumexp:
            exact = torch.float64 if x_NKP.dtype == torch.float64 else torch.float32
            logsumexp_Nh = x_NKP.new_empty(N, h, dtype=exact)
        for rows, scaled_nKP in _buffered_rows(x_NKP, ctx.numbers):
            x_nKP, flat = x_NKP[rows], scaled_nKP.flatten(1)  # flat: the same memory, (n, K P)
            scores_Knh = torch.bmm(x_nKP.transpose(0, 1), score_maps_KPh)
            mask_nK = None if mask_NK is None else mask_NK[rows]
            scores_hnK = scores_Knh.permute(2, 1, 0)
            attention_hNK[:, rows] = masked_softmax(scores_hnK, mask_nK, dim=-1)
            if logsumexp_Nh is not None:
                logsumexp_Nh[rows] = masked_logsumexp(scores_hnK, mask_nK, dim=-1).t()
            heads = zip(
                attention_hNK[:, rows, :, None], value_maps, mixed_Nhd[rows].unbind(1), strict=True
            )
            for attention_nK1, value_map, mixed_nd in heads:
                torch.mul(attention_nK1, x_nKP, out=scaled_nKP)
                torch.mm(flat, value_map, out=mixed_nd)
        ctx.save_for_backward(x_NKP, score_maps_KPh, value_maps, attention_hNK)
        return mixed_Nhd.flatten(1), logsumexp_Nh

    @staticmethod
    def backward(
        ctx: Any, grad_ND: Tensor, grad_logsumexp_Nh: Tensor | None
    ) -> tuple[Tensor | None, Tensor, Tensor, None, None, None]:
        _refuse_second_derivatives()
        x_NKP, score_maps_KPh, value_maps, attention_hNK = ctx.saved_tensors
        N, K, P = x_NKP.shape
        h = attention_hNK.shape[0]
        grad_Nhd = grad_ND.unflatten(1, (h, -1))
        # Sums over many rows, at least in float32: in bfloat16 a sum stops growing at 256 terms.
        exact = torch.promote_types(x_NKP.dtype, torch.float32)
        grad_x = x_NKP.new_zeros(N, K, P, dtype=exact) if ctx.needs_input_grad[0] else None
        grad_score_maps = torch.zeros_like(score_maps_KPh, dtype=exact)
        # Transposed, (h, d, K P), which is the faster way to add products of tall matrices up.
        grad_value_maps = value_maps.new_zeros(h, value_maps.shape[-1], K * P, dtype=exact)
        one_P = x_NKP.new_ones(P)
        for rows, scaled_nKP in _buffered_rows(x_NKP, ctx.numbers):
            x_nKP, flat = x_NKP[rows], scaled_nKP.flatten(1)  # flat: the same memory, (n, K P)
            attention_hnK = attention_hNK[:, rows]
            grad_hnK = torch.empty(attention_hnK.shape, dtype=x_NKP.dtype, device=x_NKP.device)
            heads = zip(
                attention_hnK[..., None], grad_Nhd[rows].unbind(1), value_maps.transpose(1, 2),
                grad_value_maps, grad_hnK.flatten(1), strict=True,
            )  # fmt: skip
            for attention_nK1, grad_nd, value_map_dKP, grad_value_map, grad_attention in heads:
                torch.mul(attention_nK1, x_nKP, out=scaled_nKP)
                if exact == x_NKP.dtype:
                    grad_value_map.addmm_(grad_nd.t(), flat)
                else:
                    grad_value_map += grad_nd.t() @ flat
                # What the pixels, once scaled, receive; the buffer has served and is used again.
                torch.mm(grad_nd, value_map_dKP, out=flat)
                if grad_x is not None:
                    grad_x[rows] += scaled_nKP * attention_nK1
                # A sum over P as a product with ones: twice as fast over so few numbers.
                scaled_nKP.mul_(x_nKP)
                torch.mv(scaled_nKP.view(-1, P), one_P, out=grad_attention)
            inner = (attention_hnK * grad_hnK).sum(-1, keepdim=True)
            if grad_logsumexp_Nh is not None:  # whose derivative is the attention itself
                inner = inner - grad_logsumexp_Nh[rows].t()[..., None].to(inner.dtype)
            grad_scores_hnK = grad_hnK.sub_(inner).mul_(attention_hnK)
            grad_scores_Knh = grad_scores_hnK.permute(2, 1, 0).contiguous()
            if exact == x_NKP.dtype:
                grad_score_maps.baddbmm_(x_nKP.permute(1, 2, 0), grad_scores_Knh)
            else:
                grad_score_maps += torch.bmm(x_nKP.permute(1, 2, 0), grad_scores_Knh)
            if grad_x is not None:
                through_scores = torch.bmm(grad_scores_Knh, score_maps_KPh.transpose(1, 2))
                grad_x[rows] += through_scores.transpose(0, 1)
        grad_value_maps_KPD = grad_value_maps.permute(2, 0, 1).reshape(K, P, -1)
        to = x_NKP.dtype
        grad_x = None if grad_x is None else grad_x.to(to)
        return grad_x, grad_score_maps.to(to), grad_value_maps_KPD.to(to), None, None, None


def _buffered_rows(x_NKP: Tensor, numbers: int) -> Iterator[tuple[slice, Tensor]]:
    """Cut N into runs of rows, each with a contiguous buffer of its shape, the same memory."""
    N, K, P = x_NKP.shape
    buffer = x_NKP.new_empty(min(max(1, numbers // (K * P)), N), K, P)
    for rows in _runs(N, K * P, numbers):
        yield rows, buffer[: rows.stop - rows.start]


def _runs(rows: int, numbers_of_a_row: int, numbers: int) -> Iterator[slice]:
    """Cut rows into runs that have at most so many numbers, or one row."""
    length = max(1, numbers // numbers_of_a_row)
    return (slice(start, min(start + length, rows)) for start in range(0, rows, length))


class _TokenAttention(torch.autograd.Function):
    """out_i = (sum_m a_{m,i} t_m) V_i for every head i, with a = softmax_m(t_m A).

    The values of M tokens would take M products with V, and their keys as many; mixed first, the
    heads take one between them. The mixed tokens, (n, h, D), are formed for a run of rows at a
    time, and formed again in the backward pass; kept between are t, A, V and a.
    """

    @staticmethod
    def forward(
        ctx: Any,
        tokens_NMD: Tensor,
        score_map_Dh: Tensor,
        value_map_hDd: Tensor,
        mask_NM: Tensor | None,
        numbers: int,
    ) -> Tensor:
        ctx.numbers = numbers
        scores_NMh = tokens_NMD @ score_map_Dh
        mask_NM1 = None if mask_NM is None else mask_NM[..., None]
        attention_NMh = masked_softmax(scores_NMh, mask_NM1, dim=1).to(tokens_NMD.dtype)
        out_Nhd = tokens_NMD.new_empty(len(tokens_NMD), *value_map_hDd.shape[::2])
        for rows in _runs(len(tokens_NMD), value_map_hDd[..., 0].numel(), numbers):
            mixed_nhD = attention_NMh[rows].mT @ tokens_NMD[rows]
            out_Nhd[rows] = (mixed_nhD.transpose(0, 1) @ value_map_hDd).transpose(0, 1)
        ctx.save_for_backward(tokens_NMD, score_map_Dh, value_map_hDd, attention_NMh)
        return out_Nhd

    @staticmethod
    def backward(ctx: Any, grad_Nhd: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        _refuse_second_derivatives()
        tokens_NMD, score_map_Dh, value_map_hDd, attention_NMh = ctx.saved_tensors
        # Sums over many rows, at least in float32: in bfloat16 a sum stops growing at 256 terms.
        exact = torch.promote_types(tokens_NMD.dtype, torch.float32)
        grad_value_map = torch.zeros_like(value_map_hDd, dtype=exact)
        grad_tokens = torch.empty_like(tokens_NMD)
        grad_scores_NMh = torch.empty_like(attention_NMh)
        for rows in _runs(len(tokens_NMD), value_map_hDd[..., 0].numel(), ctx.numbers):
            tokens_nMD, attention_nMh = tokens_NMD[rows], attention_NMh[rows]
            grad_hnd = grad_Nhd[rows].transpose(0, 1)
            mixed_nhD = attention_nMh.mT @ tokens_nMD
            grad_value_map += mixed_nhD.permute(1, 2, 0) @ grad_hnd
            grad_mixed_nhD = (grad_hnd @ value_map_hDd.mT).transpose(0, 1)
            grad_tokens[rows] = attention_nMh @ grad_mixed_nhD
            grad_scores_NMh[rows] = tokens_nMD @ grad_mixed_nhD.mT
        inner_N1h = (attention_NMh * grad_scores_NMh).sum(1, keepdim=True)
        grad_scores_NMh.sub_(inner_N1h).mul_(attention_NMh)
        grad_tokens += grad_scores_NMh @ score_map_Dh.mT
        grad_score_map = tokens_NMD.flatten(0, 1).mT @ grad_scores_NMh.flatten(0, 1)
        return grad_tokens, grad_score_map, grad_value_map.to(tokens_NMD.dtype), None, None
