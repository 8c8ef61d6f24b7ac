"""The recipe of a forecaster: from raw ERA5 to scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sciml_dchag.config.common import MOST_SAMPLES, TaskConfig, require_at_least
from sciml_dchag.weather.recipe import PeriodsConfig, WeatherRecipe


@dataclass(frozen=True, kw_only=True)
class DataConfig(PeriodsConfig):
    """From the store to batches, and which times are for what."""

    history_hours: tuple[int, ...] = ()
    """Earlier states as further inputs, for example [-6, -12]."""
    static: tuple[str, ...] = ()
    """Static fields of the store as further inputs."""
    forcings: tuple[str, ...] = ()
    """Computed inputs: `cos_latitude`, `latitude_degrees`, `sin_solar_time`, `cos_solar_time`,
    `insolation`."""
    departures: bool = False
    """Whether inputs and targets are departures from the mean by hour of day of the training
    period, instead of from one mean for all hours and places: what the sun does every day is then
    known beforehand, and an output of zero is that mean."""
    rotate: bool = False
    """Turn each training sample about the Earth's axis by a random angle, all fields by the same: a
    global grid's cheapest augmentation, and refused on a region. Where the land lies
    is then known from static fields."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if bad := [hours for hours in self.history_hours if hours >= 0]:
            raise ValueError(
                f"data.history_hours has {bad[0]}: give hours before the initial time, such as -6."
            )
        if repeated := [h for h in self.history_hours if self.history_hours.count(h) > 1]:
            raise ValueError(f"data.history_hours repeats {repeated[0]}: give each hour once.")


LONGEST_LEAD_HOURS = 100_000
"""Longest lead time, some eleven years: longer ones are slips, and days of computing."""


@dataclass(frozen=True, kw_only=True)
class ForecastConfig(TaskConfig):
    """What is learnt: the state at t + lead from the state at t."""

    kind: Literal["forecast"] = "forecast"
    """Which task this is."""
    targets: tuple[str, ...] = ()
    """Channels to predict; empty for every channel of the store."""
    lead_hours: tuple[int, int] = (6, 6)
    """Shortest and longest lead time in training; equal for a fixed step, else drawn at random
    from the multiples of the store's step."""
    output: Literal["residual", "direct"] = "residual"
    """`residual` predicts the change since t in units of its own standard deviation."""
    linear_step: bool = False
    """Whether the model starts from a linear forecast instead of from the state at t: by row, a
    ridge regression of the change on the cells around each place, fitted on the training period
    before the first step. Where a record is short, most of what can be learnt of a few hours is in
    it. For `residual` and a fixed step."""
    chain_hours: tuple[int, ...] = ()
    """Lead times of a chain of regressions that the model starts from instead of from the state at
    t, for example [6, 12, 24, 48]; empty for none. Each is fitted on what the one before forecasts,
    from the cells around each place and from what the winds carry to it, before the first step. The
    model then learns and forecasts these lead times, asked directly: for `residual`,
    data.departures, and task.lead_hours from the first to the last of them."""
    chain_channels: tuple[str, ...] = ()
    """Channels that the chain forecasts, the targets among them; winds of a level carry all
    channels of that level, those at 10 m what is near the ground. All other channels are seen at
    the initial time."""
    rollout_steps: int = 1
    """Forecast steps that one training sample is rolled out over (fixed step only)."""

    def __post_init__(self) -> None:
        first, last = self.lead_hours
        if not 0 < first <= last:
            raise ValueError(
                f"task.lead_hours is [{first}, {last}]: give the shortest and the longest lead "
                f"time in hours, both above 0, the shortest first."
            )
        require_at_least(1, "task.lead_hours", last, LONGEST_LEAD_HOURS)
        if self.rollout_steps < 1 or (self.rollout_steps > 1 and first != last):
            raise ValueError(
                f"task.rollout_steps is {self.rollout_steps}: use at least 1, and more than 1 only "
                f"with a fixed step (both task.lead_hours equal)."
            )

        if self.linear_step and (self.output != "residual" or first != last):
            raise ValueError(
                "task.linear_step forecasts the change over one step: set task.output to residual "
                "and both task.lead_hours to that step, or task.linear_step to false."
            )
        if self.chain_hours or self.chain_channels:
            self._check_chain()

    def _check_chain(self) -> None:
        hours, channels = self.chain_hours, self.chain_channels
        if not hours or not channels:
            lacking = "chain_channels" if hours else "chain_hours"
            raise ValueError(
                f"task.{lacking} is empty: a chain needs both task.chain_hours and "
                f"task.chain_channels; leave both out for none."
            )
        if list(hours) != sorted(set(hours)) or hours[0] < 1:
            raise ValueError(
                f"task.chain_hours is {list(hours)}: give lead times above 0, ascending, each once."
            )
        if repeated := [name for name in channels if channels.count(name) > 1]:
            raise ValueError(f"task.chain_channels repeats {repeated[0]}: give each channel once.")
        if (hours[0], hours[-1]) != self.lead_hours or self.output != "residual":
            raise ValueError(
                f"task.chain_hours goes from {hours[0]} to {hours[-1]} h, task.lead_hours is "
                f"{list(self.lead_hours)} and task.output {self.output}: the model has the chain's "
                f"lead times, so set task.lead_hours to [{hours[0]}, {hours[-1]}] and task.output "
                f"to residual."
            )
        if self.fixed_step:
            raise ValueError(
                "task.chain_hours has one lead time: give two or more, or use task.linear_step."
            )
        if absent := [name for name in self.targets or () if name not in channels]:
            raise ValueError(
                f"task.targets has {absent[0]}, which the chain does not forecast: add it to "
                f"task.chain_channels."
            )
        if not self.targets:
            raise ValueError(
                "task.chain_hours needs task.targets: name the channels to predict, all of them "
                "in task.chain_channels."
            )

    @property
    def fixed_step(self) -> bool:
        """Whether the model steps by one lead time and is rolled out to longer ones."""
        return self.lead_hours[0] == self.lead_hours[1]


FEWEST_MEMBERS, MOST_MEMBERS = 2, 1000
"""Of an ensemble."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is scored, and what is written of the forecasts."""

    lead_hours: tuple[int, ...] = (6, 12, 24, 48)
    """Lead times of scores and forecasts."""
    channels: tuple[str, ...] = ()
    """Channels that are scored; empty for every predicted one."""
    metrics: tuple[str, ...] = ("rmse", "mse", "mae", "bias", "acc_wb2")
    """Metrics by name, as in `sciml_dchag.weather.scores.formulas.METRICS`."""
    initial_every_hours: int = 0
    """Hours between initial times; 0 takes every time of the test period."""
    batch: int = 16
    """Initial times that are forecast at once."""
    members: int = 0
    """Members of an ensemble whose CRPS, spread, ranks and Brier scores are reported beside the
    scores of the single forecast; 0 for none."""
    map_channels: tuple[str, ...] = ()
    """Channels that are drawn as maps; empty for the first three scored."""
    objects: tuple[Literal["lows", "highs"], ...] = ()
    """`lows`, `highs` or both: how many of them the forecasts find, how far from their place and
    by how much too deep; empty for neither."""
    objects_channel: str = "msl"
    """The channel whose lows and highs these are: pressure or geopotential, and scored."""

    def __post_init__(self) -> None:
        if not self.lead_hours or min(self.lead_hours) <= 0:
            raise ValueError(
                f"evaluation.lead_hours is {list(self.lead_hours)}: give one or more above 0."
            )
        require_at_least(1, "evaluation.batch", self.batch, MOST_SAMPLES)
        if self.members:
            require_at_least(FEWEST_MEMBERS, "evaluation.members", self.members, MOST_MEMBERS)
        require_at_least(1, "evaluation.lead_hours", max(self.lead_hours), LONGEST_LEAD_HOURS)
        require_at_least(0, "evaluation.initial_every_hours", self.initial_every_hours)
        object.__setattr__(self, "lead_hours", tuple(sorted(set(self.lead_hours))))
        object.__setattr__(self, "objects", tuple(dict.fromkeys(self.objects)))


@dataclass(frozen=True, kw_only=True)
class ForecastRecipe(WeatherRecipe):
    """Weather: learn to forecast the states of a store."""

    data: DataConfig = field(default_factory=DataConfig)
    task: ForecastConfig = field(default_factory=ForecastConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_forecast_head("forecasting")
        step = self.task.lead_hours[0]
        uneven = [lead for lead in self.evaluation.lead_hours if lead % step]
        if self.task.fixed_step and uneven:
            raise ValueError(
                f"evaluation.lead_hours has {uneven[0]}, which steps of {step} h (task.lead_hours) "
                f"do not reach: use multiples of {step}."
            )
        if self.task.chain_hours:
            self._check_chain()

    def _check_chain(self) -> None:
        chain = self.task.chain_hours
        if not self.data.departures:
            raise ValueError(
                "task.chain_hours goes on from departures: set data.departures to true."
            )
        if beyond := [lead for lead in self.evaluation.lead_hours if lead not in chain]:
            raise ValueError(
                f"evaluation.lead_hours has {beyond[0]}, which is none of task.chain_hours "
                f"{list(chain)}: choose among these, or add it there."
            )
