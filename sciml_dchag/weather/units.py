"""Units in one spelling, whatever centre wrote them."""

from __future__ import annotations

import re

from sciml_dchag.channels import canonical_units

_WORDS = {
    "kelvin": "K", "kelvins": "K", "degk": "K", "degreek": "K", "degreesk": "K", "degkelvin": "K",
    "degreeskelvin": "K", "degreekelvin": "K", "°k": "K",
    "pascal": "Pa", "pascals": "Pa", "hectopascal": "hPa", "hectopascals": "hPa", "mb": "hPa",
    "mbar": "hPa", "mbars": "hPa", "millibar": "hPa", "millibars": "hPa",
    "metre": "m", "metres": "m", "meter": "m", "meters": "m", "mtr": "m",
    "millimetre": "mm", "millimetres": "mm", "millimeter": "mm", "millimeters": "mm",
    "second": "s", "seconds": "s", "sec": "s",
    "gram": "g", "grams": "g", "gm": "g", "kilogram": "kg", "kilograms": "kg",
    "geopotentialmeter": "gpm", "geopotentialmeters": "gpm", "geopotentialmetre": "gpm",
    "geopotentialmetres": "gpm", "gpmeters": "gpm",
    "percent": "%", "joule": "J", "joules": "J", "watt": "W", "watts": "W",
    "0-1": "1", "~": "1", "dimensionless": "1", "fraction": "1", "proportion": "1", "none": "1",
    "numeric": "1", "code": "1",
}  # fmt: skip
"""Our spelling of a word of units, written in small letters without blanks or underscores."""

_NAMES = {"pa": "Pa", "hpa": "hPa", "k": "K", "j": "J", "w": "W", "kg": "kg", "g": "g", "m": "m"}
"""Symbols by their small letters."""


def in_one_spelling(units: str) -> str:
    """Write units in one spelling: `Kelvin` and `degK` as `K`, and `m+2 s-2` as `m2 s-2`.

    Scales stay: `hPa` is not `Pa`, nor `g kg-1` `kg kg-1`.
    """
    text = units.strip().replace("(0 - 1)", "1").replace("(0-1)", "1")
    whole = re.sub(r"[\s_]+", "", text.lower())
    if whole in ("", *_WORDS):
        return _WORDS.get(whole, "1")
    text = re.sub(r"\s+per\s+", "/", text.lower() if " per " in text.lower() else text)
    text = re.sub(r"(?<=[A-Za-z])\+(?=\d)", "", text)  # MERRA-2 writes m+2 s-2
    text = re.sub(r"\.(?=[A-Za-z])", " ", text)
    text = re.sub(r"[A-Za-z°%]+", lambda word: _word(word[0]), text)
    return re.sub(r"^1 (?=\S)", "", canonical_units(text))


def _word(word: str) -> str:
    lower = word.lower()
    return _WORDS.get(lower) or _NAMES.get(lower) or word
