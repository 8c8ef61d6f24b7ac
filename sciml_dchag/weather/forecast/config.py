"""The recipe of a forecaster: from raw ERA5 to scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sciml_dchag.channels import OwnChannel, declare
from sciml_dchag.config.common import (
    MOST_SAMPLES,
    Recipe,
    StoreConfig,
    TaskConfig,
    require_at_least,
    require_period_to_validate,
)
from sciml_dchag.weather.prepare.config import Period, PrepareWeather


@dataclass(frozen=True, kw_only=True)
class DataConfig(StoreConfig):
    """From the store to batches, and which times are for what."""

    train: Period = (None, None)
    """Training period, both ends included; statistics and climatology come from it alone."""
    validation: Period | None = None
    """Validation period; null for none."""
    test: Period | None = None
    """Test period: touched by `evaluate` and nothing else."""
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

    @property
    def fixed_step(self) -> bool:
        """Whether the model steps by one lead time and is rolled out to longer ones."""
        return self.lead_hours[0] == self.lead_hours[1]


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
    map_channels: tuple[str, ...] = ()
    """Channels that are drawn as maps; empty for the first three scored."""

    def __post_init__(self) -> None:
        if not self.lead_hours or min(self.lead_hours) <= 0:
            raise ValueError(
                f"evaluation.lead_hours is {list(self.lead_hours)}: give one or more above 0."
            )
        require_at_least(1, "evaluation.batch", self.batch, MOST_SAMPLES)
        require_at_least(1, "evaluation.lead_hours", max(self.lead_hours), LONGEST_LEAD_HOURS)
        require_at_least(0, "evaluation.initial_every_hours", self.initial_every_hours)
        object.__setattr__(self, "lead_hours", tuple(sorted(set(self.lead_hours))))


@dataclass(frozen=True, kw_only=True)
class ForecastRecipe(Recipe):
    """Weather: learn to forecast the states of a store."""

    channels: tuple[OwnChannel, ...] = ()
    """Channels of one's own, beside those of the vocabulary."""
    prepare: PrepareWeather = field(default_factory=PrepareWeather)
    data: DataConfig = field(default_factory=DataConfig)
    task: ForecastConfig = field(default_factory=ForecastConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        declare(self.channels)
        require_period_to_validate(self.data.validation, self.training.validate_every)
        if self.model.head != "forecast":
            raise ValueError(
                f"model.head is {self.model.head!r}, but the recipe's task is forecasting: "
                f"leave it out."
            )
        if self.model.channel_embedding == "wavelength":
            raise ValueError(
                "model.channel_embedding is wavelength, but channels of weather have none: set it "
                "to index."
            )
        step = self.task.lead_hours[0]
        uneven = [lead for lead in self.evaluation.lead_hours if lead % step]
        if self.task.fixed_step and uneven:
            raise ValueError(
                f"evaluation.lead_hours has {uneven[0]}, which steps of {step} h (task.lead_hours) "
                f"do not reach: use multiples of {step}."
            )
