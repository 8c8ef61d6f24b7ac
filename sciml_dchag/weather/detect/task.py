"""The task of finding objects; see `training.task.Task`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.summary import in_words
from sciml_dchag.objectives.detection import planned_loss
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.training.task import Attempt, PlannedLoss, attempt_scored
from sciml_dchag.weather.detect.config import DetectRecipe
from sciml_dchag.weather.detect.labels import ObjectTable
from sciml_dchag.weather.detect.training import (
    DetectRecord,
    DetectStore,
    complete_model_config,
    times_with_history,
)
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.task import Scorable, WeatherTask
from sciml_dchag.weather.training_store import check_periods, check_rotation, require_test

if TYPE_CHECKING:
    from sciml_dchag.weather.prepare.preview import Announced


class DetectTask(WeatherTask[DetectRecipe]):
    """Learn to find objects in the states of a weather store."""

    def open(self) -> DetectStore:
        """Open the weather store and the table of objects."""
        return DetectStore(self.recipe)

    def expected_model(self) -> ModelConfig:
        """Take channels and grid from the store, or from `prepare`, and kinds from the table."""
        if Path(self.recipe.data.store).exists():
            return self.open().model_config()
        channels, _ = self.recipe.prepared_size()
        grid = Grid.named(self.recipe.prepare.grid)
        return complete_model_config(
            self.recipe, tuple(channels.names), grid.latitude, grid.longitude, self._table().kinds
        )

    def _table(self) -> ObjectTable:
        return ObjectTable(self.recipe.data.objects, self.recipe.task.attributes)

    def planned_loss(self) -> PlannedLoss:
        """The error of objects."""
        return planned_loss

    def check(self, attempt: Attempt, note: Callable[[str], None]) -> None:
        """Check store or sources, objects and model."""
        # A validation period sets the least probability, also without validation in training.
        if Path(self.recipe.data.store).exists():
            if attempt(self._with_store):
                attempt(lambda: in_words(self.expected_model()))
                attempt_scored(self.check_scored, attempt, note)
        elif attempt(self._objects):
            self.check_before_store(attempt, note, self._periods, self._model)

    def scored_times(self, store: Scorable) -> NDArray[np.int64]:
        """Times of the test period that have their history."""
        return times_with_history(self.recipe, store, require_test(self.recipe.data))

    def _with_store(self) -> str:
        opened = self.open()
        times = opened.store.times[opened.store.time_indices(self.recipe.data.train)]
        number = sum(len(opened.objects(time)) for time in times)
        return f"{number:,} objects at {len(times)} times of the training period"

    def _objects(self) -> str:
        table = self._table()
        return f"{len(table.times):,} objects ({', '.join(table.kinds)}) in {table.path}"

    def _periods(self, store: Announced) -> str:
        data = self.recipe.data
        check_periods(store, data)
        check_rotation(store, data.rotate)
        self._table().require_covers(store.times[store.time_indices(data.train)], "train")
        return "periods do not touch each other, and objects cover the training period"

    def _model(self, store: Announced) -> ModelConfig:
        return complete_model_config(
            self.recipe, tuple(store.channels.names), store.latitude, store.longitude,
            self._table().kinds,
        )  # fmt: skip

    def evaluate(
        self,
        run: Path,
        *,
        parallel: ParallelConfig | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Score the test period beside the classical finder."""
        from sciml_dchag.weather.detect.evaluate import evaluate

        return evaluate(run, self.recipe, progress=progress)

    @classmethod
    def describe(cls, checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
        """Channels, kinds and attributes of objects, and the period of the statistics."""
        data = checkpoint.read_data(DetectRecord, path)
        return {
            "channels": list(data.channels),
            "objects": list(data.kinds),
            "attributes": list(checkpoint.recipe["task"]["attributes"]),
            "statistics": " to ".join(data.statistics_period),
        }
