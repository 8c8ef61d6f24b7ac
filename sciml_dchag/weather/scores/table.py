"""The table of a forecast's scores: what its rows are of, which are shown first, its summary.

No formula of a score is here (`formulas`), and nothing that draws (`plots`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sciml_dchag.training.evaluation import best_of, skill
from sciml_dchag.weather.scores.formulas import METRICS, Floats

KEYS = ("channel", "lead_hours", "metric")
"""What a forecast's score is of."""
TERMS = {
    "Area mean": "Every cell counts by its area on the sphere; cells without a value are left out.",
    "Best baseline": "The baseline with the best score in that row.",
}
"""What words in the definitions of metrics mean."""


def table_of(
    results: Mapping[tuple[str, int], Mapping[str, Floats]],
    units: Mapping[str, str],
    metrics: Sequence[str],
) -> pd.DataFrame:
    """Arrange scores as an evaluation's table, one row per channel, lead time and metric.

    Args:
        results: by (forecast, lead time in hours): by metric, (channel,). The first forecast is
            the model's, the others are its baselines.
        units: units by channel, in the order of the scores.
        metrics: names from `METRICS`.
    """
    leads = list(dict.fromkeys(lead for _, lead in results))
    forecasts = list(dict.fromkeys(name for name, _ in results))
    return pd.DataFrame(
        [
            {
                "channel": channel,
                "lead_hours": lead,
                "metric": metric,
                "units": METRICS[metric].units(units[channel]),
                "perfect": METRICS[metric].perfect_or_nan,
                **{name: float(results[name, lead][metric][c]) for name in forecasts},
            }
            for c, channel in enumerate(units)
            for lead in leads
            for metric in metrics
        ]
    )


def shown_rows(table: pd.DataFrame, channels: int = 5) -> tuple[int, ...]:
    """Choose RMSE, ACC and, of ensembles, CRPS of the first channels: what fits a screen."""
    first = list(dict.fromkeys(table["channel"]))[:channels]
    shown = table["channel"].isin(first) & table["metric"].isin(["rmse", "acc_wb2", "crps"])
    return tuple(int(position) for position in np.flatnonzero(shown))


def headline_of(metrics: Sequence[str]) -> str:
    """Choose the metric that a summary is of."""
    return "rmse" if "rmse" in metrics else metrics[0]


def summary_of(table: pd.DataFrame) -> str:
    """Say in a sentence where the model beats every baseline, and which is the best of them."""
    metric = headline_of(list(table["metric"]))
    rows = table[table["metric"] == metric]
    columns = list(table.columns)
    best, names = best_of(rows, columns[columns.index("model") + 1 :])
    better = skill(rows["model"], best, rows["perfect"]) > 0
    counts = names[names != ""].value_counts()
    strongest = (
        f" The best baseline is {counts.index[0].replace('_', ' ')} in {counts.iloc[0]} of them."
        if len(counts)
        else ""
    )
    return (
        f"By {METRICS[metric].label} the model is better than every baseline in "
        f"{int(better.sum())} of {len(better)} pairs of channel and lead time.{strongest}"
    )
