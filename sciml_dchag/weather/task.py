"""What tasks on a weather store have in common; see `training.task.Task`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.summary import in_words
from sciml_dchag.training.task import Attempt, Task
from sciml_dchag.weather.recipe import WeatherRecipe

if TYPE_CHECKING:
    from sciml_dchag.weather.prepare.preview import Announced

Recipe = TypeVar("Recipe", bound=WeatherRecipe)


class WeatherTask(Task[Recipe]):
    """A task that learns from a weather store."""

    def prepare(self, progress: Progress | None, console: Callable[[str], None]) -> None:
        """Regrid raw files into the store, with statistics and climatology."""
        from sciml_dchag.weather.prepare.recipe import prepare_unless_there

        data = self.recipe.data
        prepare_unless_there(self.recipe.prepare, data.store, data.train, progress, console)

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
