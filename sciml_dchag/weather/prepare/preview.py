"""What `check` says of sources: all that `prepare` would refuse, but for values of later times."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag.channels import ChannelSet
from sciml_dchag.files.remote import is_remote, lacks_package
from sciml_dchag.training.task import Attempt
from sciml_dchag.weather.prepare.cells import Believable
from sciml_dchag.weather.prepare.checks import check_values
from sciml_dchag.weather.prepare.config import PrepareWeather
from sciml_dchag.weather.prepare.era5 import announce
from sciml_dchag.weather.store.layout import iso, step_hours
from sciml_dchag.weather.store.store import Period, times_within


@dataclass(frozen=True, eq=False, kw_only=True)
class Announced:
    """The store that sources will make; as much of it as metadata say."""

    path: Path
    """Where it will be."""
    channels: ChannelSet
    """Its channels."""
    times: NDArray[np.datetime64]
    """Its times."""
    latitude: NDArray[np.float64]
    """Row centres, degrees north."""
    longitude: NDArray[np.float64]
    """Column centres, degrees east."""

    @property
    def step_hours(self) -> int | None:
        """Hours between its times; None where they differ."""
        return step_hours(self.times)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.latitude), len(self.longitude)

    def time_indices(self, period: Period) -> NDArray[np.int64]:
        """Positions of the times within a period.

        Raises:
            ValueError: an end that is no date, or a period that holds none of the times.
        """
        return times_within(self.times, period, "the sources")


def cannot_be_opened_here(config: PrepareWeather) -> bool:
    """Whether a source is a URL whose package is not installed on this machine."""
    return any(map(lacks_package, config.sources))


def preview(
    config: PrepareWeather,
    store: str,
    train: Period,
    attempt: Attempt,
    note: Callable[[str], None],
) -> Announced | None:
    """Attempt what `prepare` does before it reads values, and check those of the first time.

    Of remote sources no values are read.

    Args:
        config: what to prepare, and from what.
        store: where it will be.
        train: the training period.
        attempt: takes a check that returns a sentence or raises.
        note: takes what is worth knowing.

    Returns:
        The store that will be; None where the sources are refused, or cannot be opened on this
        machine for want of a package, which is noted.
    """
    found: list[Announced] = []

    def sources() -> str:
        if not config.sources:
            raise ValueError("prepare.sources is empty: name the raw files.")
        if lacking := [source for source in config.sources if lacks_package(source)]:
            scheme = lacking[0].split("://")[0]
            note(
                f"{scheme}:// needs a package that is not installed here: before preparing, "
                f"pip install 'sciml-dchag[cloud]'"
            )
            return f"sources {', '.join(config.sources)} (not opened)"
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            judge = Believable(allow_missing=config.allow_missing)
            state, _ = announce(config, train, judge)
            if not any(map(is_remote, config.sources)):
                _read_first_time(state, judge, allow_missing=config.allow_missing)
        for warning in said:
            if issubclass(warning.category, UserWarning):
                note(str(warning.message))
        times = state["time"].values
        found.append(
            Announced(
                path=Path(store),
                channels=ChannelSet(str(name) for name in state["channel"].values),
                times=times,
                latitude=state["latitude"].values,
                longitude=state["longitude"].values,
            )
        )
        return (
            f"sources: {len(state.attrs['sources'])} file(s), {len(times)} times, "
            f"{iso(times[0])} to {iso(times[-1])}"
        )

    attempt(sources)
    return found[0] if found else None


def _read_first_time(state: xr.DataArray, judge: Believable, *, allow_missing: bool) -> None:
    """Check the values of the first time as `prepare` does those of all.

    Raises:
        ValueError: they are no such values.
    """
    block = state.isel(time=[0]).values
    judge.raise_first()
    channels = ChannelSet(str(name) for name in state["channel"].values)
    check_values(block, state["time"].values[:1], channels, allow_missing=allow_missing)
