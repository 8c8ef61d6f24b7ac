"""The absorbed form as operators of torch: attention over channels straight from their pixels, and
over tokens without their keys and values.

Why these are the same functions as attention over tokens stands in `aggregation`. Each is one
operator, with its gradient another, so that `torch.compile`, `torch.export`, recomputation and the
planner see it as a whole; `absorbed_torch` computes it, for 16 bits on a GPU `absorbed_gpu`, and
where Numba is installed `absorbed_cpu` for float32 on a CPU. Nothing of the model is known here.

    attention over channels   out_i = sum_k (a_{k,i} x_k) Z_{k,i},   a = softmax_k(x_k A_k)
    attention over tokens     out_i = (sum_m a_{m,i} t_m) V_i,       a = softmax_m(t_m A)

for every head i. Kept for the backward pass are x, A, Z and a. Second derivatives are refused.

Shapes: J attentions side by side, N rows (batch and locations), K channels, P pixels of a patch,
M tokens, D features, h heads of d features. Maps of pixels have P + 1 rows: the last is the
constant that a pixel of value one would carry.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from sciml_dchag.models import absorbed_torch
from sciml_dchag.models.absorbed_torch import buffer_numbers


def absorbed_attention(
    x_NJKP: Tensor,
    score_maps_JKPh: Tensor,
    value_maps_JKPD: Tensor,
    mask_NJK: Tensor | None,
    with_logsumexp: bool = False,
    numbers: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Attend over K channels from their pixels: (N, J, K, P) -> (N, J, D), in autocast's precision.

    Args:
        x_NJKP: pixels, without the constant one.
        score_maps_JKPh: A, pixels to scores.
        value_maps_JKPD: Z, pixels to values.
        mask_NJK: False where a channel is missing.
        with_logsumexp: return that of the scores too, (N, J, h), for merging with other channels.
        numbers: that the buffer of `absorbed_torch` holds; None for what suits the device.
    """
    _refuse_forward_mode(x_NJKP, score_maps_JKPh, value_maps_JKPD)
    dtype = _compute_dtype(x_NJKP)
    x, score_maps, value_maps = (t.to(dtype) for t in (x_NJKP, score_maps_JKPh, value_maps_JKPD))
    numbers = numbers or buffer_numbers(x.device.type)
    out, logsumexp, _ = torch.ops.sciml_dchag.absorbed_attention(
        x, score_maps, value_maps, mask_NJK, with_logsumexp, numbers
    )
    return out, logsumexp if with_logsumexp else None


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
    _refuse_forward_mode(tokens_NMD, score_map_Dh, value_map_Dhd)
    numbers = numbers or buffer_numbers(tokens_NMD.device.type)
    dtype = _compute_dtype(tokens_NMD)
    tokens, score_map, value_map = (t.to(dtype) for t in (tokens_NMD, score_map_Dh, value_map_Dhd))
    out: Tensor = torch.ops.sciml_dchag.token_attention(
        tokens, score_map, value_map.transpose(0, 1), mask_NM, numbers
    )[0]
    return out


def _compute_dtype(x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _with_triton(x_NJKP: Tensor, d: int) -> bool:
    """Whether Triton computes it: 16 bits on a GPU of NVIDIA's, and tiles that were tried there."""
    tried = x_NJKP.shape[-1] <= 64 and d <= 128
    there = x_NJKP.is_cuda and torch.version.hip is None and _HAS_TRITON
    return there and tried and x_NJKP.dtype in (torch.bfloat16, torch.float16)


def _with_numba(x: Tensor, d: int, products: int) -> bool:
    """Whether Numba computes it: float32 on a CPU, whole tiles, and enough to be worth loading."""
    known = x.device.type == "cpu" and x.dtype == torch.float32 and d % 16 == 0
    return known and _HAS_NUMBA and len(x) >= 384 and products >= WORTH_LOADING


WORTH_LOADING = 2**27
"""Products that take some ten milliseconds; Numba and what it compiled take one second to load."""
_HAS_TRITON = importlib.util.find_spec("triton") is not None
_HAS_NUMBA = importlib.util.find_spec("numba") is not None
_LIBRARY = torch.library.Library("sciml_dchag", "FRAGMENT")


def _operator(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function of tensors an operator of torch, on every kind of device.

    As `torch.library.custom_op` does, which loads the compiler at the first call: two seconds.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        schema = torch.library.infer_schema(function, mutates_args=())
        _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        return function

    return register


@_operator("absorbed_attention")
def _absorbed(
    x: Tensor,
    score_maps: Tensor,
    value_maps: Tensor,
    mask: Tensor | None,
    with_logsumexp: bool,
    numbers: int,
) -> tuple[Tensor, Tensor, Tensor]:
    d = value_maps.shape[-1] // score_maps.shape[-1]
    with torch.autocast(x.device.type, enabled=False):
        if _with_triton(x, d):
            from sciml_dchag.models import absorbed_gpu

            out = absorbed_gpu.forward(x.contiguous(), score_maps, value_maps.contiguous(), mask)
        elif _with_numba(x, d, len(x) * value_maps.numel()):
            from sciml_dchag.models import absorbed_cpu

            out = absorbed_cpu.forward(x, score_maps, value_maps, mask, with_logsumexp)
        else:
            out = absorbed_torch.forward(x, score_maps, value_maps, mask, with_logsumexp, numbers)
    mixed, logsumexp, attention = out
    return mixed, logsumexp, attention.flatten()


def _fake_absorbed(
    x: Tensor, score_maps: Tensor, value_maps: Tensor, mask: Any, with_logsumexp: bool, numbers: int
) -> tuple[Tensor, Tensor, Tensor]:
    (N, J, K, _), h = x.shape, score_maps.shape[-1]
    with_triton = _with_triton(x, value_maps.shape[-1] // h)
    exact = torch.promote_types(x.dtype, torch.float32)
    logsumexp = (N, J, h) if with_triton or with_logsumexp else (0,)
    out = x.new_empty(N, J, value_maps.shape[-1])
    # Attention in a row: its order is that of whoever computed it.
    return out, x.new_empty(logsumexp, dtype=exact), x.new_empty(J * K * h * N)


@_operator("absorbed_attention_backward")
def _absorbed_backward(
    grad: Tensor,
    grad_logsumexp: Tensor | None,
    x: Tensor,
    score_maps: Tensor,
    value_maps: Tensor,
    out: Tensor,
    attention: Tensor,
    of_pixels: bool,
    numbers: int,
) -> tuple[Tensor, Tensor, Tensor]:
    (N, J, K, _), h = x.shape, score_maps.shape[-1]
    with torch.autocast(x.device.type, enabled=False):
        if _with_triton(x, value_maps.shape[-1] // h):
            from sciml_dchag.models import absorbed_gpu

            return absorbed_gpu.backward(
                grad.contiguous(), grad_logsumexp, x.contiguous(), score_maps,
                value_maps.contiguous(), out, attention.view(J, K, h, N), of_pixels,
            )  # fmt: skip
        if _with_numba(x, value_maps.shape[-1] // h, len(x) * value_maps.numel()):
            from sciml_dchag.models import absorbed_cpu

            attention = attention.view(J, K, h, N)
            if not of_pixels:
                of_maps = absorbed_cpu.backward(grad, grad_logsumexp, x, value_maps, attention)
                return x.new_empty(0), *of_maps
            attention = attention.permute(0, 2, 3, 1)  # rarely asked for, so left to torch
        attention = attention.view(J, h, N, K)
        return absorbed_torch.backward(
            grad, grad_logsumexp, x, score_maps, value_maps, attention, of_pixels, numbers
        )


def _fake_absorbed_backward(
    grad: Tensor, grad_logsumexp: Any, x: Tensor, score_maps: Tensor, value_maps: Tensor,
    out: Tensor, attention: Tensor, of_pixels: bool, numbers: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    of_x = x.new_empty(x.shape if of_pixels else (0,))
    return of_x, score_maps.new_empty(score_maps.shape), value_maps.new_empty(value_maps.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, score_maps, value_maps, _, ctx.with_logsumexp, ctx.numbers = inputs
    out, _, attention = output
    ctx.mark_non_differentiable(attention)
    needed = _with_triton(x, value_maps.shape[-1] // score_maps.shape[-1])
    ctx.save_for_backward(x, score_maps, value_maps, out if needed else None, attention)


def _differentiate(
    ctx: Any, grad: Tensor, grad_logsumexp: Tensor | None, _: Any
) -> tuple[Tensor | None, ...]:
    _refuse_second_derivatives()
    x, score_maps, value_maps, out, attention = ctx.saved_tensors
    of_logsumexp = grad_logsumexp if ctx.with_logsumexp else None
    of_pixels = ctx.needs_input_grad[0]
    of_x, of_scores, of_values = torch.ops.sciml_dchag.absorbed_attention_backward(
        grad, of_logsumexp, x, score_maps, value_maps, grad if out is None else out, attention,
        of_pixels, ctx.numbers,
    )  # fmt: skip
    return of_x if of_pixels else None, of_scores, of_values, None, None, None


torch.library.register_fake("sciml_dchag::absorbed_attention", _fake_absorbed)
torch.library.register_fake("sciml_dchag::absorbed_attention_backward", _fake_absorbed_backward)
torch.library.register_autograd(
    "sciml_dchag::absorbed_attention", _differentiate, setup_context=_keep
)


@_operator("token_attention")
def _tokens(
    tokens: Tensor, score_map: Tensor, value_map: Tensor, mask: Tensor | None, numbers: int
) -> tuple[Tensor, Tensor]:
    with torch.autocast(tokens.device.type, enabled=False):
        mix = absorbed_torch.mix_tokens
        if _with_numba(tokens, value_map.shape[-1], len(tokens) * value_map.numel()):
            from sciml_dchag.models.absorbed_cpu import mix_tokens as mix
        return absorbed_torch.token_forward(tokens, score_map, value_map, mask, numbers, mix)


def _fake_tokens(
    tokens: Tensor, score_map: Tensor, value_map: Tensor, mask: Any, numbers: int
) -> tuple[Tensor, Tensor]:
    (N, M, _), (h, _, d) = tokens.shape, value_map.shape
    return tokens.new_empty(N, h, d), tokens.new_empty(N, M, h)


@_operator("token_attention_backward")
def _tokens_backward(
    grad: Tensor,
    tokens: Tensor,
    score_map: Tensor,
    value_map: Tensor,
    attention: Tensor,
    numbers: int,
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.autocast(tokens.device.type, enabled=False):
        mix_backward = absorbed_torch.mix_tokens_backward
        if _with_numba(tokens, value_map.shape[-1], len(tokens) * value_map.numel()):
            from sciml_dchag.models.absorbed_cpu import mix_tokens_backward as mix_backward
        return absorbed_torch.token_backward(
            grad, tokens, score_map, value_map, attention, numbers, mix_backward
        )


def _fake_tokens_backward(
    grad: Tensor, tokens: Tensor, score_map: Tensor, value_map: Tensor, attention: Tensor,
    numbers: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return (
        torch.empty_like(tokens),
        score_map.new_empty(score_map.shape),
        torch.empty_like(value_map),
    )


def _keep_tokens(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    tokens, score_map, value_map, _, ctx.numbers = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(tokens, score_map, value_map, output[1])


def _differentiate_tokens(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    _refuse_second_derivatives()
    grads = torch.ops.sciml_dchag.token_attention_backward(grad, *ctx.saved_tensors, ctx.numbers)
    return *grads, None, None


torch.library.register_fake("sciml_dchag::token_attention", _fake_tokens)
torch.library.register_fake("sciml_dchag::token_attention_backward", _fake_tokens_backward)
torch.library.register_autograd(
    "sciml_dchag::token_attention", _differentiate_tokens, setup_context=_keep_tokens
)


def _refuse_forward_mode(*tensors: Tensor) -> None:
    # An operator without a rule for it would return a derivative of zero.
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise NotImplementedError(
            "model.implementation absorbed has no derivatives in forward mode: set it to "
            "materialised, which has the same parameters, or use torch.func.vjp."
        )


def _refuse_second_derivatives() -> None:
    # Where a graph is traced, first derivatives are differentiated by name and never again.
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise NotImplementedError(
            "model.implementation absorbed has no second derivatives: set it to materialised, "
            "which has the same parameters, or leave create_graph out."
        )


@register_flop_formula(torch.ops.sciml_dchag.absorbed_attention)
def _flops(x: Any, score_maps: Any, value_maps: Any, *_: Any, **__: Any) -> int:
    J, K, ones, D = value_maps
    return 2 * int(x[0]) * J * K * ones * (int(score_maps[-1]) + D)


@register_flop_formula(torch.ops.sciml_dchag.absorbed_attention_backward)
def _backward_flops(
    grad: Any, _: Any, x: Any, score_maps: Any, value_maps: Any, *rest: Any, **__: Any
) -> int:
    J, K, ones, D = value_maps
    of_pixels = int(rest[2])
    return 2 * int(x[0]) * J * K * ones * (2 * D + (1 + of_pixels) * int(score_maps[-1]))


@register_flop_formula(torch.ops.sciml_dchag.token_attention)
def _token_flops(tokens: Any, _: Any, value_map: Any, *__: Any, **___: Any) -> int:
    (N, M, D), (h, _, d) = tokens, value_map
    return 2 * int(N) * D * h * (2 * M + d)


@register_flop_formula(torch.ops.sciml_dchag.token_attention_backward)
def _token_backward_flops(
    _: Any, tokens: Any, __: Any, value_map: Any, *___: Any, **____: Any
) -> int:
    (N, M, D), (h, _, d) = tokens, value_map
    return 2 * int(N) * D * h * (5 * M + 2 * d)
