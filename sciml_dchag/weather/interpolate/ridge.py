"""Fits the ridge regression that interpolation starts from, on the training period.

At each time within a window, by row: what the truth has beyond linear interpolation, divided by
4 s (1 - s), regressed on the states on the cells around a place, at all four frames and, for where
a record begins or ends, at both ends of the window alone. A low that moves is at neither end where
it is between them, but the surroundings of both say that it passes.

Shapes: K windows, M times within them, O targets, C channels, T = 4 frames, S cells of the stencil
around a place, H x W grid, P predictors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.objectives.between import (
    ENDS,
    FRAMES,
    BetweenRidge,
    between_ends,
    frames_of,
    taper,
)
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.baselines.normal_equations import POOLED_DEGREES, NormalEquations
from sciml_dchag.weather.baselines.stencil import FEW_CHANNELS, by_row, neighbours, on_stencil
from sciml_dchag.weather.baselines.training_pairs import HELD_OUT, MOST_TIMES, blocks, thinned_by
from sciml_dchag.weather.interpolate.windows import BetweenWindows, OnGrid, times_between

REACH = (2, 4)
"""Rows and columns on each side of a place: a low moves some 20 degrees in a day, mostly east."""
CELLS = (2 * REACH[0] + 1) * (2 * REACH[1] + 1)
"""S."""
UNIT_SAMPLES = 128
"""Samples of each window that its unit is computed from."""


def fitted_times(window_hours: tuple[int, ...], step_hours: int) -> list[tuple[int, int]]:
    """(Window, tau) of all fits, in hours: every time of the store within each window."""
    return [(hours, tau) for hours in window_hours for tau in times_between(hours, step_hours)]


def weights_shape(channels: int, fits: int, rows: int) -> tuple[int, ...]:
    """Shape of the weights of all channels, (2, M, O, C or 1, T, S, H), as `BetweenRidge` says.

    Each target is regressed on all channels where they are few, else on itself.
    """
    sources = channels if channels <= FEW_CHANNELS else 1
    return (2, fits, channels, sources, len(FRAMES), CELLS, rows)


def fit_ridge(windows: BetweenWindows) -> NDArray[np.float32]:
    """Fit all times within all windows: weights of `weights_shape`.

    Strengths are chosen for each target and time on the last fifth of the period.

    Args:
        windows: all inputs and targets of the training period, not turned.

    Raises:
        ValueError: too few windows to hold some of them out.
    """
    latitude, channels = windows.store.latitude, list(range(len(windows.store.channels)))
    fits = fitted_times(windows.window_hours, windows.step_hours)
    weights = np.zeros(weights_shape(len(channels), len(fits), len(latitude)), np.float32)
    few = len(channels) <= FEW_CHANNELS
    for window in windows.window_hours:
        for group in [channels] if few else [[channel] for channel in channels]:
            for tau, (early, late) in _sums(windows, window, group).items():
                weights[:, fits.index((window, tau)), group] = _solved(early, late, latitude)
    return weights


def _sums(
    windows: BetweenWindows, window: int, group: list[int]
) -> dict[int, tuple[NormalEquations, NormalEquations]]:
    """Sums over the windows of one length, and over the last fifth of them, by tau.

    Args:
        windows: of the training period.
        window: the length.
        group: channels that are regressed on each other.
    """
    store, steps = windows.store, window // windows.step_hours
    taus = times_between(window, windows.step_hours)
    sums = {tau: (NormalEquations(), NormalEquations()) for tau in taus}
    for late, part in enumerate(_parts(windows, window)):
        for block in blocks(part):
            read = [windows.read(block + shift * steps, group) for shift in FRAMES.values()]
            frames = np.stack(read, axis=2)  # (B, C, T, H, W)
            states = np.nan_to_num(frames)
            x = by_row(on_stencil(states, store.latitude, store.longitude, REACH))
            products = x.transpose(0, 2, 1) @ x  # the same at all times within the window
            for tau in taus:
                s, truth = tau / window, windows.read(block + tau // windows.step_hours, group)
                first, last = (frames[:, :, end] for end in ENDS)
                left = (truth - (1 - s) * first - s * last) / (4 * s * (1 - s))
                y = by_row(left.transpose(0, 2, 3, 1).astype(np.float32))
                sums[tau][late].add(x, y, products)
    return sums


def _parts(windows: BetweenWindows, window: int) -> list[NDArray[np.int64]]:
    """Starts of windows with all frames, thinned: the first four fifths and the last one."""
    starts = windows.surrounded(window)
    starts = starts[:: thinned_by(len(starts), MOST_TIMES)]
    cut = round(len(starts) * (1 - HELD_OUT))
    if not 0 < cut < len(starts):
        raise ValueError(
            f"The ridge is fitted on the training period, which has {len(starts)} window(s) of "
            f"{window} h with a window before and after them, too few: lengthen data.train, or "
            f"shorten task.window_hours."
        )
    return [starts[:cut], starts[cut:]]


def _solved(
    early: NormalEquations, late: NormalEquations, latitude: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Weights on both ends alone and on all frames, of the channels of a group: (2, O, C, T, S, H).

    Args:
        early: sums over what is fitted on.
        late: over what strengths are chosen on; then both are fitted on.
        latitude: of the rows.
    """
    rows, predictors, targets = early.targets.shape
    sources = predictors // (len(FRAMES) * CELLS)
    frame_P = np.tile(np.repeat(np.arange(len(FRAMES)), CELLS), sources)
    weights = np.zeros((2, targets, predictors, rows), np.float32)
    for number, used in enumerate((ENDS, range(len(FRAMES)))):
        places = np.flatnonzero(np.isin(frame_P, used))
        first, last = early.of(places), late.of(places)
        pooled = first.pooled(latitude, POOLED_DEGREES)
        strengths = pooled.best_strengths(last, latitude_weights(latitude))
        whole = (first + last).pooled(latitude, POOLED_DEGREES)
        for target, strength in enumerate(strengths):
            fit_HP = whole.solve(float(strength))[..., target]
            weights[number, target, places] = fit_HP.T
    return weights.reshape(2, targets, sources, len(FRAMES), CELLS, rows)


def ridge_of(
    grid: OnGrid,
    weights: NDArray[np.float32],
    target_indices: list[int],
    fitted: list[tuple[int, int]],
) -> BetweenRidge:
    """Make the regression of fitted weights on a grid, of some of its targets.

    Args:
        grid: its latitudes and longitudes.
        weights: of all targets, as `fit_ridge` returns them.
        target_indices: positions of the targets that are asked for.
        fitted: as `fitted_times`.
    """
    own = np.ascontiguousarray(weights[:, :, target_indices])
    cells = neighbours(grid.latitude, grid.longitude, REACH)
    return BetweenRidge(own, cells, np.array(target_indices, np.int64), fitted)


def unit_of(windows: BetweenWindows, ridge: BetweenRidge | None) -> NDArray[np.float64]:
    """How much there is left to learn, divided by 4 s (1 - s), by window and target: (K, O).

    Root mean square, area-weighted, over `UNIT_SAMPLES` of each window spread over the period.

    Args:
        windows: of the training period.
        ridge: what is added to linear interpolation; None for nothing.
    """
    area = latitude_weights(windows.store.latitude)[:, None]
    units = np.empty((len(windows.window_hours), len(windows.targets)))
    for place, window in enumerate(windows.window_hours):
        samples = windows.samples[windows.samples[:, 1] == window]
        count = min(UNIT_SAMPLES, len(samples))
        total, known = 0.0, 0.0
        for row in np.linspace(0, len(samples) - 1, count).astype(int):
            sample = windows.sample(*samples[row].tolist())
            hours = sample.elapsed_hours, sample.window_hours
            left = sample.targets - between_ends(sample.first, sample.last, *hours)
            left = left / taper(*hours)
            if ridge is not None:
                left = left - ridge(frames_of(sample.inputs, windows.layout), *hours)
            squares = left[0].double().numpy() ** 2 * area
            total = total + np.nansum(squares, (1, 2))
            known = known + np.isfinite(squares).sum((1, 2))
        units[place] = np.sqrt(total / np.maximum(known, 1))
    return np.maximum(units, 1e-6)
