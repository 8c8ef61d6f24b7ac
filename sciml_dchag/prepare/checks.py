"""Whether values are believable: missing ones, orders of magnitude, winds stored upside down.

Coordinates are checked in `grid_checks`, metadata in `sources`.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.channels import VARIABLES, ChannelSet

EARTH_RADIUS = 6.371e6
"""Metres; the mean radius."""


def check_values(
    block: NDArray[np.float32],
    times: NDArray[np.datetime64],
    channels: ChannelSet,
    *,
    allow_missing: bool = False,
) -> None:
    """Check a block of states (T, C, H, W) as it streams by.

    Raises:
        ValueError: infinite values, missing ones where they are not allowed, or a mean that the
            channel's units cannot have; naming the channel, the time and the mend.
    """
    for c, channel in enumerate(channels):
        fields = block[:, c]
        missing = np.isnan(fields).sum(axis=(1, 2))
        if missing.any() and not allow_missing:
            first = str(times[int(np.argmax(missing > 0))])[:16]
            raise ValueError(
                f"{channel.name} has {int(missing.sum())} missing values in {len(times)} times, "
                f"the first at {first}: complete the data, or pass --allow-missing to keep them."
            )
        if np.isinf(fields).any():
            first = str(times[int(np.argmax(np.isinf(fields).any(axis=(1, 2))))])[:16]
            raise ValueError(f"{channel.name} has infinite values at {first}: read the file again.")
        if missing.sum() == fields.size:
            continue
        mean = float(np.nanmean(fields, dtype=np.float64))
        variable = VARIABLES[channel.variable]
        low, high = variable.plausible
        if not low <= mean <= high:
            raise ValueError(
                f"{channel.name} has a mean of {mean:.4g} where {low:g} to {high:g} "
                f"{variable.units} is believable: convert it to {variable.units}."
            )


def relative_vorticity(
    u: NDArray[np.floating],
    v: NDArray[np.floating],
    latitude: NDArray[np.floating],
    longitude: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Vorticity of a wind by centred differences on the sphere: (H, W), s-1.

    (dv/dlon - d(u cos lat)/dlat) / (a cos lat); NaN on the outermost rows.
    """
    rows, step = np.deg2rad(latitude.astype(float)), np.deg2rad(longitude[1] - longitude[0])
    cosine = np.cos(rows)[:, None]
    v_east = (np.roll(v, -1, 1) - np.roll(v, 1, 1)).astype(float) / (2 * step)
    u_north = np.gradient(u * cosine, rows, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        curl = (v_east - u_north) / (EARTH_RADIUS * cosine)
    curl[[0, -1]] = np.nan
    return curl


def check_wind_rows(
    u: NDArray[np.floating],
    v: NDArray[np.floating],
    vorticity: NDArray[np.floating],
    latitude: NDArray[np.floating],
    longitude: NDArray[np.floating],
    *,
    source: str,
) -> None:
    """Warn where the vorticity of a wind fits the given one only after its rows are flipped.

    Rows count as flipped when the correlation is below 0.2 as labelled and above 0.4 flipped. On
    ERA5 subsampled to 2.5 degrees, whose differences miss much of the vorticity, a right file has
    0.62 and -0.01.
    """
    middle = np.abs(latitude) < 80  # near the poles differences are noise
    correlations = []
    for rows in (slice(None), slice(None, None, -1)):
        curl = relative_vorticity(u[rows], v[rows], latitude, longitude)
        known = middle[:, None] & np.isfinite(curl) & np.isfinite(vorticity)
        correlations.append(float(np.corrcoef(curl[known], vorticity[known])[0, 1]))
    as_labelled, flipped = correlations
    if as_labelled < 0.2 and flipped > 0.4:
        warnings.warn(
            f"{source}: the winds' rows run against their latitude labels (their vorticity "
            f"correlates {as_labelled:.2f} with the given one as labelled, {flipped:.2f} flipped); "
            f"flip the rows of u and v before use.",
            UserWarning,
            stacklevel=2,
        )
