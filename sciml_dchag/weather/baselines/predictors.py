"""What a regression chain forecasts from: surroundings, what winds carry, and other channels.

Shapes: B samples, C channels, A advected channels, S cells of a stencil, H x W grid, P predictors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.channels import ChannelSet
from sciml_dchag.weather.area import goes_around
from sciml_dchag.weather.baselines.stencil import COLUMNS, ROWS, on_stencil

EARTH_RADIUS_M = 6.371e6
NEAR = (1, 1)
"""Rows and columns on each side of a place on which advection is seen."""


@dataclass(frozen=True)
class Advected:
    """Channels that winds of the same level carry, by their positions in a set of channels."""

    carried: tuple[int, ...]
    east: tuple[int, ...]
    north: tuple[int, ...]

    @classmethod
    def of(cls, channels: ChannelSet) -> Advected:
        """Find them: on pressure levels by the wind there, near the ground by that at 10 m."""
        names = channels.names
        found = []
        for place, channel in enumerate(channels):
            level = "10" if channel.level_hpa is None else f"{channel.level_hpa:g}"
            if f"u{level}" in names and f"v{level}" in names:
                found.append((place, names.index(f"u{level}"), names.index(f"v{level}")))
        return (
            cls(*(tuple(places) for places in zip(*found, strict=True)))
            if found
            else cls((), (), ())
        )

    def __len__(self) -> int:
        return len(self.carried)

    def change(
        self,
        fields_BCHW: NDArray[np.float32],
        latitude: NDArray[np.float64],
        longitude: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """u df/dx + v df/dy of each, (B, A, H, W), in its unit per second.

        By differences between the two neighbours of a cell; at the edges of a region and in the
        outermost rows, between the cell and its one neighbour.

        Args:
            fields_BCHW: in physical units, winds in m s-1.
            latitude: of the rows, degrees.
            longitude: of the columns, degrees.
        """
        carried = fields_BCHW[:, list(self.carried)]
        per_degree = np.deg2rad(EARTH_RADIUS_M)
        if goes_around(longitude):
            apart = 2 * 360 / len(longitude)
            x = (np.roll(carried, -1, -1) - np.roll(carried, 1, -1)) / np.float32(apart)
        else:
            x = np.gradient(carried, longitude.astype(np.float32), axis=-1)
        y = np.gradient(carried, latitude.astype(np.float32), axis=-2)
        shrinks = np.cos(np.deg2rad(latitude)).clip(1e-3).astype(np.float32)[:, None]
        u, v = fields_BCHW[:, list(self.east)], fields_BCHW[:, list(self.north)]
        change: NDArray[np.float32] = ((u * x / shrinks + v * y) / np.float32(per_degree)).astype(
            np.float32
        )
        return change


def predictors(
    states_BCHW: NDArray[np.float32],
    others_BCHW: NDArray[np.float32],
    advection_BAHW: NDArray[np.float32],
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Join predictors of every place, (B, H, W, P).

    Args:
        states_BCHW: seen with the cells around a place.
        others_BCHW: seen at the place.
        advection_BAHW: seen with its neighbours.
        latitude: of the rows.
        longitude: of the columns.
    """
    parts = [on_stencil(states_BCHW[:, None], latitude, longitude)]
    if others_BCHW.shape[1]:
        parts.append(others_BCHW.transpose(0, 2, 3, 1))
    if advection_BAHW.shape[1]:
        parts.append(on_stencil(advection_BAHW[:, None], latitude, longitude, NEAR))
    return np.concatenate(parts, axis=-1, dtype=np.float32)


def width(states: int, others: int, advected: int) -> int:
    """How many predictors these numbers of channels make, P."""
    wide, near = ((2 * rows + 1) * (2 * columns + 1) for rows, columns in ((ROWS, COLUMNS), NEAR))
    return wide * states + others + near * advected
