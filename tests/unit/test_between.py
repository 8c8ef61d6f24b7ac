"""Interpolation in time: exact at both ends, the ridge, baselines, the daily cycle between hours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from sciml_dchag.objectives.between import (
    OUTER,
    BetweenObjective,
    BetweenRidge,
    FramesLayout,
    frames_of,
    taper,
)
from sciml_dchag.tasks import recipe_from_mapping
from sciml_dchag.weather.interpolate.baselines import cubic, linear
from sciml_dchag.weather.interpolate.config import InterpolateRecipe
from sciml_dchag.weather.interpolate.finer_cycle import finer_cycle
from sciml_dchag.weather.interpolate.ridge import fit_ridge, fitted_times, ridge_of, unit_of
from sciml_dchag.weather.interpolate.training import check_store
from sciml_dchag.weather.interpolate.windows import BetweenWindows
from sciml_dchag.weather.store.cycles import Cycle
from sciml_dchag.weather.store.statistics import compute_statistics
from sciml_dchag.weather.store.store import Store

EVERYTHING = (None, None)


def windows_of(store: Store, **options: Any) -> BetweenWindows:
    settings = {
        "cycle": Cycle.of(store, EVERYTHING), "std": compute_statistics(store.path).std,
        "window_hours": (12, 24), **options,
    }  # fmt: skip
    return BetweenWindows(store, options.pop("period", EVERYTHING), **settings)


def turning(series: Callable[..., xr.DataArray], channels: str, times: int = 60) -> xr.DataArray:
    """A field that is turned eastward by one column each step, with new noise of a tenth."""
    state = series(times=times, channels=channels, rows=4)
    values, noise = state.values.astype(np.float64), np.random.default_rng(1)
    values[0] = noise.normal(size=values.shape[1:])
    for t in range(1, times):
        values[t] = np.roll(values[t - 1], 1, axis=-1) + 0.1 * noise.normal(size=values.shape[1:])
    return state.copy(data=(280 + values).astype(np.float32))


class Anything(nn.Module):
    """A network that says something large."""

    def forward(self, x: torch.Tensor, *_: object) -> torch.Tensor:
        return 1e3 * torch.randn(len(x), 2, 4, 8)


def test_the_answer_at_both_ends_is_the_state_there_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    ridge = BetweenRidge(
        np.random.default_rng(0).normal(size=(2, 1, 2, 2, 4, 3, 4)).astype(np.float32),
        np.random.default_rng(0).integers(0, 32, (3, 4, 8)), np.array([0, 1]), [(12, 6)],
    )  # fmt: skip
    objective = BetweenObjective(
        area_weights=np.ones(4), layout=FramesLayout(channels=("a", "b")), unit=np.ones((1, 2)),
        window_hours=[12], ridge=ridge,
    )  # fmt: skip
    inputs = torch.randn(3, 9, 4, 8, generator=generator)
    first, last = inputs[:, [1, 5]], inputs[:, [2, 6]]
    window = torch.full((3,), 12.0)
    for hours, expected in ((0.0, first), (12.0, last)):
        elapsed = torch.full((3,), hours)
        guess = objective.guess(inputs, first, last, elapsed, window)
        found = objective.between(Anything(), inputs, guess, elapsed, window)
        assert torch.equal(found, expected)
    elapsed = torch.full((3,), 3.0)
    guess = objective.guess(inputs, first, last, elapsed, window)
    assert (guess - (0.75 * first + 0.25 * last)).abs().max() > 0.1  # the ridge says something


def test_fits_count_by_how_near_they_are_in_time() -> None:
    fitted = [(12, 6), (24, 6), (24, 12), (24, 18)]
    weights = np.zeros((2, 4, 1, 1, 4, 1, 1), np.float32)
    ridge = BetweenRidge(weights, np.zeros((1, 1, 1), np.int64), np.array([0]), fitted)
    elapsed = torch.tensor([6.0, 1.0, 6.0, 9.0, 23.0])
    window = torch.tensor([12.0, 12.0, 24.0, 24.0, 24.0])
    expected = [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]]
    assert ridge.shares(elapsed, window).tolist() == expected


@pytest.mark.parametrize("channels", ["t2m,msl", "t2m,msl,u10,v10,z500"])
def test_the_ridge_finds_what_moves(
    channels: str, series: Callable[..., xr.DataArray], write: Callable[..., Path], tmp_path: Path
) -> None:
    store = Store.open(write(turning(series, channels), tmp_path / "turning.zarr"))
    windows = windows_of(store)
    weights, fitted = fit_ridge(windows), fitted_times((12, 24), 6)
    assert fitted == [(12, 6), (24, 6), (24, 12), (24, 18)]
    count = len(store.channels)
    assert weights.shape == (2, 4, count, count if count <= 4 else 1, 4, 45, 4)
    assert not weights[0][..., OUTER, :, :].any() and weights[1][..., OUTER, :, :].any()
    ridge = ridge_of(store, weights, list(range(count)), fitted)
    by_linear, by_ridge = unit_of(windows, None), unit_of(windows, ridge)
    assert (by_ridge < 0.35 * by_linear).all()
    # Of some targets it says of each what it says of all.
    sample = windows.sample(3, 24, 6)
    hours = sample.elapsed_hours, sample.window_hours
    frames = frames_of(sample.inputs, windows.layout)
    assert not frames[:, :, 0].isfinite().any()  # three steps after the first time of the record
    some = ridge_of(store, weights, [count - 1], fitted)
    torch.testing.assert_close(some(frames, *hours), ridge(frames, *hours)[:, [count - 1]])


def test_a_frame_that_the_record_lacks_leaves_the_fit_on_both_ends() -> None:
    draw = np.random.default_rng(0)
    weights = draw.normal(size=(2, 1, 1, 1, 4, 3, 4)).astype(np.float32)
    weights[0][..., OUTER, :, :] = 0
    cells = draw.integers(0, 32, (3, 4, 8))
    ridge = BetweenRidge(weights, cells, np.array([0]), [(12, 6)])
    frames = torch.from_numpy(draw.normal(size=(3, 1, 4, 4, 8)).astype(np.float32))
    frames[1, :, 3] = np.nan  # nothing after
    frames[2, 0, 0, 1, 2] = np.nan  # one missing cell counts as 0
    hours = torch.full((3,), 6.0), torch.full((3,), 12.0)
    found = ridge(frames, *hours)
    states = frames.nan_to_num(0.0).flatten(-2)[:, 0]
    for sample, fit in enumerate((1, 0, 1)):
        around = states[sample][:, torch.from_numpy(cells)]  # (T, S, H, W)
        by_hand = torch.einsum("tshw,tsh->hw", around, torch.from_numpy(weights[fit, 0, 0, 0]))
        torch.testing.assert_close(found[sample, 0], by_hand)


def test_samples_are_a_function_of_their_number(
    series: Callable[..., xr.DataArray], write: Callable[..., Path], tmp_path: Path
) -> None:
    store = Store.open(write(series(times=12), tmp_path / "small.zarr"))
    whole = windows_of(store, forcings=("insolation",), rotate=True)
    kept = windows_of(
        store, forcings=("insolation",), rotate=True, memory_mebibytes=1, inputs=range(4, 10),
        outputs=range(1, 2),
    )  # fmt: skip
    assert len(whole) == 10 + 3 * 8
    assert whole.layout.names == (
        "t2m@before", "t2m@start", "t2m@end", "t2m@after",
        "msl@before", "msl@start", "msl@end", "msl@after", "insolation", "window_hours",
    )  # fmt: skip
    for number in (0, 5, len(whole) + 5):
        one, again, part = whole[number], whole[number], kept[number]
        for a, b in zip(one.tensors, again.tensors, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
        same = {"rtol": 0, "atol": 0, "equal_nan": True}
        torch.testing.assert_close(part.inputs, one.inputs[:, 4:], **same)
        assert torch.equal(part.targets, one.targets[:, [1]])
        assert torch.equal(one.first, one.inputs[:, [1, 5]])
        assert torch.equal(one.last, one.inputs[:, [2, 6]])
    plain = windows_of(store).sample(2, 24, 18)
    assert torch.equal(plain.targets, windows_of(store).sample(5, 12, 6).first)
    assert not torch.equal(whole[5].first, whole[len(whole) + 5].first)
    # Frames outside of the window are there where the period has them, and not if left out.
    frames = frames_of(windows_of(store).sample(2, 12, 6).inputs, whole.layout)
    assert frames.isfinite().all()
    later = windows_of(store).sample(4, 12, 6).inputs
    assert torch.equal(frames[:, :, 2], frames_of(later, whole.layout)[:, :, 1])
    for start, ends_alone, there in ((1, False, [0, 1, 1, 1]), (2, True, [0, 1, 1, 0])):
        sample = windows_of(store).sample(start, 12, 6, ends_alone=ends_alone)
        found = frames_of(sample.inputs, whole.layout).isfinite()
        assert found.all(-1).all(-1).all(1)[0].tolist() == [bool(known) for known in there]
    alone = windows_of(store, ends_alone=0.5)
    lacking = [not frames_of(alone[k].inputs, whole.layout).isfinite().all() for k in range(34)]
    assert 17 <= sum(lacking) < 34  # those at the ends of the record lack frames anyway


def test_windows_without_times_between_are_refused(
    series: Callable[..., xr.DataArray], write: Callable[..., Path], tmp_path: Path
) -> None:
    store = Store.open(write(series(times=12), tmp_path / "small.zarr"))
    for window, said in (
        (6, "has 6 h, and a store of steps of 6 h has windows of 12, 18"),
        (15, "has 15 h"),
        (96, "holds no window of 96 h"),
    ):
        with pytest.raises(ValueError, match=said):
            windows_of(store, window_hours=(window,))


def test_baselines_are_exact_for_polynomials() -> None:
    t = np.array([-1.0, 0.0, 1.0, 2.0])
    for s in (0.0, 0.25, 0.5, 1.0):
        assert linear(3 + 2 * t[1], 3 + 2 * t[2], s) == pytest.approx(3 + 2 * s)
        values = 1 - t + 2 * t**2 - 0.5 * t**3
        assert cubic(*values, s) == pytest.approx(1 - s + 2 * s**2 - 0.5 * s**3)
    assert float(taper(torch.tensor([6.0]), torch.tensor([12.0]))) == 1.0


def tide(hours: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """A mean, a wave of a day that stands, one of half a day that follows the sun: (T, 1, 1, W)."""
    day = 2 * np.pi * hours[:, None] / 24
    sun = np.deg2rad(longitude)
    field = 5 + np.cos(day - 1.0) * np.sin(3 * sun) + 2 * np.cos(2 * (day + sun) + 0.7)
    return field[:, None, None, None, :].astype(np.float32)


def test_the_tide_follows_the_sun_between_the_hours_of_the_training_period() -> None:
    longitude = np.arange(0, 360, 22.5)
    known = np.arange(0, 24, 6)
    cycle = Cycle(known, tide(known, longitude))
    finer = finer_cycle(cycle, longitude, 1)
    np.testing.assert_allclose(finer.mean, tide(np.arange(24), longitude), atol=1e-5)
    assert np.array_equal(finer.mean[::6], cycle.mean)
    assert finer_cycle(cycle, longitude, 6) is cycle
    # A region does not know what lies west of it: there the wave of half a day swings in place.
    region = finer_cycle(Cycle(known, tide(known, longitude[:5])), longitude[:5], 3)
    assert np.isfinite(region.mean).all()
    uneven = Cycle(np.array([0, 6, 9]), cycle.mean[:3])
    with pytest.raises(ValueError, match="not evenly spaced"):
        finer_cycle(uneven, longitude, 1)


def test_a_regression_too_large_for_a_checkpoint_is_refused(
    series: Callable[..., xr.DataArray], write: Callable[..., Path], tmp_path: Path
) -> None:
    store = Store.open(write(series(times=12), tmp_path / "small.zarr"))
    recipe = recipe_from_mapping({"name": "a", "task": {"kind": "interpolate"}})
    assert isinstance(recipe, InterpolateRecipe)
    check_store(recipe, store, (80, 32, 64))
    with pytest.raises(ValueError, match=r"times within windows \(\d+ MiB\) .* at most 256 MiB"):
        check_store(recipe, store, (80, 721, 64))
