"""What a forecaster reads its inputs from: a prepared store, or a user's own data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.channels import ChannelSet
from sciml_dchag.weather.store.store import Period


class States(Protocol):
    """States of the atmosphere by time and channel, as `Store` has them."""

    @property
    def path(self) -> Path:
        """Where they lie, for messages."""

    @property
    def times(self) -> NDArray[np.datetime64]:
        """Valid times, datetime64[ns], (time,)."""

    @property
    def channels(self) -> ChannelSet:
        """The channels, in order."""

    @property
    def latitude(self) -> NDArray[np.float64]:
        """Row centres in degrees north, (row,)."""

    @property
    def longitude(self) -> NDArray[np.float64]:
        """Column centres in degrees east, (column,)."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Numbers of times, channels, rows and columns."""

    @property
    def step_hours(self) -> int | None:
        """Hours from each time to the next, or None where they are uneven."""

    @property
    def grid_sha256(self) -> str:
        """Hash of the grid."""

    @property
    def attribution(self) -> str:
        """One sentence to print on every picture made from them."""

    @property
    def simulated(self) -> bool:
        """Whether they are a model's climate."""

    def read(
        self,
        time_indices: Sequence[int] | NDArray[np.integer[Any]] | slice,
        channel_indices: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    ) -> NDArray[np.float32]:
        """Read states, (T, C, H, W), NaN where missing."""

    def static(self, names: Iterable[str]) -> NDArray[np.float32]:
        """Read static fields, (S, H, W)."""

    def time_indices(self, period: Period) -> NDArray[np.int64]:
        """Return the positions of the times within a period."""

    def with_history(self, history_hours: Sequence[int]) -> NDArray[np.int64]:
        """Return the positions of the times that have some history, such as (-6, -12)."""
