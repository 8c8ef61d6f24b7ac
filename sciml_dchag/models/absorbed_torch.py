"""The absorbed form in plain torch: any device and precision, and all derivatives of first order.

`absorbed` says what is computed. The product of attention and pixels, (n, K P) for one head and n
rows, is formed in one small buffer, and formed again in the backward pass. The elementwise work is
bound by memory: the buffer must stay in the cache.

Shapes: J attentions side by side, over K channels each, or M tokens; N rows, P pixels of a patch
without the constant one, D features, h heads of d features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sciml_dchag.models.masking import masked_logsumexp, masked_softmax


def buffer_numbers(device_type: str) -> int:
    """How many numbers the buffer of scaled pixels holds at most.

    On the CPU 2^20, about what the second-level caches of two cores hold; an accelerator is better
    served by few large steps.
    """
    return 2**20 if device_type == "cpu" else 2**26


def forward(
    x_NJKP: Tensor,
    score_maps_JKPh: Tensor,
    value_maps_JKPD: Tensor,
    mask_NJK: Tensor | None,
    with_logsumexp: bool,
    numbers: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is mixed (N, J, D), the sums' logarithm (N, J, h), attention (J, h, N, K)."""
    N, J, K, _ = x_NJKP.shape
    h = score_maps_JKPh.shape[-1]
    exact = torch.promote_types(x_NJKP.dtype, torch.float32)
    attention_JhNK = x_NJKP.new_empty(J, h, N, K)
    mixed_NJhd = x_NJKP.new_empty(N, J, h, value_maps_JKPD.shape[-1] // h)
    logsumexp_NJh = x_NJKP.new_empty((N, J, h) if with_logsumexp else 0, dtype=exact)
    for j in range(J):
        value_maps = _by_head(value_maps_JKPD[j], h)
        for rows, x_nKP, scaled_nKP in _buffered_rows(x_NJKP[:, j], numbers):
            flat = scaled_nKP.flatten(1)  # the same memory, (n, K P)
            scores_Knh = torch.bmm(x_nKP.transpose(0, 1), score_maps_JKPh[j])
            mask_nK = None if mask_NJK is None else mask_NJK[rows, j]
            scores_hnK = scores_Knh.permute(2, 1, 0)
            attention_JhNK[j, :, rows] = masked_softmax(scores_hnK, mask_nK, dim=-1)
            if with_logsumexp:
                logsumexp_NJh[rows, j] = masked_logsumexp(scores_hnK, mask_nK, dim=-1).t()
            heads = zip(
                attention_JhNK[j, :, rows, :, None], value_maps, mixed_NJhd[rows, j].unbind(1),
                strict=True,
            )  # fmt: skip
            for attention_nK1, value_map, mixed_nd in heads:
                torch.mul(attention_nK1, x_nKP, out=scaled_nKP)
                torch.mm(flat, value_map, out=mixed_nd)
    return mixed_NJhd.flatten(2), logsumexp_NJh, attention_JhNK


def backward(
    grad_NJD: Tensor,
    grad_logsumexp_NJh: Tensor | None,
    x_NJKP: Tensor,
    score_maps_JKPh: Tensor,
    value_maps_JKPD: Tensor,
    attention_JhNK: Tensor,
    of_pixels: bool,
    numbers: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of pixels (empty if not asked for), of score maps and of value maps."""
    h = score_maps_JKPh.shape[-1]
    grads = [
        _backward_of_one(
            grad_NJD[:, j].unflatten(1, (h, -1)),
            None if grad_logsumexp_NJh is None else grad_logsumexp_NJh[:, j],
            x_NJKP[:, j], score_maps_JKPh[j], value_maps_JKPD[j], attention_JhNK[j],
            of_pixels, numbers,
        )
        for j in range(x_NJKP.shape[1])
    ]  # fmt: skip
    of_x, of_scores, of_values = zip(*grads, strict=True)
    grad_x = torch.stack(of_x, dim=1) if of_pixels else x_NJKP.new_empty(0)
    return grad_x, torch.stack(of_scores), torch.stack(of_values)


def _backward_of_one(
    grad_Nhd: Tensor, grad_logsumexp_Nh: Tensor | None, x_NKP: Tensor, score_maps_KPh: Tensor,
    value_maps_KPD: Tensor, attention_hNK: Tensor, of_pixels: bool, numbers: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    N, K, P = x_NKP.shape
    h, ones = attention_hNK.shape[0], P + 1
    value_maps = _by_head(value_maps_KPD, h)
    # Sums over many rows, at least in float32: in bfloat16 a sum stops growing at 256 terms.
    exact = torch.promote_types(x_NKP.dtype, torch.float32)
    grad_x = x_NKP.new_zeros((N, K, P) if of_pixels else 0, dtype=exact)
    grad_score_maps = torch.zeros_like(score_maps_KPh, dtype=exact)
    # Transposed, (h, d, K P), which is the faster way to add products of tall matrices up.
    grad_value_maps = value_maps.new_zeros(h, value_maps.shape[-1], K * ones, dtype=exact)
    one_P = x_NKP.new_ones(ones)
    for rows, x_nKP, scaled_nKP in _buffered_rows(x_NKP, numbers):
        flat = scaled_nKP.flatten(1)  # the same memory, (n, K P)
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
            if of_pixels:
                grad_x[rows] += (scaled_nKP * attention_nK1)[..., :P]
            # A sum over P as a product with ones: twice as fast over so few numbers.
            scaled_nKP.mul_(x_nKP)
            torch.mv(scaled_nKP.view(-1, ones), one_P, out=grad_attention)
        inner = (attention_hnK * grad_hnK).sum(-1, keepdim=True)
        if grad_logsumexp_Nh is not None:  # whose derivative is the attention itself
            inner = inner - grad_logsumexp_Nh[rows].t()[..., None].to(inner.dtype)
        grad_scores_hnK = grad_hnK.sub_(inner).mul_(attention_hnK)
        grad_scores_Knh = grad_scores_hnK.permute(2, 1, 0).contiguous()
        if exact == x_NKP.dtype:
            grad_score_maps.baddbmm_(x_nKP.permute(1, 2, 0), grad_scores_Knh)
        else:
            grad_score_maps += torch.bmm(x_nKP.permute(1, 2, 0), grad_scores_Knh)
        if of_pixels:
            through_scores = torch.bmm(grad_scores_Knh, score_maps_KPh[:, :P].transpose(1, 2))
            grad_x[rows] += through_scores.transpose(0, 1)
    grad_value_maps_KPD = grad_value_maps.permute(2, 0, 1).reshape(K, ones, -1)
    to = x_NKP.dtype
    return grad_x.to(to), grad_score_maps.to(to), grad_value_maps_KPD.to(to)


def _by_head(value_maps_KPD: Tensor, h: int) -> Tensor:
    """Order value maps by head: (K, P, D) -> (h, K P, d)."""
    return value_maps_KPD.flatten(0, 1).unflatten(1, (h, -1)).transpose(0, 1).contiguous()


def _buffered_rows(x_NKP: Tensor, numbers: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Cut N into runs of rows: which, their pixels with a constant one each, and as much buffer.

    Both are contiguous, (n, K, P + 1), and the next run's lie in the same memory.
    """
    N, K, P = x_NKP.shape
    most = min(max(1, numbers // (K * (P + 1))), N)
    with_one, buffer = (x_NKP.new_empty(most, K, P + 1) for _ in range(2))
    with_one[..., P] = 1
    for rows in runs(N, K * (P + 1), numbers):
        n = rows.stop - rows.start
        with_one[:n, :, :P] = x_NKP[rows]
        yield rows, with_one[:n], buffer[:n]


def runs(rows: int, numbers_of_a_row: int, numbers: int) -> Iterator[slice]:
    """Cut rows into runs that have at most so many numbers, or one row."""
    length = max(1, numbers // numbers_of_a_row)
    return (slice(start, min(start + length, rows)) for start in range(0, rows, length))


def values_first(tokens_NMD: Tensor) -> bool:
    """Whether every token's value is formed, rather than tokens mixed for every head.

    That takes M products for one, but nothing of the size (N, h, D), which a GPU would write to
    memory and read again: of few tokens it is faster there.
    """
    return tokens_NMD.device.type != "cpu" and tokens_NMD.shape[1] <= 8


def mix_tokens(
    tokens_NMD: Tensor, attention_NMh: Tensor, value_map_hDd: Tensor, numbers: int
) -> Tensor:
    """Mix the values of tokens: (N, h, d)."""
    if values_first(tokens_NMD):
        return (attention_NMh[..., None] * _values(tokens_NMD, value_map_hDd)).sum(1)
    out_Nhd = tokens_NMD.new_empty(len(tokens_NMD), *value_map_hDd.shape[::2])
    for rows in runs(len(tokens_NMD), value_map_hDd[..., 0].numel(), numbers):
        mixed_nhD = attention_NMh[rows].mT @ tokens_NMD[rows]
        out_Nhd[rows] = (mixed_nhD.transpose(0, 1) @ value_map_hDd).transpose(0, 1)
    return out_Nhd


def _values(tokens_NMD: Tensor, value_map_hDd: Tensor) -> Tensor:
    """Values of every token: (N, M, h, d)."""
    values_NMD = tokens_NMD @ value_map_hDd.transpose(0, 1).flatten(1)
    return values_NMD.unflatten(2, (len(value_map_hDd), -1))


def mix_tokens_backward(
    grad_Nhd: Tensor,
    tokens_NMD: Tensor,
    value_map_hDd: Tensor,
    attention_NMh: Tensor,
    numbers: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of tokens as far as values go, of attention, and of the value map."""
    through = _through_values if values_first(tokens_NMD) else _through_mixed
    return through(grad_Nhd, tokens_NMD, value_map_hDd, attention_NMh, numbers)


def _through_values(
    grad_Nhd: Tensor, tokens_NMD: Tensor, value_map_hDd: Tensor, attention_NMh: Tensor, _: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of tokens by their values, of attention and of the value map."""
    grad_attention = (grad_Nhd[:, None] * _values(tokens_NMD, value_map_hDd)).sum(-1)
    grad_values_NMD = (attention_NMh[..., None] * grad_Nhd[:, None]).flatten(2)
    grad_tokens = grad_values_NMD @ value_map_hDd.transpose(0, 1).flatten(1).mT
    grad_map_DD = tokens_NMD.flatten(0, 1).mT @ grad_values_NMD.flatten(0, 1)
    h = len(value_map_hDd)
    return grad_tokens, grad_attention, grad_map_DD.unflatten(1, (h, -1)).transpose(0, 1)


def _through_mixed(
    grad_Nhd: Tensor,
    tokens_NMD: Tensor,
    value_map_hDd: Tensor,
    attention_NMh: Tensor,
    numbers: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same without the values, tokens mixed again for every head."""
    # Sums over many rows, at least in float32: in bfloat16 a sum stops growing at 256 terms.
    exact = torch.promote_types(tokens_NMD.dtype, torch.float32)
    grad_value_map = torch.zeros_like(value_map_hDd, dtype=exact)
    grad_tokens = torch.empty_like(tokens_NMD)
    grad_attention_NMh = torch.empty_like(attention_NMh)
    for rows in runs(len(tokens_NMD), value_map_hDd[..., 0].numel(), numbers):
        tokens_nMD, attention_nMh = tokens_NMD[rows], attention_NMh[rows]
        grad_hnd = grad_Nhd[rows].transpose(0, 1)
        mixed_nhD = attention_nMh.mT @ tokens_nMD
        grad_value_map += mixed_nhD.permute(1, 2, 0) @ grad_hnd
        grad_mixed_nhD = (grad_hnd @ value_map_hDd.mT).transpose(0, 1)
        grad_tokens[rows] = attention_nMh @ grad_mixed_nhD
        grad_attention_NMh[rows] = tokens_nMD @ grad_mixed_nhD.mT
    return grad_tokens, grad_attention_NMh, grad_value_map


def token_forward(
    tokens_NMD: Tensor,
    score_map_Dh: Tensor,
    value_map_hDd: Tensor,
    mask_NM: Tensor | None,
    numbers: int,
    mix: Callable[[Tensor, Tensor, Tensor, int], Tensor] = mix_tokens,
) -> tuple[Tensor, Tensor]:
    """Return what is mixed (N, h, d) and attention (N, M, h)."""
    scores_NMh = tokens_NMD @ score_map_Dh
    mask_NM1 = None if mask_NM is None else mask_NM[..., None]
    attention_NMh = masked_softmax(scores_NMh, mask_NM1, dim=1).to(tokens_NMD.dtype)
    return mix(tokens_NMD, attention_NMh, value_map_hDd, numbers), attention_NMh


def token_backward(
    grad_Nhd: Tensor,
    tokens_NMD: Tensor,
    score_map_Dh: Tensor,
    value_map_hDd: Tensor,
    attention_NMh: Tensor,
    numbers: int,
    mix_backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = mix_tokens_backward,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of tokens, score map and value map."""
    grad_tokens, grad_attention_NMh, grad_value_map = mix_backward(
        grad_Nhd, tokens_NMD, value_map_hDd, attention_NMh, numbers
    )
    inner_N1h = (attention_NMh * grad_attention_NMh).sum(1, keepdim=True)
    grad_scores_NMh = grad_attention_NMh.sub_(inner_N1h).mul_(attention_NMh)
    grad_tokens += grad_scores_NMh @ score_map_Dh.mT
    grad_score_map = tokens_NMD.flatten(0, 1).mT @ grad_scores_NMh.flatten(0, 1)
    return grad_tokens, grad_score_map, grad_value_map.to(tokens_NMD.dtype)
