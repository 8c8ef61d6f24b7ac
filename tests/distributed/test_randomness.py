"""Dropout on ranks: alike where ranks must agree, apart where each has its own."""

from typing import Any

import pytest
import rank_workers as workers
import torch
from rank_launcher import on_ranks


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_ranks_drop_alike_outside_their_own_heads_and_locations(sequence_parallel: bool) -> None:
    without, with_dropout = (
        on_ranks(2, workers.what_dropout_leaves, rate, {"sequence_parallel": sequence_parallel})
        for rate in (0.0, 0.5)
    )
    one, other = without
    # The heads of both ranks have the same weights, and so without dropout the same result.
    torch.testing.assert_close(one["heads"], other["heads"])
    one, other = with_dropout
    torch.testing.assert_close(one["features"], other["features"], rtol=0, atol=1e-6)
    assert not torch.allclose(one["features"], without[0]["features"])
    difference = (one["heads"] - other["heads"]).abs() > 1e-6
    assert difference.float().mean() > 0.5
    if sequence_parallel:  # what is zero after the dropout of a block, by location
        same = (one["dropped"] == other["dropped"]).float().mean()
        assert 0.35 < same < 0.65  # chance


def test_a_step_draws_anew_and_again_the_same() -> None:
    first: list[dict[str, Any]] = on_ranks(2, workers.what_dropout_leaves, 0.5, {})
    again: list[dict[str, Any]] = on_ranks(2, workers.what_dropout_leaves, 0.5, {})
    other: list[dict[str, Any]] = on_ranks(2, workers.what_dropout_leaves, 0.5, {}, 6)
    torch.testing.assert_close(first[0]["features"], again[0]["features"], rtol=0, atol=0)
    assert not torch.allclose(first[0]["features"], other[0]["features"])
