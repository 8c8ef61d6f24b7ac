"""Dropout on ranks: alike where ranks must agree, apart where each has its own."""

from typing import Any

import rank_workers as workers
import torch
from rank_launcher import on_ranks


def test_tp_drops_what_one_process_drops() -> None:
    (one,) = on_ranks(1, workers.what_dropout_leaves, 0.5, {})
    (without,) = on_ranks(1, workers.what_dropout_leaves, 0.0, {})
    assert not torch.allclose(one["features"], without["features"])
    for rank in on_ranks(2, workers.what_dropout_leaves, 0.5, {"tp": 2}):
        torch.testing.assert_close(rank["features"], one["features"], rtol=1e-5, atol=1e-5)


def test_ranks_drop_apart_at_locations_of_their_own() -> None:
    one, other = on_ranks(2, workers.what_dropout_leaves, 0.5, {"tp": 2, "sequence_parallel": True})
    torch.testing.assert_close(one["features"], other["features"], rtol=0, atol=1e-6)
    same = (one["dropped"] == other["dropped"]).float().mean()
    assert 0.35 < same < 0.65  # chance: what is zero after the dropout of a block, by location


def test_a_step_draws_anew_and_again_the_same() -> None:
    first: list[dict[str, Any]] = on_ranks(2, workers.what_dropout_leaves, 0.5, {"tp": 2})
    again: list[dict[str, Any]] = on_ranks(2, workers.what_dropout_leaves, 0.5, {"tp": 2})
    other: list[dict[str, Any]] = on_ranks(2, workers.what_dropout_leaves, 0.5, {"tp": 2}, 6)
    torch.testing.assert_close(first[0]["features"], again[0]["features"], rtol=0, atol=0)
    assert not torch.allclose(first[0]["features"], other[0]["features"])
