"""The true objects of a store's times, read from a table, as boxes on its grid.

Shapes: N objects, T attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.files.samples import resolve_samples
from sciml_dchag.files.tables import read_text_table, refuse_marks, with_numbers
from sciml_dchag.weather.area import goes_around
from sciml_dchag.weather.objects.sphere import EARTH_KM
from sciml_dchag.weather.store.layout import iso

Floats = NDArray[np.float64]

KM_OF_A_DEGREE = EARTH_KM * np.pi / 180
"""Of latitude."""
ONE_KIND = "object"
"""Name of the class where a table has no column `kind`."""


@dataclass(frozen=True, kw_only=True)
class Located:
    """Objects of one time."""

    latitude: Floats
    """Degrees north, (N,)."""
    longitude: Floats
    """Degrees east, 0 to 360, (N,)."""
    classes: NDArray[np.int64]
    """Positions among the table's kinds, (N,)."""
    attributes: Floats
    """In units of the table, (N, T); NaN where not known."""
    scores: Floats
    """Probabilities; of true objects 1, (N,)."""

    def __len__(self) -> int:
        return len(self.latitude)

    def at(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Located:
        """Return some of them."""
        return Located(
            latitude=self.latitude[chosen], longitude=self.longitude[chosen],
            classes=self.classes[chosen], attributes=self.attributes[chosen],
            scores=self.scores[chosen],
        )  # fmt: skip


class ObjectTable:
    """A table of objects by time.

    Args:
        path: a CSV file, or `sample:NAME`.
        attributes: columns to read beside time and place.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no file is named, it lacks a column, or holds what is no time, place or number.
    """

    def __init__(self, path: str, attributes: Sequence[str]) -> None:
        self.path, self.attributes = path, tuple(attributes)
        if not path:
            raise ValueError(
                "data.objects is empty: name a table of objects, as `sciml-dchag objects` writes."
            )
        file = Path(resolve_samples([path])[0])
        if not file.is_file():
            raise FileNotFoundError(
                f"data.objects {path} does not exist: write one with `sciml-dchag objects`."
            )
        table = with_numbers(read_text_table(file), file, ["kind"])
        wanted = ("time", "latitude", "longitude", *self.attributes)
        if missing := [name for name in wanted if name not in table.columns]:
            raise ValueError(
                f"data.objects {path} has no column {missing[0]!r}: it has "
                f"{', '.join(map(repr, table.columns[:8]))}; add it, or change task.attributes."
            )
        self.times = _times(table["time"], path)
        self.latitude = _numbers(table, "latitude", path, (-90.0, 90.0))
        self.longitude = _numbers(table, "longitude", path, (-360.0, 360.0)) % 360.0
        columns = [_numbers(table, name, path) for name in self.attributes]
        self.values = np.stack(columns, axis=1) if columns else np.empty((len(table), 0))
        kinds = table["kind"].astype(str) if "kind" in table.columns else None
        self.kinds = (ONE_KIND,) if kinds is None else tuple(sorted(kinds.unique()))
        self.classes = (
            np.zeros(len(table), np.int64)
            if kinds is None
            else np.array([self.kinds.index(kind) for kind in kinds], np.int64)
        )
        order = np.argsort(self.times, kind="stable")
        self._order, self._sorted = order, self.times[order]

    def require_covers(self, times: NDArray[np.datetime64], name: str) -> None:
        """Refuse times before the table's first or after its last one: nothing is known of them.

        Raises:
            ValueError: which.
        """
        if not len(self.times):
            raise ValueError(f"data.objects {self.path} has no rows: name a table that has some.")
        for time in (times[0], times[-1]):
            if not self._sorted[0] <= time <= self._sorted[-1]:
                raise ValueError(
                    f"data.objects {self.path} is of {iso(self._sorted[0])} to "
                    f"{iso(self._sorted[-1])}, and data.{name} has {iso(time)}: shorten the "
                    f"period, or make a table of all of it."
                )

    def at(self, time: np.datetime64) -> Located:
        """The objects of a time; none where the table has no row of it."""
        first, last = np.searchsorted(self._sorted, [time, time + np.timedelta64(1, "ns")])
        rows = self._order[first:last]
        return Located(
            latitude=self.latitude[rows], longitude=self.longitude[rows],
            classes=self.classes[rows], attributes=self.values[rows], scores=np.ones(len(rows)),
        )  # fmt: skip

    def moments(self, times: NDArray[np.datetime64]) -> tuple[Floats, Floats]:
        """Mean and deviation of the attributes over some times, (T,) each.

        Raises:
            ValueError: an attribute that has the same value everywhere, or none.
        """
        values = self.values[np.isin(self.times, times)]
        if not len(values):
            raise ValueError(
                f"data.objects {self.path} has no object at any time of the training period: name "
                f"a table whose times are those of the store."
            )
        for place, name in enumerate(self.attributes):
            column = values[:, place]
            if not np.nanstd(np.append(column, 0.0)[:-1]) > 0:
                raise ValueError(
                    f"{name!r} of data.objects {self.path} has one value, or none, in the training "
                    f"period: leave it out of task.attributes."
                )
        return np.nanmean(values, axis=0), np.nanstd(values, axis=0)


class BoxGrid:
    """Places on the sphere as boxes in pixels of a grid, and back.

    A box reaches as far to the north and south as to the east and west, in km. Column j has its
    centre at x = j + 0.5.

    Args:
        latitude: row centres in degrees, growing, (H,).
        longitude: column centres in degrees east, evenly spaced, (W,).
        radius_km: half the side of a box.
    """

    def __init__(self, latitude: Floats, longitude: Floats, radius_km: float) -> None:
        self.latitude, self.west, self.radius_km = latitude, float(longitude[0]), radius_km
        self.columns = len(longitude)
        self.wraps = goes_around(longitude)
        self.step = float(np.mod(longitude[1] - longitude[0], 360.0))
        self.rows = np.arange(len(latitude)) + 0.5
        self.down = float(np.median(np.diff(latitude)))

    def boxes(self, latitude: Floats, longitude: Floats) -> Floats:
        """(N,), (N,) -> (N, 4); rows beyond the outermost centres are counted on."""
        y = np.interp(latitude, self.latitude, self.rows)
        y += (np.minimum(latitude - self.latitude[0], 0.0)) / self.down
        y += (np.maximum(latitude - self.latitude[-1], 0.0)) / self.down
        x = np.mod(longitude - self.west + self.step / 2, 360.0) / self.step
        half_y = np.full(len(y), self.radius_km / KM_OF_A_DEGREE / self.down)
        wide = self.radius_km / KM_OF_A_DEGREE / np.cos(np.deg2rad(latitude)).clip(min=1e-6)
        half_x = np.minimum(wide / self.step, self.columns / 4)  # near a pole
        return np.stack([x - half_x, y - half_y, x + half_x, y + half_y], axis=1)

    def inside(self, latitude: Floats, longitude: Floats) -> NDArray[np.bool_]:
        """Which places lie in cells of the grid, (N,)."""
        boxes = self.boxes(latitude, longitude)
        x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
        return (x >= 0) & (x < self.columns) & (y >= 0) & (y <= len(self.rows))

    def places(self, boxes: Floats) -> tuple[Floats, Floats]:
        """Latitudes and longitudes (0 to 360) of the centres of boxes, (N,) each."""
        x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
        latitude = np.interp(y, self.rows, self.latitude)
        latitude += np.minimum(y - self.rows[0], 0.0) * self.down
        latitude += np.maximum(y - self.rows[-1], 0.0) * self.down
        longitude = np.mod(self.west + (x - 0.5) * self.step, 360.0)
        return latitude.clip(-90.0, 90.0), longitude


def _times(column: pd.Series[str], path: str) -> NDArray[np.datetime64]:
    try:
        return pd.to_datetime(column, format="ISO8601").to_numpy().astype("datetime64[ns]")
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"data.objects {path} has a time that cannot be read ({error}): write times as "
            f"2026-02-01 06:00:00, in UTC."
        ) from error


def _numbers(
    table: pd.DataFrame, name: str, path: str, within: tuple[float, float] | None = None
) -> Floats:
    """A column as numbers; places must be known and within bounds."""
    numbers = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
    bad = np.isnan(numbers) & table[name].notna().to_numpy()
    if within is not None:
        bad |= ~((numbers >= within[0]) & (numbers <= within[1]))
    if bad.any():
        row = int(np.argmax(bad))
        value = str(table[name].iloc[row])
        allowed = "a number" if within is None else f"from {within[0]:g} to {within[1]:g} degrees"
        raise ValueError(
            f"data.objects {path} has {value!r} as {name} in row {row + 2}: it must be {allowed}."
        )
    if within is None:
        refuse_marks(numbers, name, f"data.objects {path}")
    return numbers
