"""Units as exponents of the base units, and whether a product of some has the units of another."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from sciml_dchag.channels import canonical_units

BASE = ("kg", "m", "s", "K", "mol", "A", "cd")
"""The base units of the SI, in the order of exponents."""

_NAMED: dict[str, tuple[float, dict[str, int]]] = {
    **{symbol: (1.0, {symbol: 1}) for symbol in BASE},
    "g": (1e-3, {"kg": 1}),
    "N": (1.0, {"kg": 1, "m": 1, "s": -2}),
    "Pa": (1.0, {"kg": 1, "m": -1, "s": -2}),
    "J": (1.0, {"kg": 1, "m": 2, "s": -2}),
    "W": (1.0, {"kg": 1, "m": 2, "s": -3}),
    "Hz": (1.0, {"s": -1}),
    "C": (1.0, {"s": 1, "A": 1}),
    "V": (1.0, {"kg": 1, "m": 2, "s": -3, "A": -1}),
    "min": (60.0, {"s": 1}),
    "h": (3600.0, {"s": 1}),
    "day": (86400.0, {"s": 1}),
    "d": (86400.0, {"s": 1}),
    "L": (1e-3, {"m": 3}),
    "ha": (1e4, {"m": 2}),
    "gpm": (1.0, {"m": 1}),
    "rad": (1.0, {}),
    "sr": (1.0, {}),
    "degree": (math.pi / 180, {}),
    "%": (1e-2, {}),
    "1": (1.0, {}),
}
_PREFIXES = {
    "n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3, "c": 1e-2, "d": 1e-1, "h": 1e2, "k": 1e3,
    "M": 1e6, "G": 1e9,
}  # fmt: skip
_PREFIXED = ("g", "m", "s", "K", "mol", "A", "cd", "N", "Pa", "J", "W", "Hz", "V", "L")
_FACTOR = re.compile(r"([A-Za-zµ%]+|1)(-?\d+(?:\.\d+|/\d+)?)?")


@dataclass(frozen=True)
class Unit:
    """Units: `scale` times the product of base units to the power of `exponents`.

    Example:
        >>> Unit.parse("hPa m2 s-1").text()
        'kg m s-3'
    """

    exponents: tuple[Fraction, ...]
    """Of `BASE`, in its order."""
    scale: float = 1.0
    """What a value is multiplied by to be in base units: 100 of hPa."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read units such as `J kg-1 K-1`, `m**2/s**2` or `m^0.5`; nothing is dimensionless.

        Raises:
            ValueError: a unit that is not known, or one with another zero, such as degC.
        """
        scale, exponents = 1.0, [Fraction(0)] * len(BASE)
        for word in canonical_units(text).split():
            match = _FACTOR.fullmatch(word)
            if match is None or (named := _named(match[1])) is None:
                raise ValueError(
                    f"the units {text!r} hold {word!r}, which is not known: write SI units with "
                    "exponents, such as m s-1, J kg-1 K-1 or 1, and temperature in K."
                )
            power = Fraction(match[2] or 1)
            scale *= named[0] ** float(power)
            for symbol, exponent in named[1].items():
                exponents[BASE.index(symbol)] += power * exponent
        return cls(tuple(exponents), scale)

    def text(self) -> str:
        """Write the base units, `1` of none; without the scale."""
        parts = [
            symbol if exponent == 1 else f"{symbol}{exponent}"
            for symbol, exponent in zip(BASE, self.exponents, strict=True)
            if exponent
        ]
        return " ".join(parts) or "1"

    def __truediv__(self, other: Unit) -> Unit:
        exponents = zip(self.exponents, other.exponents, strict=True)
        return Unit(tuple(a - b for a, b in exponents), self.scale / other.scale)


def _named(word: str) -> tuple[float, dict[str, int]] | None:
    if word in _NAMED:
        return _NAMED[word]
    if word[:1] in _PREFIXES and word[1:] in _PREFIXED:
        scale, exponents = _NAMED[word[1:]]
        return _PREFIXES[word[0]] * scale, exponents
    return None


def can_be_made(target: Unit, available: Sequence[Unit]) -> bool:
    """Whether products of powers and square roots of some units have the units of the target.

    The exponents of the available units span a lattice of integers, whose basis in echelon form
    follows by Euclid's algorithm on columns (Hermite normal form). Square roots make multiples of
    1/2, 1/4, ... of its vectors, so that the target is looked for among those.
    """
    vectors = [unit.exponents for unit in available]
    common = math.lcm(*(e.denominator for v in (*vectors, target.exponents) for e in v), 1)
    columns = [[int(e * common) for e in vector] for vector in vectors]
    rest = [Fraction(e * common) for e in target.exponents]
    for row in range(len(BASE)):
        pivot = _reduce(columns, row)
        if pivot is None:
            if rest[row]:
                return False
            continue
        multiple = rest[row] / pivot[row]
        if multiple.denominator & (multiple.denominator - 1):  # no power of two
            return False
        rest = [value - multiple * e for value, e in zip(rest, pivot, strict=True)]
    return True


def _reduce(columns: list[list[int]], row: int) -> list[int] | None:
    """Let one column at most have a value in a row, and take that column out."""
    while True:
        with_value = sorted((c for c in columns if c[row]), key=lambda c: abs(c[row]))
        if not with_value:
            return None
        least, *others = with_value
        if not others:
            columns.remove(least)
            return least
        for column in others:
            times = column[row] // least[row]
            column[:] = [a - times * b for a, b in zip(column, least, strict=True)]
