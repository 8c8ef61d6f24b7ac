"""The benchmark of a whole training step: tiny, through the functions that the figures come from."""

import math
from dataclasses import replace

import pytest
import scaling

from sciml_dchag.models.config import expected_parameters

CASE = scaling.Case(
    channels=64, depth=1, batch=4, embed_dim=32, heads=4, patch=2, image_size=(8, 16)
)
ALL = scaling.SIDES | scaling.MORE_SIDES


@pytest.mark.full
def test_all_sides_take_turns_on_two_ranks() -> None:
    result = scaling.compare(CASE, ALL, rounds=2)
    assert list(result["sides"]) == list(result["ratio"]) == list(ALL)
    baseline = result["sides"][scaling.BASELINE]
    for name, side in result["sides"].items():
        assert side["seconds"]["rounds"] == side["cpu_seconds"]["rounds"] == 2
        assert 0 < side["seconds"]["min"] <= side["seconds"]["median"] <= side["seconds"]["max"]
        assert side["parameters"] == expected_parameters(CASE.model(ALL[name]))
        assert side["channels_tokenized_on_a_rank"] == (64 if name == scaling.BASELINE else 32)
        assert 0 < side["loss"] < math.inf
        gain = result["ratio"][name]
        assert gain["seconds"] == baseline["seconds"]["median"] / side["seconds"]["median"]
        low, high = gain["seconds_spread"]
        assert low <= gain["seconds"] <= high
    ours = result["sides"][scaling.OURS]
    materialised = result["sides"]["dchag-c materialised"]
    # The same function of the same samples from the same start, whatever forms it.
    assert ours["loss"] == pytest.approx(materialised["loss"], rel=1e-4)
    distributed = result["sides"]["distributed-tokens materialised"]
    assert baseline["loss"] == pytest.approx(distributed["loss"], rel=1e-4)
    assert ours["peak_mebibytes"] < materialised["peak_mebibytes"] < baseline["peak_mebibytes"]
    shown = scaling.table(result)
    assert shown.row_count == len(ALL)


def test_a_side_that_is_not_what_it_is_called_is_refused() -> None:
    side = ALL[scaling.OURS]
    scaling.require_result(side, 1.0, 99, 100)
    with pytest.raises(ValueError, match="100 bytes at most in one piece"):
        scaling.require_result(side, 1.0, 100, 100)
    with pytest.raises(ValueError, match="99 bytes at most in one piece"):
        scaling.require_result(replace(side, implementation="materialised"), 1.0, 99, 100)
    with pytest.raises(ValueError, match="loss of nan"):
        scaling.require_result(side, math.nan, 99, 100)
