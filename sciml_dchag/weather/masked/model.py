"""A trained masked autoencoder of weather, as it is opened in Python."""

from __future__ import annotations

from typing import Any

from sciml_dchag.training.trained import TrainedModel
from sciml_dchag.weather.masked.config import MaskedWeatherRecipe


class MaskedWeatherModel(TrainedModel[MaskedWeatherRecipe]):
    """A trained masked autoencoder of weather: an encoder to start other models from."""

    kind = "masked autoencoder of weather"
    recipe_type = MaskedWeatherRecipe

    def facts(self) -> dict[str, Any]:
        """What was trained, and what was hidden of what."""
        from sciml_dchag.weather.masked.task import MaskedWeatherTask

        more = MaskedWeatherTask.describe(self.saved.checkpoint, self.saved.path)
        return {**super().facts(), **more}
