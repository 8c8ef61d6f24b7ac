"""How forecasts of a channel find its lows and highs, by lead time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.weather.objects.finding import Criteria, Finder, Kind, Objects
from sciml_dchag.weather.objects.matching import SUMS, WITHIN_KM, scores_of, sums_of
from sciml_dchag.weather.objects.quantity import Quantity

Floats = NDArray[np.float64]


class ObjectScores:
    """Scores of a channel's lows and highs in forecasts, by lead time.

    Sums over ranks that hold different times and channels are sums of `totals`.

    Args:
        kinds: lows, highs or both; none counts nothing.
        channel: whose objects.
        quantity: what the channel is; None where there are no kinds.
        scored: all channels that are scored.
        forecasts: names, the model's first.
        lead_hours: lead times.
        grid: latitudes and longitudes in degrees.
    """

    def __init__(
        self,
        kinds: Sequence[Kind],
        channel: str,
        quantity: Quantity | None,
        scored: Sequence[str],
        forecasts: Sequence[str],
        lead_hours: Sequence[int],
        grid: tuple[Floats, Floats],
    ) -> None:
        self.kinds = list(kinds if quantity else ())
        self.channel, self.quantity = channel, quantity
        self.forecasts, self.leads = list(forecasts), list(lead_hours)
        self.finders: list[Finder] = []
        if quantity is not None:
            self.place = list(scored).index(channel)
            criteria = Criteria(min_depth=quantity.min_depth)
            self.finders = [Finder(*grid, kind, criteria) for kind in self.kinds]
        self.totals = np.zeros((len(self.kinds), len(self.forecasts), len(self.leads), len(SUMS)))
        self._truth: tuple[NDArray[np.floating] | None, list[list[Objects]]] = None, []

    def update(
        self,
        forecast: str,
        lead_hours: int,
        channels: NDArray[np.integer],
        field_BCHW: NDArray[np.floating],
        truth_BCHW: NDArray[np.floating],
    ) -> None:
        """Add forecasts of channels at those positions; without ours the sums stay as they are."""
        if not self.kinds or self.place not in channels:
            return
        own = int(np.flatnonzero(channels == self.place)[0])
        if self._truth[0] is not truth_BCHW:  # the same for all forecasts of a lead time
            self._truth = truth_BCHW, self._objects(truth_BCHW[:, own])
        found = self._objects(field_BCHW[:, own])
        sums = self.totals[:, self.forecasts.index(forecast), self.leads.index(lead_hours)]
        for kind, (ours, theirs) in enumerate(zip(found, self._truth[1], strict=True)):
            for one, other in zip(ours, theirs, strict=True):
                sums[kind] += sums_of(one, other)

    def _objects(self, field_BHW: NDArray[np.floating]) -> list[list[Objects]]:
        """Objects by kind and time."""
        assert self.quantity is not None
        scaled = field_BHW.astype(np.float64) * self.quantity.factor
        return [[finder.find(field) for field in scaled] for finder in self.finders]

    def table(self) -> pd.DataFrame:
        """One row per kind, lead time and forecast; values and depths in `units`."""
        units = self.quantity.units if self.quantity else ""
        return pd.DataFrame(
            [
                {
                    "kind": kind, "channel": self.channel, "lead_hours": lead, "forecast": name,
                    "units": units, **scores_of(self.totals[k, f, place]),
                }
                for k, kind in enumerate(self.kinds)
                for place, lead in enumerate(self.leads)
                for f, name in enumerate(self.forecasts)
            ]
        )  # fmt: skip

    @property
    def caption(self) -> str:
        """What table and picture are of."""
        kinds = " and ".join(self.kinds).capitalize()
        return f"{kinds} of {self.channel}: how many are found, how far away and how deep"

    def summaries(self) -> list[str]:
        """Say in a sentence per kind where the model finds more than every baseline, by F1."""
        said = []
        for kind, rows in self.table().groupby("kind", sort=False) if self.kinds else ():
            f1 = rows.pivot(index="lead_hours", columns="forecast", values="f1")
            best = f1.drop(columns="model").max(axis=1)
            said.append(
                f"{str(kind).capitalize()} of {self.channel}: F1 of the model "
                f"{f1['model'].iloc[0]:.2f} at {f1.index[0]} h, of the best baseline "
                f"{best.iloc[0]:.2f}; it is above every baseline at "
                f"{int((f1['model'] > best).sum())} of {len(best)} lead times."
            )
        return said

    def terms(self) -> dict[str, str]:
        """Say what the words of the table mean."""
        if self.quantity is None:
            return {}
        criteria, units = Criteria(min_depth=self.quantity.min_depth), self.quantity.units
        low, high = criteria.band
        return {
            " and ".join(self.kinds).capitalize(): f"Closed extremes {low:g} to {high:g} degrees "
            f"from the equator, at least {criteria.min_depth:g} {units} beyond the mean on a ring "
            f"of {criteria.ring_km:g} km and {criteria.separation_km:g} km apart. One is found "
            f"where the forecast has one within {WITHIN_KM:g} km (optimal assignment), else "
            "missed; one of the forecast without a counterpart is false. F1 = 2 found / (2 found "
            "+ missed + false). Errors are forecast minus truth, over those found.",
        }
