"""Fit the linear step that a forecaster may start from, on its training period.

One ridge regression a row: rows near each other share their samples, as the flow changes little
from one to the next and a row alone has few. The strength of the ridge is chosen on the last fifth
of the period.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sciml_dchag.objectives.linear_step import LinearStep, states_of
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.baselines.normal_equations import POOLED_DEGREES, NormalEquations
from sciml_dchag.weather.baselines.stencil import FEW_CHANNELS, by_row, on_stencil
from sciml_dchag.weather.baselines.training_pairs import (
    HELD_OUT,
    MOST_TIMES,
    blocks,
    thinned_by,
)
from sciml_dchag.weather.store.states import States
from sciml_dchag.weather.windows import ForecastWindows


def neighbours(store: States) -> NDArray[np.int64]:
    """Positions of the cells around each place on the flattened grid, (S, H, W)."""
    rows, columns = store.shape[2:]
    numbers = np.arange(rows * columns, dtype=np.float64).reshape(1, 1, 1, rows, columns)
    found = on_stencil(numbers, store.latitude, store.longitude)[0]
    return np.ascontiguousarray(found.transpose(2, 0, 1)).astype(np.int64)


def linear_step_of(
    store: States, weights: NDArray[np.float32], target_indices: Sequence[int]
) -> LinearStep:
    """Make the step of fitted weights (O, C or 1, T, S, H) on a store's grid."""
    return LinearStep(weights, neighbours(store), np.array(target_indices, np.int64))


def fit_linear_step(windows: ForecastWindows) -> NDArray[np.float32]:
    """Fit the change over one step on the training samples: weights (O, C or 1, T, S, H).

    Each target is forecast from all channels where they are few, else from itself; what the others
    say of it is the model's to learn.

    Args:
        windows: all inputs and targets of the training period, not turned.

    Raises:
        ValueError: too few samples to hold some of them out.
    """
    initial = windows.initial_indices
    initial = initial[:: thinned_by(len(initial), MOST_TIMES)]
    cut = round(len(initial) * (1 - HELD_OUT))
    if not 0 < cut < len(initial):
        raise ValueError(
            f"task.linear_step is fitted on the training period, whose {len(initial)} sample(s) "
            f"are too few: lengthen data.train, or set task.linear_step to false."
        )
    layout, latitude = windows.layout, windows.store.latitude
    channels, targets = len(layout.channels), windows.target_indices
    rows = windows.store.shape[2]
    gather = LinearStep(np.empty(0, np.float32), neighbours(windows.store), np.array(targets))
    groups = [list(range(len(targets)))] if channels <= FEW_CHANNELS else [
        [output] for output in range(len(targets))
    ]  # fmt: skip
    sums = {(g, late): NormalEquations() for g in range(len(groups)) for late in (False, True)}
    for late, part in ((False, initial[:cut]), (True, initial[cut:])):
        for block in blocks(part):
            samples = [windows.sample(int(index), windows.lead_steps[0]) for index in block]
            states = states_of(torch.cat([sample.inputs for sample in samples]), layout)
            change = torch.cat([sample.targets[:, 0] - sample.now for sample in samples]).numpy()
            for number, outputs in enumerate(groups):
                own = states if len(groups) == 1 else states[:, [targets[outputs[0]]]]
                x = gather.around(own).flatten(1, 3).numpy().transpose(0, 2, 3, 1)
                y = change[:, outputs].transpose(0, 2, 3, 1)
                sums[number, late].add(by_row(x), by_row(y))
    weights = []
    for number in range(len(groups)):
        first, last = sums[number, False], sums[number, True]
        pooled = first.pooled(latitude, POOLED_DEGREES)
        strengths = pooled.best_strengths(last, latitude_weights(latitude))
        whole = (first + last).pooled(latitude, POOLED_DEGREES)
        for place, strength in enumerate(strengths):
            fit_HP = whole.solve(float(strength))[..., place]
            weights.append(fit_HP.T.reshape(-1, layout.times, len(gather.neighbours), rows))
    return np.stack(weights).astype(np.float32)
