"""The scores of ensembles against those of the library `scores` on the same fields."""

import json
from pathlib import Path

import numpy as np
import pytest

from sciml_dchag.weather.scores.ensemble import EnsembleSums

HERE = Path(__file__).parent / "ensemble"
EXPECTED = json.loads((HERE / "expected.json").read_text())


@pytest.mark.parametrize("place", [0, 1])
def test_scores_are_those_of_the_library(place: int) -> None:
    fields = np.load(HERE / "fields.npz")
    members, truth = fields["members"][:, :, [place]], fields["truth"][:, [place]]
    channel = "ab"[place]
    thresholds = np.array(EXPECTED["thresholds"][channel])[:, None, None, None]
    sums = EnsembleSums(1, members.shape[1], fields["latitude"])
    for one, other in zip(members, truth, strict=True):
        sums.update(one, other, np.broadcast_to(thresholds, (2, *other.shape)))
    found, expected = sums.result(), EXPECTED["expected"][channel]
    for name in ("crps", "ensemble_mean_rmse", "brier_low", "brier_high"):
        # Both in float64; sums in another order.
        np.testing.assert_allclose(found[name][0], expected[name], rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(sums.rank_fractions()[0], expected["ranks"], rtol=1e-12)
