"""The recipe of a masked autoencoder of weather: from raw files to reconstruction scores."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from sciml_dchag.config.common import MOST_SAMPLES, MaskingConfig, require_at_least
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.weather.recipe import WeatherRecipe


@dataclass(frozen=True, kw_only=True)
class MaskedWeatherConfig(MaskingConfig):
    """What is learnt: what is hidden of a state from what is shown."""

    kind: Literal["masked-weather"] = "masked-weather"
    """Which task this is."""


@dataclass(frozen=True, kw_only=True)
class MaskedWeatherEvaluation:
    """What is scored of the test period."""

    batch: int = 8
    """Passes over a state that are computed at once."""
    every_hours: int = 0
    """Hours between scored times; 0 takes every time of the test period."""

    def __post_init__(self) -> None:
        require_at_least(1, "evaluation.batch", self.batch, MOST_SAMPLES)
        require_at_least(0, "evaluation.every_hours", self.every_hours)


@dataclass(frozen=True, kw_only=True)
class MaskedWeatherRecipe(WeatherRecipe):
    """Weather: learn to reconstruct hidden parts of the states of a store."""

    model: ModelConfig = field(default_factory=lambda: ModelConfig(head="masked"))
    task: MaskedWeatherConfig = field(default_factory=MaskedWeatherConfig)
    evaluation: MaskedWeatherEvaluation = field(default_factory=MaskedWeatherEvaluation)

    def __post_init__(self) -> None:
        super().__post_init__()
        # The task says it all; a recipe need not say it twice.
        object.__setattr__(self, "model", dataclasses.replace(self.model, head="masked"))
