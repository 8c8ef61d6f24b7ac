"""What the screen, the plots and the report share: score rows, units and numbers as text, files.

No formula of a score is here (`metrics`), and nothing that draws (`plots`, `report`).
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sciml_dchag.channels import canonical_units
from sciml_dchag.weather.scores.metrics import PERFECT

METRIC_LABELS = {
    "mse": "MSE",
    "rmse": "RMSE",
    "rmse_sqrt_before_time_mean": "RMSE, root before time mean",
    "mae": "MAE",
    "bias": "Bias",
    "acc_wb2": "ACC",
    "acc_centred": "ACC, centred in space",
    "acc_climax": "ACC, centred over the batch",
}
METRIC_DEFINITIONS = {
    "mse": "Mean squared error: the mean over initial times and area of the squared difference "
    "between forecast and truth.",
    "rmse": "Root mean squared error: the root is taken once, after the mean over initial times "
    "and area.",
    "rmse_sqrt_before_time_mean": "Root mean squared error as WeatherBench 2's first papers have "
    "it: the root of each initial time's area mean, then the mean of the roots. It is never "
    "larger than RMSE.",
    "mae": "Mean absolute error over initial times and area.",
    "bias": "Mean over initial times and area of forecast minus truth.",
    "acc_wb2": "Anomaly correlation coefficient, WeatherBench 2's convention: for each initial "
    "time the correlation over the area of the departures from climatology, without taking their "
    "area mean off, then the mean over initial times. 1 is perfect.",
    "acc_centred": "Anomaly correlation coefficient with each time's area mean taken off both "
    "departures before they are correlated; then the mean over initial times.",
    "acc_climax": "Anomaly correlation coefficient, ClimaX's convention: one correlation over all "
    "initial times and cells together, after taking one common mean off the departures.",
}
KEYS = ("channel", "lead_hours", "metric")
"""What a forecast's score is of."""
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """A score of the model beside the two forecasts that need no model; NaN where undefined."""

    channel: str
    lead_hours: int
    metric: str
    model: float
    persistence: float
    climatology: float

    def skill(self, against: str = "persistence") -> float:
        """Part of the reference's distance from a perfect score that the model removes.

        (reference - model) / (reference - perfect): for an error 1 - model / reference. Negative
        where the model is worse than the reference; NaN for `bias`, of which a reference can
        have none by accident, and for scores that are undefined.

        Args:
            against: `persistence` or `climatology`.
        """
        reference = {"persistence": self.persistence, "climatology": self.climatology}[against]
        room = reference - PERFECT[self.metric]
        if self.metric == "bias" or room == 0.0:
            return math.nan
        return (reference - self.model) / room


def readable_units(units: str) -> str:
    """`m2 s-2` and its like as `m² s⁻²`; the unit one as nothing."""
    plain = canonical_units(units)
    if plain in ("1", "-", "dimensionless", "~"):
        return ""
    return re.sub(r"(?<=[A-Za-z])-?\d+", lambda m: m[0].translate(SUPERSCRIPTS), plain)


def metric_units(metric: str, units: str) -> str:
    """Readable units of a metric of a channel whose units are given."""
    if PERFECT[metric] == 1.0:
        return ""
    text = readable_units(units)
    if metric != "mse" or not text:
        return text
    return f"({text})²" if not text.isalpha() else f"{text}²"


def table_of(rows: Sequence[ScoreRow], units: Mapping[str, str]) -> pd.DataFrame:
    """The rows as an evaluation's table.

    Args:
        rows: the scores.
        units: units by channel.
    """
    return pd.DataFrame(
        [
            {
                "channel": row.channel,
                "lead_hours": row.lead_hours,
                "metric": row.metric,
                "units": metric_units(row.metric, units.get(row.channel, "")),
                "perfect": math.nan if row.metric == "bias" else PERFECT[row.metric],
                "model": row.model,
                "persistence": row.persistence,
                "climatology": row.climatology,
            }
            for row in rows
        ]
    )


def shown_rows(table: pd.DataFrame, channels: int = 5) -> tuple[int, ...]:
    """Choose RMSE and ACC of the first channels: what fits a screen."""
    first = list(dict.fromkeys(table["channel"]))[:channels]
    shown = table["channel"].isin(first) & table["metric"].isin(["rmse", "acc_wb2"])
    return tuple(int(position) for position in np.flatnonzero(shown))


def summary_of(rows: Sequence[ScoreRow]) -> str:
    """Say in a sentence at how many channels and lead times the model beats both baselines."""
    metric = "rmse" if any(row.metric == "rmse" for row in rows) else rows[0].metric
    chosen = [row for row in rows if row.metric == metric]
    better = [r for r in chosen if min(r.skill("persistence"), r.skill("climatology")) > 0]
    return (
        f"By {METRIC_LABELS[metric]} the model is better than both persistence and climatology in "
        f"{len(better)} of {len(chosen)} pairs of channel and lead time."
    )
