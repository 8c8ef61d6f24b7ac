"""Whether fields are in the units that their file names, where bounds of single cells cannot say.

Humidity in g kg-1 at 50 hPa, fractions called per cent, heights called geopotential, sums over one
hour taken for sums over six: each value is one that a cell can have, and the mean is not.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.channels import Channel
from sciml_dchag.weather.prepare.checks import believable_temperature, standard_geopotential
from sciml_dchag.weather.store.layout import iso

MOST_PRECIPITATION = 0.02
"""Metres; a day's mean over the globe is 0.003."""

ENOUGH_CELLS = 500
"""With fewer cells a field says too little of the globe."""

RATES = {
    "tp": (0.03, 0.4, 0.12, "mm", 1e3),
    "ssrd": (80.0, 320.0, 190.0, "W m-2 h", 1 / 3600),
    "strd": (180.0, 480.0, 340.0, "W m-2 h", 1 / 3600),
}
"""By sum over time: least and greatest mean of the globe in an hour, a usual one, its units, and
what to multiply ours by to have them. Trenberth and others (2009) give 2.7 mm a day, 184 and 333
W m-2."""

OTHER_UNITS = 15.0
"""How far beyond these a mean shows other units and not other hours, of which there are 24."""


def typical_humidity(level_hpa: float) -> float:
    """Specific humidity on the mean of the globe, kg kg-1, within a factor of four."""
    return max(3e-6, 0.0095 * (level_hpa / 1000) ** 3)


def refuse_other_units(
    fields: NDArray[np.float32],
    channel: Channel,
    latitude: NDArray[np.float64],
    source: str,
    *,
    whole_globe: bool,
) -> None:
    """Refuse fields (T, H, W) whose means or ranges show other units than those of the channel.

    Raises:
        ValueError: humidity in g kg-1 or relative humidity as a fraction under other units, heights
            for geopotential near the ground, temperatures of another level.
    """
    level = channel.level_hpa
    known = fields[np.isfinite(fields)]
    if level is None or known.size < ENOUGH_CELLS:
        return
    mean = float(known.mean(dtype=np.float64))
    if channel.variable == "q":
        typical = typical_humidity(level)
        least = typical / 30 if whole_globe else 0.0
        if not whole_globe and np.abs(latitude).max() <= 45:
            least = typical / 200
        if mean > 30 * typical:
            raise _other(source, channel, mean, f"about {typical:.2g}", "g kg-1")
        if 0 < mean < least:
            raise ValueError(
                f"{source} has {channel.name} of {mean:.3g} kg kg-1 on the mean, where about "
                f"{typical:.2g} is usual: if its values are in kg kg-1 already, set its units "
                f"attribute to kg kg-1."
            )
    if channel.variable == "t":
        low, high = believable_temperature(level, whole_globe=whole_globe)
        there = np.isfinite(fields).any(axis=(1, 2))
        means = np.atleast_1d(np.nanmean(fields[there], axis=(1, 2), dtype=np.float64))
        for odd in means[(means < low) | (means > high)][:1]:
            raise ValueError(
                f"{source} has {channel.name} of {odd:.4g} K on the mean, where {low:.4g} to "
                f"{high:.4g} is believable at {level} hPa: correct the units attribute of its "
                f"levels, or the level that its name or coordinate says."
            )
    if channel.variable == "r" and level >= 200 and 0 < known.max() <= 1.5:
        raise _other(source, channel, mean, "10 to 100", "1")
    if channel.variable == "z" and whole_globe and standard_geopotential(level) < 3400:
        spread = float(np.std(known, dtype=np.float64))
        if spread < 250 and abs(mean) < 400:
            raise ValueError(
                f"{source} has {channel.name} of {mean:.3g} m2 s-2 on the mean of the globe with a "
                f"standard deviation of {spread:.3g}, which are those of a height in m: set its "
                f"units attribute to m."
            )


def _other(source: str, channel: Channel, mean: float, usual: str, units: str) -> ValueError:
    return ValueError(
        f"{source} has {channel.name} of {mean:.3g} {channel.units} on the mean, where {usual} is "
        f"usual: if it is in {units}, set its units attribute to {units}."
    )


def refuse_heights(field: NDArray[np.float32], name: str, *, whole_globe: bool) -> None:
    """Refuse geopotential of the ground whose highest cell is as high as mountains in metres.

    Raises:
        ValueError: it is.
    """
    if name == "orography" and whole_globe and field.size >= ENOUGH_CELLS:
        lowest = float(np.nanmin(field, initial=np.inf))
        if lowest > 9000:  # there are oceans
            raise ValueError(
                f"The static field orography is at least {lowest:.0f} m2 s-2 on all of the globe, "
                f"which is geopotential of a pressure level: name the file of the ground's."
            )
        highest = float(np.nanmax(field, initial=0))
        if 500 < highest < 9500:
            raise ValueError(
                f"The static field orography is at most {highest:.0f} m2 s-2 on the globe, which "
                f"are metres: set its units attribute to m."
            )


def refuse_deluge(
    fields: NDArray[np.float32],
    times: NDArray[np.datetime64],
    channel: Channel,
    latitude: NDArray[np.float64],
    source: str,
) -> None:
    """Refuse precipitation (T, H, W) of which the globe gets seven times a day's in one field.

    Raises:
        ValueError: it does.
    """
    for time, field in zip(times, fields, strict=True):
        mean = globe_mean(field, latitude)
        if mean > MOST_PRECIPITATION:
            raise ValueError(
                f"{source} has {channel.name} of {mean:.3g} m on the mean of the globe at "
                f"{iso(time)}, where a day has 0.003: if it is in mm, set its units attribute "
                f"to mm."
            )


def globe_mean(field: NDArray[np.float32], latitude: NDArray[np.float64]) -> float:
    """Mean of what is known of a field (H, W), by the cosine of latitude; 0 where nothing is."""
    weights = np.cos(np.deg2rad(latitude))[:, None] * np.isfinite(field)
    return float(
        (np.nan_to_num(field, posinf=0, neginf=0) * weights).sum() / max(weights.sum(), 1e-9)
    )


def check_span(
    field: NDArray[np.float32],
    name: str,
    hours: int,
    latitude: NDArray[np.float64],
    source: str,
    *,
    whole_globe: bool,
) -> None:
    """Compare the mean of a sum over time (H, W) with what its hours bring.

    Args:
        field: in our units.
        name: `tp`, `ssrd` or `strd`, also `tp_6h`.
        hours: over which it is taken to be summed.
        latitude: of its rows.
        source: what messages call the file.
        whole_globe: whether it covers the globe.

    Raises:
        ValueError: a mean that shows other units.

    Warns:
        UserWarning: one that shows other hours: files of ERA5 of every sixth hour hold sums over
            one hour each.
    """
    base = name.split("_")[0]
    if base not in RATES or not hours or field.size < ENOUGH_CELLS or not whole_globe:
        return
    low, high, usual, units, factor = RATES[base]
    if not np.isfinite(field).all():
        return
    mean = globe_mean(field, latitude) * factor
    if mean == 0 or low <= mean / hours <= high:
        return
    if base == "tp" and mean / hours > high:
        return  # in mm, which is said where all its times are read
    start = (
        f"{source} has {name} of {mean / hours:.3g} {units} an hour on the mean of the globe as "
        f"sums over {hours} h, where about {usual:g} is usual"
    )
    if not low / OTHER_UNITS <= mean / hours <= high * OTHER_UNITS:
        raise ValueError(f"{start}: correct its units attribute, or convert it.")
    near = min((1, 3, 6, 12, 24), key=lambda span: abs(np.log(mean / usual / span)))
    if near != hours:
        warnings.warn(
            f"{start}, as where they are over {near} h (those of ERA5 are over 1 h, whatever the "
            f"times between): if so, call it {base}_{near}h in the file and among the channels, or "
            f"name files of all hours.",
            UserWarning,
            stacklevel=2,
        )
