"""Distances, bearings and destinations on the sphere, in degrees and km."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

EARTH_KM = 6371.0
"""Mean radius of the Earth in km."""

Floats = NDArray[np.float64]


def distance_km(
    latitude: ArrayLike, longitude: ArrayLike, other_latitude: ArrayLike, other_longitude: ArrayLike
) -> Floats:
    """Great-circle distance by the haversine formula; arguments in degrees broadcast.

    2 R arcsin(sqrt(sin^2(dphi / 2) + cos phi1 cos phi2 sin^2(dlambda / 2))).
    """
    phi, other = np.deg2rad(latitude), np.deg2rad(other_latitude)
    turned = np.deg2rad(np.subtract(other_longitude, longitude))
    square = np.sin((other - phi) / 2) ** 2 + np.cos(phi) * np.cos(other) * np.sin(turned / 2) ** 2
    found: Floats = 2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(square, 0.0, 1.0)))
    return found


def to_plane(
    latitude: ArrayLike, longitude: ArrayLike, other_latitude: ArrayLike, other_longitude: ArrayLike
) -> tuple[Floats, Floats]:
    """Kilometres east and north of a place, as the great circle from there leaves it.

    The azimuthal equidistant projection about (latitude, longitude), which has no seam: not at
    Greenwich, and not at a pole, where north is along the meridian opposite to the longitude given.
    """
    phi, other = np.deg2rad(latitude), np.deg2rad(other_latitude)
    turned = np.deg2rad(np.subtract(other_longitude, longitude))
    bearing = np.arctan2(
        np.sin(turned) * np.cos(other),
        np.cos(phi) * np.sin(other) - np.sin(phi) * np.cos(other) * np.cos(turned),
    )
    distance = distance_km(latitude, longitude, other_latitude, other_longitude)
    return distance * np.sin(bearing), distance * np.cos(bearing)


def from_plane(
    latitude: ArrayLike, longitude: ArrayLike, east_km: ArrayLike, north_km: ArrayLike
) -> tuple[Floats, Floats]:
    """Latitude and longitude of what lies so many kilometres east and north; see `to_plane`."""
    phi, angle = np.deg2rad(latitude), np.hypot(east_km, north_km) / EARTH_KM
    bearing = np.arctan2(east_km, north_km)
    north = np.sin(angle) * np.cos(bearing)
    # Along the meridian, across it and along the axis; the usual formula has 0 / 0 at a pole.
    outward = np.cos(phi) * np.cos(angle) - np.sin(phi) * north
    across = np.sin(angle) * np.sin(bearing)
    axis = np.sin(phi) * np.cos(angle) + np.cos(phi) * north
    turned = np.rad2deg(np.arctan2(across, outward))
    found: Floats = np.rad2deg(np.arctan2(axis, np.hypot(outward, across)))
    return found, np.asarray(longitude + turned, np.float64)
