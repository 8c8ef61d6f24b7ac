"""What a score is, of whatever task; a wing's metric adds the function that computes it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from sciml_dchag.channels import canonical_units

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def readable_units(units: str) -> str:
    """`m2 s-2` and its like as `m² s⁻²`; the unit one as nothing."""
    plain = canonical_units(units)
    if plain in ("1", "-", "dimensionless", "~"):
        return ""
    return re.sub(r"(?<=[A-Za-z])-?\d+", lambda m: m[0].translate(SUPERSCRIPTS), plain)


def squared(units: str) -> str:
    """Readable units of the square of a quantity."""
    text = readable_units(units)
    if not text:
        return text
    return f"{text}²" if text.isalpha() else f"({text})²"


def no_units(units: str) -> str:
    """Of a number that has no units, whatever those of the quantity are."""
    return ""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A score: what it is called, what it means, and where its formula comes from."""

    name: str
    """In recipes and tables, such as `rmse`."""
    label: str
    """In headings, such as `RMSE`."""
    formula: str
    """In words: one or more sentences."""
    perfect: float | None
    """Value where there is no error; None where more is neither better nor worse, as of a bias."""
    reference: str
    """Paper or code that defines it."""
    units: Callable[[str], str] = readable_units
    """From the units of the quantity that is scored to the readable ones of the score."""

    @property
    def perfect_or_nan(self) -> float:
        """`perfect` as a column of numbers has it."""
        return math.nan if self.perfect is None else self.perfect

    @property
    def definition(self) -> str:
        """What a reader of a table must know: formula, perfect value, source."""
        value = "" if self.perfect is None else f" A perfect score is {self.perfect:g}."
        return f"{self.formula}{value} Source: {self.reference}."
