"""Fits the ridge regression that interpolation starts from, on the training period.

At each time within a window, by row: what the truth has beyond linear interpolation, divided by
4 s (1 - s), regressed on the states of both ends on the cells around a place. A low that moves is
at neither end where it is between them, but both ends' surroundings say that it passes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.objectives.between import BetweenRidge, between_ends, taper
from sciml_dchag.objectives.linear_step import states_of
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.baselines.normal_equations import NormalEquations
from sciml_dchag.weather.baselines.stencil import FEW_CHANNELS, by_row, on_stencil
from sciml_dchag.weather.baselines.training_pairs import HELD_OUT, MOST_TIMES, blocks, thinned_by
from sciml_dchag.weather.interpolate.windows import BetweenWindows, OnGrid

REACH = (2, 4)
"""Rows and columns on each side of a place: a low moves some 20 degrees in a day, mostly east."""
POOLED_DEGREES = 4.0
"""As of the linear step of forecasts."""


def fitted_times(windows: BetweenWindows) -> list[tuple[int, int]]:
    """(Window, tau) of all fits, in hours: every time of the store within each window."""
    return [
        (window, tau)
        for window in windows.window_hours
        for tau in range(windows.step_hours, window, windows.step_hours)
    ]


def sources(channels: int) -> int:
    """Number of channels that each target is regressed on: all where they are few, else itself."""
    return channels if channels <= FEW_CHANNELS else 1


def neighbours(grid: OnGrid) -> NDArray[np.int64]:
    """Positions of the cells around each place on the flattened grid, (S, H, W)."""
    rows, columns = len(grid.latitude), len(grid.longitude)
    numbers = np.arange(rows * columns, dtype=np.float64).reshape(1, 1, 1, rows, columns)
    found = on_stencil(numbers, grid.latitude, grid.longitude, REACH)[0]
    return np.ascontiguousarray(found.transpose(2, 0, 1)).astype(np.int64)


def fit_ridge(windows: BetweenWindows) -> NDArray[np.float32]:
    """Fit all times within all windows: weights (M, O, C or 1, 2, S, H), M as `fitted_times`.

    Strengths are chosen for each target and time on the last fifth of the period.

    Args:
        windows: all inputs and targets of the training period, not turned.

    Raises:
        ValueError: too few windows to hold some of them out.
    """
    found = []
    for window in windows.window_hours:
        starts = windows.starts(window)
        starts = starts[:: thinned_by(len(starts), MOST_TIMES)]
        cut = round(len(starts) * (1 - HELD_OUT))
        if not 0 < cut < len(starts):
            raise ValueError(
                f"The ridge is fitted on the training period, whose {len(starts)} window(s) of "
                f"{window} h are too few: lengthen data.train, or shorten task.window_hours."
            )
        found.append(_fit_window(windows, window, starts[:cut], starts[cut:]))
    return np.concatenate(found)


def _fit_window(
    windows: BetweenWindows, window: int, first: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Fit the times within one window: (tau, O, C or 1, 2, S, H)."""
    store, channels = windows.store, len(windows.store.channels)
    taus = range(windows.step_hours, window, windows.step_hours)
    few = sources(channels) == channels
    groups = [list(range(channels))] if few else [[channel] for channel in range(channels)]
    sums = {
        (group, tau, late): NormalEquations()
        for group in range(len(groups))
        for tau in taus
        for late in (False, True)
    }
    for late, part in ((False, first), (True, last)):
        for block in blocks(part):
            ends = np.stack([
                windows.read(block + shift, range(channels))
                for shift in (0, window // windows.step_hours)
            ], axis=2)  # fmt: skip
            left = {tau: _left_by_line(windows, block, window, tau, ends) for tau in taus}
            states = np.nan_to_num(ends)
            for number, group in enumerate(groups):
                own = states if few else states[:, group]
                x = by_row(on_stencil(own, store.latitude, store.longitude, REACH))
                products = x.transpose(0, 2, 1) @ x  # the same at all times within the window
                for tau in taus:
                    y = by_row(left[tau][:, group].transpose(0, 2, 3, 1))
                    sums[number, tau, late].add(x, y, products)
    cells = (2 * REACH[0] + 1) * (2 * REACH[1] + 1)
    weights = np.empty(
        (len(taus), channels, sources(channels), 2, cells, len(store.latitude)), np.float32
    )
    area = latitude_weights(store.latitude)
    for (number, tau, late), early in sums.items():
        if late:
            continue
        others = sums[number, tau, True]
        pooled = early.pooled(store.latitude, POOLED_DEGREES)
        whole = (early + others).pooled(store.latitude, POOLED_DEGREES)
        strengths = pooled.best_strengths(others, area)
        fits = {strength: whole.solve(float(strength)) for strength in set(strengths.tolist())}
        for place, channel in enumerate(groups[number]):
            fit_HP = fits[float(strengths[place])][..., place]
            shape = weights.shape[2:5]
            weights[taus.index(tau), channel] = fit_HP.T.reshape(*shape, -1)
    return weights


def _left_by_line(
    windows: BetweenWindows,
    starts: NDArray[np.int64],
    window: int,
    tau: int,
    ends: NDArray[np.float32],
) -> NDArray[np.float32]:
    """What is left of linear interpolation, divided by 4 s (1 - s): (B, C, H, W)."""
    truth = windows.read(starts + tau // windows.step_hours, range(ends.shape[1]))
    s = tau / window
    line = (1 - s) * ends[:, :, 0] + s * ends[:, :, 1]
    return ((truth - line) / (4 * s * (1 - s))).astype(np.float32)


def ridge_of(
    grid: OnGrid,
    weights: NDArray[np.float32],
    target_indices: list[int],
    fitted: list[tuple[int, int]],
) -> BetweenRidge:
    """Make the regression of fitted weights on a grid, of some of its targets.

    Args:
        grid: its latitudes and longitudes.
        weights: of all targets, (M, C, C or 1, 2, S, H).
        target_indices: positions of the targets that are asked for.
        fitted: as `fitted_times`.
    """
    own = np.ascontiguousarray(weights[:, target_indices])
    return BetweenRidge(own, neighbours(grid), np.array(target_indices, np.int64), fitted)


def unit_of(
    windows: BetweenWindows, ridge: BetweenRidge | None, most: int = 128
) -> NDArray[np.float64]:
    """How much there is left to learn, divided by 4 s (1 - s), by window and target: (K, O).

    Root mean square, area-weighted, over up to `most` samples of each window spread over the
    period.
    """
    area = latitude_weights(windows.store.latitude)[:, None]
    units = np.empty((len(windows.window_hours), len(windows.targets)))
    for place, window in enumerate(windows.window_hours):
        samples = windows.samples[windows.samples[:, 1] == window]
        chosen = np.linspace(0, len(samples) - 1, min(most, len(samples))).astype(int)
        total, known = 0.0, 0.0
        for start, _, elapsed in samples[chosen].tolist():
            sample = windows.sample(start, window, elapsed)
            hours = sample.elapsed_hours, sample.window_hours
            left = sample.targets - between_ends(sample.first, sample.last, *hours)
            left = left / taper(*hours)
            if ridge is not None:
                left = left - ridge(states_of(sample.inputs, windows.layout), *hours)
            squares = left[0].double().numpy() ** 2 * area
            total = total + np.nansum(squares, (1, 2))
            known = known + np.isfinite(squares).sum((1, 2))
        units[place] = np.sqrt(total / np.maximum(known, 1))
    return np.maximum(units, 1e-6)
