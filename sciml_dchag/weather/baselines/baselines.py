"""The forecasts that stand beside a model's, each fitted on the training period alone.

A model is worth its cost where it beats the best of them. To add one, write a class with
`forecast(initial, lead_hours)` and a line in `fit_baselines` and `BASELINES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.weather.baselines.expected import expected_of
from sciml_dchag.weather.baselines.inverse_model import InverseModel
from sciml_dchag.weather.baselines.persistence import (
    AnomalyPersistence,
    Climatology,
    DampedPersistence,
    Persistence,
)
from sciml_dchag.weather.baselines.stencil import StencilRidge
from sciml_dchag.weather.baselines.training_pairs import TrainingPairs
from sciml_dchag.weather.store.store import Period, Store
from sciml_dchag.weather.training_store import training_statistics

BASELINES = {
    "persistence": "The state at the initial time, held.",
    "anomaly_persistence": "The departure from climatology at the initial time, held: climatology "
    "at the valid time is added, so that its daily cycle goes on.",
    "damped_persistence": "A fraction of that departure, one coefficient a channel and lead time "
    "by least squares.",
    "climatology": "What is expected at the valid time, whatever the initial state; it has no "
    "anomaly, so it has no anomaly correlation.",
    "ridge": "Ridge regression, by latitude and lead time, on the cells around each place.",
    "inverse_model": "Linear inverse model: regression on the leading EOFs of all channels.",
}
"""What each is, by the name of its column of scores."""


class Baseline(Protocol):
    """A forecast that needs no model."""

    def forecast(self, initial: NDArray[np.int64], lead_hours: int) -> NDArray[np.float32]:
        """Forecast from positions of initial times (B,): (B, C, H, W) in physical units."""


def fit_baselines(
    store: Store,
    period: Period,
    channels: Sequence[int],
    lead_hours: Sequence[int],
    history_hours: Sequence[int] = (),
) -> tuple[TrainingPairs, dict[str, Baseline]]:
    """Fit every baseline on a training period.

    Args:
        store: with even steps, and a climatology and statistics of the period.
        period: the training period; nothing else is read.
        channels: positions of the channels to forecast.
        lead_hours: lead times to forecast.
        history_hours: earlier times that the model sees too, negative.

    Returns:
        What they were fitted on, and each by its name in `BASELINES`, in that order.

    Raises:
        ValueError: uneven steps, or statistics or climatology of another period.
    """
    pairs = TrainingPairs(
        store=store,
        period=period,
        expected=expected_of(store, period),
        std=training_statistics(store, period).std,
    )
    found: dict[str, Baseline] = {
        "persistence": Persistence(pairs, channels),
        "anomaly_persistence": AnomalyPersistence(pairs, channels),
        "damped_persistence": DampedPersistence(pairs, channels, lead_hours),
        "climatology": Climatology(pairs, channels),
        "ridge": StencilRidge(pairs, channels, lead_hours, history_hours),
        "inverse_model": InverseModel(pairs, channels, lead_hours),
    }
    assert list(found) == list(BASELINES)
    return pairs, found
