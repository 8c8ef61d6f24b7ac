"""Running moments against numpy over all values at once."""

import numpy as np
import pytest

from sciml_dchag.files.moments import RunningMoments, cannot_normalise

# Float64 sums of at most 600 terms in another order.
ROUNDING = 1e-12


def values(missing: bool) -> np.ndarray:
    """Of 5 quantities far from zero, where a naive sum of squares would lose its digits."""
    found = np.random.default_rng(0).normal(1e4, 1.0, size=(5, 600)).astype(np.float32)
    if missing:
        found[1, 3] = found[4, :] = np.nan
        found[2, 7] = np.inf
    return found


@pytest.mark.parametrize("missing", [False, True])
def test_parts_of_weight_one(missing: bool) -> None:
    every = values(missing)
    whole, first, second = (RunningMoments(5) for _ in range(3))
    whole.add([every[:2], every[2:]])
    first.add([every[:, :200]])
    second.add([every[:3, 200:], every[3:, 200:]])
    first.merge(second)
    first.merge(RunningMoments(5))
    for moments in (whole, first, RunningMoments.from_array(first.to_array())):
        for place, row in enumerate(every):
            known = row[np.isfinite(row)].astype(np.float64)
            assert moments.count[place] == moments.weight[place] == len(known)
            if not len(known):
                assert moments.mean[place] == 0 and np.isnan(moments.std[place])
                continue
            assert moments.mean[place] == pytest.approx(known.mean(), rel=ROUNDING)
            assert moments.std[place] == pytest.approx(known.std(), rel=1e-9)
            assert (moments.minimum[place], moments.maximum[place]) == (known.min(), known.max())


def test_weights_by_row() -> None:
    every = values(missing=True)[:2].reshape(2, 5, 6, 20)  # (C, T, H, W)
    weights = np.linspace(0.2, 2.0, 6)
    moments = RunningMoments(2)
    for start in (0, 2):
        for place in range(2):
            moments.add_weighted(place, every[place, start : (2, None, None)[start]], weights)
    of_cells = np.broadcast_to(weights[:, None], every.shape[1:])
    for place in range(2):
        known = np.isfinite(every[place])
        mean = np.average(every[place][known].astype(np.float64), weights=of_cells[known])
        squares = (every[place][known] - mean) ** 2
        std = np.sqrt(np.average(squares, weights=of_cells[known]))
        assert moments.mean[place] == pytest.approx(mean, rel=ROUNDING)
        assert moments.std[place] == pytest.approx(std, rel=1e-9)
        assert moments.count[place] == known.sum()
        assert moments.weight[place] == pytest.approx(of_cells[known].sum(), rel=ROUNDING)


def test_what_training_cannot_normalise_is_found() -> None:
    usual = np.array([280.0, 1e-5, 5e4])

    def found(**changes: list[float]) -> tuple[int, str] | None:
        parts = {"mean": usual, "std": usual / 10, "minimum": -usual, "maximum": 2 * usual}
        return cannot_normalise(**{**parts, **{k: np.array(v) for k, v in changes.items()}})

    assert found() is None
    assert found(maximum=[300, 1, 1e18]) is None and found(std=[1, 1e-30, 1]) is None
    for changes, expected in (
        ({"maximum": [300, 1e30, 1e5]}, (1, "values of up to 1e+30")),
        ({"minimum": [-1e20, 0, 0]}, (0, "values of up to 1e+20")),
        ({"std": [1, 1, 0]}, (2, "a standard deviation of 0")),
        ({"std": [1, 1e-40, 1]}, (1, "a standard deviation of 1e-40")),
        ({"mean": [1, 1, np.nan]}, (2, "not finite")),
        ({"std": [1, np.inf, 1]}, (1, "not finite")),
    ):
        place, why = found(**changes) or (-1, "")
        assert place == expected[0] and expected[1] in why, (changes, why)
