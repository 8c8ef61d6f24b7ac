"""The whole model: shapes, layout, configuration."""

import dataclasses

import pytest
import torch

from sciml_dchag.models.config import ModelConfig, expected_parameters
from sciml_dchag.models.tokenizer import ChannelLayout, patchify, unpatchify
from sciml_dchag.models.transformer import build_model, count_parameters

CONFIG = ModelConfig(
    embed_dim=16, depth=2, heads=2, patch=2, partitions=3, image_size=(4, 8),
    input_channels=tuple(f"i{i}" for i in range(7)), output_channels=("a", "b", "c", "d"),
)  # fmt: skip


def batch(samples: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 7, 4, 8, generator=generator)
    return x, torch.tensor([6.0, 24.0, 120.0])[:samples]


def model(**changes: object):
    torch.manual_seed(0)
    return build_model(dataclasses.replace(CONFIG, **changes)).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["single", "dchag-c", "dchag-l"])
def test_the_model_maps_channels_to_channels(kind: str) -> None:
    x, hours = batch()
    both = []
    for implementation in ("absorbed", "materialised"):
        m = model(aggregation=kind, implementation=implementation)
        if both:
            m.load_state_dict(both[0].state_dict())
        both.append(m)
    with torch.no_grad():
        out = both[0](x, hours)
        assert out.shape == (3, 4, 4, 8)
        torch.testing.assert_close(both[1](x, hours), out, rtol=1e-4, atol=1e-5)
        # A sample alone gives what it gives among others.
        torch.testing.assert_close(both[0](x[1:2], hours[1:2]), out[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["single", "dchag-c", "dchag-l"])
def test_every_input_channel_matters(kind: str) -> None:
    x, hours = batch(1)
    m = model(aggregation=kind)
    with torch.no_grad():
        before = m(x, hours)
        for channel in range(7):
            changed = x.clone()
            changed[:, channel] += 1.0
            # Rounding is 1e-7 of values near one.
            assert (m(changed, hours) - before).abs().max() > 1e-5, channel


def test_the_lead_time_matters() -> None:
    x, hours = batch()
    with torch.no_grad():
        assert not torch.allclose(model()(x, hours), model()(x, hours + 24))


def test_a_patch_with_a_missing_value_counts_as_missing() -> None:
    x, hours = batch()
    available = torch.ones_like(x, dtype=torch.bool)
    available[0, 3, 0, 0] = False
    spoilt = x.clone()
    spoilt[0, 3, :2, :2] = 1e4  # the whole patch of that value
    m = model()
    with torch.no_grad():
        out = m(x, hours, available)
        torch.testing.assert_close(m(spoilt, hours, available), out)
        assert not torch.allclose(m(x, hours), out)


def test_unpatchify_undoes_patchify() -> None:
    x, _ = batch()
    patches = patchify(x, 2)
    assert patches.shape == (3, 8, 7, 4)
    torch.testing.assert_close(patches[0, 1, 5], x[0, 5, :2, 2:4].flatten())
    torch.testing.assert_close(unpatchify(patches, 2, 4), x)


@pytest.mark.parametrize(("channels", "partitions", "groups"), [(80, 4, 1), (81, 4, 2), (7, 3, 2)])
def test_channels_are_dealt_in_order_and_evenly(
    channels: int, partitions: int, groups: int
) -> None:
    layout = ChannelLayout(channels, partitions, groups)
    index = torch.arange(channels)[None, None]
    slots = layout.to_slots(index)[0, 0]
    for parts in {1, partitions}:  # what each of several ranks holds, in order, is the whole
        ranges = [layout.channel_range(i, parts) for i in range(parts)]
        assert [c for r in ranges for c in r] == list(range(channels))
        for rank, channel_range in enumerate(ranges):
            own = layout.part(rank, parts)
            assert own.channels == len(channel_range) and own.partitions == partitions // parts
            part = torch.arange(channels)[None, None, channel_range.start : channel_range.stop]
            filled = own.filled_GSK[None, None]
            assert torch.equal(own.to_slots(part)[filled], part.flatten())
            assert torch.equal(own.to_channels(own.to_slots(part).flatten(3)), part)
    dealt = [slots[g][layout.filled_GSK[g]] for g in range(partitions)]
    assert torch.equal(torch.cat(dealt), index.flatten())
    sizes = [len(d) for d in dealt]
    assert max(sizes) - min(sizes) <= 1
    back = layout.to_channels(layout.to_slots(index).flatten(3, 4))
    assert torch.equal(back, index)


@pytest.mark.parametrize("kind", ["single", "dchag-c", "dchag-l"])
def test_padding_is_not_counted(kind: str) -> None:
    config = dataclasses.replace(CONFIG, aggregation=kind)  # 7 over 3 partitions, 4 over 3
    assert count_parameters(build_model(config)) == expected_parameters(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "giant"}, "none of tiny"),
        ({"embed_dim": 18, "heads": 4}, "multiple of model.heads 4 and of 4: choose 16"),
        ({"patch": 3}, "patch 3 does not divide the image of 4 x 8"),
        ({"partitions": 0}, "at least 1"),
        ({"aggregation": "single", "tree": 2}, "set it to 0 for single"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]


def test_a_model_needs_channels_and_enough_of_them() -> None:
    with pytest.raises(ValueError, match="are not all set"):
        build_model(ModelConfig())
    with pytest.raises(ValueError, match="7 channels cannot fill 8 partitions"):
        build_model(dataclasses.replace(CONFIG, partitions=8))


def test_start_values_depend_on_seed_and_name_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    shallow = build_model(CONFIG, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    deep = build_model(dataclasses.replace(CONFIG, depth=CONFIG.depth + 1), seed=3).state_dict()
    assert set(shallow) < set(deep)
    for name, value in shallow.items():
        assert torch.equal(value, deep[name]), name
    other = build_model(CONFIG, seed=4).state_dict()
    weights = [name for name in shallow if name.endswith("weight") and "norm" not in name]
    assert weights and not any(torch.equal(shallow[name], other[name]) for name in weights)
