"""A weather store that a task trains on: its statistics, what identifies it, and its periods."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.training.task import Fingerprint, NothingToScoreError, short_hash
from sciml_dchag.weather.area import goes_around
from sciml_dchag.weather.store.layout import iso
from sciml_dchag.weather.store.statistics import Statistics, require_normalisable
from sciml_dchag.weather.store.store import Period, Store


class Periods(Protocol):
    """Which times of a store are for what; a recipe's section `data`."""

    @property
    def train(self) -> Period:
        """Training period."""

    @property
    def validation(self) -> Period | None:
        """Validation period."""

    @property
    def test(self) -> Period | None:
        """Test period."""


@dataclass(frozen=True, kw_only=True)
class WeatherRecord:
    """What a checkpoint keeps of a weather store."""

    channels: tuple[str, ...]
    """Channels of the training store, in order."""
    mean: tuple[float, ...]
    """Training mean by channel of the store, in its units."""
    std: tuple[float, ...]
    """Training standard deviation by channel of the store."""
    grid_sha256: str
    """Grid of the store."""
    statistics_period: tuple[str, str]
    """First and last time that mean and std were computed over."""


def unused_validation(validation: Period | None, every: int) -> str | None:
    """Say that a validation period is never used; None where it is, or where there is none."""
    if validation is None or every:
        return None
    return (
        "data.validation is set and training.validate_every is 0: the run is never validated, and "
        "its last weights are used"
    )


class WeatherTrainingStore:
    """A weather store with statistics of the training period.

    Args:
        path: the store.
        periods: which times are for what.

    Raises:
        ValueError: periods that share a time, or statistics of another period.
        FileNotFoundError: there is no store, or it has no statistics.
    """

    record_type: ClassVar[type[WeatherRecord]] = WeatherRecord
    """What the task's checkpoints keep of the store."""

    def __init__(self, path: str | Path, periods: Periods) -> None:
        self.store = Store.open(path)
        check_periods(self.store, periods)
        self.statistics = training_statistics(self.store, periods.train)

    def fingerprint(self) -> Fingerprint:
        """Name channels, times, grid, and statistics to the last bit.

        The last follow from the states of the training period; no states are read, so that a
        difference in those of another period is not seen.
        """
        store, statistics = self.store, self.statistics
        arrays = (statistics.mean, statistics.std, statistics.minimum, statistics.maximum)
        names = store.channels.names
        times = f"{len(store.times)} from {iso(store.times[0])} to {iso(store.times[-1])}"
        fix = f"let all ranks read the same {store.path}, or copy it to each machine again"
        return {
            "channels in the store": (
                f"{len(names)} ({names[0]} to {names[-1]}, "
                f"{short_hash(json.dumps(names).encode())})",
                fix,
            ),
            "times in the store": (f"{times} ({short_hash(store.times.tobytes())})", fix),
            "grids in the store": (f"grid {store.grid_sha256[:8]}", fix),
            "statistics in the store": (
                f"statistics {short_hash(*(array.tobytes() for array in arrays))} of "
                f"{' to '.join(statistics.period)}",
                fix,
            ),
        }

    def difference(self, checkpoint: Checkpoint) -> str | None:
        """Find what was prepared differently, or is another store's."""
        store, statistics = self.store, self.statistics
        saved = checkpoint.read_data(self.record_type, Path("the run's checkpoint"))
        was, now = list(saved.channels), store.channels.names
        if was != now:
            changed = [f"lacks {name}" for name in was if name not in now]
            changed += [f"adds {name}" for name in now if name not in was]
            found = f"whose store had {len(was)} channels where {store.path} has {len(now)}"
            return f"{found} and {(changed or ['has them in another order'])[0]}"
        if saved.grid_sha256 != store.grid_sha256:
            return f"on another grid than that of {store.path}"
        if not (
            np.allclose(saved.mean, statistics.mean, rtol=1e-5)
            and np.allclose(saved.std, statistics.std, rtol=1e-5)
        ):
            return f"whose store had other statistics than {store.path} has"
        return None

    def record(self) -> dict[str, Any]:
        """The values of a `WeatherRecord`."""
        store, statistics = self.store, self.statistics
        return {
            "channels": store.channels.names,
            "mean": statistics.mean.tolist(),
            "std": statistics.std.tolist(),
            "grid_sha256": store.grid_sha256,
            "statistics_period": list(statistics.period),
        }


def training_statistics(store: Store, train: Period) -> Statistics:
    """Read the store's statistics, refusing those of another period, grid or channel set.

    Raises:
        ValueError: they do not belong to the training period, or nothing can be normalised with
            those of a channel.
    """
    statistics = store.statistics()
    statistics.require(
        period=store.period(train), grid_sha256=store.grid_sha256, channels=store.channels
    )
    require_normalisable(statistics)
    return statistics


class Placed(Protocol):
    """A store, or one that will be: where it is and its columns."""

    @property
    def path(self) -> Path:
        """Where it is."""

    @property
    def longitude(self) -> NDArray[np.float64]:
        """Column centres, degrees east."""


def check_rotation(store: Placed, rotate: bool) -> None:
    """Refuse to turn the fields of a region, whose east edge would become its west edge.

    Args:
        store: the store, or one that will be.
        rotate: `data.rotate`.

    Raises:
        ValueError: it is on and the store's columns do not go once around.
    """
    columns = len(store.longitude)
    if rotate and not goes_around(store.longitude):
        raise ValueError(
            f"data.rotate turns fields about the Earth's axis, and {store.path} has {columns} "
            f"columns from {store.longitude[0]:g} to {store.longitude[-1]:g} degrees, which do not "
            f"go once around: set data.rotate to false, or prepare a global grid."
        )


def other_step(store: Store, hours: int) -> str | None:
    """Say that a run's store had other steps in time; None where it had not.

    Steps that are uneven are refused elsewhere.
    """
    if store.step_hours in (None, hours):
        return None
    return f"in steps of {hours} h where {store.path} has {store.step_hours} h"


class Timed(Protocol):
    """A store, or one that will be: its times."""

    @property
    def times(self) -> NDArray[np.datetime64]:
        """Its times."""

    def time_indices(self, period: Period) -> NDArray[np.int64]:
        """Positions of the times within a period."""


def require_test(data: Periods) -> Period:
    """Return the test period.

    Raises:
        NothingToScoreError: the recipe has none.
    """
    if data.test is None:
        raise NothingToScoreError(
            "The recipe has no data.test, which `evaluate` and `run` score: name the first and "
            "last time to score, as in data.test=[2019-01-01,2019-12-31]."
        )
    return data.test


def check_periods(store: Timed, data: Periods) -> None:
    """Refuse a test or validation period that shares a time with another one.

    Raises:
        ValueError: the first shared time and the two periods.
    """
    periods = {"train": data.train, "validation": data.validation, "test": data.test}
    indices = {name: store.time_indices(p) for name, p in periods.items() if p is not None}
    for one, other in itertools.combinations(indices, 2):
        shared = np.intersect1d(indices[one], indices[other])
        if len(shared):
            raise ValueError(
                f"data.{one} and data.{other} share {iso(store.times[shared[0]])}: a period must "
                f"not touch another, so change one of them."
            )
