"""What a forecaster's checkpoint keeps of its data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.files.arrays import from_text
from sciml_dchag.weather.baselines.stencil import FEW_CHANNELS
from sciml_dchag.weather.forecast.chain import RegressionChain
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.store.cycles import Cycle
from sciml_dchag.weather.store.states import States
from sciml_dchag.weather.store.store import Period
from sciml_dchag.weather.training_store import WeatherRecord


@dataclass(frozen=True, kw_only=True)
class ForecastRecord(WeatherRecord):
    """What a forecaster's checkpoint keeps of its data."""

    change_std: tuple[float, ...] | None
    """Unit of a residual forecast by target channel; with a chain of all channels at its first lead
    time, then at the next; None for any other output."""
    step_hours: int
    """Time step of the store."""
    daily_cycle_hours: tuple[int, ...] = ()
    """Hours of `daily_cycle`; none where states are not departures."""
    daily_cycle: str = ""
    """The training period's mean by hour of day, and its seasons where there are any, (hour, J, C,
    H, W), as `files.arrays` has it."""
    linear_step: str = ""
    """Weights of the linear step, (O, C or 1, T, S, H), likewise; empty for none."""
    chain: str = ""
    """The chain of regressions, likewise; empty for none."""
    base_channels: tuple[str, ...] = ()
    """Channels of the store that the base of a control branch has; mean and std are the base's."""
    base_periods: tuple[Period, ...] = ()
    """Training period of that base, and its validation period if it had one."""

    def cycle(self, grid: tuple[int, int]) -> Cycle | None:
        """What states are departures from, on a grid of (rows, columns)."""
        if not self.daily_cycle_hours:
            return None
        return Cycle.from_text(self.daily_cycle_hours, self.daily_cycle, len(self.channels), grid)

    def linear_weights(self, outputs: int, times: int, rows: int) -> NDArray[np.float32] | None:
        """Weights of the linear step of all outputs, (O, C or 1, T, S, H)."""
        if not self.linear_step:
            return None
        sources = len(self.channels) if len(self.channels) <= FEW_CHANNELS else 1
        return from_text(self.linear_step, (outputs, sources, times, -1, rows))

    def chain_of(
        self, recipe: ForecastRecipe, store: States, cycle: Cycle | None
    ) -> RegressionChain | None:
        """The chain of regressions of a recipe, on a store's grid.

        Raises:
            ValueError: a damaged record.
        """
        if not self.chain:
            return None
        assert cycle is not None
        task = recipe.task
        empty = np.ones(len(self.channels), np.float32)
        chain = RegressionChain(task.chain_hours, store.channels, task.chain_channels, cycle, empty)
        rows, columns = store.shape[2:]
        return chain.load(self.chain, (rows, columns))
