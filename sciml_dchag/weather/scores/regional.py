"""RMSE by region, of a model and its baselines, with intervals over initial times.

Shapes: I initial times, C channels, R regions, H x W grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.weather.scores.intervals import block_length, interval, resampled

Sums = NDArray[np.float64]


class RegionalErrors:
    """Squared errors by region and initial time, from which RMSE and its interval follow.

    Sums over ranks that hold different times and channels are sums of `totals`.

    Args:
        forecasts: names, the model's first.
        lead_hours: lead times.
        weights: of each cell by region, from `regions.region_weights`.
        channels: C.
        times: I.
    """

    def __init__(
        self,
        forecasts: Sequence[str],
        lead_hours: Sequence[int],
        weights: Mapping[str, NDArray[np.float64]],
        channels: int,
        times: int,
    ) -> None:
        self.forecasts, self.leads = list(forecasts), list(lead_hours)
        self.regions = list(weights)
        self.weights_RHW = np.stack(list(weights.values()))
        # Squared errors and the area that they are of, (forecast, lead, 2, R, C, I).
        shape = (len(self.forecasts), len(self.leads), 2, len(self.regions), channels, times)
        self.totals: Sums = np.zeros(shape)

    def update(
        self,
        forecast: str,
        lead_hours: int,
        channels: NDArray[np.integer],
        times: NDArray[np.integer],
        field_ICHW: NDArray[np.floating],
        truth_ICHW: NDArray[np.floating],
    ) -> None:
        """Add forecasts at positions of channels and initial times."""
        error = field_ICHW.astype(np.float64) - truth_ICHW
        known = np.isfinite(error)
        squares = np.where(known, error, 0.0) ** 2
        own = self.totals[self.forecasts.index(forecast), self.leads.index(lead_hours)]
        where = np.ix_(np.arange(len(self.regions)), channels, times)
        for part, values in enumerate((squares, known.astype(np.float64))):
            own[part][where] = np.einsum("ichw,rhw->rci", values, self.weights_RHW, optimize=True)

    def table(self, units: Mapping[str, str], interval_hours: float) -> pd.DataFrame:
        """One row per channel, lead time and region.

        Columns: `model` and its bounds, every baseline, the best one's name, by how many percent
        the model's RMSE is below it (`gain_percent`), and bounds of that over the same resamples.

        Args:
            units: by channel, in order.
            interval_hours: between initial times.
        """
        times = self.totals.shape[-1]
        rows = []
        for place, lead in enumerate(self.leads):
            counts = resampled(times, block_length(times, lead, interval_hours))
            with np.errstate(invalid="ignore", divide="ignore"):
                squares, area = self.totals[:, place, 0], self.totals[:, place, 1]
                rmse = np.sqrt(squares.sum(-1) / area.sum(-1))  # (forecast, R, C)
                drawn = np.sqrt((squares @ counts.T) / (area @ counts.T))  # (..., RESAMPLES)
            for c, (channel, unit) in enumerate(units.items()):
                for r, region in enumerate(self.regions):
                    found, spread = rmse[:, r, c], drawn[:, r, c]
                    rows.append(
                        {"channel": channel, "lead_hours": lead, "region": region, "units": unit}
                        | self._row(found, spread)
                    )
        table = pd.DataFrame(rows)
        order = {name: number for number, name in enumerate(units)}
        return table.sort_values(
            ["channel", "lead_hours"], key=lambda keys: keys.map(order).fillna(keys), kind="stable"
        ).reset_index(drop=True)  # fmt: skip

    def _row(self, found: Sums, spread: Sums) -> dict[str, object]:
        if not np.isfinite(found[0]):
            return {name: float("nan") for name in self.forecasts}
        low, high = interval(spread[0])
        row: dict[str, object] = {"model": found[0], "model_low": low, "model_high": high}
        row |= dict(zip(self.forecasts[1:], found[1:].tolist(), strict=True))
        if np.isfinite(found[1:]).any():
            best = 1 + int(np.nanargmin(found[1:]))
            gain = interval(100 * (1 - spread[0] / spread[best]))
            row |= {
                "best_baseline": self.forecasts[best],
                "gain_percent": 100 * (1 - found[0] / found[best]),
                "gain_low": gain[0], "gain_high": gain[1],
            }  # fmt: skip
        return row
