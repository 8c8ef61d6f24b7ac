"""The recipe of a detector of objects in weather: from raw files to scores."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from sciml_dchag.config.common import MOST_SAMPLES, TaskConfig, require_at_least
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.weather.recipe import PeriodsConfig, WeatherRecipe

MOST_OBJECTS = 1000
"""Objects of one time; more are not looked for."""


@dataclass(frozen=True, kw_only=True)
class ObjectsDataConfig(PeriodsConfig):
    """From store and table to batches, and which times are for what."""

    objects: str = ""
    """Table of the true objects (CSV): `time`, `latitude`, `longitude`, `task.attributes`, and
    `kind` where there are several, as the command `objects` writes it; or `sample:NAME`."""
    history_hours: tuple[int, ...] = ()
    """Earlier times given as input, negative."""
    static: tuple[str, ...] = ()
    """Static fields of the store given as input."""
    forcings: tuple[str, ...] = ()
    """Computed inputs: `cos_latitude`, `sin_solar_time`, `cos_solar_time`, `insolation`."""
    rotate: bool = False
    """Turn each training sample about the Earth's axis by a random angle; refused on a region."""

    def __post_init__(self) -> None:
        if any(hours >= 0 for hours in self.history_hours):
            raise ValueError(
                f"data.history_hours {list(self.history_hours)} must all be below 0: they are "
                f"hours before the time whose objects are found."
            )


@dataclass(frozen=True, kw_only=True)
class DetectConfig(TaskConfig):
    """What is learnt: where objects are."""

    kind: Literal["detect"] = "detect"
    """Which task this is."""
    radius_km: float = 400.0
    """Half the side of the box that stands for an object."""
    attributes: tuple[str, ...] = ("value (hPa)", "depth (hPa)")
    """Columns of `data.objects` that are learnt, too; empty for the place alone."""
    max_objects: int = 100
    """Objects of a time, at most; a table with more is refused."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "attributes", tuple(self.attributes))
        require_at_least(1, "task.max_objects", self.max_objects, MOST_OBJECTS)
        if not 1 <= self.radius_km <= 5000:
            raise ValueError(f"task.radius_km is {self.radius_km:g}: it must be from 1 to 5000 km.")


@dataclass(frozen=True, kw_only=True)
class DetectEvaluation:
    """What is scored of the test period."""

    batch: int = 16
    """Times that are looked at together."""
    within_km: float = 400.0
    """An object counts as found where its counterpart is no farther away."""
    most_overlap: float = 0.5
    """Of two boxes whose IoU is larger, the less probable one is a duplicate."""
    score: float = 0.0
    """Least probability of what counts as found; 0 takes that of the highest F1 in the validation
    period, or else in the training period."""
    finder_channel: str = "msl"
    """Channel of the store that the classical finder, the baseline, looks at; empty for none."""

    def __post_init__(self) -> None:
        require_at_least(1, "evaluation.batch", self.batch, MOST_SAMPLES)
        for name in ("most_overlap", "score"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"evaluation.{name} is {getattr(self, name):g}: it must be from 0 to 1."
                )
        if self.within_km <= 0:
            raise ValueError(f"evaluation.within_km is {self.within_km:g}: it must be above 0 km.")


@dataclass(frozen=True, kw_only=True)
class DetectRecipe(WeatherRecipe):
    """Weather: learn to find objects, such as lows, in the states of a store."""

    data: ObjectsDataConfig = field(default_factory=ObjectsDataConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig(head="detect"))
    task: DetectConfig = field(default_factory=DetectConfig)
    evaluation: DetectEvaluation = field(default_factory=DetectEvaluation)

    def __post_init__(self) -> None:
        super().__post_init__()
        # The task says it all; a recipe need not say it twice.
        object.__setattr__(self, "model", dataclasses.replace(self.model, head="detect"))
