"""The table of a forecast's scores: what its rows are of, which are shown first, its summary.

No formula of a score is here (`formulas`), and nothing that draws (`plots`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sciml_dchag.training.evaluation import skill
from sciml_dchag.weather.scores.formulas import METRICS, Floats

KEYS = ("channel", "lead_hours", "metric")
"""What a forecast's score is of."""
FORECASTS = ("model", "persistence", "climatology")
"""Columns of scores: the model, and two forecasts that need none."""
TERMS = {
    "Area mean": "Every cell counts by its area on the sphere; cells without a value are left out.",
    "Persistence": "The state at the initial time, held.",
    "Climatology": "A mean of the training period; it has no anomaly, so it has no anomaly "
    "correlation.",
}
"""What words in the definitions of metrics mean."""


def table_of(
    results: Mapping[tuple[str, int], Mapping[str, Floats]],
    units: Mapping[str, str],
    metrics: Sequence[str],
) -> pd.DataFrame:
    """Arrange scores as an evaluation's table, one row per channel, lead time and metric.

    Args:
        results: by (one of `FORECASTS`, lead time in hours): by metric, (channel,).
        units: units by channel, in the order of the scores.
        metrics: names from `METRICS`.
    """
    leads = list(dict.fromkeys(lead for _, lead in results))
    return pd.DataFrame(
        [
            {
                "channel": channel,
                "lead_hours": lead,
                "metric": metric,
                "units": METRICS[metric].units(units[channel]),
                "perfect": METRICS[metric].perfect_or_nan,
                **{name: float(results[name, lead][metric][c]) for name in FORECASTS},
            }
            for c, channel in enumerate(units)
            for lead in leads
            for metric in metrics
        ]
    )


def shown_rows(table: pd.DataFrame, channels: int = 5) -> tuple[int, ...]:
    """Choose RMSE and ACC of the first channels: what fits a screen."""
    first = list(dict.fromkeys(table["channel"]))[:channels]
    shown = table["channel"].isin(first) & table["metric"].isin(["rmse", "acc_wb2"])
    return tuple(int(position) for position in np.flatnonzero(shown))


def headline_of(metrics: Sequence[str]) -> str:
    """Choose the metric that a summary is of."""
    return "rmse" if "rmse" in metrics else metrics[0]


def summary_of(table: pd.DataFrame) -> str:
    """Say in a sentence at how many channels and lead times the model beats both baselines."""
    metric = headline_of(list(table["metric"]))
    of_metric = table[table["metric"] == metric]
    better = np.ones(len(of_metric), bool)
    for baseline in FORECASTS[1:]:
        gain = skill(of_metric["model"], of_metric[baseline], of_metric["perfect"])
        better &= (gain > 0).to_numpy()
    return (
        f"By {METRICS[metric].label} the model is better than both persistence and climatology in "
        f"{better.sum()} of {len(better)} pairs of channel and lead time."
    )
