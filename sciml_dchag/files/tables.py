"""Tables of the user, read as text before anything is taken for a number.

`001` stays what it is and `NA` may be the name of a genotype; commas, semicolons and tabs separate,
and a decimal comma is read where the comma does not separate.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MOST_BYTES = 2**28
"""A packed table unfolds to no more."""
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "None", "NULL", "null", "-")
"""What stands for a missing number in a column of numbers."""
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_COMMA_NUMBER = re.compile(r"[-+]?(\d+(,\d*)?|,\d+)([eE][-+]?\d+)?")
_NO_THOUSANDS = re.compile(r",(?!\d{3}$)")
"""In a cell in quotes: `"1,5"`, and not `"1,500"`, which may be either."""
_CODE = re.compile(r"[-+]?0\d+")
"""A number that begins with a zero too many is a name."""


def read_text_table(path: Path) -> pd.DataFrame:
    """Read a table whose cells are text, stripped of blanks; empty ones are empty text.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no table of text with one name a column.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no table {path}: check its name.")
    rows, _ = read_rows(path)
    names = rows[0]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"The table {path} has two columns {twice[0]!r}: rename one of them.")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(names):
            raise ValueError(
                f"{path} is no table: row {number} has {len(row)} cells and the first one "
                f"{len(names)} names, so give a CSV whose rows are as long as its first."
            )
    return pd.DataFrame(rows[1:], columns=pd.Index(names), dtype=object)


def plain_name(column: object) -> str:
    """Spell the name of a column without capitals, blanks, dashes and underscores."""
    return re.sub(r"[\s_-]+", "", str(column)).lower()


def columns_called(columns: Iterable[object], names: Sequence[str]) -> list[str]:
    """Return those of a table's columns that have one of some names, in the order of the names."""
    plain = {str(column): plain_name(column) for column in columns}
    return [column for name in names for column, spelt in plain.items() if spelt == name]


def comma_is_decimal(path: Path) -> bool:
    """Whether a comma in a table's cell is a decimal one, as something else separates cells."""
    return read_rows(path)[1] != ","


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
    if not plain and (decimal or any(_NO_THOUSANDS.search(cell) for cell in known)):
        plain = all(_COMMA_NUMBER.fullmatch(cell) for cell in known)
        known, cells = ([cell.replace(",", ".") for cell in some] for some in (known, cells))
    if not known or not plain or any(_CODE.fullmatch(cell) for cell in known):
        return _text(column)
    numbers = np.array([np.nan if cell in MISSING else float(cell) for cell in cells])
    whole = len(known) == len(cells) and all(re.fullmatch(r"[-+]?\d{1,18}", c) for c in known)
    values = np.array([int(cell) for cell in cells]) if whole else numbers
    return pd.Series(values, index=column.index, name=column.name)


MARKS = (-99.0, -999.0, -9999.0, -99999.0, 999.0, 9999.0, 99999.0)
"""Numbers that stand for what was not measured in many tables."""


def refuse_marks(numbers: NDArray[np.float64], name: str, where: str) -> None:
    """Refuse a usual mark of missing values that is far from all other numbers of a column.

    Args:
        numbers: of the column, NaN where there is none, (rows,).
        name: what messages call the column.
        where: what they call the table.

    Raises:
        ValueError: which mark, and in how many rows.
    """
    known = numbers[np.isfinite(numbers)]
    for mark in MARKS:
        others = known[known != mark]
        if len(others) == len(known) or not len(others):
            continue
        gap, spread = np.abs(others - mark).min(), np.ptp(others)
        impossible = mark < 0 and others.min() >= 0
        if gap > abs(mark) / 5 and (impossible or gap > 2 * spread):
            raise ValueError(
                f"{where} has {mark:g} as {name} in {len(known) - len(others)} row(s), and "
                f"{others.min():g} to {others.max():g} in the others: leave the cell empty where "
                f"nothing was measured."
            )


def _text(column: pd.Series) -> pd.Series:
    return column.map(lambda cell: None if cell == "" else cell)


def read_rows(path: Path, comments: str = "") -> tuple[list[list[str]], str]:
    """Cells of all rows that are not empty, stripped of blanks, and what separates them.

    Args:
        path: text in UTF-8, UTF-16 (Excel's "Unicode text") or Latin-1, whose cells commas,
            semicolons or tabs separate.
        comments: letters with which lines begin that are left out.

    Raises:
        ValueError: it is no table of text.
    """
    text = unicodedata.normalize("NFC", read_text(path))
    lines = [line for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if line.lstrip()[0] not in comments]
    if not lines:
        raise ValueError(
            f"{path} is no table, as it is empty: give a CSV whose first row names its columns."
        )
    if said := re.fullmatch(r"sep=([,;\t])", lines[0].strip(" ")):  # Excel's own first line
        lines = lines[1:] or [""]
    try:
        separator = said[1] if said else _separator(lines)
        found = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    except csv.Error as error:
        raise ValueError(f"{path} is no table ({error}): save it as CSV.") from error
    rows = [[cell.strip() for cell in row] for row in found if any(cell.strip() for cell in row)]
    if not rows:
        raise ValueError(f"{path} is no table: it has no names of columns.")
    return _without_empty_ends(rows), separator


def read_text(path: Path) -> str:
    """Text of a file that a spreadsheet or an editor has saved, in the encoding that it is in.

    A file packed by gzip is unpacked.

    Raises:
        ValueError: it is a workbook of Excel or holds no text.
    """
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        content = _unpacked(content, path)
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise ValueError(f"{path} is no table of text, as of Excel: save it as CSV.")
    encodings = ["utf-8-sig", "latin-1"]
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    elif content[1::2].count(0) > len(content) / 4:  # without a mark, as names are mostly ASCII
        encodings = ["utf-16-le"]
    elif content[::2].count(0) > len(content) / 4:
        encodings = ["utf-16-be"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise ValueError(f"{path} is no text: save it as CSV.")


def _unpacked(content: bytes, path: Path) -> bytes:
    """What a gzip file holds, of a size that a table may have."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            unpacked = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is a damaged gzip file ({error}): copy it again.") from error
    if len(unpacked) > MOST_BYTES:
        raise ValueError(f"{path} holds more than {MOST_BYTES:,} bytes: give a smaller table.")
    return unpacked


def _separator(lines: Sequence[str]) -> str:
    """What separates cells: what gives all rows the same number of them, a comma last.

    A comma may be a decimal one, or stand in the name of a column.
    """
    widths = {}
    for separator in "\t;,":
        rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
        widths[separator] = {len(row) for row in rows}
    for separator, width in widths.items():
        if len(width) == 1 and max(width) > 1:
            return separator
    return max(",;\t", key=lines[0].count)  # a comma without any


def _without_empty_ends(rows: list[list[str]]) -> list[list[str]]:
    """Drop columns at the right that have neither name nor cells, as spreadsheets write them."""
    width = max((i for i, name in enumerate(rows[0], start=1) if name), default=0)
    return [row if any(row[width:]) else row[:width] for row in rows]
