"""The code that Numba compiles against plain torch in float64."""

from types import ModuleType

import pytest
import torch

from sciml_dchag.models import absorbed, absorbed_torch
from sciml_dchag.models.aggregation import ChannelAggregation

CASES = [  # rows, attentions, channels, pixels, heads, features of a head, masked
    (200, 2, 20, 16, 3, 32, False),  # the last block of rows is not whole
    (96, 1, 7, 4, 8, 16, True),  # more heads than a tile has
    (97, 3, 3, 1, 1, 16, True),
    (50, 2, 5, 9, 2, 80, False),  # neither pixels nor features are a power of two
    (96, 1, 2, 250, 1, 16, True),  # one channel has more pixels than a chunk
]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Numba's code, used however little there is to compute."""
    pytest.importorskip("numba", reason="the extra `fast`")
    from sciml_dchag.models import absorbed_cpu

    monkeypatch.setattr(absorbed, "WORTH_LOADING", 0)
    return absorbed_cpu


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> int:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def close(ours: torch.Tensor, exact: torch.Tensor) -> bool:
    """Within what float32 rounds in sums of some thousand terms."""
    assert ours.dtype == torch.float32 and ours.shape == exact.shape
    return bool((ours.double() - exact).norm() <= 2e-6 * exact.norm())


@pytest.mark.parametrize(("N", "J", "K", "P", "h", "d", "masked"), CASES)
def test_channels_are_mixed_as_in_plain_torch(
    compiled: ModuleType, threads: int, N: int, J: int, K: int, P: int, h: int, d: int, masked: bool
) -> None:
    generator = torch.Generator().manual_seed(N + K)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    x, score_maps, value_maps = draw(N, J, K, P), draw(J, K, P + 1, h), draw(J, K, P + 1, h * d)
    score_maps /= P**0.5
    grad, grad_logsumexp, mask = draw(N, J, h * d), draw(N, J, h), None
    if masked:
        mask = torch.rand(N, J, K, generator=generator) < 0.6
        mask[0] = False  # a row without any channel
        grad_logsumexp[~mask.any(2)] = 0  # whose logarithm is that of nothing
    out, logsumexp, attention = compiled.forward(x, score_maps, value_maps, mask, True)
    found = compiled.backward(grad, grad_logsumexp, x, value_maps, attention)
    exact = [tensor.double() for tensor in (x, score_maps, value_maps)]
    out64, logsumexp64, attention64 = absorbed_torch.forward(*exact, mask, True, 2**20)
    expected = absorbed_torch.backward(
        grad.double(), grad_logsumexp.double(), *exact, attention64, False, 2**20
    )
    assert close(out, out64) and close(attention.permute(0, 2, 3, 1), attention64)
    there = slice(None) if mask is None else mask.any(2)
    assert close(logsumexp[there], logsumexp64[there])
    assert mask is None or bool((logsumexp[~mask.any(2)] < -1e37).all())
    assert all(close(*pair) for pair in zip(found, expected[1:], strict=True))


@pytest.mark.parametrize(("N", "M", "D", "h"), [(200, 4, 96, 2), (97, 3, 160, 2), (96, 1, 64, 4)])
def test_tokens_are_mixed_as_in_plain_torch(
    compiled: ModuleType, threads: int, N: int, M: int, D: int, h: int
) -> None:
    generator = torch.Generator().manual_seed(N)
    shapes = ((N, M, D), (N, M, h), (D, h, D // h), (N, h, D // h))
    tokens, scores, values, grad = (torch.randn(shape, generator=generator) for shape in shapes)
    attention, values = scores.softmax(1), values.transpose(0, 1)
    exact = [tensor.double() for tensor in (tokens, attention, values)]
    out = compiled.mix_tokens(tokens, attention, values, 0)
    assert close(out, absorbed_torch.mix_tokens(*exact, 2**20))
    found = compiled.mix_tokens_backward(grad, tokens, values, attention, 0)
    expected = absorbed_torch.mix_tokens_backward(
        grad.double(), exact[0], exact[2], exact[1], 2**20
    )
    assert all(close(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("of_pixels", [False, True])
@pytest.mark.parametrize("kind", ["single", "dchag-c", "dchag-l"])
def test_the_stage_is_that_of_materialised_tokens(
    compiled: ModuleType, kind: str, of_pixels: bool
) -> None:
    torch.manual_seed(0)
    x, available, results = torch.randn(2, 200, 7, 4), torch.rand(2, 200, 7) > 0.3, []
    assert absorbed._with_numba(x.flatten(0, 1), d=16, products=0)
    state = None
    for implementation, dtype in (("absorbed", torch.float32), ("materialised", torch.float64)):
        module = ChannelAggregation(
            channels=7, patch_pixels=4, embed_dim=32, heads=2, kind=kind,
            partitions=1 if kind == "single" else 2, implementation=implementation,
        )  # fmt: skip
        state = module.state_dict() if state is None else state
        module.load_state_dict(state)
        pixels = x.to(dtype, copy=True).requires_grad_(of_pixels)
        out = module.to(dtype)(pixels, available)
        out.sin().sum().backward()
        of_parameters = [parameter.grad for parameter in module.parameters()]
        results.append([out.detach(), *([pixels.grad] if of_pixels else []), *of_parameters])
    # Relative to the largest gradient: some parameters hardly matter, and round accordingly.
    largest = max(float(gradient.abs().max()) for gradient in results[1][1:])
    for ours, exact in zip(*results, strict=True):
        scale = max(float(exact.abs().max()), 1e-3 * largest)
        assert float((ours.double() - exact).abs().max()) < 1e-5 * scale


def test_operators_keep_torchs_rules(compiled: ModuleType) -> None:
    shapes = ((384, 1, 3, 4), (1, 3, 5, 2), (1, 3, 5, 32), (384, 2, 32), (32, 2), (2, 32, 16))
    drawn = [torch.randn(shape, requires_grad=True) for shape in shapes]
    (x, scores, values), (tokens, score_map, value_map) = drawn[:3], drawn[3:]
    assert absorbed._with_numba(x, d=16, products=0)
    operators = torch.ops.sciml_dchag
    torch.library.opcheck(
        operators.absorbed_attention.default, (x, scores, values, None, True, 2**20)
    )
    torch.library.opcheck(
        operators.token_attention.default, (tokens, score_map, value_map, None, 2**20)
    )


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(compiled: ModuleType, wrong: float) -> None:
    """A score beyond the numbers must not become a finite one."""
    score_maps = torch.zeros(1, 2, 5, 2)
    score_maps[0, 1, 4, 1] = wrong
    out = compiled.forward(torch.ones(96, 1, 2, 4), score_maps, torch.ones(1, 2, 5, 32), None, True)
    assert bool(out[0][..., 16:].isnan().all()) and bool(out[0][..., :16].isfinite().all())
    assert bool(
        out[1][..., 1].isnan().all() if wrong != wrong else ~out[1][..., 1].isfinite().all()
    )
