"""The recipe of an interpolator in time: from raw files to scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sciml_dchag.config.common import MOST_SAMPLES, TaskConfig, require_at_least
from sciml_dchag.weather.recipe import PeriodsConfig, WeatherRecipe

LONGEST_WINDOW_HOURS = 240
"""Beyond, nothing is left of the flow at both ends, and fits by time within it are many."""


@dataclass(frozen=True, kw_only=True)
class FramesConfig(PeriodsConfig):
    """From the store to batches, and which times are for what."""

    forcings: tuple[str, ...] = ()
    """Computed inputs at the time between: `cos_latitude`, `sin_solar_time`, `cos_solar_time`,
    `insolation`."""
    rotate: bool = False
    """Turn each training sample about the Earth's axis by a random angle; refused on a region."""


@dataclass(frozen=True, kw_only=True)
class InterpolateConfig(TaskConfig):
    """What is learnt: the state between two states."""

    kind: Literal["interpolate"] = "interpolate"
    """Which task this is."""
    window_hours: tuple[int, ...] = (12, 24)
    """Lengths of the windows, each at least two steps of the store: the times within them are what
    is learnt."""
    start: Literal["ridge", "linear"] = "ridge"
    """What the model adds to: a ridge regression by row on the cells around each place at both ends
    of the window, one window before and one after, fitted on the training period, or linear
    interpolation; either of departures from the mean by hour of day."""

    def __post_init__(self) -> None:
        if not self.window_hours:
            raise ValueError("task.window_hours is empty: give one or more, such as [12, 24].")
        for hours in self.window_hours:
            require_at_least(2, "task.window_hours", hours, LONGEST_WINDOW_HOURS)
        object.__setattr__(self, "window_hours", tuple(sorted(set(self.window_hours))))


@dataclass(frozen=True, kw_only=True)
class BetweenEvaluation:
    """What is scored of the test period."""

    batch: int = 16
    """Windows that are interpolated at once."""
    every_hours: int = 0
    """Hours between the starts of scored windows; 0 takes every time of the test period."""
    objects: tuple[Literal["lows", "highs"], ...] = ()
    """`lows`, `highs` or both: how many of them are found between, how far from their place and by
    how much too deep; empty for neither."""
    objects_channel: str = "msl"
    """The channel whose lows and highs these are: pressure or geopotential."""

    def __post_init__(self) -> None:
        require_at_least(1, "evaluation.batch", self.batch, MOST_SAMPLES)
        require_at_least(0, "evaluation.every_hours", self.every_hours)
        object.__setattr__(self, "objects", tuple(dict.fromkeys(self.objects)))


@dataclass(frozen=True, kw_only=True)
class InterpolateRecipe(WeatherRecipe):
    """Weather: learn the state at any time between two states of a store."""

    data: FramesConfig = field(default_factory=FramesConfig)
    task: InterpolateConfig = field(default_factory=InterpolateConfig)
    evaluation: BetweenEvaluation = field(default_factory=BetweenEvaluation)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_forecast_head("interpolation")
