"""Whether levels of which a file does not say what they are can be pressures.

Isentropes of 300, 350 and 500 K and heights of 500 and 1000 m look like pressures. Temperature and
geopotential distinguish them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from sciml_dchag.weather.prepare.checks import believable_geopotential, standard_geopotential
from sciml_dchag.weather.prepare.pieces import Piece

WITNESSES = ("t", "z")
"""Variables whose mean shows at which pressure they are."""

RISES = (300, 700)
"""Pressures in hPa between which temperature rises downward in every season and region."""


def check_untold_levels(pieces: Sequence[Piece], used: Sequence[Piece]) -> None:
    """Compare levels that are taken for hPa, which nothing says, with the standard atmosphere.

    One time of temperature and of geopotential is read for each set of levels.

    Args:
        pieces: all of the sources.
        used: those that are asked for.

    Raises:
        ValueError: a mean that a level cannot have at that pressure.

    Warns:
        UserWarning: the sources have neither temperature nor geopotential on these levels.
    """
    untold = [piece for piece in used if _on_untold_axis(piece)]
    if not untold:
        return
    compared: set[int] = set()
    seen: set[tuple[str, tuple[int, ...]]] = set()
    for piece in pieces:
        key = piece.name, tuple(piece.levels)
        if piece.name in WITNESSES and _on_untold_axis(piece) and key not in seen:
            seen.add(key)
            compared.update(_compared(piece))
    rest = [piece for piece in untold if not compared.issuperset(piece.levels)]
    if rest:
        axis, levels = rest[0].levels_untold, rest[0].levels
        shown = ", ".join(map(str, levels[:6])) + (", ..." if len(levels) > 6 else "")
        warnings.warn(
            f"The levels {shown} on the axis {axis} of {rest[0].source} are taken for pressures "
            f"in hPa, although nothing says so and no temperature or geopotential confirms it: "
            f"set the units attribute of {axis} if they are something else.",
            UserWarning,
            stacklevel=2,
        )


def _on_untold_axis(piece: Piece) -> bool:
    """Whether levels without units lie on an axis; a single one was put there by hand."""
    return bool(piece.levels_untold and piece.levels) and "level" in piece.field.dims


def _compared(piece: Piece) -> list[int]:
    """Refuse levels that cannot be pressures; return those that were compared."""
    try:
        field = piece.raw()
    except ValueError:  # on no grid or in other units, which is said where it is asked for
        return []
    values = field.read(np.array([0]), list(range(len(piece.levels))))[0]
    means = {
        level: float(np.nanmean(fields, dtype=np.float64))
        for level, fields in zip(piece.levels, values, strict=True)
        if np.isfinite(fields).any()
    }
    for level, mean in means.items():
        low, high = _believable(piece.name, level)
        if not low <= mean <= high:
            raise ValueError(
                f"{_has(piece, level, mean)}, and at {level} hPa it can be {low:.4g} to "
                f"{high:.4g}{_cure(piece)}"
            )
    inner = sorted(level for level in means if RISES[0] <= level <= RISES[1])
    if piece.name == "t" and inner:
        upper, lower = inner[0], inner[-1]
        rise = standard_temperature(lower) - standard_temperature(upper)
        if rise > 3 and means[lower] <= means[upper]:
            raise ValueError(
                f"{_has(piece, upper, means[upper])} and {means[lower]:.4g} on {lower}, and from "
                f"{upper} to {lower} hPa it rises by about {rise:.0f}{_cure(piece)}"
            )
    return list(means)


def _has(piece: Piece, level: int, mean: float) -> str:
    units = {"t": "K", "z": "m2 s-2"}[piece.name]
    axis = piece.levels_untold
    return f"{piece.source} has {piece.name} of {mean:.4g} {units} on {axis} {level}, in no units"


def _cure(piece: Piece) -> str:
    axis = piece.levels_untold
    return (
        f": these levels are no pressures (potential temperatures, heights or model levels), so "
        f"interpolate to pressure levels first, and set the units attribute of {axis}."
    )


def _believable(name: str, level_hpa: int) -> tuple[float, float]:
    return believable_geopotential(level_hpa) if name == "z" else believable_temperature(level_hpa)


def believable_temperature(level_hpa: float) -> tuple[float, float]:
    """Least and greatest mean temperature of a pressure level in any region and season, K."""
    standard = standard_temperature(level_hpa)
    if level_hpa >= 700:  # deserts in summer, ice in winter
        return standard - 60, standard + 30
    if level_hpa >= 200:
        return standard - 40, standard + 25
    return (175.0, 250.0) if level_hpa >= 20 else (160.0, 320.0)


def standard_temperature(level_hpa: float) -> float:
    """Temperature of a pressure level in the ICAO standard atmosphere up to 20 km, K."""
    return max(216.65, 288.15 - 0.0065 * standard_geopotential(level_hpa) / 9.80665)
