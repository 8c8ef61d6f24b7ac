"""The two implementations of the channel aggregation against each other and against torch's own."""

import pytest
import torch
from torch import nn

from sciml_dchag.models import absorbed_torch
from sciml_dchag.models.absorbed import absorbed_attention, token_attention
from sciml_dchag.models.absorbed_torch import _buffered_rows, buffer_numbers
from sciml_dchag.models.aggregation import ChannelAggregation
from sciml_dchag.models.masking import masked_softmax

P, D, HEADS = 4, 16, 4
CASES = [
    ("single", 1, 0, 80), ("single", 1, 0, 7),
    ("dchag-c", 4, 0, 80), ("dchag-c", 4, 0, 81), ("dchag-c", 3, 2, 23), ("dchag-c", 2, 4, 81),
    ("dchag-c", 2, 2, 80), ("dchag-c", 3, 0, 7),
    ("dchag-l", 4, 0, 80), ("dchag-l", 4, 0, 81), ("dchag-l", 3, 2, 23), ("dchag-l", 2, 4, 81),
    ("dchag-l", 2, 2, 80), ("dchag-l", 3, 0, 7),
]  # fmt: skip


def build(kind: str, partitions: int, tree: int, channels: int, implementation: str, **options):
    torch.manual_seed(0)
    module = ChannelAggregation(
        channels=channels, patch_pixels=options.pop("P", P), embed_dim=options.pop("D", D),
        heads=HEADS, kind=kind, partitions=partitions, tree=tree, implementation=implementation,
    )  # fmt: skip
    with torch.no_grad():  # biases start at zero, which would hide a mistake in them
        for name, parameter in module.named_parameters():
            if "bias" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def pixels(channels: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(
        2, 6, channels, P, dtype=dtype, generator=torch.Generator().manual_seed(1)
    ).requires_grad_()


def missing(channels: int) -> torch.Tensor:
    available = torch.rand(2, 6, channels, generator=torch.Generator().manual_seed(2)) > 0.3
    available[0, 0] = False  # nothing at all
    available[1, 1, : (channels + 1) // 2] = False  # at least the whole first partition
    return available


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-30))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("dtype", "output_tolerance", "gradient_tolerance"),
    # Rounding of float32 sums over up to 80 channels, and of float64 ones.
    [(torch.float32, 2e-6, 1e-5), (torch.float64, 1e-12, 1e-12)],
)
@pytest.mark.parametrize(("kind", "partitions", "tree", "channels"), CASES)
def test_absorbed_equals_materialised(
    kind: str, partitions: int, tree: int, channels: int, dtype: torch.dtype,
    output_tolerance: float, gradient_tolerance: float, masked: bool,
) -> None:  # fmt: skip
    available = missing(channels) if masked else None
    results = []
    state = build(kind, partitions, tree, channels, "absorbed").state_dict()
    for implementation in ("absorbed", "materialised"):
        module = build(kind, partitions, tree, channels, implementation)
        module.load_state_dict(state)
        module.to(dtype)
        x = pixels(channels, dtype)
        out = module(x, available)
        out.backward(
            torch.randn(out.shape, dtype=dtype, generator=torch.Generator().manual_seed(3))
        )
        gradients = {n: p.grad for n, p in module.named_parameters()}
        results.append((out.detach(), {**gradients, "x": x.grad}))
    (out_a, grad_a), (out_m, grad_m) = results
    assert out_a.isfinite().all()
    assert relative(out_a, out_m) < output_tolerance
    # Relative to the largest gradient: some parameters hardly matter, and round accordingly.
    largest = max(g.abs().max() for g in grad_m.values())
    for name in grad_m:
        scale = max(float(grad_m[name].abs().max()), 1e-3 * float(largest))
        assert float((grad_a[name] - grad_m[name]).abs().max()) / scale < gradient_tolerance, name


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("partitions", "tree"), [(2, 0), (2, 2)])
def test_more_locations_than_one_buffer_holds(partitions: int, tree: int, masked: bool) -> None:
    """The absorbed form goes through the locations in runs; here several, the last one shorter."""
    channels, locations = 80, 4000
    size = partitions * max(tree, 1)
    pixels_NKP = torch.empty(2 * locations, channels // size, 16)
    slices = [rows for rows, *_ in _buffered_rows(pixels_NKP, buffer_numbers("cpu"))]
    assert len(slices) > 2 and len({r.stop - r.start for r in slices}) == 2
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(2, locations, channels, 16, dtype=torch.float64, generator=generator)
    available = torch.rand(2, locations, channels, generator=generator) > 0.3 if masked else None
    out, gradients = [], []
    for implementation in ("absorbed", "materialised"):
        module = build("dchag-c", partitions, tree, channels, implementation, P=16, D=8).double()
        pixels_ = x.clone().requires_grad_()
        out.append(module(pixels_, available))
        out[-1].sin().sum().backward()
        gradients.append([pixels_.grad, *(p.grad for p in module.parameters())])
    assert relative(out[0], out[1]) < 1e-12
    for ours, expected in zip(*gradients, strict=True):
        assert relative(ours, expected) < 1e-11  # sums over 8000 locations


@pytest.mark.parametrize("with_logsumexp", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_the_absorbed_function(masked: bool, with_logsumexp: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    score_maps = torch.randn(2, 4, 4, 2, dtype=torch.float64, requires_grad=True)
    value_maps = torch.randn(2, 4, 4, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(3, 2, 4) > 0.4 if masked else None

    def attend(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = absorbed_attention(*inputs, mask, with_logsumexp)
        assert (outputs[1] is not None) == with_logsumexp
        return tuple(output for output in outputs if output is not None)

    assert torch.autograd.gradcheck(attend, (x, score_maps, value_maps))


@pytest.mark.parametrize(
    ("numbers", "values_first"),
    [(2**20, False), (12, False), (2**20, True)],  # two rows of five at a time; as on a GPU
)
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_attention_over_tokens(
    masked: bool, numbers: int, values_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(absorbed_torch, "values_first", lambda _: values_first)
    tokens = torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)
    score_map = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    value_map = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(5, 4) > 0.6 if masked else None
    if mask is not None:
        mask[1] = False  # a row without any token

    def attend(*inputs: torch.Tensor) -> torch.Tensor:
        return token_attention(*inputs, mask, numbers)

    found = attend(tokens, score_map, value_map)
    scores = (
        tokens @ score_map
        if mask is None
        else (tokens @ score_map) + torch.where(mask[..., None], 0.0, -torch.inf)
    )
    values = torch.einsum("nmD,Dhd->nmhd", tokens, value_map)
    expected = torch.einsum("nmh,nmhd->nhd", scores.softmax(1).nan_to_num(), values)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(attend, (tokens, score_map, value_map))


@pytest.mark.parametrize("implementation", ["absorbed", "materialised"])
def test_single_is_one_attention_however_its_channels_are_stored(implementation: str) -> None:
    whole = build("single", 1, 0, 7, implementation)
    stored = build("single", 3, 0, 7, implementation)  # slots of two of three are padding
    slots = stored.layout.slot_of_channel
    state = whole.state_dict()
    for name, value in stored.state_dict().items():
        if name.startswith("tokenizer"):
            value.flatten(0, 1)[slots] = state[name][0]
        else:
            value.copy_(state[name])
    x, available = pixels(7), missing(7)
    torch.testing.assert_close(stored(x), whole(x))
    torch.testing.assert_close(stored(x, available), whole(x, available))


@pytest.mark.parametrize("implementation", ["absorbed", "materialised"])
def test_single_is_torchs_attention_over_tokens(implementation: str) -> None:
    ours = build("single", 1, 0, 9, implementation)
    x = pixels(9)
    tokenizer, attention = ours.tokenizer, ours.partial
    tokens = torch.einsum("blcp,cpd->blcd", x, tokenizer.weight[0])
    tokens = tokens + tokenizer.bias[0] + tokenizer.channel_embedding[0]
    theirs = nn.MultiheadAttention(D, HEADS, batch_first=True)
    with torch.no_grad():
        weights = (attention.query_weight, attention.key_weight, attention.value_weight)
        theirs.in_proj_weight.copy_(torch.cat([w[0].t() for w in weights]))
        theirs.in_proj_bias.zero_()
        theirs.out_proj.weight.copy_(attention.output_weight[0].t())
        theirs.out_proj.bias.copy_(attention.output_bias[0])
    flat = tokens.flatten(0, 1)
    query = attention.query.expand(len(flat), 1, -1)
    expected = theirs(query, flat, flat, need_weights=False)[0].view(2, 6, D)
    torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tree", [0, 2])
def test_linear_is_a_weighted_sum_of_tokens(tree: int) -> None:
    module = build("dchag-l", 2, tree, 8, "absorbed")
    x = pixels(8)
    maps = module.tokenizer.affine()
    partial, size = module.partial, 8 // 2 // max(tree, 1)
    expected = []
    for g in range(2):
        groups = []
        for s in range(max(tree, 1)):
            total = torch.zeros(2, 6, D)
            for k in range(size):
                c = g * 4 + s * size + k
                token = x[:, :, c] @ maps[g, s, k, :-1] + maps[g, s, k, -1]
                total = total + partial.weight[g, k] * token
            groups.append(total + partial.bias[g])
        if tree:
            joined = sum(partial.group_weight[g, s] * groups[s] for s in range(tree))
            expected.append(joined + partial.group_bias[g])
        else:
            expected.append(groups[0])
    tokens = module.partial_tokens(x, None)
    torch.testing.assert_close(tokens, torch.stack(expected, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", ["absorbed", "materialised"])
@pytest.mark.parametrize(("kind", "partitions", "tree", "channels"), CASES)
def test_every_channel_reaches_the_output(
    kind: str, partitions: int, tree: int, channels: int, implementation: str
) -> None:
    module = build(kind, partitions, tree, channels, implementation).double()
    x = pixels(channels, torch.float64).detach()
    with torch.no_grad():
        before = module(x)
        for c in range(channels):
            changed = x.clone()
            changed[:, :, c] += 1.0
            assert ((module(changed) - before).abs().amax(-1) > 1e-12).all(), c


@pytest.mark.parametrize("implementation", ["absorbed", "materialised"])
@pytest.mark.parametrize("kind", ["single", "dchag-c", "dchag-l"])
def test_missing_pixels_have_no_effect(kind: str, implementation: str) -> None:
    module = build(kind, 1 if kind == "single" else 3, 0, 10, implementation)
    available, x = missing(10), pixels(10).detach()
    spoilt = torch.where(available[..., None], x, 1e6)
    with torch.no_grad():
        torch.testing.assert_close(module(spoilt, available), module(x, available))
        nothing = module(x, available)[0, 0]
        last = module.final if module.final is not None else module.partial
        if kind != "dchag-l":
            torch.testing.assert_close(nothing, last.output_bias[0])


@pytest.mark.parametrize("implementation", ["absorbed", "materialised"])
@pytest.mark.parametrize("kind", ["single", "dchag-c", "dchag-l"])
def test_a_sample_does_not_see_its_batch_mates(kind: str, implementation: str) -> None:
    module = build(kind, 1 if kind == "single" else 3, 0, 10, implementation).double()
    x = pixels(10, torch.float64).detach()
    with torch.no_grad():
        together = module(x)
        torch.testing.assert_close(module(x[1:])[0], together[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("implementation", ["absorbed", "materialised"])
@pytest.mark.parametrize(("kind", "tree"), [("dchag-c", 0), ("dchag-c", 2), ("dchag-l", 2)])
def test_half_precision_follows(kind: str, tree: int, implementation: str) -> None:
    module = build(kind, 2, tree, 10, implementation)
    x = pixels(10)
    expected = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(x)
    out.float().square().mean().backward()
    assert relative(out.float(), expected) < 0.05  # bfloat16 keeps 8 bits
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_padding_stays_out_of_it() -> None:
    module = build("dchag-c", 4, 0, 7, "absorbed")  # partitions of 2, 2, 2 and 1
    assert module.layout.padding == 1
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    start = module.tokenizer.weight[3, 1].clone()
    for _ in range(3):
        optimizer.zero_grad()
        module(pixels(7)).square().mean().backward()
        assert (module.tokenizer.weight.grad[3, 1] == 0).all()
        optimizer.step()
    assert (start == 0).all() and (module.tokenizer.weight[3, 1] == 0).all()


def test_softmax_of_nothing_is_zero() -> None:
    scores = torch.randn(2, 3)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    attention = masked_softmax(scores, mask, dim=1)
    torch.testing.assert_close(attention.sum(1), torch.tensor([1.0, 0.0]))
    assert attention[0, 1] == 0
