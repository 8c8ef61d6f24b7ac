"""Whether levels of which there is doubt can be the pressures that they are taken for.

Levels without units may be isentropes of 300, 350 and 500 K or heights of 500 and 1000 m, and
levels of 1000 and 500 labelled Pa may be hPa. Temperature, geopotential and humidity distinguish
them.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sciml_dchag.weather.prepare.cells import Cells
from sciml_dchag.weather.prepare.checks import (
    believable_geopotential,
    believable_temperature,
    standard_temperature,
)
from sciml_dchag.weather.prepare.magnitudes import typical_humidity
from sciml_dchag.weather.prepare.pieces import Piece

UNITS = {"t": "K", "z": "m2 s-2", "q": "kg kg-1"}
"""Variables whose mean shows at which pressure they are, and their units."""

RISES = (300, 700)
"""Pressures in hPa between which temperature rises downward in every season and region."""

GLOBE = 20.0
"""By how many K the mean of the globe differs from the standard atmosphere above 20 hPa at most."""


def check_doubtful_levels(pieces: Sequence[Piece], used: Sequence[Piece]) -> None:
    """Compare levels that may be others than they are taken for with the standard atmosphere.

    One time of temperature, geopotential and humidity is read for each set of levels.

    Args:
        pieces: all of the sources.
        used: those that are asked for.

    Raises:
        ValueError: a mean that a level cannot have at that pressure.

    Warns:
        UserWarning: the sources have none of the three on these levels.
    """
    doubtful = [piece for piece in used if _doubt(piece)]
    if not doubtful:
        return
    compared: set[tuple[str, int]] = set()
    seen: set[tuple[str, str, tuple[int, ...]]] = set()
    for piece in pieces:
        key = piece.name, _doubt(piece) or "", tuple(piece.levels)
        of_use = piece.name in UNITS and not (piece.name == "q" and piece.levels_untold)
        if of_use and _doubt(piece) and key not in seen:
            seen.add(key)
            compared.update((key[1], level) for level in _compared(piece))
    rest = [p for p in doubtful if not compared.issuperset((_doubt(p), n) for n in p.levels)]
    if rest:
        warnings.warn(_nothing_confirms(rest[0]), UserWarning, stacklevel=2)


def _nothing_confirms(piece: Piece) -> str:
    low = piece.levels_low is not None
    axis, levels = piece.levels_low or piece.levels_untold, piece.levels
    shown = ", ".join(str(100 * n if low else n) for n in levels[:6])
    shown += ", ..." if len(levels) > 6 else ""
    if low:
        return (
            f"The levels {shown} on the axis {axis} of {piece.source} are labelled Pa and taken "
            f"for {', '.join(map(str, levels[:6]))} hPa, and no temperature, geopotential or "
            f"humidity confirms it: set the units attribute of {axis} to hPa if that is what they "
            f"are."
        )
    return (
        f"The levels {shown} on the axis {axis} of {piece.source} are taken for pressures in hPa, "
        f"although nothing says so and no temperature or geopotential confirms it: set the units "
        f"attribute of {axis} if they are something else."
    )


def _doubt(piece: Piece) -> str | None:
    """Say which doubt there is about the levels of a variable; None where there is none.

    A single level without units was put there by hand.
    """
    if not piece.levels:
        return None
    if piece.levels_low:
        return "low"
    return "untold" if piece.levels_untold and "level" in piece.field.dims else None


def _compared(piece: Piece) -> list[int]:
    """Refuse levels that cannot be their pressures; return those that were compared."""
    try:
        # A level that is there twice matters where it is asked for.
        field, grid = replace(piece.raw(), copies=()), piece.grid()
    except ValueError:  # on no grid or in other units, which is said where it is asked for
        return []
    values = field.read(np.array([0]), list(range(len(piece.levels))))[0]
    means = {
        level: float(np.nanmean(fields, dtype=np.float64))
        for level, fields in zip(piece.levels, values, strict=True)
        if np.isfinite(fields).any()
    }
    whole = Cells(latitude=grid.latitude, longitude=grid.longitude).global_
    for level, mean in means.items():
        low, high = _believable(piece, level, whole_globe=whole)
        if not low <= mean <= high:
            raise ValueError(
                f"{_has(piece, level, mean)}, and at {level} hPa it can be {low:.4g} to "
                f"{high:.4g}{_fix(piece)}"
            )
    if piece.name == "t":
        _refuse_slopes(piece, means)
    return list(means)


def _refuse_slopes(piece: Piece, means: dict[int, float]) -> None:
    """Refuse temperatures that change from level to level as they cannot at these pressures."""
    inner = sorted(level for level in means if RISES[0] <= level <= RISES[1])
    if inner and not piece.levels_low:
        upper, lower = inner[0], inner[-1]
        rise = standard_temperature(lower) - standard_temperature(upper)
        if rise > 3 and means[lower] <= means[upper]:
            raise ValueError(
                f"{_has(piece, upper, means[upper])} and {means[lower]:.4g} on {lower}, and from "
                f"{upper} to {lower} hPa it rises by about {rise:.0f}{_fix(piece)}"
            )
    if piece.levels_low:
        levels = sorted(means)
        for upper, lower in itertools.pairwise(levels):
            # Polar vortices and warmings of the stratosphere are well within; 1000 to 500 hPa not.
            most = 15 + 10 * np.log(lower / upper)
            if means[lower] - means[upper] > most:
                raise ValueError(
                    f"{_has(piece, lower, means[lower])} and {means[upper]:.4g} on {100 * upper}, "
                    f"and from {lower} to {upper} hPa it falls by {most:.0f} at most{_fix(piece)}"
                )


def _has(piece: Piece, level: int, mean: float) -> str:
    label = "in no units" if piece.levels_low is None else "labelled Pa"
    axis, shown = piece.levels_low or piece.levels_untold, level * (100 if piece.levels_low else 1)
    units = UNITS[piece.name]
    return f"{piece.source} has {piece.name} of {mean:.4g} {units} on {axis} {shown}, {label}"


def _fix(piece: Piece) -> str:
    if piece.levels_low:
        return (
            f": these levels are in hPa, so set the units attribute of {piece.levels_low} to hPa."
        )
    return (
        f": these levels are no pressures (potential temperatures, heights or model levels), so "
        f"interpolate to pressure levels first, and set the units attribute of "
        f"{piece.levels_untold}."
    )


def _believable(piece: Piece, level_hpa: int, *, whole_globe: bool) -> tuple[float, float]:
    """Least and greatest mean of a variable at a pressure."""
    if piece.name == "z":
        return believable_geopotential(level_hpa)
    if piece.name == "q":
        return -1e-4, 30 * typical_humidity(level_hpa)
    if piece.levels_low and whole_globe:
        standard = standard_temperature(level_hpa)
        return standard - GLOBE, standard + GLOBE
    return believable_temperature(level_hpa)
