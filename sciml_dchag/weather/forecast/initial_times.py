"""Which initial times of a period forecasts start from, and which of them are scored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.store.states import States
from sciml_dchag.weather.store.store import Period, taken_every
from sciml_dchag.weather.training_store import Timed, require_test


def initial_positions(
    states: States, period: Period, every_hours: int, history_hours: Sequence[int]
) -> NDArray[np.int64]:
    """Return the positions of the initial times of a period that have their history.

    Args:
        states: where they are.
        period: first and last time, both included.
        every_hours: between initial times; 0 takes all.
        history_hours: that the model needs.

    Raises:
        ValueError: there are none.
    """
    inside = np.intersect1d(states.time_indices(period), states.with_history(history_hours))
    if not len(inside):
        raise ValueError(
            f"No time of the period {period[0]} to {period[1]} has the history that the model "
            f"needs ({min(history_hours)} h) in {states.path}: start later."
        )
    return inside[taken_every(states.times[inside], every_hours, "`every_hours`")]


def scored_positions(store: Timed, recipe: ForecastRecipe) -> NDArray[np.int64]:
    """Positions of the initial times from which every lead time ends in the test period.

    Raises:
        ValueError: there is no test period, or it is shorter than the longest lead time.
    """
    test = require_test(recipe.data)
    inside = store.time_indices(test)
    longest = np.timedelta64(max(recipe.evaluation.lead_hours), "h")
    fits = inside[store.times[inside] + longest <= store.times[inside[-1]]]
    fits = fits[store.times[fits] + np.timedelta64(min(recipe.data.history_hours, default=0), "h")
                >= store.times[0]]  # fmt: skip
    if not len(fits):
        raise ValueError(
            f"The test period {test[0]} to {test[1]} is shorter than the "
            f"longest lead time of {max(recipe.evaluation.lead_hours)} h: lengthen it or lower "
            f"evaluation.lead_hours."
        )
    every = recipe.evaluation.initial_every_hours
    return fits[taken_every(store.times[fits], every, "evaluation.initial_every_hours")]
