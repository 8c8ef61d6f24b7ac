"""The task of forecasting: each step of `training.task.Task`, done by the module of its name.

What training does not need is imported by the step that needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.objectives.forecast import planned_loss
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.training.task import Attempt, PlannedLoss
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.forecast.record import ForecastRecord
from sciml_dchag.weather.forecast.training import ForecastTrainingStore
from sciml_dchag.weather.task import Scorable, WeatherTask


class ForecastTask(WeatherTask[ForecastRecipe]):
    """Learn the state at t + lead from the state at t."""

    def open(self) -> ForecastTrainingStore:
        """Open the weather store."""
        return ForecastTrainingStore(self.recipe)

    def expected_model(self) -> ModelConfig:
        """Take channels and grid from the store, or from `prepare`."""
        from sciml_dchag.weather.forecast.checks import expected_model

        return expected_model(self.recipe)

    def planned_loss(self) -> PlannedLoss:
        """The forecast error."""
        return planned_loss

    def check(self, attempt: Attempt, note: Callable[[str], None]) -> None:
        """Check sources or store, statistics, model, lead times and metrics."""
        from sciml_dchag.weather.forecast.checks import check

        check(self.recipe, attempt, note, self.check_scored)

    def scored_times(self, store: Scorable) -> NDArray[np.int64]:
        """Initial times from which every lead time ends in the test period."""
        from sciml_dchag.weather.forecast.initial_times import scored_positions

        return scored_positions(store, self.recipe)

    def predictions(self, run: Path) -> Path:
        """A forecast store."""
        return run / "forecasts" / "test.zarr"

    def predict(self, run: Path, progress: Progress | None) -> None:
        """Forecast from every initial time of the test period."""
        from sciml_dchag.weather.forecast.predict import predict_period

        predict_period(
            run, self.predictions(run), recipe=self.recipe, overwrite=True, progress=progress
        )

    def evaluate(
        self,
        run: Path,
        *,
        parallel: ParallelConfig | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Score the test period beside persistence and climatology."""
        from sciml_dchag.weather.forecast.evaluate import evaluate

        return evaluate(run, self.recipe, parallel=parallel, progress=progress)

    @classmethod
    def describe(cls, checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
        """Lead times, channels, and the period of the statistics, where there are any."""
        if checkpoint.imported is not None:
            return {"channels": list(checkpoint.model_config["input_channels"])}
        data = checkpoint.read_data(ForecastRecord, path)
        return {
            "lead hours": checkpoint.recipe["task"]["lead_hours"],
            "channels": list(data.channels),
            "statistics": " to ".join(data.statistics_period),
        }
