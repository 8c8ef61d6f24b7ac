"""A masked autoencoder on ranks, beside the parity of `test_parity`: its start, its randomness."""

from typing import Any

import pytest
import rank_workers as workers
import torch
from rank_launcher import on_ranks

from sciml_dchag.models.transformer import build_model


@pytest.mark.parametrize("parallel", [{"tp": 2}, {"fsdp": 2}], ids=str)
def test_it_starts_on_ranks_as_on_one_process(parallel: dict[str, Any]) -> None:
    expected = dict(build_model(workers.config(*workers.MASKED), seed=3).named_parameters())
    for found in on_ranks(2, workers.start_values, parallel):
        assert found.keys() == expected.keys()
        for name, value in found.items():
            assert torch.equal(value, expected[name]), name


def test_dropout_agrees_between_the_ranks_of_a_sample_and_is_repeated() -> None:
    """The decoder is computed alike on every rank, so that what is dropped must be the same."""
    plain = on_ranks(2, workers.with_dropout, {"tp": 2})
    again = on_ranks(2, workers.with_dropout, {"tp": 2, "activation_checkpointing": "blocks"})
    assert torch.equal(plain[0]["features"], plain[1]["features"])
    assert not torch.equal(plain[0]["features"], plain[0]["features without dropout"])
    for one, other in zip(plain, again, strict=True):
        for name in one:
            torch.testing.assert_close(other[name], one[name], rtol=0, atol=1e-12, msg=name)
    # And so must be the gradients of what every rank holds.
    for name in ("decoder.mask_token", "decoder.narrow.weight", "backbone.position_embedding"):
        assert plain[0][name].abs().max() > 0
        torch.testing.assert_close(plain[0][name], plain[1][name], rtol=0, atol=1e-12)


def test_visible_locations_that_ranks_cannot_share_out_are_refused() -> None:
    for message in on_ranks(2, workers.uneven_locations):
        assert "shares 3 locations out over tp 2, which does not divide them" in message
