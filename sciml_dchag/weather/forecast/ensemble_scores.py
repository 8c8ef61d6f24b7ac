"""Scores of ensembles on the test period, beside climatology's and those of single forecasts.

Ranks take initial times, a batch each, and ranks of tp the channels to score, as in `evaluate`.

Shapes: B initial times, M members, C scored channels of this rank, H x W grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from sciml_dchag.files.resumable import Progress
from sciml_dchag.training.evaluation import best_of
from sciml_dchag.weather.baselines.climatological_ensemble import ClimatologicalEnsemble
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.forecast.ensemble import Ensemble
from sciml_dchag.weather.forecast.ensemble_factor import calibrated
from sciml_dchag.weather.forecast.forecaster import Forecaster, later
from sciml_dchag.weather.scores import ensemble_plots, plots
from sciml_dchag.weather.scores.ensemble import ENSEMBLE_METRICS, QUANTILES, EnsembleSums
from sciml_dchag.weather.store.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLIMATOLOGY = "climatological_ensemble"
SINGLE = {"crps": "mae", "ensemble_mean_rmse": "rmse"}
"""Which score of a single forecast a score of an ensemble is, by name."""
ENSEMBLE_TERMS = {
    "deterministic": "The model's single forecast, from the state as it is.",
    CLIMATOLOGY: "Up to 50 states of the training period of the same hour of day and, where there "
    "are enough, of the same three months.",
}
"""What each further column of scores is, by name."""


@dataclass
class EnsembleScores:
    """Sums over the test period, of the model's ensemble and of climatology's.

    Args:
        recipe: says how many members.
        store: with training and test period.
        forecaster: on that store.
        scored: names of the channels to score.
        initial: positions of the initial times.
    """

    recipe: ForecastRecipe
    store: Store
    forecaster: Forecaster
    scored: Sequence[str]
    initial: NDArray[np.int64]
    sums: dict[tuple[str, int], EnsembleSums] = field(default_factory=dict)

    def __post_init__(self) -> None:
        evaluation, ranks = self.recipe.evaluation, self.forecaster.ranks
        self.leads = list(evaluation.lead_hours)
        number, count = ranks.channels
        self.own = np.array_split(np.arange(len(self.scored)), count)[number]
        own = [self.scored[position] for position in self.own]
        self.own_indices = self.store.channels.indices(own)
        self.own_outputs = self.forecaster.target_channels.indices(own)
        self.climatology = ClimatologicalEnsemble(
            self.store, self.recipe.data.train, self.own_indices, QUANTILES
        )
        self.ensemble: Ensemble = calibrated(
            self.forecaster, evaluation.members, self.leads, seed=self.recipe.seed,
            at_once=evaluation.batch,
        )  # fmt: skip
        for lead in self.leads:
            for name in ("model", CLIMATOLOGY):
                self.sums[name, lead] = self._no_sums(name, len(self.own))

    def _no_sums(self, name: str, channels: int) -> EnsembleSums:
        of_model = name == "model"
        members = self.ensemble.members if of_model else self.climatology.members
        return EnsembleSums(channels, members, self.store.latitude)

    def run(self, progress: Progress | None) -> None:
        """Score all initial times; afterwards all ranks have all scores."""
        ranks, batch = self.forecaster.ranks, self.ensemble.initial_times_at_once
        windows, done, total = self.forecaster.windows((None, None)), 0, len(self.initial)
        for start, own in ranks.deal(range(0, total, batch)):
            block = self.initial[start : start + batch]
            made = self.forecaster.forecast(windows, list(block), self.leads, self.ensemble)
            for lead, forecast in made:
                if own and len(self.own):
                    self._score(block, lead, forecast)
            ranks.wait()
            done = min(done + batch * ranks.data[1], total)
            if ranks.first and progress is not None:
                progress(done, total, "scoring ensembles")
        self._bring_together()

    def _score(self, initial: NDArray[np.int64], lead: int, forecast: NDArray[np.float32]) -> None:
        """Add the ensembles (B M, targets, H, W) of one lead time to this rank's sums."""
        times = later(self.store.times[initial], lead)
        truth = self.store.read(np.searchsorted(self.store.times, times), self.own_indices)
        members = forecast[:, self.own_outputs].reshape(len(initial), -1, *truth.shape[1:])
        for place, time in enumerate(times):
            expected, thresholds = self.climatology.at(time)
            self.sums["model", lead].update(members[place], truth[place], thresholds)
            self.sums[CLIMATOLOGY, lead].update(expected, truth[place], thresholds)

    def _bring_together(self) -> None:
        """Add up all ranks' sums, of which each time and channel is in one."""
        ranks = self.forecaster.ranks
        for (name, lead), sums in self.sums.items():
            whole = self._no_sums(name, len(self.scored))
            whole.totals[:, self.own], whole.ranks[self.own] = sums.totals, sums.ranks
            whole.totals = ranks.sum(torch.from_numpy(whole.totals)).numpy()
            whole.ranks = ranks.sum(torch.from_numpy(whole.ranks)).numpy()
            self.sums[name, lead] = whole

    def added_to(self, table: pd.DataFrame, single: pd.DataFrame) -> pd.DataFrame:
        """Add the ensembles' scores to a table of single forecasts' scores.

        Rows of `SINGLE` have the single forecasts' scores beside them; the model's is in the column
        `deterministic`.

        Args:
            table: scores of the model's single forecasts and its baselines.
            single: those named in `SINGLE`.
        """
        table = table.assign(**{name: np.nan for name in ENSEMBLE_TERMS})
        singles = single.set_index(["channel", "lead_hours", "metric"])
        rows: list[dict[str, Any]] = []
        for lead in self.leads:
            found = {name: self.sums[name, lead].result() for name in ("model", CLIMATOLOGY)}
            for place, channel in enumerate(self.scored):
                for name, metric in ENSEMBLE_METRICS.items():
                    row: dict[str, Any] = {}
                    if (key := (channel, lead, SINGLE.get(name))) in singles.index:
                        row = singles.loc[key].to_dict()
                        row["deterministic"] = row["model"]
                    units = metric.units(self.store.channels[channel].units)
                    row |= {"channel": channel, "lead_hours": lead, "metric": name,
                            "units": units, "perfect": metric.perfect_or_nan,
                            "model": found["model"][name][place],
                            CLIMATOLOGY: found[CLIMATOLOGY][name][place]}  # fmt: skip
                    rows.append(row)
        joined = pd.concat([table, pd.DataFrame(rows, columns=table.columns)], ignore_index=True)
        order = {name: number for number, name in enumerate(self.scored)}
        return joined.sort_values(
            ["channel", "lead_hours"], key=lambda keys: keys.map(order).fillna(keys), kind="stable"
        ).reset_index(drop=True)  # fmt: skip

    def in_words(self, table: pd.DataFrame) -> str:
        """Say what the ensembles are and how they did, from the table with their scores."""
        crps = table[table["metric"] == "crps"]
        columns = list(table.columns)
        best, _ = best_of(crps, columns[columns.index("model") + 1 :])
        ratio = table.loc[table["metric"] == "spread_over_error", "model"]
        return (
            f"Ensembles: {self.ensemble.in_words()}. Their CRPS is below the absolute error of "
            f"every single forecast and the CRPS of the climatological ensemble in "
            f"{int((crps['model'] < best).sum())} of {len(crps)} pairs of channel and lead time; "
            f"spread over error is {ratio.min():.2f} to {ratio.max():.2f}."
        )

    def rank_table(self) -> pd.DataFrame:
        """Fraction of the area and times at which the truth is above so many members."""
        parts = []
        for lead in self.leads:
            fractions = self.sums["model", lead].rank_fractions()
            for channel, found in zip(self.scored, fractions, strict=True):
                parts.append(
                    pd.DataFrame({"channel": channel, "lead_hours": lead,
                                  "members_below": np.arange(len(found)), "fraction": found})
                )  # fmt: skip
        return pd.concat(parts, ignore_index=True)

    def draw(
        self,
        table: pd.DataFrame,
        shown: Sequence[str],
        keep: Callable[[Figure, str, str], None],
    ) -> None:
        """Draw CRPS by lead time, spread against error and rank histograms.

        Args:
            table: with the ensembles' scores.
            shown: channels.
            keep: takes a picture, its name and its caption.
        """
        keep(
            plots.plot_scores_by_lead(table, "crps", shown), "crps_by_lead",
            "CRPS by lead time; of single forecasts the mean absolute error.",
        )  # fmt: skip
        keep(
            ensemble_plots.plot_spread(table, self.ensemble.members, shown), "spread_by_lead",
            "Spread of the ensemble and error of its mean, by lead time.",
        )  # fmt: skip
        keep(
            ensemble_plots.plot_ranks(self.rank_table(), shown), "rank_histogram",
            "How often the truth is above so many members; flat where it is one more member.",
        )  # fmt: skip
