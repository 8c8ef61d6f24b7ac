"""What low precision must not lose, and derivatives that are not there."""

import dataclasses

import pytest
import torch

from sciml_dchag.models.absorbed import absorbed_attention
from sciml_dchag.models.aggregation import ChannelAggregation
from sciml_dchag.models.config import Implementation, ModelConfig
from sciml_dchag.models.spectral import BandFunction
from sciml_dchag.models.transformer import build_model
from sciml_dchag.training.optim import decays

CONFIG = ModelConfig(
    embed_dim=16, depth=1, heads=2, patch=2, partitions=2, image_size=(4, 8),
    input_channels=tuple("abcd"), output_channels=tuple("ab"),
)  # fmt: skip


def test_lead_times_an_hour_apart_are_two_forecasts_in_bfloat16() -> None:
    model = build_model(CONFIG).eval()
    embedded: list[torch.Tensor] = []
    model.backbone.dropout.register_forward_pre_hook(lambda _, x: embedded.append(x[0]))
    x = torch.randn(1, 4, 4, 8, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1, -1)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        model(x, torch.tensor([505.0, 506.0, 507.0]))
    exact = model.backbone.lead_time_embedding.weight[:, 0].detach() / 100
    for one, other in ((0, 1), (1, 2)):
        step = (embedded[0][other] - embedded[0][one]).mean(0)
        torch.testing.assert_close(step, exact, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_over_many_rows_are_summed_in_float32(dtype: torch.dtype) -> None:
    """A sum in bfloat16 of numbers alike stops growing at 256 of them."""
    rows, K, P, h, D = 2048, 2, 3, 1, 4
    x = torch.ones(rows, 1, K, P, dtype=dtype)
    shapes = ((1, K, P + 1, h), (1, K, P + 1, D))
    maps = [torch.full(shape, 0.25, dtype=dtype, requires_grad=True) for shape in shapes]
    with torch.no_grad():
        maps[1][0, 1] = 0.5  # channels that differ, so that their scores have a gradient
    exact = [m.detach().double().requires_grad_() for m in maps]
    for inputs, (scores, values) in ((x, maps), (x.double(), exact)):
        out, _ = absorbed_attention(inputs, scores, values, None, numbers=K * (P + 1))
        (out / rows).sum().backward()
    for low, high in zip(maps, exact, strict=True):
        assert low.grad is not None and low.grad.dtype == dtype and high.grad is not None
        assert high.grad.abs().max() > 0
        assert (low.grad.double() - high.grad).abs().max() < 0.02 * high.grad.abs().max()


def test_second_derivatives_of_the_absorbed_stage_are_refused() -> None:
    x = torch.randn(4, 1, 2, 3, requires_grad=True)
    scores, values = torch.randn(1, 2, 4, 1), torch.randn(1, 2, 4, 4)
    out, _ = absorbed_attention(x, scores, values, None)
    with pytest.raises(NotImplementedError, match="no second derivatives: set it to materialised"):
        torch.autograd.grad(out.sum(), x, create_graph=True)


@pytest.mark.parametrize("implementation", ["absorbed", "materialised"])
def test_a_mask_broadcasts_over_the_batch(implementation: Implementation) -> None:
    generator = torch.Generator().manual_seed(0)
    stage = ChannelAggregation(
        channels=2, patch_pixels=3, embed_dim=4, heads=1, kind="single",
        implementation=implementation,
    )  # fmt: skip
    x_BLCP = torch.randn(2, 3, 2, 3, generator=generator)
    mask_BLC = torch.tensor([[[True, False], [True, True], [False, True]]])  # B 1, L 3
    one, every = stage(x_BLCP, mask_BLC), stage(x_BLCP, mask_BLC.expand(2, -1, -1))
    torch.testing.assert_close(one, every, rtol=0, atol=0)


def test_an_empty_batch_is_refused() -> None:
    model = build_model(CONFIG)
    for mask in (None, torch.ones(0, 4, 4, 8, dtype=torch.bool)):
        with pytest.raises(ValueError, match="A batch without samples"):
            model(torch.zeros(0, 4, 4, 8), torch.zeros(0), mask)


def test_functions_of_wavelength_do_not_follow_the_default_precision() -> None:
    band = BandFunction(3, [1.0] * 3)
    nm = torch.linspace(400, 900, 7, dtype=torch.float64)
    usual = band(nm)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        torch.testing.assert_close(band(nm), usual, rtol=0, atol=0)
    finally:
        torch.set_default_dtype(before)


def test_no_bias_of_a_head_by_wavelength_decays() -> None:
    bands = tuple(f"r{i}" for i in range(4))
    config = dataclasses.replace(
        CONFIG, input_channels=bands, output_channels=bands, head="masked", aggregation="single",
        channel_embedding="wavelength", wavelength_nm=(400.0, 500.0, 600.0, 700.0),
    )  # fmt: skip
    names = [
        name for name, _ in build_model(config).named_parameters() if name.startswith("head.maps")
    ]
    assert {name: decays(name) for name in names} == {"head.maps": True, "head.maps_bias": False}
