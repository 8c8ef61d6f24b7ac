"""The task of interpolation in time; see `training.task.Task`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.summary import in_words
from sciml_dchag.objectives.between import planned_loss
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.training.task import Attempt, PlannedLoss, attempt_scored
from sciml_dchag.weather.interpolate.config import InterpolateRecipe
from sciml_dchag.weather.interpolate.scorer import check_objects, scored_starts
from sciml_dchag.weather.interpolate.training import (
    BetweenRecord,
    BetweenStore,
    check_store,
    complete_model_config,
    fits_windows,
)
from sciml_dchag.weather.task import Scorable, WeatherTask
from sciml_dchag.weather.training_store import check_periods, unused_validation
from sciml_dchag.weather.windows import require_even_steps

if TYPE_CHECKING:
    from sciml_dchag.weather.prepare.preview import Announced


class InterpolateTask(WeatherTask[InterpolateRecipe]):
    """Learn the state at any time between two states of a weather store."""

    def open(self) -> BetweenStore:
        """Open the weather store."""
        return BetweenStore(self.recipe)

    def expected_model(self) -> ModelConfig:
        """Take channels and grid from the store, or from `prepare`."""
        if Path(self.recipe.data.store).exists():
            return self.open().model_config()
        channels, size = self.recipe.prepared_size()
        return complete_model_config(self.recipe, tuple(channels.names), size)

    def planned_loss(self) -> PlannedLoss:
        """The error of the states between."""
        return planned_loss

    def check(self, attempt: Attempt, note: Callable[[str], None]) -> None:
        """Check store or sources, windows and model."""
        recipe = self.recipe
        if unused := unused_validation(recipe.data.validation, recipe.training.validate_every):
            note(unused)
        if Path(recipe.data.store).exists():
            self._check_with_store(attempt, note)
        else:
            self.check_before_store(attempt, note, self._periods, self._model)

    def _check_with_store(self, attempt: Attempt, note: Callable[[str], None]) -> None:
        def store() -> str:
            opened = self.open()
            check_objects(self.recipe, opened.store)
            return f"statistics of the training period {' to '.join(opened.statistics.period)}"

        if attempt(store):
            attempt(lambda: fits_windows(self.recipe, self.open().store))
            attempt(lambda: in_words(self.expected_model()))
            attempt_scored(self.check_scored, attempt, note)

    def scored_times(self, store: Scorable) -> NDArray[np.int64]:
        """Starts of the windows of the test period, of any length."""
        step = require_even_steps(store)
        lengths = self.recipe.task.window_hours
        starts = [scored_starts(self.recipe, store, hours, step) for hours in lengths]
        return np.unique(np.concatenate(starts))

    def _periods(self, store: Announced) -> str:
        check_periods(store, self.recipe.data)
        check_store(self.recipe, store, (len(store.channels), *store.shape))
        return fits_windows(self.recipe, store)

    def _model(self, store: Announced) -> ModelConfig:
        return complete_model_config(self.recipe, tuple(store.channels.names), store.shape)

    def evaluate(
        self,
        run: Path,
        *,
        parallel: ParallelConfig | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Score the test period beside other ways to interpolate."""
        from sciml_dchag.weather.interpolate.evaluate import evaluate

        return evaluate(run, self.recipe, progress=progress)

    @classmethod
    def describe(cls, checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
        """Channels, windows, and the period of the statistics."""
        data = checkpoint.read_data(BetweenRecord, path)
        return {
            "channels": list(data.channels),
            "window hours": checkpoint.recipe["task"]["window_hours"],
            "time step": f"{data.step_hours} h",
            "statistics": " to ".join(data.statistics_period),
        }
