"""Runs a forecaster and its baselines over the test period and keeps sums of their errors.

Ranks take initial times, a batch each, and ranks of tp the channels to score; their sums are added
up.

Shapes: B initial times, O scored channels, H x W grid; all in physical units.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from sciml_dchag.files.resumable import Progress
from sciml_dchag.weather.baselines.baselines import BASELINES, fit_baselines
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.forecast.ensemble_scores import SINGLE, EnsembleScores
from sciml_dchag.weather.forecast.forecaster import Forecaster
from sciml_dchag.weather.forecast.initial_times import scored_positions
from sciml_dchag.weather.forecast.object_scores import object_scores
from sciml_dchag.weather.scores.metrics import ScoreSums, check_metrics
from sciml_dchag.weather.scores.regional import RegionalErrors
from sciml_dchag.weather.scores.regions import region_weights_of
from sciml_dchag.weather.scores.table import table_of
from sciml_dchag.weather.store.store import Store
from sciml_dchag.weather.windows import ForecastWindows

MOST_DRAWN = 32  # initial times that spectra are averaged over
BASE = {"base": "The base of the model's control branch: the same model with the branch off."}
"""The forecaster beside a model with a control branch, by the name of its column of scores."""


@dataclass
class Scorer:
    """Runs the forecasts batch by batch and keeps sums, never all fields.

    Until they are brought together, sums are of this rank's channels and initial times.
    """

    recipe: ForecastRecipe
    store: Store
    forecaster: Forecaster
    scored: list[str]
    sums: dict[tuple[str, int], ScoreSums] = field(default_factory=dict)
    initial: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    drawn: dict[tuple[int, str], dict[int, NDArray[np.float32]]] = field(default_factory=dict)
    """Forecasts by lead time and channel, of each initial time in `drawn_initial`."""
    ensembles: EnsembleScores | None = None
    """Scores of ensembles, where the recipe asks for them."""

    def __post_init__(self) -> None:
        names = self.recipe.evaluation.map_channels or tuple(self.scored[:3])
        if missing := [name for name in names if name not in self.scored]:
            raise ValueError(
                f"evaluation.map_channels has {missing[0]!r}, which is not scored: choose among "
                f"{', '.join(self.scored[:8])}."
            )
        self.map_channels = names
        self.leads = self.recipe.evaluation.lead_hours
        self.forecaster.check_leads(self.leads)
        self.metrics = check_metrics(self.recipe.evaluation.metrics, with_climatology=True)
        self.initial = scored_positions(self.store, self.recipe)
        every = -(-len(self.initial) // MOST_DRAWN)
        self.drawn_initial = self.initial[::every]
        number, count = self.forecaster.ranks.channels
        self.own = np.array_split(np.arange(len(self.scored)), count)[number]
        own = [self.scored[position] for position in self.own]
        self.own_indices = self.store.channels.indices(own)
        self.own_outputs = self.forecaster.target_channels.indices(own)
        self.pairs, self.baselines = fit_baselines(
            self.store, self.recipe.data.train, self.own_indices, self.leads,
            self.recipe.data.history_hours,
        )  # fmt: skip
        self.forecasters = {"model": self.forecaster}
        if self.forecaster.control:
            self.forecasters["base"] = self.forecaster.base()
        forecasts = (*self.forecasters, *BASELINES)
        self.regional = RegionalErrors(
            forecasts, self.leads, region_weights_of(self.store), len(self.scored),
            len(self.initial),
        )  # fmt: skip
        self.objects = object_scores(self.recipe, self.store, self.scored, forecasts)
        for lead in self.leads:
            for name in forecasts:
                self.sums[name, lead] = self._no_sums(len(self.own))
            for name in self.map_channels:
                self.drawn[lead, name] = {}

    def _no_sums(self, channels: int) -> ScoreSums:
        return ScoreSums(channels, self.store.latitude, with_climatology=True)

    def run(self, progress: Progress | None) -> None:
        """Score all initial times; afterwards the first rank has all that is drawn."""
        ranks, batch = self.forecaster.ranks, self.recipe.evaluation.batch
        windows = self.forecaster.windows((None, None))
        done = 0
        for start, own in ranks.deal(range(0, len(self.initial), batch)):
            initial = self.initial[start : start + batch]
            for lead, forecasts in self._forecasts(windows, initial):
                if own:
                    self._score(initial, lead, forecasts)
                    self._keep(initial, lead, forecasts["model"])
            ranks.wait()  # no rank gets so far ahead that it gives the others up
            done = min(done + batch * ranks.data[1], len(self.initial))
            if ranks.first and progress is not None:
                progress(done, len(self.initial), "scoring")
        self._bring_together()

    def _forecasts(
        self, windows: ForecastWindows, initial: NDArray[np.int64]
    ) -> Iterator[tuple[int, dict[str, NDArray[np.float32]]]]:
        """By lead time, what the model makes, and its base where it has one."""
        made = [f.forecast(windows, list(initial), self.leads) for f in self.forecasters.values()]
        for of_lead in zip(*made, strict=True):
            fields = (forecast for _, forecast in of_lead)
            yield of_lead[0][0], dict(zip(self.forecasters, fields, strict=True))

    def _score(
        self,
        initial: NDArray[np.int64],
        lead: int,
        forecasts: dict[str, NDArray[np.float32]],
    ) -> None:
        """Add the forecasts (B, targets, H, W) of one lead time to this rank's sums."""
        if not len(self.own):
            return
        valid = self.valid_indices(initial, lead)
        truth = self.store.read(valid, self.own_indices)
        expected = self.pairs.expected.at(self.store.times[valid], self.own_indices)
        times = np.searchsorted(self.initial, initial)
        for name, forecast in forecasts.items():
            self._add(name, lead, times, forecast[:, self.own_outputs], truth, expected)
        for name, baseline in self.baselines.items():
            made = baseline.forecast(initial, lead)
            self._add(name, lead, times, made, truth, expected)

    def _add(
        self,
        name: str,
        lead: int,
        times: NDArray[np.integer],
        fields: NDArray[np.float32],
        truth: NDArray[np.float32],
        expected: NDArray[np.float32],
    ) -> None:
        self.sums[name, lead].update(fields, truth, expected)
        self.regional.update(name, lead, self.own, times, fields, truth)
        self.objects.update(name, lead, self.own, fields, truth)

    def _bring_together(self) -> None:
        """Add up all ranks' sums, of which each time and channel is in one."""
        ranks, statistics = self.forecaster.ranks, list(self._no_sums(0).totals)
        totals = np.zeros((len(self.sums), len(statistics), len(self.scored)))
        for place, sums in enumerate(self.sums.values()):
            totals[place][:, self.own] = [sums.totals[name] for name in statistics]
        added = ranks.sum(torch.from_numpy(totals)).numpy()
        for key, values in zip(list(self.sums), added, strict=True):
            self.sums[key] = self._no_sums(len(self.scored))
            self.sums[key].totals = dict(zip(statistics, values, strict=True))
        self.regional.totals = ranks.sum(torch.from_numpy(self.regional.totals)).numpy()
        self.objects.totals = ranks.sum(torch.from_numpy(self.objects.totals)).numpy()
        for drawn in self.drawn.values():
            for part in ranks.to_first(drawn):
                drawn.update(part)

    def valid_indices(self, initial: NDArray[np.int64], lead: int) -> NDArray[np.int64]:
        """Positions in the store of the times a lead time after some initial times."""
        valid = self.store.times[initial] + np.timedelta64(lead, "h")
        found = np.searchsorted(self.store.times, valid)
        assert (self.store.times[found] == valid).all()
        return found

    def _keep(self, initial: NDArray[np.int64], lead: int, forecast: NDArray[np.float32]) -> None:
        if self.forecaster.ranks.channels[0]:
            return  # ranks of tp have the same forecasts
        for position in np.flatnonzero(np.isin(initial, self.drawn_initial)):
            for name in self.map_channels:
                output = self.forecaster.target_channels.index(name)
                self.drawn[lead, name][int(initial[position])] = forecast[position, output].copy()

    def drawn_fields(self, lead: int, name: str) -> NDArray[np.float32]:
        """Forecasts (B, H, W) of the initial times in `drawn_initial`, on the first rank."""
        return np.stack([self.drawn[lead, name][int(i)] for i in self.drawn_initial])

    def table(self) -> pd.DataFrame:
        """One row per channel, lead time and metric."""
        table = self._table(self.metrics)
        if self.ensembles is None:
            return table
        return self.ensembles.added_to(table, self._table(tuple(SINGLE.values())))

    def _table(self, metrics: tuple[str, ...]) -> pd.DataFrame:
        results = {key: sums.result(metrics) for key, sums in self.sums.items()}
        units = {name: self.store.channels[name].units for name in self.scored}
        return table_of(results, units, metrics)
