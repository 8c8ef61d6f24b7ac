"""What the screen, the plots and the report share: score rows, units and numbers as text, files.

No formula of a score is here (`metrics`), and nothing that draws (`plots`, `report`).
"""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sciml_dchag.channels import canonical_units

from .metrics import PERFECT

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


def readable_number(value: float) -> str:
    """About four significant digits, grouped by thousands; a dash where undefined."""
    if math.isnan(value):
        return "–"  # noqa: RUF001 (an en dash is what a table shows)
    size = abs(value)
    if math.isinf(value) or size >= 1e7 or 0 < size < 1e-3:
        return f"{value:.3g}"
    decimals = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3
    return f"{value:,.{decimals}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def readable_percent(fraction: float) -> str:
    """A signed percent, with one decimal below ten; a dash where undefined."""
    if math.isnan(fraction):
        return "–"  # noqa: RUF001
    percent = 100 * fraction
    return f"{percent:+.1f} %" if abs(percent) < 9.95 else f"{percent:+.0f} %"


def readable_lead(hours: int) -> str:
    """Hours up to three days, whole days beyond."""
    return f"{hours} h" if hours <= 72 or hours % 24 else f"{hours // 24} d"


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which replaces `path` once the block ends without error.

    Folders on the way are made. What stood at `path` stays as it was if anything fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
