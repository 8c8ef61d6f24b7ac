"""The task of masked autoencoding of weather; see `training.task.Task`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.summary import in_words
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.training.masked import masked_objective, planned_loss
from sciml_dchag.training.task import Attempt, PlannedLoss, attempt_scored
from sciml_dchag.weather.masked.config import MaskedWeatherRecipe
from sciml_dchag.weather.masked.training import (
    MaskedWeatherStore,
    complete_model_config,
)
from sciml_dchag.weather.store.store import taken_every
from sciml_dchag.weather.task import Scorable, WeatherTask
from sciml_dchag.weather.training_store import (
    WeatherRecord,
    check_periods,
    require_test,
    unused_validation,
)

if TYPE_CHECKING:
    from sciml_dchag.weather.prepare.preview import Announced


class MaskedWeatherTask(WeatherTask[MaskedWeatherRecipe]):
    """Learn to reconstruct hidden parts of the states of a weather store."""

    def open(self) -> MaskedWeatherStore:
        """Open the weather store."""
        return MaskedWeatherStore(self.recipe)

    def expected_model(self) -> ModelConfig:
        """Take channels and grid from the store, or from `prepare`."""
        if Path(self.recipe.data.store).exists():
            return self.open().model_config()
        channels, size = self.recipe.prepared_size()
        return complete_model_config(self.recipe, tuple(channels.names), size)

    def planned_loss(self) -> PlannedLoss:
        """The error of what is hidden."""
        return planned_loss(self.recipe.task)

    def check(self, attempt: Attempt, note: Callable[[str], None]) -> None:
        """Check store, model and masks."""
        from sciml_dchag.weather.prepare.preview import cannot_be_opened_here

        def store() -> str:
            opened = self.open()
            return f"statistics of the training period {' to '.join(opened.statistics.period)}"

        def model() -> ModelConfig:
            if announced is None:
                return self.expected_model()
            names = tuple(announced.channels.names)
            return complete_model_config(self.recipe, names, announced.shape)

        def masks() -> str:
            objective = masked_objective(self.recipe.seed, self.recipe.task, model())
            return f"{objective.visible} of {objective.locations} locations are seen"

        recipe = self.recipe
        if unused := unused_validation(recipe.data.validation, recipe.training.validate_every):
            note(unused)
        announced: Announced | None = None
        if Path(self.recipe.data.store).exists():
            fits = attempt(store)
        else:
            announced = self._check_sources(attempt, note)
            fits = announced is not None or cannot_be_opened_here(self.recipe.prepare)
        if fits and attempt(lambda: in_words(model())):
            attempt(masks)
        if fits:
            attempt_scored(lambda: self.check_scored(announced), attempt, note)

    def scored_times(self, store: Scorable) -> NDArray[np.int64]:
        """Times of the test period."""
        indices = store.time_indices(require_test(self.recipe.data))
        every = self.recipe.evaluation.every_hours
        return indices[taken_every(store.times[indices], every, "evaluation.every_hours")]

    def _check_sources(self, attempt: Attempt, note: Callable[[str], None]) -> Announced | None:
        from sciml_dchag.weather.prepare.preview import preview

        data, prepare = self.recipe.data, self.recipe.prepare

        def periods() -> str:
            assert announced is not None
            check_periods(announced, data)
            return "periods do not touch each other"

        announced = preview(prepare, data.store, data.train, attempt, note)
        if announced is not None:
            attempt(periods)
        return announced

    def evaluate(
        self,
        run: Path,
        *,
        parallel: ParallelConfig | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Score the test period beside climatology and interpolation."""
        from sciml_dchag.weather.masked.evaluate import evaluate

        return evaluate(run, self.recipe, progress=progress)

    @classmethod
    def describe(cls, checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
        """Channels, what is hidden, and the period of the statistics."""
        data, task = checkpoint.read_data(WeatherRecord, path), checkpoint.recipe["task"]
        return {
            "channels": list(data.channels),
            "hidden": {
                "locations": task["mask_ratio"],
                "channel groups": task["channel_mask_ratio"],
            },
            "statistics": " to ".join(data.statistics_period),
        }
