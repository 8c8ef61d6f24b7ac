"""A trained interpolator, as it is opened in Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sciml_dchag.training.trained import TrainedModel
from sciml_dchag.weather.interpolate.config import InterpolateRecipe


class InterpolateModel(TrainedModel[InterpolateRecipe]):
    """A trained interpolator of weather in time."""

    kind = "interpolator in time"
    recipe_type = InterpolateRecipe

    def facts(self) -> dict[str, Any]:
        """What was trained, and in which windows."""
        from sciml_dchag.weather.interpolate.task import InterpolateTask

        more = InterpolateTask.describe(self.saved.checkpoint, self.saved.path)
        return {**super().facts(), **more}

    def interpolate(
        self,
        source: str | os.PathLike[str],
        out: str | os.PathLike[str],
        *,
        every_hours: int,
        **options: Any,
    ) -> Path:
        """Write a store or forecasts again with the times between; see `apply.interpolate`."""
        from sciml_dchag.weather.interpolate.apply import interpolate

        return interpolate(self.saved.path, source, out, every_hours=every_hours, **options)
