"""What a detector stands beside: the classical finder of lows and highs on the model's own grid.

`finder` looks at the field as it is, `spline_finder` at a cubic spline through it, every 2.5
degrees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.weather.area import goes_around
from sciml_dchag.weather.detect.labels import ONE_KIND, Located
from sciml_dchag.weather.objects.finding import Criteria, Finder, Kind
from sciml_dchag.weather.objects.quantity import quantity_of
from sciml_dchag.weather.store.states import States

Floats = NDArray[np.float64]

BASELINES = {
    "finder": "Closed minima (or maxima) of the field on the model's grid; see `objects`.",
    "spline_finder": "The same of a cubic spline through the field, every 2.5 degrees.",
}
FINE_DEGREES = 2.5
BEYOND = 4
"""Columns that a spline is given beyond the first and last one of a globe."""


class FinderBaselines:
    """The classical finder on a channel of a store, and on a spline through it.

    Args:
        store: the states.
        channel: whose lows or highs.
        kinds: classes: `lows`, `highs`, or the one of a table without kinds, which is lows.
        attributes: which of `value (...)` and `depth (...)` to give; others are not known.

    Raises:
        ValueError: no such channel, one that is no pressure or geopotential, or other kinds.
    """

    def __init__(
        self, store: States, channel: str, kinds: Sequence[str], attributes: Sequence[str]
    ) -> None:
        about = store.channels[channel]
        self.quantity = quantity_of(about.name, about.units, about.long_name, about.variable)
        self.store, self.place = store, store.channels.index(channel)
        self.attributes = tuple(attributes)
        of_kinds: list[Kind] = []
        for name in kinds:
            if name not in (ONE_KIND, "lows", "highs"):
                raise ValueError(
                    f"data.objects has the kind {name!r}, which the classical finder does not know "
                    f"(lows and highs): set evaluation.finder_channel to nothing."
                )
            of_kinds.append("highs" if name == "highs" else "lows")
        self.wraps = goes_around(store.longitude)
        self.fine = self._fine_grid()
        criteria = Criteria(min_depth=self.quantity.min_depth)
        grids = {"finder": (store.latitude, store.longitude), "spline_finder": self.fine}
        self.finders = {
            name: [Finder(*grid, kind, criteria) for kind in of_kinds]
            for name, grid in grids.items()
        }

    def find(self, index: int) -> dict[str, Located]:
        """Find the objects of a time, by name of the baseline; their probability is the depth."""
        field = self.store.read([index], [self.place])[0, 0].astype(np.float64)
        field *= self.quantity.factor
        fields = {"finder": field, "spline_finder": self._refined(field)}
        return {name: self._located(name, of) for name, of in fields.items()}

    def _located(self, name: str, field: Floats) -> Located:
        found = [finder.find(field) for finder in self.finders[name]]
        classes = [np.full(len(one), kind, np.int64) for kind, one in enumerate(found)]
        value, depth, latitude, longitude = (
            np.concatenate([getattr(one, key) for one in found])
            for key in ("value", "depth", "latitude", "longitude")
        )
        known = {f"value ({self.quantity.units})": value, f"depth ({self.quantity.units})": depth}
        unknown = np.full(len(value), np.nan)
        columns = [known.get(attribute, unknown) for attribute in self.attributes]
        order = np.argsort(-depth, kind="stable")
        return Located(
            latitude=latitude, longitude=longitude, classes=np.concatenate(classes),
            attributes=np.stack(columns, axis=1) if columns else np.empty((len(value), 0)),
            scores=depth,
        ).at(order)  # fmt: skip

    def _fine_grid(self) -> tuple[Floats, Floats]:
        latitude, longitude = self.store.latitude, self._unwrapped()
        span = 360.0 if self.wraps else longitude[-1] - longitude[0]
        rows = math.ceil((latitude[-1] - latitude[0]) / FINE_DEGREES - 1e-9) + 1
        steps = math.ceil(span / FINE_DEGREES - 1e-9)
        columns = longitude[0] + span / steps * np.arange(steps + (not self.wraps))
        return np.linspace(latitude[0], latitude[-1], rows), columns

    def _unwrapped(self) -> Floats:
        steps = np.mod(np.diff(self.store.longitude), 360.0)
        return float(self.store.longitude[0]) + np.concatenate([[0.0], np.cumsum(steps)])

    def _refined(self, field: Floats) -> Floats:
        """The field on the fine grid."""
        from scipy.interpolate import RectBivariateSpline

        longitude = self._unwrapped()
        if self.wraps:
            field = np.concatenate([field[:, -BEYOND:], field, field[:, :BEYOND]], axis=1)
            longitude = np.concatenate(
                [longitude[-BEYOND:] - 360.0, longitude, longitude[:BEYOND] + 360.0]
            )
        if not np.isfinite(field).all():  # a spline through missing values is missing throughout
            return np.full((len(self.fine[0]), len(self.fine[1])), np.nan)
        spline = RectBivariateSpline(self.store.latitude, longitude, field)
        refined: Floats = spline(*self.fine)
        return refined
