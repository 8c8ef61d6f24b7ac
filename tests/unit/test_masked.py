"""The masked autoencoder: what it sees, what that costs, what is hidden, and what counts."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sciml_dchag.models.config import ModelConfig, expected_parameters
from sciml_dchag.models.tokenizer import patchify
from sciml_dchag.models.transformer import ChannelTransformer, build_model, count_parameters
from sciml_dchag.objectives.masked import MaskedObjective, draw_mask
from sciml_dchag.training.optim import decays

C, H, W, PATCH = 7, 4, 8, 2
NAMES = tuple(f"r{i}" for i in range(C))
CONFIG = ModelConfig(
    embed_dim=16, depth=2, heads=2, patch=PATCH, partitions=3, image_size=(H, W), head="masked",
    decoder_dim=8, decoder_heads=2, input_channels=NAMES, output_channels=NAMES,
)  # fmt: skip
L = H * W // PATCH**2
KINDS = ["single", "dchag-c", "dchag-l"]
SAMPLES = [(0, 0), (0, 1), (1, 0)]


def mean_squared_errors(errors: torch.Tensor, weights: torch.Tensor) -> dict[str, float]:
    masked, visible = (errors.double() / weights).tolist()
    return {
        "masked": masked,
        "visible": visible,
        "all": float(errors.double().sum() / weights.sum()),
    }


def model(**changes: object) -> ChannelTransformer:
    return build_model(dataclasses.replace(CONFIG, **changes)).eval()  # type: ignore[arg-type]


def task(**changes: object) -> MaskedObjective:
    settings = {"seed": 0, "image_size": (H, W), "patch": PATCH, "channels": C, **changes}
    return MaskedObjective(**settings)  # type: ignore[arg-type]


def images(samples: int = 3) -> torch.Tensor:
    return torch.randn(samples, C, H, W, generator=torch.Generator().manual_seed(0))


def hidden_pixels(visible: torch.Tensor) -> torch.Tensor:
    """True where a pixel's location is hidden: (B, H, W), worked out one location at a time."""
    hidden = torch.ones(len(visible), H, W, dtype=torch.bool)
    for sample, locations in enumerate(visible.tolist()):
        for location in locations:
            top, left = PATCH * (location // (W // PATCH)), PATCH * (location % (W // PATCH))
            hidden[sample, top : top + PATCH, left : left + PATCH] = False
    return hidden


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_hidden_has_no_effect_and_what_is_seen_has(kind: str) -> None:
    x, (visible, _) = images(), task(mask_ratio=0.5).draw(SAMPLES)
    hidden = hidden_pixels(visible)[:, None]
    m = model(aggregation=kind)
    with torch.no_grad():
        out = m(x, visible_BV=visible)
        assert out.shape == x.shape
        spoilt = torch.where(hidden, 1e6, x)
        torch.testing.assert_close(m(spoilt, visible_BV=visible), out, rtol=0, atol=0)
        for location in visible[0]:
            for channel in range(C):  # of the first sample: the others stay as they were
                changed = patchify(x, PATCH)
                changed[0, location, channel] += 1
                pixels = changed.permute(0, 2, 1, 3).unflatten(2, (H // PATCH, W // PATCH))
                pixels = pixels.unflatten(-1, (PATCH, PATCH)).transpose(3, 4)
                found = m(pixels.reshape(x.shape), visible_BV=visible)
                change = (found - out).abs().amax(1)
                assert change[0][hidden[0, 0]].max() > 1e-6, (location, channel)
                assert change[1:].max() == 0


@pytest.mark.parametrize("implementation", ["absorbed", "materialised"])
@pytest.mark.parametrize("kind", KINDS)
def test_masked_locations_cost_the_encoder_nothing(kind: str, implementation: str) -> None:
    """With 8 of 32 locations seen it does what it does for an image of 8 locations."""
    counts = []
    for size in ((8, 16), (4, 8)):
        m = model(aggregation=kind, implementation=implementation, image_size=size)
        x = torch.randn(2, C, *size)
        with FlopCounterMode(display=False) as counter:
            m(x, visible_BV=torch.arange(8).expand(2, -1)).sum().backward()
        found = counter.get_flop_counts()
        counts.append(
            [sum(found[f"ChannelTransformer.{n}"].values()) for n in ("aggregation", "backbone")]
        )
    assert min(counts[0]) > 0 and counts[0] == counts[1]


def test_visible_locations_may_come_in_any_order() -> None:
    visible, _ = task().draw(SAMPLES)
    with torch.no_grad():
        a, b = (model()(images(), visible_BV=v) for v in (visible, visible.flip(1)))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_patches_of_some_locations_are_those_of_all() -> None:
    x, (visible, _) = images(), task().draw(SAMPLES)
    expected = torch.stack([p[v] for p, v in zip(patchify(x, PATCH), visible, strict=True)])
    torch.testing.assert_close(patchify(x, PATCH, visible), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_its_parameters_are_as_many_as_expected_and_all_learn(kind: str) -> None:
    m = model(aggregation=kind, decoder_depth=3)
    assert count_parameters(m) == expected_parameters(m.config)
    visible, hidden = task().draw(SAMPLES)
    task().squared_errors(m, images(), visible, hidden)[0].backward()
    for name, parameter in m.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    undecayed = {n.split(".", 1)[1] for n, _ in m.named_parameters() if not decays(n)}
    assert {"mask_token", "position_embedding", "blocks.0.mlp_norm.weight"} <= undecayed
    assert decays("decoder.narrow.weight") and decays("head.weight")


def test_both_models_share_what_they_can() -> None:
    """An encoder learnt by masking is a forecaster's, name by name."""
    ours = model().state_dict()
    other = build_model(dataclasses.replace(CONFIG, head="forecast")).state_dict()
    for name, value in other.items():
        if name.startswith(("aggregation.", "backbone.")) and "lead_time" not in name:
            assert torch.equal(ours.pop(name), value), name
    assert all(name.startswith(("decoder.", "head.")) for name in ours)


def test_each_head_asks_for_what_it_needs() -> None:
    forecaster = build_model(dataclasses.replace(CONFIG, head="forecast"))
    visible, hours = task().draw(SAMPLES)[0], torch.ones(3)
    for m, arguments, message in (
        (model(), {"lead_hours_B": hours}, "called with no lead_hours_B and visible_BV"),
        (model(), {"lead_hours_B": hours, "visible_BV": visible}, "no lead_hours_B"),
        (forecaster, {"visible_BV": visible}, "called with lead_hours_B and no visible_BV"),
        (forecaster, {}, "called with lead_hours_B"),
    ):
        with pytest.raises(ValueError, match=message):
            m(images(), **arguments)
    with pytest.raises(ValueError, match="predicts its 7 input channels"):
        dataclasses.replace(CONFIG, output_channels=("a",))


def test_half_precision_follows() -> None:
    m, t = model(), task(channel_mask_ratio=0.3)
    visible, hidden = t.draw(SAMPLES)
    expected = t.reconstruct(m, images(), visible, hidden)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = t.reconstruct(m, images(), visible, hidden)
        t.squared_errors(m, images(), visible, hidden)[0].backward()
    # bfloat16 keeps 8 bits.
    assert (out.float() - expected).abs().max() < 0.05 * expected.abs().max()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in m.parameters())


def draw(seed: int, epoch: int, index: int, **changes: int) -> tuple[np.ndarray, np.ndarray]:
    settings = {
        "locations": 64, "visible": 16, "channels": 10, "channel_groups": 4, "hidden_groups": 2,
    }  # fmt: skip
    return draw_mask(seed, epoch, index, **{**settings, **changes})


def test_a_mask_is_a_function_of_seed_epoch_and_index() -> None:
    seen, hidden = draw(1, 2, 3)
    np.random.seed(0)
    torch.manual_seed(0)
    assert all(map(np.array_equal, draw(1, 2, 3), (seen, hidden)))
    assert len(set(seen)) == 16 and seen.min() >= 0 and seen.max() < 64
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0), (2, 1, 3)):
        assert not np.array_equal(draw(*other)[0], seen), other
    # Groups of 3, 2, 3 and 2 neighbours, hidden or shown as one.
    groups = [hidden[part] for part in (slice(3), slice(3, 5), slice(5, 8), slice(8, 10))]
    assert [len(set(group)) for group in groups] == [1] * 4
    assert sum(bool(group[0]) for group in groups) == 2
    assert np.array_equal(draw(1, 2, 3, hidden_groups=0)[0], seen)
    # Not what the sample itself is drawn from.
    same_numbers = np.random.default_rng([1, 2, 3]).permutation(64)[:16]
    assert not np.array_equal(np.sort(same_numbers), seen)


def test_every_location_and_channel_is_hidden_as_often_as_asked() -> None:
    draws = [draw(0, 0, index, channel_groups=10, hidden_groups=4) for index in range(4000)]
    seen = np.bincount(np.concatenate([s for s, _ in draws]), minlength=64) / len(draws)
    hidden = np.mean([h for _, h in draws], axis=0)
    # Five standard deviations of a share of 4000 draws.
    np.testing.assert_allclose(seen, 0.25, atol=5 * (0.25 * 0.75 / 4000) ** 0.5)
    np.testing.assert_allclose(hidden, 0.4, atol=5 * (0.4 * 0.6 / 4000) ** 0.5)


def test_masks_of_a_batch_are_those_of_its_samples() -> None:
    t = task(mask_ratio=0.5, channel_mask_ratio=0.5, channel_groups=4)
    visible, hidden = t.draw(SAMPLES)
    assert visible.shape == (3, L // 2) and hidden.shape == (3, C)
    for number, sample in enumerate(SAMPLES):
        alone = t.draw([sample])
        assert torch.equal(alone[0][0], visible[number])
        assert torch.equal(alone[1][0], hidden[number])


class Constant(nn.Module):
    """Predicts one number everywhere, and remembers what it was given."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x, available_BCHW=None, visible_BV=None):
        self.x, self.available = x, available_BCHW
        return self.value.expand(x.shape)


@pytest.mark.parametrize("channel_mask_ratio", [0.0, 0.5])
@pytest.mark.parametrize("with_plants", [False, True])
def test_errors_are_means_over_hidden_and_shown_pixels(
    with_plants: bool, channel_mask_ratio: float
) -> None:
    t = task(mask_ratio=0.5, channel_mask_ratio=channel_mask_ratio)
    x = images().double()
    x[1, 2, 1, 3] = torch.nan
    visible, hidden_channels = t.draw(SAMPLES)
    plants = torch.rand(3, H, W, dtype=torch.float64) if with_plants else None
    constant = Constant(0.5)
    arguments = (x, visible, hidden_channels, plants)
    errors, weights = t.squared_errors(constant, *arguments), t.weights(*arguments)

    hidden = hidden_pixels(visible)[:, None] | hidden_channels[:, :, None, None]
    weight = torch.ones_like(x) if plants is None else plants[:, None].expand_as(x).clone()
    weight[1, 2, 1, 3] = 0
    squares = (x.nan_to_num(0.0) - 0.5).square()
    scores = mean_squared_errors(errors.detach(), weights)
    assert hidden.any() and not hidden.all()
    for name, part in (("masked", hidden), ("visible", ~hidden), ("all", hidden | ~hidden)):
        expected = float((squares * weight * part).sum() / (weight * part).sum())
        assert scores[name] == pytest.approx(expected, rel=1e-12), name
    # What is trained on is what is hidden, and nothing else.
    errors.sum().backward()
    slope = (2 * (0.5 - x.nan_to_num(0.0)) * weight * hidden).sum()
    torch.testing.assert_close(constant.value.grad.double(), slope, rtol=1e-5, atol=1e-5)


def test_a_model_is_told_of_missing_values_and_hidden_channels_and_of_nothing_else() -> None:
    constant, x = Constant(0.0), images()
    plain, hiding = task(), task(mask_ratio=0.0, channel_mask_ratio=0.5)
    plain.reconstruct(constant, x, *plain.draw(SAMPLES))
    assert constant.available is None
    x[0, 1, 2, 3] = torch.nan
    plain.reconstruct(constant, x, *plain.draw(SAMPLES))
    assert constant.x.isfinite().all()
    assert torch.equal(constant.available, x.isfinite())
    visible, hidden = hiding.draw(SAMPLES)
    assert visible.shape == (3, L) and hidden.sum(1).tolist() == [4, 4, 4]
    hiding.reconstruct(constant, x, visible, hidden)
    assert torch.equal(constant.available, x.isfinite() & ~hidden[:, :, None, None])


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_channels_have_no_effect(kind: str) -> None:
    t, m, x = task(mask_ratio=0.5, channel_mask_ratio=0.5), model(aggregation=kind), images()
    visible, hidden = t.draw(SAMPLES)
    spoilt = torch.where(hidden[:, :, None, None], 1e4, x)
    with torch.no_grad():
        out = t.reconstruct(m, x, visible, hidden)
        torch.testing.assert_close(t.reconstruct(m, spoilt, visible, hidden), out)
        shown = torch.where(hidden[:, :, None, None], x, x + 1)
        assert not torch.allclose(t.reconstruct(m, shown, visible, hidden), out)


def test_ranks_with_their_own_channels_add_up_to_the_whole() -> None:
    t = task(mask_ratio=0.5, channel_mask_ratio=0.5)
    x, (visible, hidden) = images().double(), t.draw(SAMPLES)
    constant = Constant(0.5)
    whole = t.squared_errors(constant, x, visible, hidden), t.weights(x, visible, hidden)
    sums = [torch.zeros(2), torch.zeros(2)]
    for own in (range(3), range(3, C)):
        t.own_inputs = t.own_outputs = own
        part = x[:, own.start : own.stop]
        sums[0] = sums[0] + t.squared_errors(constant, part, visible, hidden)
        sums[1] = sums[1] + t.weights(part, visible, hidden)
    for found, expected in zip(sums, whole, strict=True):
        torch.testing.assert_close(found, expected, check_dtype=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_ratio": 1.0}, "mask_ratio 1.0 hides 8 of 8 locations"),
        ({"mask_ratio": 0.97}, "hides 8 of 8 locations"),
        ({"mask_ratio": -0.5}, "give at least 0"),
        ({"mask_ratio": 0.0}, "hide none of 8 locations and 7 channel groups"),
        ({"channel_mask_ratio": 0.9, "channel_groups": 2}, "hides 2 of 2 channel groups"),
        ({"channel_groups": 8}, "channel_groups is 8 of 7 channels"),
    ],
)
def test_masks_that_make_no_sense_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**changes)


def smooth_cubes(samples: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Spectra of two smooth constituents whose amounts vary smoothly over a rectangular image."""
    generator = torch.Generator().manual_seed(4)
    phase = 6.28 * torch.rand(samples, 2, 2, 1, 1, generator=generator)
    rows, columns = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 2, width)[None]
    amounts = torch.sin(3 * rows + phase[:, :, 0]) + torch.cos(3 * columns + phase[:, :, 1])
    band = torch.linspace(0, 1, channels)
    spectra = torch.stack([torch.exp(-((band - c) ** 2) / 0.08) for c in (0.3, 0.7)])
    return torch.einsum("nkhw,kc->nchw", amounts, spectra)


@pytest.mark.parametrize(
    "masking", [{}, {"mask_ratio": 0.0, "channel_mask_ratio": 0.5, "channel_groups": 4}], ids=str
)
def test_it_learns_to_fill_in_what_is_hidden(masking: dict[str, float]) -> None:
    """After 100 steps it beats, on new cubes, the mean of what is shown of a channel or a cube."""
    channels, size = 12, (8, 16)
    names = tuple(f"r{i}" for i in range(channels))
    m = model(
        embed_dim=32, depth=1, decoder_dim=32, partitions=2, image_size=size,
        input_channels=names, output_channels=names,
    )  # fmt: skip
    t = task(image_size=size, channels=channels, **masking)
    cubes = smooth_cubes(256 + 16, channels, *size)
    optimizer = torch.optim.AdamW(m.parameters(), lr=3e-3)
    m.train()
    for step in range(100):
        epoch, first = divmod(32 * step, 256)
        numbers = range(first, first + 32)
        arguments = (cubes[numbers], *t.draw([(epoch, number) for number in numbers]))
        optimizer.zero_grad()
        (t.squared_errors(m, *arguments)[0] / t.weights(*arguments)[0]).backward()
        optimizer.step()
    m.eval()
    unseen = cubes[256:]
    visible, hidden = t.draw([(0, number) for number in range(256, 256 + 16)])
    with torch.no_grad():
        errors = t.squared_errors(m, unseen, visible, hidden)
    weights = t.weights(unseen, visible, hidden)
    shown = t._weights(unseen, visible, hidden, None)[1]
    per_channel = (unseen * shown).sum((2, 3), keepdim=True) / shown.sum((2, 3), keepdim=True)
    overall = (unseen * shown).sum((1, 2, 3), keepdim=True) / shown.sum((1, 2, 3), keepdim=True)
    mean = torch.where(per_channel.isfinite(), per_channel, overall)  # or of a hidden channel
    baseline = ((unseen - mean).square() * ~shown).sum() / weights[0]
    assert mean_squared_errors(errors, weights)["masked"] < 0.5 * float(baseline)
