"""What tasks on a weather store have in common; see `training.task.Task`."""

from __future__ import annotations

import abc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.summary import in_words
from sciml_dchag.training.task import Attempt, Task, attempt_scored
from sciml_dchag.weather.recipe import WeatherRecipe
from sciml_dchag.weather.store.layout import iso
from sciml_dchag.weather.store.store import Store
from sciml_dchag.weather.training_store import Timed, require_test
from sciml_dchag.weather.windows import Stepped

if TYPE_CHECKING:
    from sciml_dchag.weather.prepare.preview import Announced

Recipe = TypeVar("Recipe", bound=WeatherRecipe)


class Scorable(Stepped, Timed, Protocol):
    """A store, or one that will be: its times."""


class WeatherTask(Task[Recipe]):
    """A task that learns from a weather store."""

    def prepare(self, progress: Progress | None, console: Callable[[str], None]) -> None:
        """Regrid raw files into the store, with statistics and climatology."""
        from sciml_dchag.weather.prepare.recipe import prepare_unless_there

        data = self.recipe.data
        prepare_unless_there(self.recipe.prepare, data.store, data.train, progress, console)

    @abc.abstractmethod
    def scored_times(self, store: Scorable) -> NDArray[np.int64]:
        """Positions of the times of the test period that are scored, or that forecasts start from.

        Args:
            store: the store, or one that will be.

        Raises:
            ValueError: no test period, or one with nothing to score.
        """

    def check_scored(self, store: Scorable | None = None) -> str:
        """Say how many times of the test period are scored, of a store or one that will be.

        Args:
            store: None for that of the recipe, if it is there.

        Raises:
            ValueError: no test period, or one with nothing to score.
        """
        test, path = require_test(self.recipe.data), Path(self.recipe.data.store)
        if store is None and path.exists():
            store = Store.open(path)
        if store is None:
            return f"test period {test[0]} to {test[1]}"
        times = store.times[self.scored_times(store)]
        return f"{len(times)} time(s) to score from, {iso(times[0])} to {iso(times[-1])}"

    def check_before_store(
        self,
        attempt: Attempt,
        note: Callable[[str], None],
        periods: Callable[[Announced], str],
        model: Callable[[Announced], ModelConfig],
    ) -> None:
        """Check sources, periods and model of a store that is not there yet.

        Args:
            attempt, note: as of `Task.check`.
            periods: checks the periods of the store that there will be.
            model: the architecture on that store; where the sources cannot be opened here, it is
                what `expected_model` takes from the recipe.
        """
        from sciml_dchag.weather.prepare.preview import cannot_be_opened_here, preview

        data, prepare = self.recipe.data, self.recipe.prepare
        announced = preview(prepare, data.store, data.train, attempt, note)
        if announced is not None:
            store = announced
            attempt(lambda: periods(store))
            attempt(lambda: in_words(model(store)))
        elif cannot_be_opened_here(prepare):
            attempt(lambda: in_words(self.expected_model()))
        if announced is not None or cannot_be_opened_here(prepare):
            attempt_scored(lambda: self.check_scored(announced), attempt, note)
