"""The pyramid and the head that finds objects."""

import dataclasses

import pytest
import torch
from torch import Tensor

from sciml_dchag.models.config import ModelConfig, expected_parameters
from sciml_dchag.models.transformer import ChannelTransformer, build_model, count_parameters
from sciml_dchag.objectives.detection import planned_loss

CONFIG = ModelConfig(
    embed_dim=16, depth=1, heads=2, patch=2, partitions=2, pyramid_dim=8, head="detect",
    input_channels=("a", "b", "c"), output_channels=("low", "high"), attributes=("depth",),
    wraps=True, image_size=(8, 16),
)  # fmt: skip


def levels(said_BAN: Tensor) -> list[Tensor]:
    """What cells say as maps (B, h, w, N), the finest first."""
    sizes = [(8, 16), (4, 8), (2, 4)]
    parts = said_BAN.split([rows * columns for rows, columns in sizes], dim=1)
    return [part.unflatten(1, size) for part, size in zip(parts, sizes, strict=True)]


def still(config: ModelConfig) -> ChannelTransformer:
    """A model that does not know where it is."""
    model = build_model(config).eval()
    torch.nn.init.zeros_(model.backbone.position_embedding)
    return model


def test_parameters_are_those_expected() -> None:
    for channels in (3, 4):
        names = tuple("abcd"[:channels])
        config = dataclasses.replace(CONFIG, input_channels=names)
        assert count_parameters(build_model(config)) == expected_parameters(config)


@pytest.mark.parametrize("wraps", [True, False])
def test_around_the_globe_no_column_is_the_first(wraps: bool) -> None:
    model = still(dataclasses.replace(CONFIG, wraps=wraps))
    x = torch.randn(2, 3, 8, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        said, turned = levels(model(x)), levels(model(x.roll(8, dims=-1)))
    assert [part.shape[-1] for part in said] == [4 * 16 + 3] * 3
    for one, other, columns in zip(said, turned, (8, 4, 2), strict=True):
        same = torch.allclose(one.roll(columns, dims=2), other, atol=1e-5)
        assert same == wraps


def test_the_finest_cells_see_single_pixels_of_every_channel() -> None:
    """Which no features of patches say alone: the rest of the model gets the same."""
    model = still(CONFIG)
    with torch.no_grad():
        for module in (model.head.pyramid.fine, model.head.pyramid.middle):
            torch.nn.init.zeros_(module.weight)
        x = torch.zeros(1, 3, 8, 16)
        before = levels(model(x))[0]
        x[0, 2, 5, 9] = 1.0
        after = levels(model(x))[0]
    changed = (before != after).any(-1)[0].nonzero()
    assert changed[:, 0].unique().tolist() == [3, 4, 5, 6, 7]
    assert changed[:, 1].unique().tolist() == [7, 8, 9, 10, 11]


def test_missing_values_have_no_effect() -> None:
    model = build_model(CONFIG).eval()
    x, available = torch.randn(1, 3, 8, 16), torch.ones(1, 3, 8, 16, dtype=torch.bool)
    available[0, 1, 2, 3] = False
    other = x.clone()
    other[0, 1, 2, 3] = 1e3
    with torch.no_grad():
        one, two = (model(values, available_BCHW=available) for values in (x, other))
    assert torch.equal(one, two) and not torch.equal(one, model(x))


def test_it_is_called_without_lead_times_and_its_loss_is_planned() -> None:
    model = build_model(CONFIG)
    with pytest.raises(ValueError, match="no lead_hours_B and no visible_BV"):
        model(torch.zeros(1, 3, 8, 16), torch.zeros(1))
    loss = planned_loss(model, (range(3), range(2)), 2, torch.float32)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
