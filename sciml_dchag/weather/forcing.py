"""Fields that follow from time and place alone: latitude, solar time and sunshine.

All functions take times (T,), latitudes (H,) and longitudes (W,) and return (T, H, W) float64;
`compute_forcing` stacks them for a model. Fields read from files are `Store.static`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.datetime64]
Degrees = NDArray[np.float64]
Field = NDArray[np.float64]

SOLAR_CONSTANT = 1361.0
"""Total solar irradiance at one astronomical unit, W m-2 (Kopp and Lean 2011, GRL 38, L01706)."""


def compute_forcing(
    names: Sequence[str], times: Times, latitude: Degrees, longitude: Degrees
) -> NDArray[np.float32]:
    """Compute several forcings, shape (T, F, H, W).

    Args:
        names: keys of `FORCINGS`.
        times: UTC.
        latitude: degrees north.
        longitude: degrees east, 0..360 or -180..180.

    Raises:
        ValueError: a name that is no forcing.
    """
    if unknown := [name for name in names if name not in FORCINGS]:
        raise ValueError(f"Forcing {unknown[0]!r} is unknown: choose from {', '.join(FORCINGS)}.")
    out = np.empty((len(times), len(names), len(latitude), len(longitude)), dtype=np.float32)
    for position, name in enumerate(names):
        out[:, position] = FORCINGS[name](times, latitude, longitude)
    return out


def scaled_forcing(
    names: Sequence[str], times: Times, latitude: Degrees, longitude: Degrees
) -> NDArray[np.float32]:
    """Compute forcings to the order of one, as all inputs of a model are: (T, F, H, W).

    Args and errors are those of `compute_forcing`.
    """
    forcing = compute_forcing(names, times, latitude, longitude)
    if "insolation" in names:
        forcing[:, names.index("insolation")] /= SOLAR_CONSTANT
    if "latitude_degrees" in names:  # as ClimaX has it: by mean and deviation over the rows
        rows = forcing[:, names.index("latitude_degrees")]
        rows -= latitude.mean()
        rows /= latitude.std() or 1.0
    return forcing


def cos_latitude(times: Times, latitude: Degrees, longitude: Degrees) -> Field:
    """Return the cosine of latitude."""
    rows = np.cos(np.deg2rad(latitude))[None, :, None]
    return np.broadcast_to(rows, (len(times), len(latitude), len(longitude)))


def latitude_degrees(times: Times, latitude: Degrees, longitude: Degrees) -> Field:
    """Return the latitude itself, degrees north; an input of ClimaX (arXiv 2301.10343)."""
    rows = np.asarray(latitude, np.float64)[None, :, None]
    return np.broadcast_to(rows, (len(times), len(latitude), len(longitude)))


def sin_solar_time(times: Times, latitude: Degrees, longitude: Degrees) -> Field:
    """Return the sine of local mean solar time as an angle: 0 at midnight, 1 at 6 h."""
    return np.sin(_mean_solar_angle(times, latitude, longitude))


def cos_solar_time(times: Times, latitude: Degrees, longitude: Degrees) -> Field:
    """Return the cosine of local mean solar time as an angle: 1 at 0 h, -1 at noon."""
    return np.cos(_mean_solar_angle(times, latitude, longitude))


def insolation(times: Times, latitude: Degrees, longitude: Degrees) -> Field:
    """Return the solar flux through a horizontal plane at the top of the atmosphere, W m-2.

    Instantaneous: S0 / r^2 max(0, cos Z), with cos Z = sin(lat) sin(d) + cos(lat) cos(d) cos(h).
    Declination d, equation of time (in the hour angle h) and distance r in astronomical units are
    the Astronomical Almanac's low-precision formulae (page C24; Michalsky 1988, Solar Energy 40,
    227-235), good to 0.01 degrees from 1950 to 2050.
    """
    declination, equation_of_time, distance = (part[:, None, None] for part in _sun(times))
    hour_angle = _mean_solar_angle(times, latitude, longitude) - np.pi + equation_of_time
    rows = np.deg2rad(latitude)[None, :, None]
    overhead = np.sin(rows) * np.sin(declination)
    cos_zenith = overhead + np.cos(rows) * np.cos(declination) * np.cos(hour_angle)
    return np.asarray(SOLAR_CONSTANT / distance**2 * np.maximum(cos_zenith, 0.0))


def _sun(times: Times) -> tuple[Field, Field, Field]:
    """Declination (radians), equation of time (radians) and distance (au) of the sun, each (T,)."""
    days = (times - np.datetime64("2000-01-01T12", "ns")) / np.timedelta64(1, "D")
    mean_longitude = np.deg2rad(280.460 + 0.9856474 * days)
    anomaly = np.deg2rad(357.528 + 0.9856003 * days)
    ecliptic_longitude = mean_longitude + np.deg2rad(
        1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly)
    )
    obliquity = np.deg2rad(23.439 - 4e-7 * days)
    declination = np.arcsin(np.sin(obliquity) * np.sin(ecliptic_longitude))
    right_ascension = np.arctan2(
        np.cos(obliquity) * np.sin(ecliptic_longitude), np.cos(ecliptic_longitude)
    )
    # Mean minus apparent sun, brought to -pi..pi.
    equation_of_time = np.angle(np.exp(1j * (mean_longitude - right_ascension)))
    distance = 1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2 * anomaly)
    return declination, equation_of_time, distance


def _mean_solar_angle(times: Times, latitude: Degrees, longitude: Degrees) -> Field:
    """Angle of local mean solar time, radians from local midnight, shape (T, H, W)."""
    of_day = (times - times.astype("datetime64[D]")) / np.timedelta64(1, "D")
    angle = 2 * np.pi * (of_day[:, None, None] + np.asarray(longitude)[None, None, :] / 360.0)
    return np.broadcast_to(angle, (len(times), len(latitude), len(longitude)))


FORCINGS: dict[str, Callable[[Times, Degrees, Degrees], Field]] = {
    "cos_latitude": cos_latitude,
    "latitude_degrees": latitude_degrees,
    "sin_solar_time": sin_solar_time,
    "cos_solar_time": cos_solar_time,
    "insolation": insolation,
}
"""Forcings by the name of their channel."""
