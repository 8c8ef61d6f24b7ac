"""Statistics of each channel over a training period: computed in one pass, stored, and guarded.

Whoever normalises with them says for which period, grid and channels; any other is refused.
Means at every grid cell are `data.climatology`'s.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag.channels import ChannelSet
from sciml_dchag.files.checksums import damage_named
from sciml_dchag.files.moments import RunningMoments, cannot_normalise
from sciml_dchag.files.resumable import Progress
from sciml_dchag.files.zarr_groups import write_group
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.store.store import Period, Store

GROUP = "statistics"
"""The group's name in a store."""

_LONG_NAMES = {
    "mean": "area-weighted mean",
    "std": "area-weighted standard deviation over times and cells",
    "minimum": "least value",
    "maximum": "greatest value",
    "count": "number of values that are not missing",
    "step_difference_std": "area-weighted standard deviation of the change over one time step",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Statistics:
    """Statistics by channel, float64, each of shape (C,), in the channels' units."""

    channels: ChannelSet
    """The channels, in the order of the arrays."""
    mean: NDArray[np.float64]
    """Area-weighted mean over times and cells."""
    std: NDArray[np.float64]
    """Area-weighted standard deviation about that mean."""
    minimum: NDArray[np.float64]
    """Least value."""
    maximum: NDArray[np.float64]
    """Greatest value."""
    count: NDArray[np.float64]
    """Number of values that are not missing."""
    step_difference_std: NDArray[np.float64]
    """Standard deviation of x(t + step) - x(t); NaN where the store's steps are uneven."""
    period: tuple[str, str]
    """First and last time, ISO to the minute, as `Store.period` gives them."""
    grid_sha256: str
    """Hash of the grid."""

    def require(
        self,
        *,
        period: tuple[str, str] | None = None,
        grid_sha256: str | None = None,
        channels: ChannelSet | None = None,
    ) -> None:
        """Refuse to be used for anything but what the statistics were computed on.

        Args:
            period: first and last time, as `Store.period` gives them.
            grid_sha256: hash of the grid.
            channels: the channels, in their order.

        Raises:
            ValueError: naming the first difference.
        """
        require_same("statistics", self, period, grid_sha256, channels)

    def select(self, names: Sequence[str]) -> Statistics:
        """Return the statistics of some channels, in the order given.

        Raises:
            ValueError: a channel that is not there.
        """
        where = self.channels.indices(names)
        kept = {name: getattr(self, name)[where] for name in _LONG_NAMES}
        return Statistics(
            channels=ChannelSet(self.channels[i] for i in where),
            period=self.period,
            grid_sha256=self.grid_sha256,
            **kept,
        )


class Computed(Protocol):
    """What was computed from a store: statistics or a climatology."""

    @property
    def channels(self) -> ChannelSet:
        """The channels, in their order."""

    @property
    def period(self) -> tuple[str, str]:
        """First and last time, ISO to the minute."""

    @property
    def grid_sha256(self) -> str:
        """Hash of the grid."""


def require_same(
    what: str,
    found: Computed,
    period: tuple[str, str] | None,
    grid_sha256: str | None,
    channels: ChannelSet | None,
) -> None:
    """Refuse statistics or a climatology of another period, grid or channel set.

    Raises:
        ValueError: naming the first difference.
    """
    if period is not None and tuple(period) != found.period:
        raise ValueError(
            f"The {what} cover {found.period[0]} to {found.period[1]} but {period[0]} to "
            f"{period[1]} is needed: prepare the store with that as its training period, so that "
            "nothing of another period enters."
        )
    if grid_sha256 is not None and grid_sha256 != found.grid_sha256:
        raise ValueError(
            f"The {what} belong to the grid {found.grid_sha256[:12]} but the grid "
            f"{grid_sha256[:12]} is used: take the {what} of the store that is read."
        )
    if channels is not None and channels != found.channels:
        pairs = zip(channels.names, found.channels.names, strict=False)
        differing = [f"{a!r} is needed where {b!r} stands" for a, b in pairs if a != b]
        lengths = f"{len(channels)} are needed where there are {len(found.channels)}"
        raise ValueError(
            f"The {what} are of other channels ({[*differing, lengths][0]}): take the {what} of "
            "the store that is read, or select its channels."
        )


def compute_statistics(
    store_path: str | os.PathLike[str],
    period: Period = (None, None),
    *,
    progress: Progress | None = None,
) -> Statistics:
    """Compute the statistics of a period and put them into the store.

    Values are weighted by the area of their cells and read once, block by block; sums are merged
    about their own means (Chan, Golub and LeVeque 1983, eq. 2.1), so that nothing cancels.

    Args:
        store_path: the store.
        period: the training period, both ends included.
        progress: called after each block.

    Raises:
        ValueError: the period holds no time of the store, or a channel no value or just one value
            throughout, with which nothing can be normalised.
    """
    store = Store.open(store_path)
    times = store.time_indices(period)
    values, differences = RunningMoments(len(store.channels)), RunningMoments(len(store.channels))
    weights = latitude_weights(store.latitude)
    previous: NDArray[np.float32] | None = None
    for start in range(0, len(times), store.block_times):
        # Channel by channel, so that float64 copies stay small beside the block.
        block = store.read(times[start : start + store.block_times])
        joined = block if previous is None else np.concatenate([previous, block])
        for channel in range(len(store.channels)):
            values.add_weighted(channel, block[:, channel], weights)
            if store.step_hours is not None:
                series = joined[:, channel].astype(np.float64)
                differences.add_weighted(channel, np.diff(series, axis=0), weights)
        previous = block[-1:]
        if progress is not None:
            progress(min(start + store.block_times, len(times)), len(times), "statistics")
    _require_usable(store, values, period)
    statistics = Statistics(
        channels=store.channels,
        mean=values.mean,
        std=values.std,
        minimum=values.minimum,
        maximum=values.maximum,
        count=values.count,
        step_difference_std=differences.std,
        period=store.period(period),
        grid_sha256=store.grid_sha256,
    )
    write_group(store.path, GROUP, _to_dataset(statistics))
    return statistics


def read_statistics(store_path: Path) -> Statistics:
    """Read a store's statistics.

    Raises:
        FileNotFoundError: it has none.
    """
    if not (store_path / GROUP).exists():
        raise FileNotFoundError(
            f"{store_path} has no statistics: prepare it again, or call `compute_statistics`."
        )
    with (
        damage_named(store_path),
        xr.open_zarr(store_path, group=GROUP, chunks=None) as dataset,
    ):
        arrays = {name: dataset[name].values.astype(np.float64) for name in _LONG_NAMES}
        return Statistics(
            channels=ChannelSet(str(name) for name in dataset["channel"].values),
            period=(dataset.attrs["period_start"], dataset.attrs["period_end"]),
            grid_sha256=dataset.attrs["grid_sha256"],
            **arrays,
        )


def _require_usable(store: Store, values: RunningMoments, period: Period) -> None:
    constant = values.minimum == values.maximum  # squares of a constant may be rounding, not 0
    for what, wrong in (("no value", values.count == 0), ("one value", constant)):
        if wrong.any():
            name = store.channels[int(np.flatnonzero(wrong)[0])].name
            first, last = store.period(period)
            raise ValueError(
                f"Channel {name} has {what} throughout {first} to {last}, with which nothing can "
                "be normalised: leave the channel out, or choose a longer period."
            )
    moments = values.mean, values.std, values.minimum, values.maximum
    if found := cannot_normalise(*moments):
        raise ValueError(_not_normalised(store.channels[found[0]].name, found[1]))


def require_normalisable(statistics: Statistics) -> None:
    """Refuse to train with statistics with which a channel cannot be normalised.

    Raises:
        ValueError: naming the first such channel.
    """
    found = cannot_normalise(
        statistics.mean, statistics.std, statistics.minimum, statistics.maximum
    )
    if found:
        raise ValueError(_not_normalised(statistics.channels[found[0]].name, found[1]))


def _not_normalised(name: str, what: str) -> str:
    return (
        f"Channel {name} has {what}, in the training period, with which nothing can be normalised: "
        f"repair the values in its files or mark them as missing, or leave the channel out, and "
        f"prepare the store again."
    )


def _to_dataset(statistics: Statistics) -> xr.Dataset:
    channels = statistics.channels
    dataset = xr.Dataset(
        {name: ("channel", getattr(statistics, name)) for name in _LONG_NAMES},
        coords={"channel": np.array(channels.names, dtype=object)},
    )
    for name, long_name in _LONG_NAMES.items():
        dataset[name].attrs["long_name"] = long_name
    dataset.attrs = {
        "period_start": statistics.period[0],
        "period_end": statistics.period[1],
        "grid_sha256": statistics.grid_sha256,
        "comment": "mean and standard deviations are weighted by the area of the cells",
    }
    return dataset
