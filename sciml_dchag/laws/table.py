"""The table that a law is looked for in: columns with units, constants, groups of rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.files.tables import read_text_table, refuse_marks, with_numbers
from sciml_dchag.laws.units import Unit, can_be_made

Array = NDArray[np.float64]
LEAST_ROWS = 20
"""Rows of numbers that a search needs."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A quantity of the table."""

    name: str
    """Without the units."""
    unit: Unit
    """Of the table's values, scale included."""


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A constant that formulas may hold."""

    name: str
    unit: Unit
    value: float | None = None
    """In base units; None is fitted."""

    @classmethod
    def parse(cls, text: str) -> Constant:
        """Read `c:1` or `U:m s-1`, which are fitted, or `g=9.81:m s-2`, which is given.

        Raises:
            ValueError: neither form, or units that are not known.
        """
        match = re.fullmatch(r"\s*([A-Za-z]\w*)\s*(?:=\s*([^:]+))?:(.*)", text)
        if match is None:
            raise ValueError(
                f"the constant {text!r} needs a name and units: write c:1 or U:m s-1, or with a "
                "value g=9.81:m s-2."
            )
        unit = Unit.parse(match[3])
        if match[2] is None:
            return cls(name=match[1], unit=unit)
        try:
            return cls(name=match[1], unit=unit, value=float(match[2]) * unit.scale)
        except ValueError:
            raise ValueError(f"the constant {text!r} has a value that is no number.") from None


@dataclass(frozen=True, kw_only=True)
class LawTable:
    """Values in base units, (rows,) each, and the group of each row."""

    target: Column
    inputs: tuple[Column, ...]
    constants: tuple[Constant, ...]
    y: Array
    """Target, (rows,)."""
    X: Array
    """Inputs, (inputs, rows)."""
    groups: NDArray[np.int64]
    """Number of each row's group, (rows,)."""
    left_out: int = 0
    """Rows without a number in a column."""

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> LawTable:
        """The same table with some of its rows."""
        return LawTable(
            target=self.target, inputs=self.inputs, constants=self.constants, y=self.y[chosen],
            X=self.X[:, chosen], groups=self.groups[chosen], left_out=self.left_out,
        )  # fmt: skip

    def require_units(self) -> None:
        """Refuse a target whose units no product of inputs and constants has.

        Raises:
            ValueError: it names the units of a constant that would do it.
        """
        available = [c.unit for c in self.inputs] + [c.unit for c in self.constants]
        if can_be_made(self.target.unit, available):
            return
        quotients = [(self.target.unit / c.unit, c.name) for c in self.inputs]
        unit, name = min(quotients, key=lambda q: sum(abs(e) for e in q[0].exponents))
        own = self.target.unit.text()
        raise ValueError(
            f"no product of inputs and constants has the units of {self.target.name} ({own}): add "
            f"a constant in {own}, or one in {unit.text()} to multiply {name} by."
        )


def read_table(
    path: Path,
    target: str,
    inputs: Sequence[str],
    constants: Sequence[Constant] = (),
    group: str | None = None,
    units: Mapping[str, str] | None = None,
) -> LawTable:
    """Read a CSV file whose headings have units in brackets: `dz_dx [m s-2]` or `LMA (g m-2)`.

    Args:
        path: the table.
        target, inputs: names of columns, with or without their units.
        constants: that formulas may hold.
        group: a column whose equal rows stay on one side of a split; None: each row by itself.
        units: of columns by name, which count before those of the headings.

    Raises:
        FileNotFoundError: there is no table.
        ValueError: a column that is not there, has no numbers or no units that are known; a name
            given twice; or too few rows.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: name a CSV file.")
    frame = with_numbers(read_text_table(path), path, [group] if group else [])
    return from_frame(frame, target, inputs, constants, group, units, name=path.name)


def from_frame(
    frame: pd.DataFrame,
    target: str,
    inputs: Sequence[str],
    constants: Sequence[Constant] = (),
    group: str | None = None,
    units: Mapping[str, str] | None = None,
    *,
    name: str = "the table",
) -> LawTable:
    """Make a `LawTable` of a table in memory; see `read_table`."""
    headings = {_split(str(heading))[0]: str(heading) for heading in frame.columns}
    names = [_split(wanted)[0] for wanted in (target, *inputs)]
    taken = [*names, *(constant.name for constant in constants)]
    if len(set(taken)) < len(taken):
        twice = next(n for n in taken if taken.count(n) > 1)
        raise ValueError(f"{twice} is named twice among target, inputs and constants: once is it.")
    if not inputs:
        raise ValueError("no input is named, and a law needs one: name columns of the table.")
    for wanted in (*names, *([_split(group)[0]] if group else [])):
        if wanted not in headings:
            raise ValueError(f"{name} has no column {wanted}; it has {', '.join(headings)}.")
    for wanted in names:
        same = [str(h) for h in frame.columns if _split(str(h))[0] == wanted]
        if len(same) > 1:
            raise ValueError(
                f"{name} has {' and '.join(same)}, which are {wanted} twice: rename one of them."
            )
    foreign = set(units or {}) - set(names)
    if foreign:
        raise ValueError(f"units are given of {', '.join(sorted(foreign))}, which is not used.")
    columns = [
        Column(name=n, unit=Unit.parse((units or {}).get(n, _split(headings[n])[1]))) for n in names
    ]
    values = np.stack([_numbers(frame[headings[c.name]], c, name) for c in columns])
    usable = np.isfinite(values).all(axis=0)
    labels = np.arange(len(frame)).astype(str)
    if group:
        column = frame[headings[_split(group)[0]]]
        usable &= column.notna().to_numpy()
        labels = column.astype(str).to_numpy()
    if usable.sum() < LEAST_ROWS:
        raise ValueError(f"{name} has {usable.sum()} complete rows, and {LEAST_ROWS} are needed.")
    groups = np.unique(labels[usable].astype(str), return_inverse=True)[1].astype(np.int64)
    return LawTable(
        target=columns[0], inputs=tuple(columns[1:]), constants=tuple(constants),
        y=values[0, usable], X=values[1:, usable], groups=groups,
        left_out=int((~usable).sum()),
    )  # fmt: skip


def _split(heading: str) -> tuple[str, str]:
    """Name and units of a heading."""
    match = re.fullmatch(r"\s*(.*?)\s*(?:\[([^\]]*)\]|\(([^)]*)\))?\s*", heading)
    assert match is not None
    return match[1], match[2] or match[3] or "1"


def _numbers(values: pd.Series, column: Column, where: str) -> Array:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(numbers).any():
        raise ValueError(f"{where} has no numbers in {column.name}: choose another column.")
    refuse_marks(numbers, column.name, where)
    return numbers * column.unit.scale
