"""A control branch: the base's answer until it has learnt, where it is off and without its input."""

import dataclasses

import pytest
import torch
from torch import Tensor

from sciml_dchag.models.config import ControlConfig, ModelConfig
from sciml_dchag.models.tokenizer import patchify
from sciml_dchag.models.transformer import ChannelTransformer, build_model

BASE = ModelConfig(
    embed_dim=16, depth=3, heads=2, patch=2, partitions=2, input_channels=("a", "b", "c"),
    output_channels=("a", "b", "c"), image_size=(4, 8),
)  # fmt: skip


def with_control(base: ModelConfig, blocks: int = 2, with_base: bool = False) -> ModelConfig:
    """New inputs between those of the base, in another order than they are named."""
    return dataclasses.replace(
        base, input_channels=("a", "y", "b", "c", "x"),
        control=ControlConfig(
            base="runs/base", channels=("x", "y"), blocks=blocks, with_base=with_base
        ),
    )  # fmt: skip


def pair(
    base: ModelConfig, with_base: bool = False
) -> tuple[ChannelTransformer, ChannelTransformer]:
    """A base, and a model with control that has its weights."""
    one = build_model(base, 1).eval()
    other = build_model(with_control(base, with_base=with_base), 2).eval()
    missing, unknown = other.load_state_dict(one.state_dict(), strict=False)
    assert not unknown and all(name.startswith("control.") for name in missing)
    assert other.control is not None
    other.control.copy_blocks(one.backbone.blocks)
    return one, other


def fields(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """All inputs, those of the base, lead times."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 5, 4, 8, generator=draw)
    return x, x[:, [0, 2, 3]], torch.tensor([6.0, 12.0])


def learnt(model: ChannelTransformer) -> None:
    """Let the zero layers have learnt something."""
    assert model.control is not None
    with torch.no_grad():
        for layer in (model.control.enter, *model.control.leave):
            layer.weight.normal_(std=0.1)
            layer.bias.normal_(std=0.1)


@pytest.mark.parametrize("kind", ["single", "dchag-c", "dchag-l"])
@pytest.mark.parametrize("implementation", ["absorbed", "materialised"])
@pytest.mark.parametrize("with_base", [False, True])
@torch.no_grad()
def test_the_base_answers_until_the_branch_has_learnt(
    kind: str, implementation: str, with_base: bool
) -> None:
    kinds = {"aggregation": kind, "implementation": implementation}
    base, model = pair(dataclasses.replace(BASE, **kinds), with_base)
    x, own, hours = fields()
    expected = base(own, hours)
    assert torch.equal(model(x, hours), expected)
    learnt(model)
    assert not torch.allclose(model(x, hours), expected, atol=1e-3)
    model.control.on = False
    assert torch.equal(model(x, hours), expected)


@pytest.mark.parametrize("with_base", [False, True])
@torch.no_grad()
def test_a_sample_without_the_new_inputs_gets_the_bases_answer(with_base: bool) -> None:
    base, model = pair(BASE, with_base)
    learnt(model)
    x, own, hours = fields()
    available = torch.ones_like(x, dtype=torch.bool)
    available[0, [1, 4]] = False
    available[1, 1] = False  # has the other one
    available[:, 2, :2, :2] = False  # of the base's inputs a patch is missing
    expected = base(own, hours, available[:, [0, 2, 3]])
    found = model(x, hours, available)
    assert torch.equal(found[0], expected[0])
    assert not torch.allclose(found[1], expected[1], atol=1e-3)
    # What stands where nothing is known has no effect.
    other = torch.where(available, x, torch.full_like(x, 7.0))
    assert torch.equal(model(other, hours, available), found)


def test_the_first_step_reaches_every_zero_layer_that_can_learn() -> None:
    """The way out has a gradient at once; the way in follows when that is no longer zero."""
    _, model = pair(BASE)
    x, _, hours = fields()
    model(x, hours).square().sum().backward()
    assert model.control is not None
    assert all(float(layer.weight.grad.abs().max()) > 0 for layer in model.control.leave)
    assert float(model.control.enter.weight.grad.abs().max()) == 0
    model.zero_grad()
    learnt(model)
    model(x, hours).square().sum().backward()
    for name, parameter in model.control.named_parameters():
        assert float(parameter.grad.abs().max()) > 0, name


@torch.no_grad()
def test_the_branch_sees_the_inputs_of_its_base_where_it_is_told_to() -> None:
    """What it adds to the base's tokens before the first block."""
    x_BLCP = patchify(fields()[0], BASE.patch)
    for with_base in (False, True):
        _, model = pair(BASE, with_base)
        branch, places = model.control, list(model.control_places)
        assert branch is not None and places == ([0, 1, 2, 3, 4] if with_base else [4, 1])
        changed = x_BLCP.clone()
        changed[:, :, 2] += 1  # an input of the base
        found = [branch.aggregation(x[:, :, places], None) for x in (x_BLCP, changed)]
        assert torch.equal(*found) is not with_base


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="no model.control.base"):
        ControlConfig(with_base=True)
    with pytest.raises(ValueError, match="'z', which is no input"):
        dataclasses.replace(BASE, control=ControlConfig(base="r", channels=("z",)))
    with pytest.raises(ValueError, match="has all inputs"):
        dataclasses.replace(BASE, control=ControlConfig(base="r", channels=("a", "b", "c")))
    with pytest.raises(ValueError, match="at most 3, or to 0"):
        dataclasses.replace(with_control(BASE), control=ControlConfig(
            base="r", channels=("x", "y"), blocks=4))  # fmt: skip
    with pytest.raises(ValueError, match="or neither"):
        ControlConfig(base="r")
