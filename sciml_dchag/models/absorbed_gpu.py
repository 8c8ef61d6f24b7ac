"""The absorbed form on a GPU, in 16 bits: products that scale pixels as they load them.

`absorbed` says what is computed. Of every head the scaled pixels are one side of a product; written
to memory they would be h times the pixels. The kernels here, in Triton, scale a tile of pixels in
registers and multiply it at once. What is small beside that product is left to torch: scores and
what the constant pixel adds, which are plain products. Sums are in float32.

Shapes: J attentions side by side, over K channels each; N rows, P pixels of a patch, h heads of d
features. A tile has n rows and k channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _columns(first_channel, K, P: tl.constexpr, P2: tl.constexpr, BLOCK_K: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where the pixels of a tile's channels lie in a row, padded to P2 each, and which are none."""
    column = tl.arange(0, BLOCK_K * P2)
    channel, pixel = first_channel + column // P2, column % P2
    return channel * P + pixel, (channel < K) & (pixel < P), channel * (P + 1) + pixel


@triton.jit
def _scaled(a_nk, x_nkp, P2: tl.constexpr):  # type: ignore[no-untyped-def]
    """Multiply each channel's pixels by its attention, in the pixels' precision."""
    n: tl.constexpr = a_nk.shape[0]
    k: tl.constexpr = a_nk.shape[1]
    wide = tl.broadcast_to(a_nk[:, :, None], (n, k, P2))
    return tl.reshape(wide, (n, k * P2)) * x_nkp


@triton.jit
def _scaled_columns(a_kn, x_kpn, P2: tl.constexpr):  # type: ignore[no-untyped-def]
    """The same of a tile with rows along its second dimension."""
    k: tl.constexpr = a_kn.shape[0]
    n: tl.constexpr = a_kn.shape[1]
    wide = tl.broadcast_to(a_kn[:, None, :], (k, P2, n))
    return tl.reshape(wide, (k * P2, n)) * x_kpn


@triton.jit
def _scores(  # type: ignore[no-untyped-def]
    scores, bias, mask, j, i, rows, first, N, K, h, HAS_MASK: tl.constexpr, BLOCK_K: tl.constexpr
):  # fmt: skip
    """Scores of a tile (k, n), minus infinity where there are none; where they lie, and which."""
    channels = first + tl.arange(0, BLOCK_K)
    at_channel = (j * K + channels).to(tl.int64) * h + i
    within = (channels < K)[:, None] & (rows < N)[None, :]
    there = within
    if HAS_MASK:
        of_row = (rows.to(tl.int64) * (tl.num_programs(1) // h) + j) * K
        there = within & (tl.load(mask + of_row[None, :] + channels[:, None], within, other=0) != 0)
    at = at_channel[:, None] * N + rows[None, :]
    s = tl.load(scores + at, there, other=-float("inf"))
    return s + tl.load(bias + at_channel, channels < K, other=0.0)[:, None], at, within


@triton.jit
def _softmax_kernel(  # type: ignore[no-untyped-def]
    scores, bias, mask, attention, logsumexp, N, K, h,
    HAS_MASK: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Normalise scores (J, K, h, N) plus biases (J, K, h) over K."""
    j, i = tl.program_id(1) // h, tl.program_id(1) % h
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    largest = tl.full((BLOCK_N,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    for first in range(0, K, BLOCK_K):
        s = _scores(scores, bias, mask, j, i, rows, first, N, K, h, HAS_MASK, BLOCK_K)[0]
        new = tl.maximum(largest, tl.max(s, 0))
        base = tl.where(new == -float("inf"), 0.0, new)
        total = total * tl.exp(largest - base) + tl.sum(tl.exp(s - base[None, :]), 0)
        largest = new
    none = total == 0  # no channel is there: attention is zero, and its logarithm very negative
    base = tl.where(none, 0.0, largest + tl.log(tl.where(none, 1.0, total)))
    at_row = (rows.to(tl.int64) * (tl.num_programs(1) // h) + j) * h + i
    tl.store(logsumexp + at_row, tl.where(none, -3.4028235e38, base), rows < N)
    for first in range(0, K, BLOCK_K):
        s, at, within = _scores(scores, bias, mask, j, i, rows, first, N, K, h, HAS_MASK, BLOCK_K)
        a = tl.exp(s - base[None, :])
        tl.store(attention + at, a.to(attention.dtype.element_ty), within)


@triton.jit
def _mix_kernel(  # type: ignore[no-untyped-def]
    x, attention, values, constant, out, N, K, d, J,
    P: tl.constexpr, P2: tl.constexpr, HEADS: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """out_i = constant_i + sum_k (a_{k,i} x_k) Z_{k,i}: (N, J, h d), of one head or two."""
    i, h, j = tl.program_id(0) * HEADS, tl.num_programs(0) * HEADS, tl.program_id(2)
    rows = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    features = tl.arange(0, BLOCK_D)
    wide = rows.to(tl.int64)[:, None] * J + j
    there = (rows < N)[:, None] & (features < d)[None, :]
    at_constant = ((j * h + i).to(tl.int64) * N + rows[:, None]) * d + features[None, :]
    mixed = tl.load(constant + at_constant, there, other=0.0)
    if HEADS == 2:
        mixed_2 = tl.load(constant + at_constant + N * d, there, other=0.0)
    for first in range(0, K, BLOCK_K):
        column, is_pixel, value_row = _columns(first, K, P, P2, BLOCK_K)
        channels = first + tl.arange(0, BLOCK_K)
        known = (rows < N)[:, None] & (channels < K)[None, :]
        is_value = is_pixel[:, None] & (features < d)[None, :]
        x_at = wide * K * P + column[None, :]
        x_nkp = tl.load(x + x_at, (rows < N)[:, None] & is_pixel[None, :], other=0.0)
        at_channel = ((j * K + channels).to(tl.int64) * h + i)[None, :] * N + rows[:, None]
        at_value = (j * K * (P + 1) + value_row).to(tl.int64)[:, None] * h * d + features[None, :]
        a_nk = tl.load(attention + at_channel, known, other=0.0)
        z = tl.load(values + at_value + i * d, is_value, other=0.0)
        mixed = tl.dot(_scaled(a_nk, x_nkp, P2), z, mixed)
        if HEADS == 2:
            a_nk = tl.load(attention + at_channel + N, known, other=0.0)
            z = tl.load(values + at_value + (i + 1) * d, is_value, other=0.0)
            mixed_2 = tl.dot(_scaled(a_nk, x_nkp, P2), z, mixed_2)
    at_out = wide * h * d + i * d + features[None, :]
    tl.store(out + at_out, mixed.to(out.dtype.element_ty), there)
    if HEADS == 2:
        tl.store(out + at_out + d, mixed_2.to(out.dtype.element_ty), there)


@triton.jit
def _values_backward_kernel(  # type: ignore[no-untyped-def]
    x, attention, grad, grad_values, N, K, d, J, splits, rows_of_split,
    P: tl.constexpr, P2: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """grad_Z_{k,i} = sum_n (a_{k,i} x_k)^T g_i over a run of rows."""
    i, h = tl.program_id(1), tl.num_programs(1)
    j, split = tl.program_id(2) // splits, tl.program_id(2) % splits
    features = tl.arange(0, BLOCK_D)
    first = tl.program_id(0) * BLOCK_K
    column, is_pixel, value_row = _columns(first, K, P, P2, BLOCK_K)
    channels = first + tl.arange(0, BLOCK_K)
    at_channel = ((j * K + channels).to(tl.int64) * h + i)[:, None] * N
    grad_z = tl.zeros((BLOCK_K * P2, BLOCK_D), tl.float32)
    for offset in range(0, rows_of_split, BLOCK_N):
        rows = split * rows_of_split + offset + tl.arange(0, BLOCK_N)
        wide = rows.to(tl.int64)[:, None] * J + j
        there = (rows < N)[:, None] & (features < d)[None, :]
        known = (channels < K)[:, None] & (rows < N)[None, :]
        x_at = wide * K * P + column[None, :]
        x_nkp = tl.load(x + x_at, (rows < N)[:, None] & is_pixel[None, :], other=0.0)
        at_grad = wide * h * d + i * d + features[None, :]
        x_kpn = tl.trans(x_nkp)
        a_kn = tl.load(attention + at_channel + rows[None, :], known, other=0.0)
        g = tl.load(grad + at_grad, there, other=0.0)
        grad_z = tl.dot(_scaled_columns(a_kn, x_kpn, P2), g, grad_z)
    is_value = is_pixel[:, None] & (features < d)[None, :]
    at_value = ((split * J + j) * K * (P + 1) + value_row).to(tl.int64)[:, None] * h * d
    at_value += i * d + features[None, :]
    tl.store(grad_values + at_value, grad_z.to(grad_values.dtype.element_ty), is_value)


@triton.jit
def _scores_backward_kernel(  # type: ignore[no-untyped-def]
    x, attention, values, grad, grad_constant, inner, grad_scores, grad_x, N, K, h, d, J,
    P: tl.constexpr, P2: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr, OF_PIXELS: tl.constexpr,
):  # fmt: skip
    """Gradients of scores, a (g . (x Z) - inner), and what pixels get from values: a (g Z)."""
    j = tl.program_id(2)
    rows = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    features = tl.arange(0, BLOCK_D)
    first = tl.program_id(0) * BLOCK_K
    column, is_pixel, value_row = _columns(first, K, P, P2, BLOCK_K)
    channels = first + tl.arange(0, BLOCK_K)
    wide = rows.to(tl.int64)[:, None] * J + j
    there = (rows < N)[:, None] & (features < d)[None, :]
    known = (rows < N)[:, None] & (channels < K)[None, :]
    is_value = is_pixel[:, None] & (features < d)[None, :]
    x_at = wide * K * P + column[None, :]
    is_x = (rows < N)[:, None] & is_pixel[None, :]
    x_nkp = tl.load(x + x_at, is_x, other=0.0).to(tl.float32)
    at_value = (j * K * (P + 1) + value_row).to(tl.int64)[:, None] * h * d + features[None, :]
    at_channel = ((j * K + channels).to(tl.int64) * h)[None, :] * N + rows[:, None]
    if OF_PIXELS:
        total = tl.load(grad_x + x_at, is_x, other=0.0)
    for i in range(0, h):
        # Before the product, which they need not wait for.
        a_nk = tl.load(attention + at_channel + i * N, known, other=0.0).to(tl.float32)
        grad_a = tl.load(grad_constant + at_channel + i * N, known, other=0.0).to(tl.float32)
        grad_a -= tl.load(inner + (rows * J + j) * h + i, rows < N, other=0.0)[:, None]
        g = tl.load(grad + wide * h * d + i * d + features[None, :], there, other=0.0)
        z = tl.load(values + at_value + i * d, is_value, other=0.0)
        through = tl.dot(g, tl.trans(z))
        if OF_PIXELS:
            total += _scaled(a_nk, through, P2)
        grad_a += tl.sum(tl.reshape(through * x_nkp, (BLOCK_N, BLOCK_K, P2)), 2)
        grad_s = (a_nk * grad_a).to(grad_scores.dtype.element_ty)
        tl.store(grad_scores + at_channel + i * N, grad_s, known)
    if OF_PIXELS:
        tl.store(grad_x + x_at, total, is_x)


def forward(
    x_NJKP: Tensor, score_maps_JKPh: Tensor, value_maps_JKPD: Tensor, mask_NJK: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is mixed (N, J, D), the sums' logarithm (N, J, h), attention (J, K, h, N)."""
    N, J, K, P = x_NJKP.shape
    h, d = score_maps_JKPh.shape[-1], value_maps_JKPD.shape[-1] // score_maps_JKPh.shape[-1]
    maps, bias = score_maps_JKPh[..., :P, :], score_maps_JKPh[..., P, :].float().contiguous()
    scores = _product(maps.mT.flatten(0, 1), x_NJKP.permute(1, 2, 3, 0).flatten(0, 1))
    attention_JKhN = x_NJKP.new_empty(J, K, h, N)
    logsumexp_NJh = x_NJKP.new_empty(N, J, h, dtype=torch.float32)
    mask = x_NJKP if mask_NJK is None else mask_NJK.contiguous().view(torch.uint8)
    _softmax_kernel[(triton.cdiv(N, 64), J * h)](
        scores, bias, mask, attention_JKhN, logsumexp_NJh, N, K, h,
        HAS_MASK=mask_NJK is not None, BLOCK_N=64, BLOCK_K=min(64, triton.next_power_of_2(K)),
    )  # fmt: skip
    constant_JhNd = torch.stack(
        [
            _product(attention.permute(1, 2, 0), values.transpose(0, 1))
            for attention, values in zip(
                attention_JKhN, _constants(value_maps_JKPD, h), strict=True
            )
        ]
    )
    out_NJD = x_NJKP.new_empty(N, J, h * d)
    tile, heads = _Tile.of(P, d, rows=128, columns=64, warps=4), _heads(h, d)
    _mix_kernel[(h // heads, triton.cdiv(N, tile.BLOCK_N), J)](
        x_NJKP, attention_JKhN, value_maps_JKPD, constant_JhNd, out_NJD, N, K, d, J,
        P=P, HEADS=heads, **tile._asdict(),
    )  # fmt: skip
    return out_NJD, logsumexp_NJh, attention_JKhN


def backward(
    grad_NJD: Tensor,
    grad_logsumexp_NJh: Tensor | None,
    x_NJKP: Tensor,
    score_maps_JKPh: Tensor,
    value_maps_JKPD: Tensor,
    out_NJD: Tensor,
    attention_JKhN: Tensor,
    of_pixels: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of pixels (empty if not asked for), of score maps and of value maps."""
    N, J, K, P = x_NJKP.shape
    h, d = score_maps_JKPh.shape[-1], value_maps_JKPD.shape[-1] // score_maps_JKPh.shape[-1]
    grad_NJD = grad_NJD.contiguous()
    # sum_k a_k (g x_k Z_k), which is what softmax's derivative subtracts, is g times the output.
    inner_NJh = (grad_NJD.float() * out_NJD).unflatten(2, (h, d)).sum(3)
    if grad_logsumexp_NJh is not None:
        inner_NJh = inner_NJh - grad_logsumexp_NJh
    inner_NJh = inner_NJh.contiguous()
    grad_JhNd = grad_NJD.view(N, J, h, d).permute(1, 2, 0, 3)
    of_constants = torch.stack(
        [_product(attention_JKhN[j].transpose(0, 1), grad_JhNd[j]) for j in range(J)]
    )
    grad_constant_JKhN = torch.empty_like(attention_JKhN)
    for j, constants in enumerate(_constants(value_maps_JKPD, h)):
        out = grad_constant_JKhN[j].transpose(0, 1)
        torch.bmm(constants.transpose(0, 1), grad_JhNd[j].mT, out=out)
    tile = _Tile.of(P, d, rows=128, columns=64, warps=4)
    programs = triton.cdiv(K, tile.BLOCK_K) * h * J
    splits = min(triton.cdiv(N, 256), max(1, 512 // programs))
    rows = triton.cdiv(triton.cdiv(N, splits), tile.BLOCK_N) * tile.BLOCK_N
    grad_values = x_NJKP.new_empty(splits, *value_maps_JKPD.shape, dtype=torch.float32)
    _values_backward_kernel[(triton.cdiv(K, tile.BLOCK_K), h, J * splits)](
        x_NJKP, attention_JKhN, grad_NJD, grad_values, N, K, d, J, splits, rows,
        P=P, **tile._asdict(),
    )  # fmt: skip
    grad_scores_JKhN, grad_x = torch.empty_like(attention_JKhN), x_NJKP
    if of_pixels:
        grad_x = torch.zeros_like(x_NJKP, dtype=torch.float32)
    tile = _Tile.of(P, d, rows=64, columns=64, warps=4)
    _scores_backward_kernel[(triton.cdiv(K, tile.BLOCK_K), triton.cdiv(N, tile.BLOCK_N), J)](
        x_NJKP, attention_JKhN, value_maps_JKPD, grad_NJD, grad_constant_JKhN, inner_NJh,
        grad_scores_JKhN, grad_x, N, K, h, d, J,
        P=P, OF_PIXELS=of_pixels, **tile._asdict(),
    )  # fmt: skip
    grad_values_JKPD = grad_values[0] if splits == 1 else grad_values.sum(0)
    grad_values_JKPD[..., P, :] = of_constants.permute(0, 2, 1, 3).flatten(2)
    pixels_JKPN = x_NJKP.permute(1, 2, 3, 0).flatten(0, 1)
    of_scores = grad_scores_JKhN.flatten(0, 1)
    grad_maps = _product(pixels_JKPN, of_scores.mT).unflatten(0, (J, K))
    grad_bias = grad_scores_JKhN.sum(-1, dtype=torch.float32)[:, :, None]
    grad_score_maps = torch.cat([grad_maps, grad_bias], dim=2)
    if of_pixels:
        through_scores = _product(of_scores.mT, score_maps_JKPh[..., :P, :].flatten(0, 1).mT)
        grad_x += through_scores.unflatten(0, (J, K)).permute(2, 0, 1, 3)
    dtype = value_maps_JKPD.dtype
    of_x = grad_x.to(x_NJKP.dtype) if of_pixels else x_NJKP.new_empty(0)
    return of_x, grad_score_maps.to(dtype), grad_values_JKPD.to(dtype)


class _Tile(NamedTuple):
    """Sizes of a tile, as the kernels take them."""

    P2: int
    BLOCK_N: int
    BLOCK_K: int
    BLOCK_D: int
    num_warps: int
    num_stages: int

    @classmethod
    def of(cls, P: int, d: int, rows: int, columns: int, warps: int) -> _Tile:
        """Fit a tile of about so many rows and columns, and loads ahead, into a GPU's memory."""
        P2, features = triton.next_power_of_2(P), max(16, triton.next_power_of_2(d))
        channels = max(1, columns // P2)
        rows = max(16, min(rows, 16384 // (channels * P2)))
        bytes_of_stage = 2 * channels * P2 * (rows + features)
        stages = max(1, min(3, _SHARED_BYTES // bytes_of_stage))
        return cls(P2, rows, channels, features, 8 if channels * P2 > 128 else warps, stages)


_SHARED_BYTES = 160 * 1024
"""Of the 227 KiB that a block has on Hopper, and of 163 on Ampere."""


def _heads(h: int, d: int) -> int:
    """How many heads share a tile of pixels: two where their sums fit into the registers."""
    return 2 if h % 2 == 0 and d <= 64 else 1


def _constants(value_maps_JKPD: Tensor, h: int) -> Tensor:
    """Values of the constant pixel: (J, K, h, d)."""
    return value_maps_JKPD[..., -1, :].unflatten(-1, (h, -1))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Batched product of matrices in 16 bits, its sums and its result in float32."""
    if a.is_cuda:
        return torch.bmm(a, b, out_dtype=torch.float32)
    return torch.bmm(a.float(), b.float())  # where Triton is interpreted
