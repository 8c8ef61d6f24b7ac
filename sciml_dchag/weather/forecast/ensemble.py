"""Ensembles of any forecaster, from what it missed on days of its training period.

Members differ by two things:

- **Initial states.** Each has the difference of two states of the training period, times `INITIAL`.
- **Residual fields.** To each step of the rollout is added what the model's own step missed on some
  day of the training period, times a factor per channel. A forecaster that is asked for each lead
  time directly has no steps: its answer gets a residual field of that lead time.

Fields are drawn whole, all channels of one day together, so that errors of neighbouring places and
of different variables go together as the model's do; of the same hour of day and, where the record
has enough of them, of the same season; and with a random sign, so that their mean is zero. The
factor makes spread equal error on the validation period (`ensemble_factor`).

What a member gets is a function of (seed, initial time, lead time, member): the same on any number
of ranks, and the first members of a larger ensemble are those of a smaller one.

Shapes: B initial times, M members, N inputs, O target channels, K residual fields, H x W grid.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciml_dchag.config.common import require_at_least
from sciml_dchag.models.config import ControlConfig
from sciml_dchag.weather.forecast.base import with_statistics_of
from sciml_dchag.weather.forecast.config import FEWEST_MEMBERS, MOST_MEMBERS, ForecastRecipe
from sciml_dchag.weather.forecast.forecaster import Forecaster, later
from sciml_dchag.weather.forecast.training import ForecastTrainingStore
from sciml_dchag.weather.store.climatology import day_of_year, hour_of_day
from sciml_dchag.weather.store.store import Store
from sciml_dchag.weather.training_store import Timed

INITIAL = 0.02
"""Size of the differences that initial states are given, in standard deviations of a channel."""
MOST_FIELDS = 400
"""Residual fields that are kept, K."""
MOST_BYTES = 2**30
"""Of all residual fields; fewer are kept where they are larger."""
SEASON_DAYS = 45
"""Fields are drawn from days of the year that are at most so far away."""
FEWEST_OF_A_SEASON = 20
"""If there are fewer, all days are drawn from."""


class Ensemble:
    """What the members of a forecaster's ensembles get.

    Every rank builds it and computes all of its residual fields.

    Args:
        forecaster: on any states.
        members: M, 2 and more.
        lead_hours: lead times that will be asked for.
        seed: another one gives other members.
        at_once: states that go through the model at once.

    Raises:
        FileNotFoundError, ValueError: as `training_store`.
        ValueError: fewer than two members, or a training period too short to draw from.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        members: int,
        lead_hours: Sequence[int],
        *,
        seed: int = 0,
        at_once: int = 16,
    ) -> None:
        require_at_least(FEWEST_MEMBERS, "members", members, MOST_MEMBERS)
        require_at_least(0, "seed", seed)
        self.members, self.seed, self.at_once = members, seed, at_once
        self.training = training_store(forecaster)
        self.on_training = forecaster.on(self.training)
        self.windows = self.on_training.windows()
        task = forecaster.recipe.task
        self.step_hours = task.lead_hours[0] if task.fixed_step else None
        leads = sorted(set(lead_hours)) if self.step_hours is None else [self.step_hours]
        self.days = self._draw_days(leads)
        self.residuals = self._residuals_of(leads)
        channels = len(forecaster.target_channels)
        self.factor: NDArray[np.float64] = np.ones(channels)
        """What residual fields are multiplied by, (O,)."""

    def with_factor(self, factor: NDArray[np.float64], members: int | None = None) -> Ensemble:
        """The same residual fields, multiplied by other factors (O,); or another M."""
        other = copy.copy(self)
        other.factor, other.members = factor, members or self.members
        return other

    @property
    def initial_times_at_once(self) -> int:
        """How many initial times have all their members within `at_once` states, or one."""
        return max(1, self.at_once // self.members)

    def in_words(self) -> str:
        """Say what the members are, for files and reports."""
        factors = ", ".join(
            f"{name} {factor:.3g}"
            for name, factor in zip(
                self.on_training.target_channels.names, self.factor, strict=True
            )
        )
        return (
            f"{self.members} members, seed {self.seed}: initial states differ by {INITIAL:g} "
            f"standard deviations, forecasts by residual fields of {len(self.days)} training days "
            f"times {factors}"
        )

    def start(self, inputs: Tensor, times: NDArray[np.datetime64]) -> Tensor:
        """Give each initial state its members: (B, N, H, W) to (B M, N, H, W), normalised."""
        many = inputs.repeat_interleave(self.members, dim=0)
        states = self.windows.layout.states
        size = INITIAL / math.sqrt(2)
        for place, time in enumerate(times):
            draws, pool = self._draws(time, 0), self._like(time, 0)
            pairs = pool[draws.integers(len(pool), size=(self.members, 2))]
            for row, (one, other) in enumerate(pairs, place * self.members):
                difference = self._inputs(one)[:states] - self._inputs(other)[:states]
                many[row, :states] += size * difference.nan_to_num(0.0).to(many.device)
        return many

    def perturb(self, forecast: Tensor, times: NDArray[np.datetime64], lead_hours: int) -> Tensor:
        """Add a residual field to each forecast (B M, O, H, W) of a lead time, normalised.

        Args:
            forecast: members of an initial time side by side.
            times: initial times, (B,).
            lead_hours: how far ahead the forecast looks.
        """
        ahead = self.step_hours or lead_hours
        places, signs = [], []
        for time in times:
            draws = self._draws(time, lead_hours)
            pool = self._like(time + np.timedelta64(lead_hours, "h"), ahead)
            found = draws.integers(2 * len(pool), size=self.members)
            places += list(pool[found // 2])
            signs += list(2 * (found % 2) - 1)
        factor = np.multiply.outer(np.array(signs), self.factor)
        size = torch.from_numpy(factor.astype(np.float32))[:, :, None, None]
        return forecast + (size * self.residuals[ahead][np.array(places)]).to(forecast.device)

    def _inputs(self, day: np.int64) -> Tensor:
        """Inputs on one of the days, (N, H, W), normalised."""
        return torch.from_numpy(self.windows.inputs(int(self.days[day])))

    def _draws(self, time: np.datetime64, lead_hours: int) -> np.random.Generator:
        hour = int((time.astype("datetime64[h]") - np.datetime64("0001-01-01T00")).astype(int))
        return np.random.default_rng([self.seed, hour, lead_hours])

    def _like(self, time: np.datetime64, ahead_hours: int) -> NDArray[np.int64]:
        """Numbers of the days whose time, some hours ahead, is of another's hour and season."""
        return of_hour_and_season(later(self.training.times[self.days], ahead_hours), time)

    def _draw_days(self, leads: Sequence[int]) -> NDArray[np.int64]:
        """Positions of the days that residual fields are of, ascending, (K,)."""
        fits = training_days(self.training, self.on_training.recipe, leads)
        field = 4 * len(self.on_training.target_channels) * math.prod(self.training.shape[2:])
        held = max(FEWEST_OF_A_SEASON, MOST_BYTES // (field * len(leads)))
        count = min(MOST_FIELDS, len(fits), held)
        return np.sort(np.random.default_rng(self.seed).choice(fits, count, replace=False))

    @torch.no_grad()
    def _residuals_of(self, leads: Sequence[int]) -> dict[int, Tensor]:
        """Truth minus forecast from each day, normalised, (K, O, H, W), by lead time."""
        forecaster, windows = self.on_training, self.windows
        found: dict[int, list[Tensor]] = {lead: [] for lead in leads}
        for part in np.array_split(self.days, -(-len(self.days) // self.at_once)):
            inputs = torch.from_numpy(np.stack([windows.inputs(int(index)) for index in part]))
            inputs = inputs.to(forecaster.device)
            for lead, start in forecaster.starts(windows, inputs, list(part), leads):
                truth = torch.from_numpy(windows.targets(list(part), lead))
                missed = truth - forecaster.one_step(inputs, lead, start).cpu()
                # Where nothing is known, nothing is added.
                found[lead].append(missed.nan_to_num(0.0))
        return {lead: torch.cat(parts) for lead, parts in found.items()}


def of_hour_and_season(times: NDArray[np.datetime64], time: np.datetime64) -> NDArray[np.int64]:
    """Positions of the times of another's hour of day and season.

    Where they are fewer than `FEWEST_OF_A_SEASON`, of its hour of day; where there are none, of
    all.
    """
    wanted = np.array([time])
    same_hour = np.flatnonzero(hour_of_day(times) == hour_of_day(wanted))
    if not len(same_hour):
        return np.arange(len(times))
    apart = np.abs(day_of_year(times[same_hour]) - day_of_year(wanted))
    season = same_hour[np.minimum(apart, 366 - apart) <= SEASON_DAYS]
    return season if len(season) >= FEWEST_OF_A_SEASON else same_hour


def training_days(store: Timed, recipe: ForecastRecipe, leads: Sequence[int]) -> NDArray[np.int64]:
    """Positions of the training times that residual fields can be of.

    Args:
        store: the store of the training, or what will be in it.
        recipe: says the training period and the history of inputs.
        leads: lead times in hours that residual fields are of.

    Raises:
        ValueError: too few to draw from.
    """
    inside = store.time_indices(recipe.data.train)
    times, before = store.times[inside], min(recipe.data.history_hours, default=0)
    fits = inside[(later(times, before) >= times[0]) & (later(times, max(leads)) <= times[-1])]
    if len(fits) < FEWEST_OF_A_SEASON:
        raise ValueError(
            f"Members of an ensemble differ by what the model missed on days of its training "
            f"period, and {recipe.data.train[0]} to {recipe.data.train[1]} has {len(fits)} time(s) "
            f"with their history and {max(leads)} h after them, where {FEWEST_OF_A_SEASON} are "
            f"needed: lengthen data.train, or ask for shorter lead times."
        )
    return fits


def training_store(forecaster: Forecaster) -> Store:
    """Open the store that a forecaster was trained on, for ensembles.

    It is the one that its recipe names, or, where that is gone, the one that it forecasts from.

    Raises:
        FileNotFoundError: neither is there.
        ValueError: a store of other states.
    """
    recipe, given = forecaster.recipe, forecaster.store
    # A control branch's base may be gone; what is needed of its data is in the record.
    model = dataclasses.replace(recipe.model, control=ControlConfig())
    recipe = dataclasses.replace(recipe, model=model)
    try:
        opened = ForecastTrainingStore(recipe)
    except FileNotFoundError as error:
        if not isinstance(given, Store):
            raise FileNotFoundError(
                f"Members differ by states of the training period, which {forecaster.path} does "
                f"not hold: put the store that it was trained on back at {recipe.data.store}."
            ) from error
        data = dataclasses.replace(recipe.data, store=str(given.path))
        opened = ForecastTrainingStore(dataclasses.replace(recipe, data=data))
    of_base = forecaster.record.base_channels
    opened.statistics = with_statistics_of(forecaster.record, of_base, opened.statistics)
    if (found := opened.difference(forecaster.checkpoint)) is not None:
        raise ValueError(
            f"Members differ by states of the training period, and {forecaster.path} was trained "
            f"{found}: put the store of the training back at {recipe.data.store}."
        )
    return opened.store
