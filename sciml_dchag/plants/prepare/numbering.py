"""Which number a plant gets, so that it keeps it: by pot, by place in a series, or row by row.

Numbers from left to right alone change with a shift of one pixel, and with a plant that dies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int32]
Place = tuple[float, float]

ROW_APART = 0.5
"""Centroids further apart in y than so much of the plants' height lie in different rows."""
ONE_PLACE = 0.5
"""Centroids of one plant in two images are closer than so much of the distance of neighbours."""
MOST_SHIFT = 0.75
"""All plants of an image may be shifted together by so much of the distance of neighbours."""
MOST_PLACES = 1.5
"""More places than so many times the plants of the fullest image: no series of the same plants."""
IN_ONE_POT = 0.9
"""An object with so much of its area in one pot belongs to it; others are cut at the pots' borders,
as touching plants are."""


@dataclass(frozen=True)
class Pots:
    """The pots of all images: a grid that fills each, or a label image."""

    rows: int = 0
    columns: int = 0
    labels: Labels | None = None
    """Number of the pot at each pixel, 0 between them; None for a grid."""
    source: str = ""
    """What the user gave."""

    def at(self, shape: tuple[int, int]) -> Labels:
        """Number of the pot at each pixel of an image, (rows, columns).

        Raises:
            ValueError: the label image is of another size.
        """
        if self.labels is not None:
            if self.labels.shape != shape:
                raise ValueError(
                    f"The label image {self.source} has {' x '.join(map(str, self.labels.shape))} "
                    f"pixels and the image {shape[0]} x {shape[1]}: give `pots` of the same size."
                )
            return self.labels
        row = np.arange(shape[0]) * self.rows // shape[0]
        column = np.arange(shape[1]) * self.columns // shape[1]
        return np.asarray(1 + row[:, None] * self.columns + column, np.int32)


def parse_grid(text: str) -> Pots | None:
    """Read `2x3`, rows by columns; None for anything else, such as the name of a file.

    Raises:
        ValueError: a grid of no pots.
    """
    match = re.fullmatch(r"\s*(\d+)\s*x\s*(\d+)\s*", text)
    if match is None:
        return None
    rows, columns = int(match[1]), int(match[2])
    if rows < 1 or columns < 1:
        raise ValueError(f"`pots={text}` has no pots: give ROWSxCOLUMNS, such as 2x3.")
    return Pots(rows=rows, columns=columns, source=text)


def by_pots(objects: Labels, pots: Labels) -> tuple[Labels, int]:
    """Number plants after their pots.

    Args:
        objects: 0 for background, and one number an object, (rows, columns).
        pots: number of the pot, 0 between them, (rows, columns).

    Returns:
        Plants by the number of their pot, and how many pixels lie between pots, which are left out.
    """
    plants = np.where(objects > 0, pots, 0).astype(np.int32)
    for number in np.unique(objects[objects > 0]):
        mine = objects == number
        below, times = np.unique(pots[mine], return_counts=True)
        if times.max() >= IN_ONE_POT * mine.sum() and below[times.argmax()]:
            plants[mine] = below[times.argmax()]  # a leaf that reaches over the border
    return plants, int(((objects > 0) & (plants == 0)).sum())


def row_by_row(places: Sequence[Place], heights: Sequence[float]) -> list[int]:
    """Order places from left to right in rows from the top, with a tolerance in y.

    Args:
        places: centroids, (y, x).
        heights: of the plants.

    Returns:
        The number of each, from 1 on.
    """
    if not len(places):
        return []
    by_y = sorted(range(len(places)), key=lambda i: places[i])
    apart = ROW_APART * float(np.median(heights))
    row = {by_y[0]: 0}
    for upper, lower in pairwise(by_y):
        row[lower] = row[upper] + (places[lower][0] - places[upper][0] > apart)
    order = sorted(range(len(places)), key=lambda i: (row[i], places[i][1]))
    numbers = [0] * len(places)
    for number, i in enumerate(order, start=1):
        numbers[i] = number
    return numbers


def in_series(images: Mapping[str, Sequence[Place]]) -> dict[str, list[int]] | None:
    """Find the places that plants of a series of images share.

    Args:
        images: centroids of the plants of each image, all of one size, in the same view.

    Returns:
        The place of each plant, from 0 on, by image; None where these are no images of the same
        plants: fewer than two images, at most one plant in each, or places that do not recur.
    """
    most = max((len(places) for places in images.values()), default=0)
    if len([1 for places in images.values() if places]) < 2 or most < 2:
        return None
    spacing = min(_nearest(places) for places in images.values() if len(places) > 1)
    known: list[Place] = []
    found: dict[str, list[int]] = {}
    for name, places in images.items():
        mine: list[int] = []
        down, right = _shift(places, known, spacing)
        for place in ((y + down, x + right) for y, x in places):
            apart = [np.hypot(place[0] - y, place[1] - x) for y, x in known]
            nearest = int(np.argmin(apart)) if apart else -1
            if nearest < 0 or apart[nearest] >= ONE_PLACE * spacing:
                known.append(place)
                nearest = len(known) - 1
            mine.append(nearest)
        if len(set(mine)) < len(mine):
            return None
        found[name] = mine
    if len(known) > MOST_PLACES * most:
        return None
    return found


def _shift(places: Sequence[Place], known: Sequence[Place], spacing: float) -> Place:
    """What brings most places of an image to known ones: the smallest of such, none if it does.

    A tray that is put down anew lies a little elsewhere; one that moved by a whole pot cannot be
    told from plants that died on one side and came up on the other.
    """
    if not places or not known:
        return 0.0, 0.0
    mine, there = np.asarray(places), np.asarray(known)
    every = (there[:, None] - mine).reshape(-1, 2)
    size = np.linalg.norm(every, axis=1)
    some = every[size <= MOST_SHIFT * spacing]
    best, most = (0.0, 0.0), -1
    for down, right in [(0.0, 0.0), *some[np.argsort(np.linalg.norm(some, axis=1))].tolist()]:
        apart = np.linalg.norm(mine[:, None] + (down, right) - there, axis=-1).min(axis=1)
        matches = int((apart < ONE_PLACE * spacing).sum())
        if matches > most:
            best, most = (down, right), matches
    return best


def _nearest(places: Sequence[Place]) -> float:
    points = np.asarray(places)
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    return float(apart[apart > 0].min())


def read_pots(text: str | None, drawings: list[str]) -> Pots | None:
    """Read what `pots` says: a grid, or a label image.

    Args:
        text: what it says.
        drawings: as of `mask_files.read_labels`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is neither.
    """
    if text is None or (grid := parse_grid(text)) is not None:
        return None if text is None else grid
    from sciml_dchag.plants.prepare.mask_files import read_labels

    if not Path(text).is_file():
        raise FileNotFoundError(
            f"`pots={text}` is neither ROWSxCOLUMNS, such as 2x3, nor a label image that is there: "
            f"check its name."
        )
    return Pots(labels=read_labels(Path(text), drawings), source=Path(text).name)
