"""What each image is for, and what is known of it: the user's table, drawn and spatial splits.

Pixels of one image are never shared out by chance: neighbours are alike, and a score on them would
say nothing. An image is cut, if at all, along x with a guard band between the parts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sciml_dchag.files.samples import resolve_samples
from sciml_dchag.files.tables import (
    columns_called,
    read_text_table,
    with_numbers,
)
from sciml_dchag.files.zarr_groups import (
    FINISHED_FOLDER,
    PICTURES_FOLDER,
    PROGRESS_FILE,
    require_plain_name,
)
from sciml_dchag.plants.prepare.config import PreparePlants
from sciml_dchag.plants.read.columns import IMAGE_COLUMNS, PLANT_ID_COLUMNS
from sciml_dchag.plants.store.cubes import SPLITS

_DATE = re.compile(r"(?<!\d)(19|20)\d\d([-_.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?!\d)")
"""A date in the name of an image."""
GUARD_COLUMNS = 4
"""Columns dropped between the parts of an image, unless said otherwise."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Parts of the images, or of the columns of each image, for training, validation and test."""

    fractions: tuple[float, float, float]
    """Of training, validation and test; they sum to one."""
    guard: int | None = None
    """Columns dropped between the parts of each image; None splits by image."""

    @classmethod
    def parse(cls, text: str) -> Split:
        """Read `0.8/0.1/0.1`, `0.8` (the rest is for testing) or `spatial:0.62,guard=4`.

        Raises:
            ValueError: it is none of these, or the parts do not sum to one.
        """
        match = re.fullmatch(r"(spatial:)?([0-9./]+)(?:,guard=(\d+))?", text.replace(" ", ""))
        example = (
            "give it as 0.8/0.1/0.1 for training, validation and test, or spatial:0.62,guard=4"
        )
        if match is None or (match[3] and not match[1]):
            raise ValueError(f"The split {text!r} is not understood: {example}.")
        try:
            parts = [float(part) for part in match[2].split("/")]
        except ValueError:
            parts = []
        if len(parts) == 1 and parts[0] <= 1:
            parts = [parts[0], 0.0, 1.0 - parts[0]]
        if len(parts) != 3 or abs(sum(parts) - 1) > 1e-6 or parts[0] == 0:
            raise ValueError(
                f"The split {text!r} has to be three parts that sum to 1, the first above 0: "
                f"{example}."
            )
        guard = int(match[3] or GUARD_COLUMNS) if match[1] else None
        return cls(fractions=(parts[0], parts[1], parts[2]), guard=guard)

    def cut(self, columns: int, name: str) -> dict[str, slice]:
        """Cut an image's columns into the parts, by split, with the guard between them dropped.

        Raises:
            ValueError: the image is too narrow.
        """
        assert self.guard is not None
        wanted = [split for split, part in zip(SPLITS, self.fractions, strict=True) if part > 0]
        left = columns - self.guard * (len(wanted) - 1)
        ends = np.cumsum([part for part in self.fractions if part > 0])
        bounds = [0, *(round(float(end) * left) for end in ends)]
        widths = np.diff(bounds)
        if left <= 0 or (widths < 1).any():
            raise ValueError(
                f"{name} is {columns} columns wide, too few for {len(wanted)} parts with "
                f"{self.guard} columns between them: choose another `split`."
            )
        return {
            split: slice(bounds[i] + i * self.guard, bounds[i + 1] + i * self.guard)
            for i, split in enumerate(wanted)
        }

    def draw(self, groups: Sequence[str], seed: int) -> list[str]:
        """Draw what each image is for; images of one group are for the same.

        Args:
            groups: the group of each image.
            seed: of the draw.
        """
        names = sorted(set(groups))
        order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
        # Rounded, and at least one group for training: a few images may leave a part empty.
        validation, test = (int(part * len(names) + 0.5) for part in self.fractions[1:])
        while validation + test >= len(names):
            validation, test = (validation - 1, test) if validation else (validation, test - 1)
        of_group = dict.fromkeys(order, "train")
        of_group.update(dict.fromkeys(order[:validation], "validation"))
        of_group.update(dict.fromkeys(order[validation : validation + test], "test"))
        return [of_group[group] for group in groups]


def safe_name(path: Path) -> str:
    """Make a name for an image out of its file's: letters, digits, `.`, `_` and `-`."""
    plain = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "_", plain).lstrip("._-") or "image"


def without_date(name: str) -> str:
    """The name of an image but for its date, which images of one plant or tray share."""
    return _DATE.sub("", name).strip("._-") or name


def name_images(paths: Sequence[Path]) -> list[str]:
    """Name images after their files, and where these repeat after their folders too.

    Raises:
        ValueError: two of them would have one name even so.
    """
    names = [safe_name(path) for path in paths]
    for depth in range(1, 1 + max(len(path.parts) for path in paths)):
        if not (same := _alike(names)):
            return names
        for i in same:
            folders = "_".join(part for part in paths[i].parts[:-1][-depth:] if part.strip("/."))
            names[i] = safe_name(Path(f"{folders}_{safe_name(paths[i])}.x"))
    for i in _alike(names):  # one folder, other suffixes
        names[i] = f"{names[i]}{paths[i].suffix.replace('.', '_').lower()}"
    if same := _alike(names):
        raise ValueError(
            f"{paths[same[0]]} and {paths[same[1]]} would both be called {names[same[0]]!r} in the "
            f"store: rename one of them."
        )
    return names


def _alike(names: Sequence[str]) -> list[int]:
    """Places of names that others have too; some file systems do not distinguish capitals."""
    small = [name.lower() for name in names]
    times = Counter(small)
    return [i for i, name in enumerate(small) if times[name] > 1]


def read_table(
    path: Path, images: Sequence[Path], names: Sequence[str], group_by: str | None = None
) -> pd.DataFrame:
    """Read what the user knows of the images.

    Args:
        path: CSV with a column of file names (`file`, `image`, `name`, ... or the first one), with
            or without suffix, and any others.
        images: the files.
        names: their names in the store.
        group_by: a column that stays text, as `1.10` and `1.1` are two plots.

    Returns:
        One row per image, in the order of the images, indexed by name; other rows are left out.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it is no table, images are missing in it, or its columns do not do.
    """
    found = read_text_table(path)
    found = found.rename(columns=lambda name: "split" if name.lower() == "split" else name)
    if list(found.columns).count("split") > 1:
        raise ValueError(f"The table {path} has two columns 'split': rename one of them.")
    spellings = _spellings(images, names)
    key = _key_column(found, set[str]().union(*spellings))
    keys = list(found.pop(key))
    if twice := sorted({value for value in keys if keys.count(value) > 1}):
        raise ValueError(f"The table {path} names {twice[0]} twice: keep one of the rows.")
    rows = [[i for i, value in enumerate(keys) if value in of_image] for of_image in spellings]
    missing = [image.name for image, row in zip(images, rows, strict=True) if not row]
    if missing:
        others = f" and {len(missing) - 5} others" if len(missing) > 5 else ""
        raise ValueError(
            f"The table {path} has no row of {', '.join(missing[:5])}{others}: add them in its "
            f"column {key!r}, or leave those images out."
        )
    if several := [image.name for image, row in zip(images, rows, strict=True) if len(row) > 1]:
        raise ValueError(f"The table {path} names {several[0]} twice: keep one of the rows.")
    _check_columns(path, found)
    identities = columns_called(found.columns, (*PLANT_ID_COLUMNS, "date"))
    if group_by is not None and group_by in found.columns:
        identities.append(group_by)
    table = with_numbers(found, path, identities).iloc[[row[0] for row in rows]]
    return table.set_index(pd.Index(list(names), name="cube"))


def _spellings(images: Sequence[Path], names: Sequence[str]) -> list[set[str]]:
    """What a table may call each image; a name that several images have stands for none of them."""
    each = []
    for image, name in zip(images, names, strict=True):
        files = [image.name, image.stem, f"{image.stem}.hdr", f"{image.name}.hdr"]
        files = [unicodedata.normalize("NFC", file) for file in files]  # as the table is
        folders = ["/".join(image.parts[-depth:-1]) for depth in range(2, len(image.parts) + 1)]
        each.append({name, *files, *(f"{folder}/{file}" for folder in folders for file in files)})
    times = Counter(spelling for of_image in each for spelling in of_image)
    return [{s for s in of_image if times[s] == 1 or s == name}
            for of_image, name in zip(each, names, strict=True)]  # fmt: skip


TAKEN = (
    "cube", "wavelength", "cubes", "statistics", "zarr.json", PROGRESS_FILE, f"{PROGRESS_FILE}.new",
    FINISHED_FOLDER, PICTURES_FOLDER,
)  # fmt: skip
"""Names in a plant store that no column may have."""


def _key_column(table: pd.DataFrame, spellings: AbstractSet[str]) -> str:
    """Find the column that names images: called so, best with images in it; else the first."""
    called = columns_called(table.columns, IMAGE_COLUMNS)
    with_images = [column for column in called if not spellings.isdisjoint(table[column])]
    return next(iter([*with_images, *called]), str(table.columns[0]))


def _check_columns(path: Path, table: pd.DataFrame) -> None:
    for column in table.columns:
        require_plain_name(column, f"A column of the table {path}")
        if column in TAKEN or column.startswith("."):
            raise ValueError(
                f"The table {path} has a column {column!r}, a name that the store cannot take: "
                f"rename it."
            )


def known_images(
    config: PreparePlants, parts: Split, paths: Sequence[Path], names: Sequence[str], seed: int
) -> tuple[pd.DataFrame, list[str]]:
    """Put together what is known of images: the user's table, and what each is for.

    Returns:
        One row per image, indexed by name, with a column `split` unless images are cut; remarks.

    Raises:
        FileNotFoundError, ValueError: as of `read_table` and `assign`, or no image is for training.
    """
    known, remarks = pd.DataFrame(index=pd.Index(list(names), name="cube")), list[str]()
    if config.table is not None:
        table = Path(resolve_samples([config.table])[0])
        known = read_table(table, paths, names, config.group_by)
    if parts.guard is None:
        known["split"], remarks = assign(known, parts, config.group_by, seed, config.table)
        if "train" not in set(known["split"]):
            raise ValueError("No image is for training: choose another `split`.")
    return known, remarks


def assign(
    table: pd.DataFrame, split: Split, group_by: str | None, seed: int, path: str | None
) -> tuple[list[str], list[str]]:
    """Say what each image is for: by the table's own column `split`, or by a draw.

    Images of one plant are for the same: those of one `plant_id`, or whose names differ in a date.

    Returns:
        The split of each image, and remarks.

    Raises:
        ValueError: no column to group by, a row without a group, or another word than the three.
    """
    if "split" in table:
        words = [str(word).strip().lower() for word in table["split"]]
        if wrong := [word for word in words if word not in SPLITS]:
            raise ValueError(
                f"The column split of {path} holds {wrong[0]!r}: write train, validation or test."
            )
        return words, []
    groups = _groups(table, group_by, path)
    drawn = split.draw(groups, seed)
    counts = [drawn.count(part) for part in SPLITS]
    empty = [
        part for part, wanted in zip(SPLITS, split.fractions, strict=True)
        if wanted > 0 and part not in drawn
    ]  # fmt: skip
    if not empty or len(drawn) == 1:
        return drawn, []
    what = "images" if len(set(groups)) == len(groups) else f"images of {len(set(groups))} plants"
    return drawn, [
        f"{len(drawn)} {what} give {counts[0]} for training, {counts[1]} for validation and "
        f"{counts[2]} for test: choose another `split`, such as "
        f"{'0.6/0.2/0.2' if len(set(groups)) > 4 else '0.5'}, or a column split of a table."
    ]


def _groups(table: pd.DataFrame, group_by: str | None, path: str | None) -> list[str]:
    """The group of each image: by the column asked for, by plant, or the image itself."""
    if group_by is None:
        group_by = next(iter(columns_called(table.columns, PLANT_ID_COLUMNS)), None)
        if group_by is None or table[group_by].isna().any():
            return [without_date(str(name)) for name in table.index]
    if group_by not in table:
        have = f"its columns are {', '.join(map(str, table.columns))}" if path else "there is none"
        raise ValueError(
            f"`group_by={group_by}` needs such a column in the table, but {have}: name another, or "
            f"add it."
        )
    if table[group_by].isna().any():
        without = table.index[table[group_by].isna()][0]
        raise ValueError(f"{path} has no {group_by} of {without}: fill it in, to group by it.")
    return [str(value) for value in table[group_by]]
