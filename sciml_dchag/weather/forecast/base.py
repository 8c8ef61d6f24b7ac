"""The data of a control branch's base: normalised, and departed from, as the base does.

What the base computes must stay what it was, so that its channels keep its statistics, its unit of
change and its daily cycle; new ones have those of the training period.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sciml_dchag.config import from_mapping
from sciml_dchag.training.export import find_model
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.forecast.record import ForecastRecord
from sciml_dchag.weather.store.climatology import hour_of_day
from sciml_dchag.weather.store.cycles import Cycle
from sciml_dchag.weather.store.layout import iso
from sciml_dchag.weather.store.states import States
from sciml_dchag.weather.store.statistics import Statistics
from sciml_dchag.weather.store.store import Period, Store
from sciml_dchag.weather.training_store import Periods, Timed


@dataclass(frozen=True)
class BaseData:
    """What a base was trained on."""

    path: Path
    """Where the base is."""
    record: ForecastRecord
    """What its checkpoint keeps."""
    seen: tuple[Period, ...]
    """Its training and validation periods."""

    def channels_of(self, store: States) -> list[str]:
        """Names of a store's channels that the base has."""
        return [name for name in store.channels.names if name in self.record.channels]

    def require_fitting(self, store: Store, periods: Periods) -> None:
        """Refuse a store on which the base would compute something else, or has seen the test.

        Raises:
            ValueError: another grid, other hours of the day where the base knows a daily cycle, or
                a test or validation period that the base has seen.
        """
        if self.record.grid_sha256 != store.grid_sha256:
            raise ValueError(
                f"model.control.base {self.path} was trained on another grid than {store.path} "
                f"has: prepare the store on the base's grid."
            )
        of_base = list(self.record.daily_cycle_hours)
        hours = np.unique(hour_of_day(store.times[store.time_indices(periods.train)])).tolist()
        if of_base and of_base != hours:
            raise ValueError(
                f"model.control.base {self.path} knows the daily cycle at the hours {of_base} and "
                f"the training period of {store.path} has {hours}: prepare the store with the "
                f"base's time step."
            )
        require_unseen(store, self.seen, periods)


def read_base_data(recipe: ForecastRecipe) -> BaseData | None:
    """Read what the base of a control branch keeps of its data; None without a branch.

    Raises:
        FileNotFoundError: there is no such base.
        ValueError: it is no forecaster, or was trained to forecast something else.
    """
    if not recipe.model.control.base:
        return None
    found = find_model(recipe.model.control.base)
    saved, where = found.checkpoint, f"model.control.base {found.path}"
    if saved.kind != "forecast" or saved.imported is not None:
        what = "holds imported weights" if saved.imported else f"is a model of task {saved.kind}"
        raise ValueError(
            f"{where} {what}, and a base is a forecaster that this package has trained: name one."
        )
    base = from_mapping(ForecastRecipe, saved.recipe)
    for section, key in (("task", "output"), ("task", "lead_hours"), ("data", "departures")):
        was, wanted = (getattr(getattr(r, section), key) for r in (base, recipe))
        if was != wanted:
            raise ValueError(
                f"{where} was trained with {section}.{key} {was} and this recipe has {wanted}: "
                f"give the recipe the base's."
            )
    for name in ("linear_step", "chain_hours"):
        if getattr(base.task, name) or getattr(recipe.task, name):
            raise ValueError(
                f"task.{name} does not go with model.control: leave it out, and name a base that "
                f"was trained without it."
            )
    seen = tuple(p for p in (base.data.train, base.data.validation) if p is not None)
    return BaseData(found.path, saved.read_data(ForecastRecord, found.path), seen)


def require_unseen(store: Timed, seen: tuple[Period, ...], periods: Periods) -> None:
    """Refuse to score days that a base was trained on or chosen by.

    Args:
        store: with the times.
        seen: the base's training period, then its validation period if it has one.
        periods: of the recipe; its validation may be the base's own.

    Raises:
        ValueError: the first such day.
    """
    known = {"test": seen, "validation": seen[:1]}
    for name, of_base in known.items():
        scored = getattr(periods, name)
        for period in of_base if scored is not None else ():
            shared = np.intersect1d(store.time_indices(scored), store.time_indices(period))
            if len(shared):
                raise ValueError(
                    f"data.{name} has {iso(store.times[shared[0]])}, which the base of "
                    f"model.control has seen in training: choose times that it has not seen."
                )


def with_statistics_of(
    record: ForecastRecord, channels: Sequence[str], statistics: Statistics
) -> Statistics:
    """Normalise some channels as a record does, the others by the training period."""
    mean, std = statistics.mean.copy(), statistics.std.copy()
    for name in channels:
        there, (here,) = record.channels.index(name), statistics.channels.indices([name])
        mean[here], std[here] = record.mean[there], record.std[there]
    return dataclasses.replace(statistics, mean=mean, std=std)


def with_cycle_of(base: BaseData, cycle: Cycle, store: States) -> Cycle:
    """Take the base's channels' departures from what the base does, new ones' from `cycle`."""
    rows, columns = store.shape[2:]
    of_base = base.record.cycle((rows, columns))
    assert of_base is not None and of_base.hours.tolist() == cycle.hours.tolist()
    hours, terms, *shape = cycle.mean.shape
    mean = np.zeros((hours, max(terms, of_base.mean.shape[1]), *shape), np.float32)
    mean[:, :terms] = cycle.mean
    for name in base.channels_of(store):
        there, (here,) = base.record.channels.index(name), store.channels.indices([name])
        mean[:, :, here] = 0.0
        mean[:, : of_base.mean.shape[1], here] = of_base.mean[:, :, there]
    return Cycle(cycle.hours, mean)
