"""How large the residual fields of an ensemble are: spread equals error on the validation period.

Shapes: B initial times, M members, O target channels, T lead times, H x W grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.forecast.ensemble import Ensemble
from sciml_dchag.weather.forecast.forecaster import Forecaster, later

MEMBERS = 10
"""Members of the ensembles that the factor is chosen with."""
MOST_TIMES = 16
"""Initial times, evenly over the validation period."""
LONGEST_HOURS = 120
"""Longer lead times are left to themselves: there the spread is that of the climate."""
ROUNDS = 2
"""Spread is nearly proportional to the factor, but channels spread into each other."""


def calibrated(
    forecaster: Forecaster, members: int, lead_hours: Sequence[int], *, seed: int = 0,
    at_once: int = 16,
) -> Ensemble:  # fmt: skip
    """An ensemble whose residual fields are multiplied by what the validation period asks for.

    Without a validation period the factor is 1: what the model missed, as it is.

    Args:
        forecaster, members, lead_hours, seed, at_once: as of `Ensemble`.

    Raises:
        FileNotFoundError, ValueError: as `Ensemble`; or a validation period shorter than the
            shortest lead time.
    """
    recipe = forecaster.recipe
    # Those of the recipe, so that the factor does not depend on what is asked for.
    chosen = [lead for lead in recipe.evaluation.lead_hours if lead <= LONGEST_HOURS]
    chosen = chosen or [min(recipe.evaluation.lead_hours)]
    leads = sorted({*lead_hours, *chosen}) if recipe.data.validation else list(lead_hours)
    ensemble = Ensemble(forecaster, members, leads, seed=seed, at_once=at_once)
    if recipe.data.validation is None:
        return ensemble
    for _ in range(ROUNDS):
        trial = ensemble.with_factor(ensemble.factor, MEMBERS)
        ensemble = ensemble.with_factor(ensemble.factor * _error_over_spread(trial, chosen))
    return ensemble


def _error_over_spread(ensemble: Ensemble, leads: Sequence[int]) -> NDArray[np.float64]:
    """By channel, (O,): the geometric mean over lead times of error over spread; 1 without one."""
    forecaster, store = ensemble.on_training, ensemble.training
    ranks, windows = forecaster.ranks, ensemble.windows
    initial, leads = _initial_times(ensemble, leads)
    targets = forecaster.target_indices
    weights_H = latitude_weights(store.latitude)[:, None]
    sums = np.zeros((2, len(leads), len(targets)))
    at_once = max(1, ensemble.at_once // ensemble.members)
    for start, own in ranks.deal(range(0, len(initial), at_once)):
        block = initial[start : start + at_once]
        for lead, forecast in forecaster.forecast(windows, list(block), leads, ensemble):
            if not own:
                continue
            valid = np.searchsorted(store.times, later(store.times[block], lead))
            truth = store.read(valid, targets).astype(np.float64)
            members_BMOHW = forecast.reshape(len(block), ensemble.members, *truth.shape[1:])
            mean = members_BMOHW.mean(1, dtype=np.float64)
            known = np.isfinite(truth) * weights_H
            error = np.nan_to_num(truth - mean) ** 2
            spread = members_BMOHW.var(1, ddof=1, dtype=np.float64)
            for part, squares in enumerate((error, spread)):
                sums[part, leads.index(lead)] += (known * squares).sum((0, 2, 3))
        ranks.wait()
    # Ranks of tp have the same sums: each counts for its share.
    sums = ranks.sum(torch.from_numpy(sums / ranks.channels[1])).numpy()
    sums[1] *= (ensemble.members + 1) / ensemble.members
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.exp(0.5 * np.log(sums[0] / sums[1]).mean(0))
    return np.where(np.isfinite(ratio) & (ratio > 0), ratio, 1.0)


def _initial_times(ensemble: Ensemble, leads: Sequence[int]) -> tuple[NDArray[np.int64], list[int]]:
    """Positions of initial times of the validation period, and the lead times that end in it."""
    store, recipe = ensemble.training, ensemble.on_training.recipe
    assert recipe.data.validation is not None
    inside = np.intersect1d(
        store.time_indices(recipe.data.validation), store.with_history(recipe.data.history_hours)
    )
    held = (store.times[inside[-1]] - store.times[inside[0]]) / np.timedelta64(1, "h")
    # Half of the period is left to start in.
    fitting = [lead for lead in leads if lead <= held / 2] or [min(leads)]
    starts = inside[later(store.times[inside], max(fitting)) <= store.times[inside[-1]]]
    if not len(starts):
        raise ValueError(
            f"data.validation, {recipe.data.validation[0]} to {recipe.data.validation[1]}, is "
            f"shorter than the lead time of {max(fitting)} h on which an ensemble's factor is "
            f"chosen: lengthen it."
        )
    count = min(MOST_TIMES, len(starts))
    return starts[np.linspace(0, len(starts) - 1, count).astype(int)], fitting
