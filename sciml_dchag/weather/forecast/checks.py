"""What of a forecaster's recipe would fail, from metadata alone; see `sciml_dchag.checking`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from sciml_dchag.channels import ChannelSet
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.summary import in_words
from sciml_dchag.objectives.forecast import can_roll_out
from sciml_dchag.training.task import Attempt, attempt_scored
from sciml_dchag.weather.forecast.base import read_base_data
from sciml_dchag.weather.forecast.chain import fitted_times
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.forecast.describing import in_short
from sciml_dchag.weather.forecast.ensemble import training_days
from sciml_dchag.weather.forecast.object_scores import check_objects
from sciml_dchag.weather.forecast.training import (
    check_departures,
    complete_model_config,
    model_config_of,
)
from sciml_dchag.weather.prepare.era5 import NATIVE
from sciml_dchag.weather.prepare.preview import Announced, preview
from sciml_dchag.weather.prepare.sources import ALL
from sciml_dchag.weather.scores.metrics import check_metrics
from sciml_dchag.weather.store.layout import iso
from sciml_dchag.weather.store.store import Store
from sciml_dchag.weather.task import Scorable
from sciml_dchag.weather.training_store import (
    Timed,
    check_periods,
    check_rotation,
    training_statistics,
    unused_validation,
)
from sciml_dchag.weather.windows import require_even_steps


def check(
    recipe: ForecastRecipe,
    attempt: Attempt,
    note: Callable[[str], None],
    scored: Callable[[Scorable | None], str],
) -> None:
    """Attempt what preparing, training and evaluating ask of a recipe.

    Args:
        recipe: what is checked.
        attempt, note: as of `Task.check`.
        scored: `ForecastTask.check_scored`.
    """
    path = Path(recipe.data.store)
    if path.exists():
        if attempt(lambda: f"store {path}: {in_short(Store.open(path))}"):
            _check_with_store(recipe, Store.open(path), attempt)
            attempt_scored(lambda: scored(Store.open(path)), attempt, note)
    else:
        _check_before_store(recipe, attempt, note, scored)
    if recipe.model.control.base:
        attempt(lambda: _base(recipe, Store.open(path) if path.exists() else None))
    attempt(lambda: _metrics(recipe))
    if recipe.evaluation.members and recipe.data.validation is None:
        note(
            "evaluation.members is set and data.validation is not: residual fields are added as "
            "they are, as there are no days on which their size could be chosen"
        )
    if unused := unused_validation(recipe.data.validation, recipe.training.validate_every):
        note(unused)


def _check_with_store(recipe: ForecastRecipe, store: Store, attempt: Attempt) -> None:
    def statistics() -> str:
        check_periods(store, recipe.data)
        check_rotation(store, recipe.data.rotate)
        check_departures(recipe, store, store.shape[2:])
        if recipe.task.chain_hours:
            fitted_times(store, recipe.data.train, recipe.task.chain_hours)
        training_statistics(store, recipe.data.train)
        return f"statistics of the training period {' to '.join(store.period(recipe.data.train))}"

    def model() -> str:
        store.channels.indices(recipe.task.targets)
        store.static(recipe.data.static)
        return in_words(complete_model_config(recipe, store))

    attempt(lambda: f"time step {require_even_steps(store)} h")
    attempt(statistics)
    attempt(model)
    attempt(lambda: _leads(recipe, store.channels, require_even_steps(store)))
    if recipe.evaluation.members:
        attempt(lambda: _members(recipe, store))


def _base(recipe: ForecastRecipe, store: Store | None) -> str:
    base = read_base_data(recipe)
    assert base is not None
    if store is not None:
        base.require_fitting(store, recipe.data)
    first, last = base.record.statistics_period
    return f"base {base.path}, trained on {first} to {last}"


def _members(recipe: ForecastRecipe, store: Timed) -> str:
    task = recipe.task
    leads = task.lead_hours[:1] if task.fixed_step else recipe.evaluation.lead_hours
    days = training_days(store, recipe, leads)
    return f"{recipe.evaluation.members} members, with what is missed on {len(days)} training days"


def _check_before_store(
    recipe: ForecastRecipe,
    attempt: Attempt,
    note: Callable[[str], None],
    scored: Callable[[Scorable | None], str],
) -> None:
    prepare = recipe.prepare
    channels: list[ChannelSet] = []
    announced: Announced | None = None

    def engine() -> str:
        if prepare.engine == "xesmf" and importlib.util.find_spec("esmpy") is None:
            raise ImportError(
                "prepare.engine is xesmf, which needs ESMF: create the environment of "
                "environment.yml, or set prepare.engine=native."
            )
        return f"regridding to {prepare.grid}, {prepare.method}, engine {prepare.engine}"

    def chosen() -> str:
        if announced is None and prepare.channels == (ALL,):
            return "channels: all that the sources hold"
        channels.append(announced.channels if announced else ChannelSet.of(prepare.channels))
        return f"{len(channels[0])} channels: {channels[0]!r}"

    def model() -> str:
        if announced is not None:
            return in_words(model_config_of(recipe, announced.channels, announced.shape))
        if prepare.grid == NATIVE:
            return "model: its size is known once the store is there"
        return in_words(expected_model(recipe))

    def periods(store: Announced) -> str:
        check_periods(store, recipe.data)
        check_rotation(store, recipe.data.rotate)
        check_departures(recipe, store, store.shape)
        if recipe.task.chain_hours:
            fitted_times(store, recipe.data.train, recipe.task.chain_hours)
        first, last = store.times[store.time_indices(recipe.data.train)[[0, -1]]]
        return f"training period {iso(first)} to {iso(last)}"

    announced = preview(prepare, recipe.data.store, recipe.data.train, attempt, note)
    attempt(engine)
    if announced is not None:
        store = announced
        attempt(lambda: f"time step {require_even_steps(store)} h")
        attempt(lambda: periods(store))
        if recipe.evaluation.members:
            attempt(lambda: _members(recipe, store))
    attempt_scored(lambda: scored(announced), attempt, note)
    if attempt(chosen) and channels:
        attempt(model)
        step = (announced.step_hours if announced else None) or prepare.step_hours or 1
        attempt(lambda: _leads(recipe, channels[0], step))


def expected_model(recipe: ForecastRecipe) -> ModelConfig:
    """Return the architecture that a recipe will train, from its store or from what will be in it.

    Raises:
        ValueError: there is no store yet and the recipe does not say its grid.
    """
    if Path(recipe.data.store).exists():
        return complete_model_config(recipe, Store.open(recipe.data.store))
    return model_config_of(recipe, *recipe.prepared_size())


def _leads(recipe: ForecastRecipe, channels: ChannelSet, step_hours: int) -> str:
    task = recipe.task
    channels.indices([*task.targets, *recipe.evaluation.channels, *task.chain_channels])
    for key, hours in (
        ("task.lead_hours", task.lead_hours),
        ("task.chain_hours", task.chain_hours),
        ("data.history_hours", recipe.data.history_hours),
        ("evaluation.lead_hours", recipe.evaluation.lead_hours),
        ("evaluation.initial_every_hours", (recipe.evaluation.initial_every_hours,)),
    ):
        if odd := [h for h in hours if h % step_hours]:
            raise ValueError(
                f"{key} has {odd[0]} h, no multiple of the time step of {step_hours} h: change "
                f"it, or prepare a store of a finer step."
            )
    check_objects(recipe, task.targets or channels.names, channels)
    longest = max(recipe.evaluation.lead_hours)
    if task.fixed_step and longest > task.lead_hours[0]:
        targets = task.targets or channels.names
        if why := can_roll_out(
            targets, channels.names, task.lead_hours[0], recipe.data.history_hours
        ):
            raise ValueError(f"evaluation.lead_hours goes to {longest} h, but {why}.")
    how = "rolled out" if task.fixed_step else "asked directly"
    return f"lead times {list(recipe.evaluation.lead_hours)} h, {how}"


def _metrics(recipe: ForecastRecipe) -> str:
    return f"metrics {', '.join(check_metrics(recipe.evaluation.metrics, with_climatology=True))}"
