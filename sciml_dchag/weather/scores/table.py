"""What the screen, the plots and the report share: score rows, units and numbers as text, files.

No formula of a score is here (`metrics`), and nothing that draws (`plots`, `report`).
"""

import math
import re
from dataclasses import dataclass

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
