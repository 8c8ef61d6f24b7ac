"""The absorbed form is one operator to torch: for compilation, export, and counting products."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sciml_dchag.models import absorbed_torch
from sciml_dchag.models.absorbed import absorbed_attention, token_attention
from sciml_dchag.models.aggregation import ChannelAggregation

OPERATORS = torch.ops.sciml_dchag


def over_channels(masked: bool) -> tuple[Tensor, ...]:
    """Pixels, score maps, value maps and mask of two attentions over five channels."""
    generator = torch.Generator().manual_seed(0)
    x, scores, values = (
        torch.randn(shape, generator=generator, requires_grad=True)
        for shape in ((3, 2, 5, 4), (2, 5, 5, 2), (2, 5, 5, 8))
    )
    mask = torch.rand(3, 2, 5, generator=generator) > 0.4 if masked else None
    return x, scores, values, mask


def over_tokens(masked: bool) -> tuple[Tensor, ...]:
    """Tokens, score map, value map and mask."""
    generator = torch.Generator().manual_seed(0)
    tokens, scores, values = (
        torch.randn(shape, generator=generator, requires_grad=True)
        for shape in ((6, 4, 8), (8, 2), (2, 8, 4))
    )
    mask = torch.rand(6, 4, generator=generator) > 0.4 if masked else None
    return tokens, scores, values, mask


@pytest.mark.parametrize("masked", [False, True])
def test_operators_keep_torchs_rules(masked: bool) -> None:
    """Schema, fake tensors, gradients registered as torch wants them, and graphs that are traced."""
    for logsumexp in (False, True):
        inputs = (*over_channels(masked), logsumexp, 2**20)
        torch.library.opcheck(OPERATORS.absorbed_attention.default, inputs)
    torch.library.opcheck(OPERATORS.token_attention.default, (*over_tokens(masked), 2**20))


def stage(kind: str) -> ChannelAggregation:
    torch.manual_seed(0)
    return ChannelAggregation(
        channels=7, patch_pixels=4, embed_dim=16, heads=2, kind=kind,
        partitions=1 if kind == "single" else 2, tree=0 if kind == "single" else 2,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["single", "dchag-c", "dchag-l"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_stage_compiles_as_one_graph(kind: str, masked: bool) -> None:
    module, x = stage(kind), torch.randn(2, 3, 7, 4)
    available = torch.rand(2, 3, 7) > 0.3 if masked else None
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    found = []
    for call in (module, compiled):
        module.zero_grad()
        out = call(x, available)
        out.sin().sum().backward()
        found.append([out, *(p.grad for p in module.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["single", "dchag-c", "dchag-l"])
def test_the_stage_is_exported(kind: str) -> None:
    module, x = stage(kind).eval(), torch.randn(2, 3, 7, 4)
    program = torch.export.export(module, (x,))
    torch.testing.assert_close(program.module()(x), module(x))


def products(function: object, *arguments: object) -> int:
    with FlopCounterMode(display=False) as counter:
        function(*arguments)  # type: ignore[operator]
    return counter.get_total_flops()


def test_products_are_counted_as_they_are_made() -> None:
    """In 16 bits, where none is added up in place, which torch's counter does not see."""
    x, scores, values = (t.detach().half() for t in over_channels(False)[:3])
    out, _, attention = absorbed_torch.forward(x, scores, values, None, False, 2**20)
    arguments = (x, scores, values, None, False, 2**20)
    made = products(absorbed_torch.forward, *arguments)
    assert products(OPERATORS.absorbed_attention, *arguments) == made > 0
    grad = torch.randn_like(out)
    for of_pixels in (False, True):
        made = products(
            absorbed_torch.backward, grad, None, x, scores, values, attention, of_pixels, 2**20
        )
        counted = products(
            OPERATORS.absorbed_attention_backward, grad, None, x, scores, values, out, attention,
            of_pixels, 2**20,
        )  # fmt: skip
        assert counted == pytest.approx(made, rel=0.03)
    tokens, score_map, value_map = (t.detach() for t in over_tokens(False)[:3])
    arguments = (tokens, score_map, value_map, None, 2**20)
    made = products(absorbed_torch.token_forward, *arguments)
    assert products(OPERATORS.token_attention, *arguments) == made > 0
    out, attention = absorbed_torch.token_forward(*arguments)
    arguments = (torch.randn_like(out), tokens, score_map, value_map, attention, 2**20)
    made = products(absorbed_torch.token_backward, *arguments)
    assert products(OPERATORS.token_attention_backward, *arguments) == made > 0


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # loads torch's own rules
def test_forward_mode_is_refused_and_mapping_is_a_loop() -> None:
    x, scores, values = (t.detach() for t in over_channels(False)[:3])

    def attend(pixels: Tensor) -> Tensor:
        return absorbed_attention(pixels, scores, values, None)[0]

    def attend_tokens(tokens: Tensor) -> Tensor:
        return token_attention(tokens, torch.ones(8, 2), torch.ones(8, 2, 4), None)

    for function, primal in ((attend, x), (attend_tokens, torch.ones(2, 3, 8))):
        with pytest.raises(NotImplementedError, match="no derivatives in forward mode"):
            torch.func.jvp(function, (primal,), (torch.ones_like(primal),))
    mapped = torch.func.vmap(attend)(torch.stack([x, 2 * x]))
    torch.testing.assert_close(mapped, torch.stack([attend(x), attend(2 * x)]))
