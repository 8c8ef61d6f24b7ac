"""A table of measured traits: read, matched to the images of a store, checked trait by trait.

A row is a plant (columns `cube` and `plant`) or a whole image (`cube` alone); `cube` (or `file`,
`image`, or the first column) is the image's file name, with or without folder and suffix. Without
it, rows are found by `plant_id`, and `date` if both tables have it. Names of these columns may have
any capitals. Units stand in the column's name: `LMA (g m-2)`.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sciml_dchag.files.tables import (
    columns_called,
    read_text_table,
    refuse_marks,
    with_numbers,
)
from sciml_dchag.plants.prepare.splits import safe_name
from sciml_dchag.plants.read.columns import IMAGE_COLUMNS, PLANT_ID_COLUMNS

KEYS = ("cube", "plant")
NEARLY = 0.5
"""A column with no more cells that are no numbers is meant as a trait."""
_LIKE_NUMBER = re.compile(r"[<>~]?\s*[-+]?\d[\d,.' ]*\s*%?")
"""With a thousands separator, a percent sign or a bound, which is not read."""
IDENTITY = ("plant_id", "date")
"""What a plant is known by instead, in both tables."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Traits:
    """A table of traits whose rows are matched to plants or images."""

    path: Path
    """The file."""
    table: pd.DataFrame
    """The rows that were matched, `cube` being the image's name in the store."""
    keys: list[str]
    """`cube` and `plant`, or `cube` alone where a row is a whole image."""

    def choose(self, names: Sequence[str], group: str | None) -> list[str]:
        """Return the traits asked for, or every column of numbers.

        Raises:
            ValueError: no such column, or one that holds no numbers.
        """
        columns = [str(name) for name in self.table.columns if name not in KEYS]
        for name in names:
            if name not in columns:
                nearest = difflib.get_close_matches(name, columns, n=1, cutoff=0.4)
                meant = f"did you mean {nearest[0]!r}?" if nearest else f"it has {columns}."
                raise ValueError(f"{self.path} has no trait {name!r}: {meant}")
            _numbers(self.path, self.table[name])
        if names:
            return list(dict.fromkeys(names))
        numeric = [
            name
            for name in columns
            if name not in ("", group, *IDENTITY)
            and pd.api.types.is_numeric_dtype(self.table[name])
        ]
        _tell_nearly_numbers(self.path, self.table[[c for c in columns if c not in numeric]])
        if not numeric:
            raise ValueError(
                f"{self.path} has no column of numbers beside its keys: add a trait to it."
            )
        return numeric

    def values(self, name: str) -> pd.Series:
        """Return a trait as float64 by row of the table, NaN where it was not measured."""
        numbers = _numbers(self.path, self.table[name])
        refuse_marks(numbers.to_numpy(), f"the trait {name!r}", str(self.path))
        return numbers.where(np.isfinite(numbers))


def read_traits(path: Path, plants: pd.DataFrame) -> Traits:
    """Read a CSV of traits and keep the rows of plants that are known.

    Rows of unknown plants, and known plants without a row, are left out with a warning that says
    which.

    Args:
        path: the table.
        plants: known plants, with the columns `cube` and `plant`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no column `cube`, a plant that is no whole number, or no row of a known plant.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no table of traits at {path}: name a CSV file.")
    text = read_text_table(path)
    known_cubes = set(plants["cube"])
    text = _with_our_keys(path, text, known_cubes)
    table = with_numbers(text, path, ("cube", *IDENTITY))
    if "cube" not in table.columns:
        table = _with_images(path, table, _with_identity(plants))
    keys = [key for key in KEYS if key in table.columns]
    matched = table.assign(cube=[_image(str(name), known_cubes) for name in table["cube"]])
    if "plant" in keys:
        matched["plant"] = _plant_numbers(path, table["plant"])
    known = pd.MultiIndex.from_frame(plants[keys]).unique()
    found = pd.MultiIndex.from_frame(matched[keys]).isin(known)
    if not found.any():
        raise ValueError(
            f"No row of {path} is one of the known plants: its first is "
            f"{_label(table.iloc[0], keys)}, and theirs is {_label(plants.iloc[0], keys)}."
        )
    _tell(f"{path} has rows of no known plant", table[~found], keys)
    matched = matched[found].reset_index(drop=True)
    repeated = matched[matched.duplicated(keys)].drop_duplicates(keys)
    _tell(f"{path} has several rows of one plant, each of which counts", repeated, keys)
    without = known[~known.isin(pd.MultiIndex.from_frame(matched[keys]))].to_frame(index=False)
    _tell(f"{path} lacks plants, which are left out", without, keys)
    return Traits(path=path, table=matched, keys=keys)


def _with_our_keys(path: Path, table: pd.DataFrame, known: set[str]) -> pd.DataFrame:
    """Call the columns that name images and plants `cube`, `plant`, `plant_id` and `date`.

    Raises:
        ValueError: two of them would be called the same.
    """
    found = _with_identity(table)
    numbers = [  # in other capitals it may be what plants are called
        name
        for name in columns_called(found.columns, ("plant",))
        if all(re.fullmatch(r"\d+(\.0*)?", str(cell)) for cell in found[name])
    ]
    found = found.rename(columns={name: "plant" for name in numbers})
    if "cube" not in found.columns:
        naming = columns_called(found.columns, IMAGE_COLUMNS)
        of_images = [
            name
            for name in dict.fromkeys([*naming, str(found.columns[0])])
            if name not in (*KEYS, *IDENTITY)
            and any(_image(str(cell), known) for cell in found[name])
        ]
        if of_images or "plant_id" not in found.columns:
            found = found.rename(columns={name: "cube" for name in (*of_images, *naming)[:1]})
    names = list(found.columns)
    if twice := [key for key in (*KEYS, *IDENTITY) if names.count(key) > 1]:
        raise ValueError(f"The table {path} has two columns {twice[0]!r}: rename one of them.")
    return found


def _with_identity(table: pd.DataFrame) -> pd.DataFrame:
    """Call the columns of an identity as we do."""
    said = {"plant_id": PLANT_ID_COLUMNS, "date": ("date",)}
    return table.rename(
        columns={name: key for key, names in said.items() for name in columns_called(table, names)}
    )


def _with_images(path: Path, table: pd.DataFrame, plants: pd.DataFrame) -> pd.DataFrame:
    """Find the image and the number of each row's plant by its identity.

    Raises:
        ValueError: no column `cube` or of an identity, or an identity that several plants have.
    """
    keys = [key for key in IDENTITY if key in table.columns and key in plants.columns]
    if "plant_id" not in keys:
        raise ValueError(
            f"{path} has the columns {', '.join(map(str, table.columns[:8]))} where `cube` or "
            f"`file` (the image's file name) is needed, or `plant_id` as in the store's table: "
            f"name the column so."
        )
    of_plant: dict[tuple[str, ...], tuple[str, int]] = {}
    for row in plants.to_dict("records"):
        identity = tuple(str(row[key]) for key in keys)
        if identity in of_plant:
            raise ValueError(
                f"{', '.join(f'{k} {v}' for k, v in zip(keys, identity, strict=True))} is that of "
                f"several plants or images: add a column `date` to {path.name} and "
                f"to the store's table, or name images in a column `cube`."
            )
        of_plant[identity] = (str(row["cube"]), int(row["plant"]))
    found = [of_plant.get(tuple(str(row[key]) for key in keys)) for row in table.to_dict("records")]
    return table.assign(
        cube=["" if one is None else one[0] for one in found],
        plant=[0 if one is None else one[1] for one in found],
    )


def _tell_nearly_numbers(path: Path, table: pd.DataFrame) -> None:
    """Warn of columns that are no trait as some of their cells are no numbers."""
    for name in table.columns:
        column = table[name].dropna()
        wrong = column[~np.isfinite(pd.to_numeric(column, errors="coerce"))]
        meant = len(wrong) <= NEARLY * len(column) or all(
            map(_LIKE_NUMBER.fullmatch, map(str, wrong))
        )
        if len(wrong) and meant:
            warnings.warn(
                f"{path} holds {wrong.iloc[0]!r} in the column {name!r}, which is left out as no "
                f"numbers: fix it, or leave the cell empty.",
                stacklevel=4,
            )


def split_units(column: str) -> tuple[str, str]:
    """Take the units in brackets off a column's name: `LMA (g m-2)` is ("LMA", "g m-2")."""
    found = re.fullmatch(r"\s*(.+?)\s*[(\[]([^()\[\]]*)[)\]]\s*", column)
    return (found[1], found[2]) if found else (column.strip(), "")


def _image(name: str, known: set[str]) -> str | None:
    """The known image that a file name stands for: its own, or that without some suffixes.

    An image whose file's name has blanks or umlauts is called without them in the store.
    """
    name = re.split(r"[\\/]", name.strip())[-1]
    while name not in known and "." in name:
        if (safe := safe_name(Path(name))) in known:
            return safe
        name = name.rsplit(".", 1)[0]
    return next((one for one in (name, safe_name(Path(f"{name}.x"))) if one in known), None)


def _plant_numbers(path: Path, column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = ~(numbers % 1 == 0)
    if wrong.any():
        raise ValueError(
            f"{path} names a plant {column[wrong].iloc[0]!r} where the plant's number in the mask "
            f"(1, 2, ...) is needed: fix the column `plant`, or leave it out for whole images."
        )
    return numbers.astype(np.int64)


def _numbers(path: Path, column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(np.float64)
    wrong = numbers.isna() & column.notna()
    if wrong.any():
        raise ValueError(
            f"{path} holds {column[wrong].iloc[0]!r} in the trait {column.name!r} where a number "
            f"or nothing is needed: fix it."
        )
    return numbers


def _label(row: pd.Series, keys: Sequence[str]) -> str:
    return " plant ".join(str(row[key]) for key in keys)


def _tell(what: str, rows: pd.DataFrame, keys: Sequence[str]) -> None:
    labels = [_label(row, keys) for _, row in rows.iloc[:8].iterrows()]
    if labels:
        more = f" and {len(rows) - len(labels)} more" if len(rows) > len(labels) else ""
        warnings.warn(f"{what}: {', '.join(labels)}{more}.", stacklevel=3)
