"""The kernels in Triton against plain torch in float64: on a GPU, or interpreted on the CPU."""

from types import ModuleType

import pytest
import torch

from sciml_dchag.models import absorbed_torch

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
# Interpreted, a product of two numbers in bfloat16 is not theirs; float32 shows that it is exact.
TOLERANCES = {
    torch.float16: 4e-3,
    (torch.bfloat16 if ON_GPU else torch.float32): 2e-2 if ON_GPU else 1e-5,
}
CASES = [  # rows, attentions, channels, pixels, heads, features of a head, masked
    (70, 1, 13, 4, 2, 16, False),
    (70, 2, 5, 16, 3, 16, True),
    (130, 3, 3, 9, 2, 32, True),  # 9 pixels are padded
    (33, 1, 150, 1, 4, 16, False),
    (20, 2, 3, 64, 1, 16, True),
    (20, 1, 2, 256, 1, 80, False),  # one channel has more pixels than a tile
    (40, 1, 17, 16, 1, 256, False),
    (20, 1, 2, 250, 1, 250, False),
]


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    pytest.importorskip("triton", reason="Triton is for Linux alone")
    from sciml_dchag.models import absorbed_gpu

    return absorbed_gpu


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("N", "J", "K", "P", "h", "d", "masked"), CASES)
def test_kernels_compute_what_plain_torch_does(
    kernels: ModuleType, N: int, J: int, K: int, P: int, h: int, d: int, masked: bool,
    dtype: torch.dtype,
) -> None:  # fmt: skip
    generator = torch.Generator().manual_seed(N + K)

    def draw(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(shape, generator=generator).mul(scale).to(DEVICE, dtype)

    x, score_maps = draw(N, J, K, P), draw(J, K, P + 1, h, scale=0.3)
    value_maps, grad = draw(J, K, P + 1, h * d, scale=0.3), draw(N, J, h * d)
    grad_logsumexp = draw(N, J, h).float()
    mask = None
    if masked:
        mask = (torch.rand(N, J, K, generator=generator) < 0.6).to(DEVICE)
        mask[0] = False  # a row without any channel
        grad_logsumexp[~mask.any(2)] = 0  # whose logarithm is that of nothing
    out, logsumexp, attention = kernels.forward(x, score_maps, value_maps, mask)
    found = kernels.backward(
        grad, grad_logsumexp, x, score_maps, value_maps, out, attention, of_pixels=True
    )
    exact = [tensor.double() for tensor in (x, score_maps, value_maps)]
    numbers = 2**20
    out64, logsumexp64, attention64 = absorbed_torch.forward(*exact, mask, True, numbers)
    expected = absorbed_torch.backward(
        grad.double(), grad_logsumexp.double(), *exact, attention64, True, numbers
    )
    there = torch.ones_like(logsumexp, dtype=torch.bool) if mask is None else mask.any(2)[..., None]
    there = there.expand_as(logsumexp)
    assert (logsumexp[there] - logsumexp64[there]).abs().max() < 1e-4
    assert bool((logsumexp[~there] < -1e37).all())
    for ours, theirs in zip((out, *found), (out64, *expected), strict=True):
        assert ours.dtype == dtype and ours.shape == theirs.shape
        assert (ours.double() - theirs).norm() <= TOLERANCES[dtype] * theirs.norm()


def test_pixels_get_no_gradient_unless_it_is_asked_for(kernels: ModuleType) -> None:
    x, dtype = torch.randn(20, 1, 3, 4), torch.float16
    tensors = [x, torch.randn(1, 3, 5, 2), torch.randn(1, 3, 5, 32), torch.randn(20, 1, 32)]
    x, score_maps, value_maps, grad = (t.to(DEVICE, dtype) for t in tensors)
    out, _, attention = kernels.forward(x, score_maps, value_maps, None)
    arguments = (grad, None, x, score_maps, value_maps, out, attention)
    of_x, *without = kernels.backward(*arguments, of_pixels=False)
    assert of_x.numel() == 0
    for one, other in zip(without, kernels.backward(*arguments, of_pixels=True)[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
