"""The absorbed form on a CPU: products that scale pixels in the cache, compiled by Numba.

`absorbed` says what is computed. Plain torch writes the scaled pixels of a head into a buffer and
reads it again for a product that is too narrow (d features of a head) to hide that. Here a block
of rows lies transposed in the cache, rows along the lanes of the processor; a few channels of it
at a time are scaled and multiplied at once, in tiles that stay in its registers (`tiles_cpu`).
In float32, and for heads of 16, 32, ... features.

Threads share out heads (attention over channels) or rows (over tokens).

Shapes: J attentions side by side, over K channels each, or M tokens; N rows, P pixels of a patch,
h heads of d features. A block has BLOCK rows, n; C is a chunk of channels or features.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sciml_dchag.models import tiles_cpu as tiles
from sciml_dchag.models.tiles_cpu import BLOCK, LANES, TILE, compiled

STEPS = 64
"""Pixels of a chunk of channels, half as many of wide heads: with their values about 36 KiB."""
LOWEST = float(np.finfo(np.float32).min)
"""The score of a channel that is missing."""


@compiled
def _buffer(rows):  # type: ignore[no-untyped-def]
    return np.empty(rows * BLOCK, np.float32)


@compiled
def _transpose(a, start, row, rows, columns, c, c_start):  # type: ignore[no-untyped-def]
    """c[q, n] = a[n, q] of a block of rows; columns of rows that are not there are zero."""
    whole = rows // 8 * 8
    for n in range(0, whole, 8):
        for q in range(0, columns // 4 * 4, 4):
            tiles.transpose_8_by_4(c, c_start + q * BLOCK + n, a, start + n * row + q, row)
    for q in range(columns):
        for n in range(whole if q < columns // 4 * 4 else 0, rows):
            c[c_start + q * BLOCK + n] = a[start + n * row + q]
        for n in range(rows, BLOCK):
            c[c_start + q * BLOCK + n] = 0


@compiled
def _pixels(x, start, row, rows, K, P, x_Kn):  # type: ignore[no-untyped-def]
    """Transpose a block's pixels to (K, P + 1, n), the last of each channel being one."""
    for k in range(K):
        to = k * (P + 1) * BLOCK
        _transpose(x, start + k * P, row, rows, P, x_Kn, to)
        for n in range(BLOCK):
            x_Kn[to + P * BLOCK + n] = 1


@compiled
def _copy(a, start, count, c, c_start):  # type: ignore[no-untyped-def]
    """Copy a run of at most BLOCK numbers."""
    if count == BLOCK:
        tiles.copy_row(c, c_start, a, start, a, start)
    else:
        for n in range(count):
            c[c_start + n] = a[start + n]


@compiled
def _attend(scores, head, K, mask, at_mask, mask_row, rows, a_Kn, largest, total):  # type: ignore[no-untyped-def]
    """Normalise one head's scores of a block, (K, TILE, n), over K: attention (K, n)."""
    if mask.size:
        for k in range(K):
            for n in range(rows):
                if not mask[at_mask + n * mask_row + k]:
                    scores[(k * TILE + head) * BLOCK + n] = LOWEST
    largest[:], total[:] = LOWEST, 0
    for k in range(K):
        at = (k * TILE + head) * BLOCK
        tiles.max_row(largest, 0, scores, at, scores, at)
    for k in range(K):
        tiles.exp_row(a_Kn, k * BLOCK, scores, (k * TILE + head) * BLOCK, largest, 0)
        if mask.size:
            for n in range(rows):
                if not mask[at_mask + n * mask_row + k]:
                    a_Kn[k * BLOCK + n] = 0
        tiles.sum_row(total, 0, a_Kn, k * BLOCK, a_Kn, 0)
    for n in range(BLOCK):  # where no channel is there attention is zero
        largest[n] = LOWEST if total[n] == 0 else largest[n] + np.log(total[n])
        total[n] = 0 if total[n] == 0 else 1 / total[n]
    for k in range(K):
        tiles.set_row(a_Kn, k * BLOCK, a_Kn, k * BLOCK, total, 0)


@compiled
def _scale(a_Kn, channels, ones, x_Kn, first, scaled):  # type: ignore[no-untyped-def]
    """Scale the pixels of a chunk of channels by their attention."""
    for k in range(channels):
        for p in range(k * ones, (k + 1) * ones):
            at_x = (first * ones + p) * BLOCK
            tiles.set_row(scaled, p * BLOCK, a_Kn, (first + k) * BLOCK, x_Kn, at_x)


@compiled
def _mix(scaled, values, start, d, steps, out, to, row):  # type: ignore[no-untyped-def]
    """out[n] += sum_s scaled[s, n] values[s] over d features."""
    for v in range(0, d, LANES):
        for n in range(0, BLOCK, TILE):
            at = to + n * row + v
            tiles.add_tile(out, at, row, scaled, n, 1, BLOCK, values, start + v, d, steps)


@compiled
def _mix_back(scaled, values, start, d, steps, grad, at, row, rows, grad_dn, of_values, of_scaled):  # type: ignore[no-untyped-def]
    """of_values[s] += sum_n scaled[s, n] grad[n];  of_scaled[s, n] = values[s] . grad[n]."""
    for s in range(steps * BLOCK, (steps + TILE) * BLOCK):
        scaled[s] = 0  # a last tile is whole, and adds nothing to the values behind
    for v in range(0, d, LANES):
        for s in range(0, steps, TILE):
            to, of_row = start + s * d + v, s * BLOCK
            tiles.add_tile(of_values, to, d, scaled, of_row, BLOCK, 1, grad, at + v, row, rows)
    for n in range(0, BLOCK, LANES):
        for s in range(0, steps, TILE):
            to, of_value = s * BLOCK + n, start + s * d
            tiles.set_tile(of_scaled, to, BLOCK, values, of_value, d, 1, grad_dn, n, BLOCK, d)


@compiled
def _channels_forward(  # type: ignore[no-untyped-def]
    x, maps, values, mask, attention, logsumexp, out, N, J, K, P, h, d, first, last
):  # fmt: skip
    """Attend for the heads from `first` to `last`, counted over all attentions."""
    ones, D = P + 1, h * d
    chunk = max(1, (STEPS if d <= 64 else STEPS // 2) // ones)
    x_Kn, scaled, scores = _buffer(K * ones), _buffer(chunk * ones), _buffer(K * TILE)
    a_Kn, largest, total = _buffer(K), _buffer(1), _buffer(1)
    for j in range(first // h, (last - 1) // h + 1):
        heads = range(max(first - j * h, 0), min(last - j * h, h))
        for row in range(0, N, BLOCK):
            rows = min(BLOCK, N - row)
            _pixels(x, (row * J + j) * K * P, J * K * P, rows, K, P, x_Kn)
            for i in heads:
                if (i - heads.start) % TILE == 0:
                    for k in range(K):
                        for n in range(0, BLOCK, LANES):
                            tiles.set_tile(
                                scores, k * TILE * BLOCK + n, BLOCK,
                                maps, (j * K + k) * ones * (h + TILE) + i, 1, h + TILE,
                                x_Kn, k * ones * BLOCK + n, BLOCK, ones,
                            )  # fmt: skip
                at_mask = (row * J + j) * K
                head = (i - heads.start) % TILE
                _attend(scores, head, K, mask, at_mask, J * K, rows, a_Kn, largest, total)
                if logsumexp.size:
                    for n in range(rows):
                        logsumexp[((row + n) * J + j) * h + i] = largest[n]
                for k in range(K):
                    _copy(a_Kn, k * BLOCK, rows, attention, ((j * K + k) * h + i) * N + row)
                for k in range(0, K, chunk):
                    channels = min(chunk, K - k)
                    _scale(a_Kn, channels, ones, x_Kn, k, scaled)
                    _mix(
                        scaled, values, ((j * h + i) * (K * ones + TILE) + k * ones) * d, d,
                        channels * ones, out, (row * J + j) * D + i * d, J * D,
                    )  # fmt: skip


@compiled
def _channels_backward(  # type: ignore[no-untyped-def]
    x, attention, values, grad, grad_logsumexp, of_scores, of_values, N, J, K, P, h, d, first, last
):  # fmt: skip
    """Gradients of scores and values of the heads from `first` to `last`."""
    ones, D = P + 1, h * d
    chunk = max(1, (STEPS if d <= 64 else STEPS // 2) // ones)
    x_Kn, scaled = _buffer(K * ones), _buffer(chunk * ones + TILE)
    of_scaled = np.empty_like(scaled)
    a_Kn, of_a, inner, grad_dn = _buffer(K), _buffer(K), _buffer(1), _buffer(d)
    for j in range(first // h, (last - 1) // h + 1):
        for row in range(0, N, BLOCK):
            rows = min(BLOCK, N - row)
            _pixels(x, (row * J + j) * K * P, J * K * P, rows, K, P, x_Kn)
            for i in range(max(first - j * h, 0), min(last - j * h, h)):
                at_grad, at = (row * J + j) * D + i * d, (j * K * h + i) * N + row
                _transpose(grad, at_grad, J * D, rows, d, grad_dn, 0)
                for k in range(K):
                    _copy(attention, at + k * h * N, rows, a_Kn, k * BLOCK)
                inner[:] = 0
                for k in range(0, K, chunk):
                    channels = min(chunk, K - k)
                    _scale(a_Kn, channels, ones, x_Kn, k, scaled)
                    _mix_back(
                        scaled, values, ((j * h + i) * (K * ones + TILE) + k * ones) * d, d,
                        channels * ones, grad, at_grad, J * D, rows, grad_dn, of_values, of_scaled,
                    )  # fmt: skip
                    for c in range(channels):
                        to = (k + c) * BLOCK
                        for p in range(c * ones, (c + 1) * ones):
                            at_x = (k * ones + p) * BLOCK
                            if p == c * ones:
                                tiles.set_row(of_a, to, of_scaled, p * BLOCK, x_Kn, at_x)
                            else:
                                tiles.add_row(of_a, to, of_scaled, p * BLOCK, x_Kn, at_x)
                        tiles.add_row(inner, 0, of_a, to, a_Kn, to)
                if grad_logsumexp.size:  # whose derivative is the attention itself
                    for n in range(rows):
                        inner[n] -= grad_logsumexp[((row + n) * J + j) * h + i]
                for k in range(K):
                    tiles.through_softmax_row(of_a, k * BLOCK, a_Kn, k * BLOCK, inner, 0)
                    _copy(of_a, k * BLOCK, rows, of_scores, at + k * h * N)


@compiled
def _combine(a_hMn, i, M, tokens_MDn, D, first, features, mixed):  # type: ignore[no-untyped-def]
    """Mix a chunk of the features of M tokens for one head."""
    for m in range(M):
        at_a = (i * M + m) * BLOCK
        for f in range(features):
            at = (m * D + first + f) * BLOCK
            if m == 0:
                tiles.set_row(mixed, f * BLOCK, a_hMn, at_a, tokens_MDn, at)
            else:
                tiles.add_row(mixed, f * BLOCK, a_hMn, at_a, tokens_MDn, at)


@compiled
def _tokens_forward(tokens, attention, values, out, N, M, D, h, d, first, last):  # type: ignore[no-untyped-def]
    """Mix for the blocks of rows from `first` to `last`."""
    chunk = STEPS if d <= 64 else STEPS // 2
    tokens_MDn, a_hMn, mixed = _buffer(M * D), _buffer(h * M), _buffer(chunk)
    for row in range(first * BLOCK, min(last * BLOCK, N), BLOCK):
        rows = min(BLOCK, N - row)
        _transpose(tokens, row * M * D, M * D, rows, M * D, tokens_MDn, 0)
        for m in range(h * M):
            _copy(attention, m * N + row, rows, a_hMn, m * BLOCK)
        for f in range(0, D, chunk):
            features = min(chunk, D - f)
            for i in range(h):  # a chunk of all tokens stays in the cache for all heads
                _combine(a_hMn, i, M, tokens_MDn, D, f, features, mixed)
                _mix(
                    mixed, values, (i * (D + TILE) + f) * d, d, features,
                    out, row * h * d + i * d, h * d,
                )  # fmt: skip


@compiled
def _tokens_backward(  # type: ignore[no-untyped-def]
    tokens, attention, values, grad, of_tokens, of_attention, of_values, N, M, D, h, d, first, last
):  # fmt: skip
    """Gradients of tokens, as far as values go, of attention and of the value map."""
    chunk = STEPS if d <= 64 else STEPS // 2
    tokens_MDn, of_MDn, grad_dn = _buffer(M * D), _buffer(M * D), _buffer(d)
    a_hMn, of_a_hMn = _buffer(h * M), _buffer(h * M)
    mixed, of_mixed = _buffer(chunk + TILE), _buffer(chunk + TILE)
    for row in range(first * BLOCK, min(last * BLOCK, N), BLOCK):
        rows = min(BLOCK, N - row)
        _transpose(tokens, row * M * D, M * D, rows, M * D, tokens_MDn, 0)
        for m in range(h * M):
            _copy(attention, m * N + row, rows, a_hMn, m * BLOCK)
        of_MDn[:], of_a_hMn[:] = 0, 0
        for f in range(0, D, chunk):
            features = min(chunk, D - f)
            for i in range(h):
                at_grad = row * h * d + i * d
                _transpose(grad, at_grad, h * d, rows, d, grad_dn, 0)
                _combine(a_hMn, i, M, tokens_MDn, D, f, features, mixed)
                _mix_back(
                    mixed, values, (i * (D + TILE) + f) * d, d, features, grad, at_grad, h * d,
                    rows, grad_dn, of_values, of_mixed,
                )  # fmt: skip
                for m in range(M):
                    at_a = (i * M + m) * BLOCK
                    for q in range(features):
                        at = (m * D + f + q) * BLOCK
                        tiles.add_row(of_a_hMn, at_a, of_mixed, q * BLOCK, tokens_MDn, at)
                        tiles.add_row(of_MDn, at, of_mixed, q * BLOCK, a_hMn, at_a)
        for m in range(h * M):
            _copy(of_a_hMn, m * BLOCK, rows, of_attention, m * N + row)
        for first_q in range(0, M * D, LANES):
            for n in range(rows):
                for q in range(first_q, first_q + LANES):
                    of_tokens[(row + n) * M * D + q] = of_MDn[q * BLOCK + n]


def forward(
    x_NJKP: Tensor,
    score_maps_JKPh: Tensor,
    value_maps_JKPD: Tensor,
    mask_NJK: Tensor | None,
    with_logsumexp: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is mixed (N, J, D), the sums' logarithm (N, J, h), attention (J, K, h, N)."""
    N, J, K, P = x_NJKP.shape
    h, D = score_maps_JKPh.shape[-1], value_maps_JKPD.shape[-1]
    attention_JKhN, out_NJD = x_NJKP.new_empty(J, K, h, N), x_NJKP.new_zeros(_whole_blocks(N), J, D)
    logsumexp_NJh = x_NJKP.new_empty((N, J, h) if with_logsumexp else 0)
    mask = torch.empty(0, dtype=torch.bool) if mask_NJK is None else mask_NJK.contiguous()
    arrays = _arrays(
        x_NJKP.contiguous(), F.pad(score_maps_JKPh, (0, TILE)),
        _by_head(value_maps_JKPD, h), mask, attention_JKhN, logsumexp_NJh, out_NJD,
    )  # fmt: skip
    _share(J * h, lambda *heads: _channels_forward(*arrays, N, J, K, P, h, D // h, *heads))
    return out_NJD[:N], logsumexp_NJh, attention_JKhN


def backward(
    grad_NJD: Tensor,
    grad_logsumexp_NJh: Tensor | None,
    x_NJKP: Tensor,
    value_maps_JKPD: Tensor,
    attention_JKhN: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of score maps and of value maps."""
    N, J, K, P = x_NJKP.shape
    h, D = attention_JKhN.shape[2], value_maps_JKPD.shape[-1]
    x_NJKP, values = x_NJKP.contiguous(), _by_head(value_maps_JKPD, h)
    if grad_logsumexp_NJh is None:
        grad_logsumexp_NJh = x_NJKP.new_empty(0)
    of_scores_JKhN, of_values = torch.empty_like(attention_JKhN), torch.zeros_like(values)
    arrays = _arrays(
        x_NJKP, attention_JKhN, values, grad_NJD.contiguous(), grad_logsumexp_NJh.contiguous(),
        of_scores_JKhN, of_values,
    )  # fmt: skip
    _share(J * h, lambda *heads: _channels_backward(*arrays, N, J, K, P, h, D // h, *heads))
    grad_value_maps = of_values[:, :, :-TILE].transpose(1, 2).reshape(value_maps_JKPD.shape)
    grad_score_maps = x_NJKP.new_empty(J, K, P + 1, h)
    for j, of_scores_KhN in enumerate(of_scores_JKhN):
        grad_score_maps[j, :, :P] = torch.bmm(x_NJKP[:, j].permute(1, 2, 0), of_scores_KhN.mT)
        grad_score_maps[j, :, P] = of_scores_KhN.sum(-1)
    return grad_score_maps, grad_value_maps


def mix_tokens(
    tokens_NMD: Tensor, attention_NMh: Tensor, value_map_hDd: Tensor, numbers: int
) -> Tensor:
    """Mix the values of tokens: (N, h, d); there is no buffer whose `numbers` matter."""
    (N, M, D), (h, _, d) = tokens_NMD.shape, value_map_hDd.shape
    out_Nhd = tokens_NMD.new_zeros(_whole_blocks(N), h, d)
    attention_hMN = attention_NMh.permute(2, 1, 0).contiguous()
    arrays = _arrays(tokens_NMD.contiguous(), attention_hMN, _padded(value_map_hDd), out_Nhd)
    _share(len(out_Nhd) // BLOCK, lambda *some: _tokens_forward(*arrays, N, M, D, h, d, *some))
    return out_Nhd[:N]


def mix_tokens_backward(
    grad_Nhd: Tensor, tokens_NMD: Tensor, value_map_hDd: Tensor, attention_NMh: Tensor, numbers: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of tokens as far as values go, of attention, and of the value map."""
    (N, M, D), (h, _, d) = tokens_NMD.shape, value_map_hDd.shape
    attention_hMN = attention_NMh.permute(2, 1, 0).contiguous()
    values, of_tokens = _padded(value_map_hDd), torch.empty(tokens_NMD.shape, dtype=grad_Nhd.dtype)
    of_attention_hMN = torch.empty_like(attention_hMN)
    arrays = _arrays(
        tokens_NMD.contiguous(), attention_hMN, values, grad_Nhd.contiguous(), of_tokens,
        of_attention_hMN,
    )  # fmt: skip
    sums: list[Tensor] = []

    def some(first: int, last: int) -> None:
        own = torch.zeros_like(values)
        _tokens_backward(*arrays, *_arrays(own), N, M, D, h, d, first, last)
        sums.append(own)

    _share(_whole_blocks(N) // BLOCK, some)
    of_values = torch.stack(sums).sum(0) if len(sums) > 1 else sums[0]
    return of_tokens, of_attention_hMN.permute(2, 1, 0).contiguous(), of_values[:, :-TILE]


def _share(total: int, work: Callable[[int, int], None]) -> None:
    """Call `work(first, last)` on as many threads as torch may use, each with its part."""
    threads = min(torch.get_num_threads(), total)
    bounds = [total * thread // threads for thread in range(threads + 1)]
    if threads == 1:
        work(*bounds)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, bounds[:-1], bounds[1:]))


def _arrays(*tensors: Tensor) -> list[Any]:
    """Return the numbers of contiguous tensors, in a row each."""
    return [tensor.detach().view(-1).numpy() for tensor in tensors]


def _whole_blocks(rows: int) -> int:
    return -(-rows // BLOCK) * BLOCK


def _by_head(value_maps_JKPD: Tensor, h: int) -> Tensor:
    """Order value maps by head, with room for a whole tile: (J, h, K P + TILE, d)."""
    return _padded(value_maps_JKPD.flatten(1, 2).unflatten(2, (h, -1)).transpose(1, 2))


def _padded(values_xPd: Tensor) -> Tensor:
    return F.pad(values_xPd, (0, 0, 0, TILE)).contiguous()
