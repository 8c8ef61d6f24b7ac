"""Where a score is taken: bands of latitude, land and sea, and areas that centres report on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.store.store import Store

REGIONS: dict[str, tuple[float, float, float, float]] = {
    # name: south, north, west, east; centres of cells, bounds included
    "globe": (-90, 90, 0, 360),
    "northern extratropics": (20, 90, 0, 360),
    "tropics": (-20, 20, 0, 360),
    "southern extratropics": (-90, -20, 0, 360),
    "Europe": (35, 75, -12.5, 42.5),
    "North America": (25, 60, -120, -75),
    "East Asia": (25, 60, 102.5, 150),
    "Australia and New Zealand": (-45, -12.5, 120, 175),
}
"""Bounds in degrees, as WeatherBench 2 has them (Rasp et al. 2024, arXiv 2308.15560); a cell counts
where its centre lies."""
LEAST_CELLS = 4
"""A region of fewer cells is left out."""


def region_weights(
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    land: NDArray[np.floating] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Weight of each cell in each region: its area inside, 0 outside; (H, W) by name.

    Args:
        latitude, longitude: cell centres in degrees, (H,) and (W,).
        land: fraction of land in each cell, (H, W); cells of half and more are land. None where
            it is not known: there are no scores of land and sea then.

    Returns:
        Regions of which the grid has four cells and more, in the order of `REGIONS`, then `land`
        and `sea`.
    """
    area = np.repeat(latitude_weights(latitude)[:, None], len(longitude), axis=1)
    inside = {}
    for name, (south, north, west, east) in REGIONS.items():
        rows = (latitude >= south) & (latitude <= north)
        columns = np.mod(longitude - west, 360) <= east - west
        inside[name] = rows[:, None] & columns[None, :]
    if land is not None:
        inside |= {"land": land >= 0.5, "sea": land < 0.5}
    return {name: area * mask for name, mask in inside.items() if mask.sum() >= LEAST_CELLS}


def region_weights_of(store: Store) -> dict[str, NDArray[np.float64]]:
    """Weight of each cell of a store in each region, with land and sea where it holds `lsm`."""
    land = store.static(["lsm"])[0] if "lsm" in store.static_names else None
    return region_weights(store.latitude, store.longitude, land)
