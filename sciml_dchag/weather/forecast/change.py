"""The unit of a residual forecast: how much there is left to learn, by channel and lead time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.objectives.linear_step import LinearStep, states_of
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.windows import ForecastWindows


def change_std(
    windows: ForecastWindows, linear: LinearStep | None = None, most: int = 256
) -> NDArray[np.float64]:
    """Standard deviation of what is left to learn, by target channel, normalised.

    It is the change over a lead time, or what a linear step leaves of it; with a chain of
    regressions what each of its lead times leaves, (K, O). From up to `most` samples spread over
    the period, area-weighted.
    """
    if windows.chain is not None:
        return _left_by_chain(windows, windows.chain.lead_hours, most)
    weights = latitude_weights(windows.store.latitude)[:, None]
    count = min(most, len(windows))
    total, known = 0.0, 0.0
    for position in np.linspace(0, len(windows) - 1, count).astype(int):
        sample = windows[int(position)]
        now = sample.now[0].double().numpy()
        if linear is not None:
            now = now + linear(states_of(sample.inputs, windows.layout))[0].double().numpy()
        squares = (sample.targets[0, 0].numpy() - now) ** 2 * weights
        total = total + np.nansum(squares, (1, 2))
        known = known + np.isfinite(squares).sum((1, 2))
    return np.maximum(np.sqrt(total / np.maximum(known, 1)), 1e-6)


def _left_by_chain(
    windows: ForecastWindows, lead_hours: Sequence[int], most: int
) -> NDArray[np.float64]:
    weights = latitude_weights(windows.store.latitude)[:, None]
    chosen = np.linspace(0, len(windows) - 1, min(most // 4, len(windows))).astype(int)
    total = np.zeros((len(lead_hours), len(windows.target_indices)))
    for index in windows.initial_indices[chosen]:
        for place, (lead, start) in enumerate(windows.starts([int(index)], lead_hours[-1])):
            truth = windows.targets([int(index)], lead)[0]
            total[place] += ((truth - start[0].astype(np.float64)) ** 2 * weights).mean((1, 2))
    return np.maximum(np.sqrt(total / len(chosen)), 1e-6)
