"""Tables of the user, read as text before anything is taken for a number.

`001` stays what it is and `NA` may be the name of a genotype; commas, semicolons and tabs separate,
and a decimal comma is read where the comma does not separate.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

MISSING = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "None", "NULL", "null", "-")
"""What stands for a missing number in a column of numbers."""
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_COMMA_NUMBER = re.compile(r"[-+]?(\d+(,\d*)?|,\d+)([eE][-+]?\d+)?")
_CODE = re.compile(r"[-+]?0\d+")
"""A number that begins with a zero too many is a name."""


def read_text_table(path: Path) -> pd.DataFrame:
    """Read a table whose cells are text, stripped of blanks; empty ones are empty text.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no table in UTF-8 or Latin-1 with one name a column.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no table {path}: check its name.")
    rows, _ = _rows(path)
    names = rows[0]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"The table {path} has two columns {twice[0]!r}: rename one of them.")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(names):
            raise ValueError(
                f"{path} is no table: row {number} has {len(row)} cells and the first one "
                f"{len(names)} names, so give a CSV with one row per image."
            )
    return pd.DataFrame(rows[1:], columns=pd.Index(names), dtype=object)


def comma_is_decimal(path: Path) -> bool:
    """Whether a comma in a table's cell is a decimal one, as something else separates cells."""
    return _rows(path)[1] != ","


def with_numbers(table: pd.DataFrame, path: Path, keys: Sequence[str]) -> pd.DataFrame:
    """Turn columns of text into numbers where all cells are, and empty text into None.

    Args:
        table: from `read_text_table`.
        path: its file.
        keys: columns that stay text.
    """
    decimal = comma_is_decimal(path)
    made = {
        str(name): _typed(table[name], decimal) if name not in keys else _text(table[name])
        for name in table.columns
    }
    return pd.DataFrame(made, index=table.index)


def _typed(column: pd.Series, decimal: bool) -> pd.Series:
    cells = [str(cell) for cell in column]
    known = [cell for cell in cells if cell not in MISSING]
    plain = all(_NUMBER.fullmatch(cell) for cell in known)
    if not plain and decimal:
        plain = all(_COMMA_NUMBER.fullmatch(cell) for cell in known)
        known, cells = ([cell.replace(",", ".") for cell in some] for some in (known, cells))
    if not known or not plain or any(_CODE.fullmatch(cell) for cell in known):
        return _text(column)
    numbers = np.array([np.nan if cell in MISSING else float(cell) for cell in cells])
    whole = len(known) == len(cells) and all(re.fullmatch(r"[-+]?\d{1,18}", c) for c in known)
    values = np.array([int(cell) for cell in cells]) if whole else numbers
    return pd.Series(values, index=column.index, name=column.name)


def _text(column: pd.Series) -> pd.Series:
    return column.map(lambda cell: None if cell == "" else cell)


def _rows(path: Path) -> tuple[list[list[str]], str]:
    """Cells of all rows that are not empty, and what separates them."""
    content = path.read_bytes()
    if content.startswith(b"PK\x03\x04"):
        raise ValueError(f"{path} is no table of text, as of Excel: save it as CSV.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if "\0" in text or not text.strip():
        raise ValueError(
            f"{path} is no table: give a CSV with one row per image, whose first column names its "
            f"file."
        )
    lines = [line for line in unicodedata.normalize("NFC", text).splitlines() if line.strip()]
    if said := re.fullmatch(r"sep=([,;\t])", lines[0].strip(" ")):  # Excel's own first line
        lines = lines[1:] or [""]
    separator = said[1] if said else max(",;\t", key=lines[0].count)  # a comma without any
    try:
        found = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    except csv.Error as error:
        raise ValueError(f"{path} is no table ({error}): save it as CSV.") from error
    rows = [[cell.strip() for cell in row] for row in found if any(cell.strip() for cell in row)]
    if not rows:
        raise ValueError(f"{path} is no table: it has no names of columns.")
    return _without_empty_ends(rows), separator


def _without_empty_ends(rows: list[list[str]]) -> list[list[str]]:
    """Drop columns at the right that have neither name nor cells, as spreadsheets write them."""
    width = max((i for i, name in enumerate(rows[0], start=1) if name), default=0)
    return [row if any(row[width:]) else row[:width] for row in rows]
