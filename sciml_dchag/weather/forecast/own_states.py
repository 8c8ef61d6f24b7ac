"""A user's own states, as labelled xarray, in the form that a forecaster reads.

Variables go by any name, level coordinate and units that `prepare` knows. Nothing is filled in:
what the model needs and the data lack is an error.

Shapes: T times, C channels, H x W grid.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag.channels import ChannelSet
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.forecast.record import ForecastRecord
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.prepare.cells import Believable
from sciml_dchag.weather.prepare.checks import ConstantFields, check_values
from sciml_dchag.weather.prepare.layouts import open_raw, tidy
from sciml_dchag.weather.prepare.origin import UNKNOWN_ORIGIN, origin
from sciml_dchag.weather.prepare.sources import join_states, join_static
from sciml_dchag.weather.store.layout import iso
from sciml_dchag.weather.store.store import Period, times_within


class OwnStates:
    """States that are not a store's: for each initial time, its own history and itself.

    `times` has them in blocks of even steps, one per initial time, which comes last in its block.
    Steps between that the model does not need are not there and cannot be read.

    Args:
        data: a Dataset, or the path of a file that `prepare` reads.
        record: what the model's checkpoint says of its data.
        recipe: the model's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a channel, the history, the grid or the units that the model needs are not
            there; which.
    """

    def __init__(
        self, data: xr.Dataset | str | Path, record: ForecastRecord, recipe: ForecastRecipe
    ) -> None:
        given = isinstance(data, xr.Dataset)
        self.path = Path("the dataset" if given else str(data))
        where = str(self.path)
        datasets = tidy(data, where) if isinstance(data, xr.Dataset) else open_raw(str(data))
        raw = [(where, dataset) for dataset in datasets]
        self.simulated = any(int(dataset.attrs.get("simulated", 0)) for dataset in datasets)
        self.channels, self.step_hours = ChannelSet(record.channels), record.step_hours
        self._judge, self._constant = Believable(), ConstantFields()
        state = join_states(raw, self.channels, judge=self._judge)
        self.latitude = state["latitude"].values.astype(np.float64)
        self.longitude = state["longitude"].values.astype(np.float64)
        self.grid_sha256 = record.grid_sha256
        _require_grid(state, record, where)
        self._state = state
        prepared = recipe.prepare  # a store that was prepared by hand may miss values
        self._new = frozenset(recipe.model.control.channels)
        self._say_missing = bool(prepared.sources) and not prepared.allow_missing
        self._static = join_static(raw, recipe.data.static) if recipe.data.static else None
        if self._static is not None:
            _require_grid(self._static, record, where)
        step = np.timedelta64(record.step_hours, "h")
        steps = [hours // record.step_hours for hours in (*recipe.data.history_hours, 0)]
        held = state["time"].values.astype("datetime64[ns]")
        self._arrange(held, step, sorted(steps))
        said = origin(raw, held)["attribution"]
        self.attribution = "" if said == UNKNOWN_ORIGIN else str(said)
        self.read(self.with_history(())[:1])  # units that are not ours are refused now

    def _arrange(
        self, held: NDArray[np.datetime64], step: np.timedelta64, needed: list[int]
    ) -> None:
        """Lay out a block of steps for each time that has its history.

        Args:
            held: the times that the data hold, ascending.
            step: between the times of a block.
            needed: steps that the model reads, the initial one, 0, last.
        """
        place = {time: position for position, time in enumerate(held)}
        initial = [time for time in held if all(time + n * step in place for n in needed)]
        if not initial:
            hours = [int(-n * (step // np.timedelta64(1, "h"))) for n in needed[:-1]]
            raise ValueError(
                f"The model needs the states {' and '.join(f'{h} h' for h in hours)} before an "
                f"initial time beside its own, and none of the {len(held)} time(s) of {self.path}, "
                f"{iso(held[0])} to {iso(held[-1])}, has them: add the missing times."
            )
        block = range(needed[0], 1)
        self.times = np.array([time + n * step for time in initial for n in block])
        self._place = np.array([place.get(time, -1) for time in self.times])
        self._initial = np.arange(len(block) - 1, len(self.times), len(block))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Numbers of times, channels, rows and columns."""
        return len(self.times), len(self.channels), len(self.latitude), len(self.longitude)

    def read(
        self,
        time_indices: Sequence[int] | NDArray[np.integer[Any]] | slice,
        channel_indices: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    ) -> NDArray[np.float32]:
        """Read states, (T, C, H, W), NaN where missing.

        Raises:
            ValueError: values that a channel cannot have in a cell or on the mean.
        """
        channels = list(range(len(self.channels)) if channel_indices is None else channel_indices)
        places = self._place[time_indices]
        assert (places >= 0).all()
        block = self._state.isel(time=places, channel=channels).values
        self._judge.raise_first()
        names = ChannelSet(self.channels[int(channel)] for channel in channels)
        check_values(
            block, self.times[time_indices], names, allow_missing=True, constant=self._constant
        )
        self._constant.warn()
        self._require_values(block, self.times[time_indices], names)
        return np.array(block, np.float32)

    def _require_values(
        self, block: NDArray[np.float32], times: NDArray[np.datetime64], names: ChannelSet
    ) -> None:
        """Refuse fields without any value, which a model would fill from the other channels.

        A control branch is left out of samples without its channels. Fields without some values are
        warned of, where the model's data had them all.
        """
        lost = np.isnan(block)
        whole = lost.all(axis=(2, 3))
        lost[whole & np.array([name in self._new for name in names.names])] = False
        whole &= lost.any(axis=(2, 3))
        if not lost.any():
            return
        time, channel = np.argwhere(lost.any(axis=(2, 3)))[0]
        if whole.any():
            time, channel = np.argwhere(whole)[0]
            raise ValueError(
                f"{names.names[channel]} of {self.path} has no value at {iso(times[time])}, "
                f"which the model needs: add its values, or leave that time out."
            )
        if self._say_missing:
            self._say_missing = False
            warnings.warn(
                f"{names.names[channel]} of {self.path} has no value in "
                f"{int(lost[time, channel].sum())} of {lost[0, 0].size} cells at "
                f"{iso(times[time])}, and by its recipe the model was trained on data that miss "
                f"nothing: forecasts near such cells may be far off.",
                stacklevel=2,
            )

    def static(self, names: Iterable[str]) -> NDArray[np.float32]:
        """Read static fields, (S, H, W)."""
        names = list(names)
        if self._static is None:
            assert not names
            return np.empty((0, *self.shape[2:]), np.float32)
        return self._static.sel(static_channel=names).values

    def time_indices(self, period: Period) -> NDArray[np.int64]:
        """Return the positions of the initial times within a period.

        Raises:
            ValueError: an end that is no date, or a period that holds none of them.
        """
        found = times_within(self.times[self._initial], period, str(self.path))
        return self._initial[found]

    def with_history(self, history_hours: Sequence[int]) -> NDArray[np.int64]:
        """Return the positions of the initial times, each of which has its history."""
        return self._initial


def _require_grid(field: xr.DataArray, record: ForecastRecord, where: str) -> None:
    grid = Grid.of(field)
    if grid.content_hash != record.grid_sha256:
        raise ValueError(
            f"{where} has a grid of {grid.shape[0]} x {grid.shape[1]} from "
            f"{grid.latitude[0]:g} to {grid.latitude[-1]:g} degrees north, and the model was "
            f"trained on another one: regrid to that of its training store first, as "
            f"sciml_dchag.regrid does."
        )
