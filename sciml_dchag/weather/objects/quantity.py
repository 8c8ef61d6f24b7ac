"""Which fields have lows and highs, in which units they are said, and how deep one must be."""

from __future__ import annotations

from dataclasses import dataclass

from sciml_dchag.weather.units import in_one_spelling


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A field of pressure or geopotential."""

    units: str
    """Units of the values and depths of its objects."""
    factor: float
    """From the field's units to these."""
    min_depth: float
    """Least depth where none is asked for, in `units`."""


PRESSURE = {"Pa": 0.01, "hPa": 1.0}
"""Factors to hPa."""
ON_GROUND = ("surface_air_pressure", "surface_geopotential", "surface_altitude", "sp", "orography")
"""Names of fields whose extremes are mountains and valleys."""


def quantity_of(name: str, units: str, *names: str) -> Quantity:
    """Say in which units the objects of a field are and how deep they are by default.

    Pressure in hPa, from 4 hPa; geopotential in m2 s-2, from 300, and its height in m, from 30,
    which is about as much near the ground.

    Args:
        name: the field's name, for messages too.
        units: its units; empty where they are not known.
        names: further names, such as its `standard_name`.

    Raises:
        ValueError: neither pressure nor geopotential, or of the ground.
    """
    said = {text.lower() for text in (name, *names) if text}
    if on_ground := said & set(ON_GROUND):
        raise ValueError(
            f"{name} is {min(on_ground)}, whose extremes are mountains and valleys: give the "
            f"pressure at mean sea level or a geopotential."
        )
    spelt = in_one_spelling(units) if units else ""
    if spelt in PRESSURE:
        return Quantity(units="hPa", factor=PRESSURE[spelt], min_depth=4.0)
    if spelt == "m2 s-2":
        return Quantity(units="m2 s-2", factor=1.0, min_depth=300.0)
    if spelt == "gpm" or (spelt == "m" and "geopotential_height" in said):
        return Quantity(units="m", factor=1.0, min_depth=30.0)
    raise ValueError(
        f"{name} is in {units or 'no units'}, and lows and highs are found in pressure (Pa, hPa) "
        f"or geopotential (m2 s-2, gpm): name such a field, or set its attribute units."
    )
