"""Whether values are believable: missing ones, orders of magnitude, winds stored upside down.

Coordinates are checked in `grid_checks`, metadata in `layouts` and `sources`.
"""

from __future__ import annotations

import math
import warnings
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.channels import ChannelSet, Variable, variables
from sciml_dchag.weather.store.layout import iso

EARTH_RADIUS = 6.371e6
"""Metres; the mean radius."""
EARTH_ROTATION = 7.2921e-5
"""Radians per second."""


def check_values(
    block: NDArray[np.float32],
    times: NDArray[np.datetime64],
    channels: ChannelSet,
    *,
    allow_missing: bool = False,
    constant: ConstantFields | None = None,
) -> None:
    """Check a block of states (T, C, H, W) as it streams by.

    Args:
        block: the states.
        times: of the states.
        channels: of the states.
        allow_missing: whether values may be missing.
        constant: counts fields that are the same everywhere, for one warning about all blocks;
            without it they are warned of at once.

    Raises:
        ValueError: infinite values, missing ones where they are not allowed, or a time whose mean
            the channel's units cannot have; naming the channel, the time and the fix.

    Warns:
        UserWarning: a field that is the same everywhere.
    """
    found = ConstantFields() if constant is None else constant
    for c, channel in enumerate(channels):
        fields = block[:, c]
        missing = np.isnan(fields).sum(axis=(1, 2))
        if missing.any() and not allow_missing:
            raise ValueError(
                f"{channel.name} has {int(missing.sum())} missing values in {len(times)} times, "
                f"the first at {iso(times[int(np.argmax(missing > 0))])}: complete the data, or "
                f"pass `allow_missing=True` to keep them."
            )
        if (infinite := np.isinf(fields).any(axis=(1, 2))).any():
            raise ValueError(
                f"{channel.name} has infinite values at {iso(times[int(np.argmax(infinite))])}: "
                f"repair or download that time again."
            )
        present = np.flatnonzero(missing < fields[0].size)
        means = np.nanmean(fields[present], axis=(1, 2), dtype=np.float64)
        # One time in other units among many right ones would not move the mean of all.
        for i in {present[means.argmin()], present[means.argmax()]} if len(present) else ():
            variable, when = variables()[channel.variable], iso(times[i])
            check_mean(fields[i], channel.name, variable, channel.level_hpa, when=when)
        found.add(channel.name, times[fields.max(axis=(1, 2)) == fields.min(axis=(1, 2))])
    found.looked_at(len(times))
    if constant is None:
        found.warn()


class ConstantFields:
    """Counts fields of one value by channel over all blocks, so that each channel is said once."""

    def __init__(self) -> None:
        self._times = 0
        self._found: dict[str, tuple[int, np.datetime64]] = {}
        self._said: set[str] = set()

    def add(self, channel: str, times: NDArray[np.datetime64]) -> None:
        """Add the times of a block at which a channel is the same everywhere."""
        if len(times):
            count, first = self._found.get(channel, (0, times[0]))
            self._found[channel] = count + len(times), min(first, times[0])

    def looked_at(self, times: int) -> None:
        """Count the times of a block."""
        self._times += times

    def warn(self) -> None:
        """Warn of the channels found, each once however often this is called.

        Warns:
            UserWarning: a channel with such fields; how many, and the first time.
        """
        for channel, (count, first) in self._found.items():
            if channel not in self._said:
                self._said.add(channel)
                warnings.warn(
                    f"{channel} has one value everywhere in {count} of {self._times} times, the "
                    f"first at {iso(first)}: part of its file may be lost, so compare it with its "
                    f"source.",
                    UserWarning,
                    stacklevel=3,
                )


def check_mean(
    fields: NDArray[np.float32],
    name: str,
    variable: Variable,
    level_hpa: int | None = None,
    when: str | None = None,
) -> None:
    """Check that the mean of some fields is one that the variable's units can have.

    Raises:
        ValueError: it is not.
    """
    if np.isnan(fields).all():
        return
    mean = float(np.nanmean(fields, dtype=np.float64))
    low, high = variable.plausible
    if variable.short == "z" and level_hpa is not None:
        low, high = believable_geopotential(level_hpa)
    if not low <= mean <= high:
        raise ValueError(
            f"{name} has a mean of {mean:.4g} where {low:.6g} to {high:.6g} {variable.units} is "
            f"believable{f', at {when}' if when else ''}: convert it to {variable.units}."
        )


def believable_geopotential(level_hpa: float) -> tuple[float, float]:
    """Least and greatest mean geopotential of a pressure level, m2 s-2.

    Wide enough for any region and season, too narrow for metres instead of m2 s-2.
    """
    standard = standard_geopotential(level_hpa)
    return 0.75 * standard - 2500, 1.25 * standard + 2500


def standard_geopotential(level_hpa: float) -> float:
    """Geopotential of a pressure level in the ICAO standard atmosphere, m2 s-2.

    Hydrostatic balance with -6.5 K per km from 288.15 K at 1013.25 hPa to 216.65 K at 11 km, and
    constant temperature above (ICAO Doc 7488), which is 10 % low at 1 hPa.
    """
    gas_constant, gravity, lapse = 287.053, 9.80665, 0.0065
    tropopause = 1013.25 * (216.65 / 288.15) ** (gravity / (gas_constant * lapse))
    if level_hpa >= tropopause:
        ratio = (level_hpa / 1013.25) ** (gas_constant * lapse / gravity)
        return gravity * 288.15 / lapse * (1 - ratio)
    return gravity * 11e3 + gas_constant * 216.65 * math.log(tropopause / level_hpa)


def believable_temperature(level_hpa: float, *, whole_globe: bool = False) -> tuple[float, float]:
    """Least and greatest mean temperature of a pressure level in any region and season, K.

    Above 20 hPa polar nights are that cold and sudden warmings of the stratosphere that warm.
    """
    standard = standard_temperature(level_hpa)
    if level_hpa >= 700:  # deserts in summer, ice in winter
        return standard - (40 if whole_globe else 60), standard + 30
    if level_hpa >= 200:
        return standard - 40, standard + 25
    return (175.0, 250.0) if level_hpa >= 20 else (standard - 65, standard + 45)


def standard_temperature(level_hpa: float) -> float:
    """Temperature of a pressure level in the US Standard Atmosphere 1976 up to 71 km, K."""
    tropospheric = 288.15 - 0.0065 * standard_geopotential(level_hpa) / 9.80665
    if tropospheric > 216.65:
        return tropospheric
    pressures, kelvins = zip(*_STRATOSPHERE, strict=True)
    return float(np.interp(np.log(level_hpa), np.log(pressures), kelvins))


_STRATOSPHERE = (
    (0.0396, 214.65),
    (0.669, 270.65),
    (1.109, 270.65),
    (8.68, 228.65),
    (54.75, 216.65),
)
"""Pressure in hPa and temperature in K where the lapse rate of the standard atmosphere changes."""


def relative_vorticity(
    u: NDArray[np.floating],
    v: NDArray[np.floating],
    latitude: NDArray[np.floating],
    longitude: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Vorticity of a wind by centred differences on the sphere: (H, W), s-1.

    (dv/dlon - d(u cos lat)/dlat) / (a cos lat); NaN on the outermost rows and columns.
    """
    rows = np.deg2rad(latitude.astype(float))
    cosine = np.cos(rows)[:, None]
    u_north = np.gradient(u * cosine, rows, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        curl = (_eastward_change(v, longitude) - u_north) / (EARTH_RADIUS * cosine)
    curl[[0, -1]] = np.nan
    return curl


def geostrophic_v(
    z: NDArray[np.floating],
    latitude: NDArray[np.floating],
    longitude: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Northward geostrophic wind of a geopotential in m2 s-2: (H, W), m s-1.

    (dz/dlon) / (a f cos lat) with f = 2 Omega sin lat; NaN on the outermost columns.
    """
    rows = np.deg2rad(latitude.astype(float))[:, None]
    coriolis = 2 * EARTH_ROTATION * np.sin(rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _eastward_change(z, longitude) / (EARTH_RADIUS * coriolis * np.cos(rows))


def _eastward_change(
    field: NDArray[np.floating], longitude: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Change per radian of longitude by centred differences, NaN on the outermost columns."""
    change = np.full(field.shape, np.nan)
    width = np.deg2rad(np.mod(longitude[2:] - longitude[:-2], 360.0))
    change[:, 1:-1] = (field[:, 2:].astype(float) - field[:, :-2]) / width
    return change


def check_wind_rows(
    u: NDArray[np.floating],
    v: NDArray[np.floating],
    other: NDArray[np.floating],
    latitude: NDArray[np.floating],
    longitude: NDArray[np.floating],
    *,
    known: Literal["vo", "z"] = "vo",
    source: str,
) -> None:
    """Warn where a wind fits the vorticity or the geopotential only after its rows are flipped.

    Rows count as flipped when that raises the correlation by 0.3. With vorticity, ERA5 subsampled
    to 2.5 degrees, whose differences miss much of it, has 0.62 with the right rows and -0.01 with
    the wrong ones; with geopotential, v has 0.97 and 0.14 with the geostrophic v at 500 hPa.

    Args:
        u, v: wind, (H, W), m s-1.
        other: vorticity (s-1) or geopotential (m2 s-2) at the same level and time.
        latitude, longitude: degrees.
        known: which of the two `other` is.
        source: what the warning calls the wind's file.
    """
    distance = np.abs(latitude)
    if known == "vo":
        used = distance < 80  # near the poles differences are noise
        what, expected = "vorticity", other.astype(np.float64)
    else:
        used = (distance > 25) & (distance < 75)  # there is no such balance near the equator
        what, expected = "geostrophic wind", geostrophic_v(other, latitude, longitude)
    correlations = []
    for rows in (slice(None), slice(None, None, -1)):
        wind = v[rows].astype(np.float64)
        if known == "vo":
            wind = relative_vorticity(u[rows], v[rows], latitude, longitude)
        cells = used[:, None] & np.isfinite(wind) & np.isfinite(expected)
        pair = np.stack([wind[cells], expected[cells]])
        if pair.shape[1] < 2 or (pair.std(axis=1) == 0).any():
            return  # too few cells, or no weather in them
        correlations.append(float(np.corrcoef(pair)[0, 1]))
    as_labelled, flipped = correlations
    if flipped > as_labelled + 0.3:
        warnings.warn(
            f"{source}: the winds' rows run against their latitude labels (their correlation with "
            f"the {what} is {as_labelled:.2f} as labelled, {flipped:.2f} flipped); flip the rows "
            f"of u and v before use.",
            UserWarning,
            stacklevel=2,
        )
