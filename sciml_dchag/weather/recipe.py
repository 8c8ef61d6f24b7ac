"""What the recipes of all tasks on a weather store share."""

from __future__ import annotations

from dataclasses import dataclass, field

from sciml_dchag.channels import ChannelSet, OwnChannel, declare
from sciml_dchag.config.common import Recipe, StoreConfig, require_period_to_validate
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.prepare.config import Period, PrepareWeather


@dataclass(frozen=True, kw_only=True)
class PeriodsConfig(StoreConfig):
    """From the store to batches, and which times are for what."""

    train: Period = (None, None)
    """Training period, both ends included; statistics, climatology and all that is fitted come from
    it alone."""
    validation: Period | None = None
    """Validation period; null for none."""
    test: Period | None = None
    """Test period: touched by `evaluate` and nothing else."""


@dataclass(frozen=True, kw_only=True)
class WeatherRecipe(Recipe):
    """A recipe whose task learns from a weather store."""

    channels: tuple[OwnChannel, ...] = ()
    """Channels that no vocabulary has, declared with units and level."""
    prepare: PrepareWeather = field(default_factory=PrepareWeather)
    data: PeriodsConfig = field(default_factory=PeriodsConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        declare(self.channels)
        require_period_to_validate(self.data.validation, self.training.validate_every)
        if self.model.channel_embedding == "wavelength":
            raise ValueError(
                "model.channel_embedding is wavelength, but channels of weather have none: set it "
                "to index."
            )

    def prepared_size(self) -> tuple[ChannelSet, tuple[int, int]]:
        """Say which channels and how many rows and columns the store will have.

        Raises:
            ValueError: the recipe does not say its grid.
        """
        if self.prepare.grid == "native":
            raise ValueError(
                f"There is no store {self.data.store}, and prepare.grid native does not say its "
                f"size: prepare it first, or set prepare.grid."
            )
        return ChannelSet.of(self.prepare.channels), Grid.named(self.prepare.grid).shape

    def require_forecast_head(self, task: str) -> None:
        """Refuse another head than the one that forecasts states.

        Args:
            task: what the recipe is for, in a word.
        """
        if self.model.head != "forecast":
            raise ValueError(
                f"model.head is {self.model.head!r}, but the recipe's task is {task}: leave it out."
            )
