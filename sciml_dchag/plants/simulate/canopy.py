"""The shape of a synthetic poplar seen from above: which leaf lies where, and how it is lit.

A map at twice the resolution of the image says for each point what is on top, how much light falls
on it directly, and how much through a leaf. Spectra are `poplars.py`'s concern, the camera's noise
`line_camera.py`'s. The picture is made to have a canopy's structure, not to be one: leaves are flat
ovals folded at the midrib, and light is scattered once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

FINER = 2
"""Points of the map along each side of a pixel."""

BACKGROUND = ("stem", "tray", "dry soil", "wet soil")
"""Materials behind the leaves, in this order after them."""

GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))
"""Between leaves that follow each other along a stem."""

SKY = 0.3
"""Share of the light on a level surface that comes from everywhere and that no leaf holds up."""
SUN_ELEVATION = np.deg2rad(55)
FOLD = 0.25
"""Slope of the two halves of a leaf towards its midrib."""
GLINTS = 4e-4
"""Share of the pixels of leaves that reflect a lamp."""
GLOSS_EXPONENT = 30.0
"""How narrow a leaf's gloss is; half of it within 12 degrees of the mirror's direction."""

Map = NDArray[np.float32]


@dataclass(frozen=True)
class Canopy:
    """A plant drawn on a map of (FINER * rows, FINER * columns) points."""

    leaves: int
    """Number of kinds of leaf: of leaves, times the states that each may be in."""
    material: NDArray[np.int16]
    """Kind of leaf 0, 1, ... on top at each point, then the `BACKGROUND` that follows them."""
    direct: Map
    """Light that comes straight, as a share of that on a level surface in the open."""
    filtered: Map
    """Light that came through a leaf, before that leaf took its part."""
    moisture: Map
    """Of the soil, 0 to 1; 0 elsewhere."""
    glint: Map
    """Mirrored light in each pixel, (rows, columns), 0 almost everywhere."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the image."""
        rows, columns = self.glint.shape
        return int(rows), int(columns)

    def leaf_share(self) -> Map:
        """Return the share of each pixel that is leaf, (rows, columns)."""
        rows, columns = self.size
        on_leaf = (self.material < self.leaves).astype(np.float32)
        return on_leaf.reshape(rows, FINER, columns, FINER).mean(axis=(1, 3))

    def weights(self, first: int, stop: int) -> scipy.sparse.csr_array:
        """Return what each pixel of some rows is mixed of.

        Columns are all materials in direct light, all materials in light that came through a leaf,
        and the glint; a row is a pixel, its weights are light times area.
        """
        columns, materials = self.size[1], self.leaves + len(BACKGROUND)
        points = np.s_[first * FINER : stop * FINER]
        material, moisture = self.material[points].ravel(), self.moisture[points].ravel()
        line, sample = np.divmod(np.arange(material.size), columns * FINER)
        pixel = line // FINER * columns + sample // FINER
        soil = np.flatnonzero(moisture)
        parts: list[tuple[NDArray[Any], ...]] = []
        for light, shift in ((self.direct, 0), (self.filtered, materials)):
            lit = light[points].ravel() / FINER**2
            parts.append((lit * (1 - moisture), pixel, material + shift))
            parts.append(((lit * moisture)[soil], pixel[soil], material[soil] + 1 + shift))
        glint = self.glint[first:stop].ravel()
        shining = np.flatnonzero(glint)
        parts.append((glint[shining], shining, np.full(len(shining), 2 * materials)))
        values, at, column = (np.concatenate(items) for items in zip(*parts, strict=True))
        shape = ((stop - first) * columns, 2 * materials + 1)
        return scipy.sparse.coo_array(
            (values.astype(np.float32), (at, column)), shape=shape
        ).tocsr()


def draw_canopy(
    rng: np.random.Generator,
    size: tuple[int, int],
    leaves: int,
    wilting: float,
    *,
    plants: int = 1,
    tilt: float = 0.15,
    heights: tuple[float, float] = (0.03, 0.03),
    gloss: float = 0.0,
) -> Canopy:
    """Draw plants from the lowest, outermost leaves to the topmost in the middle.

    Light that a leaf's surface mirrors towards the camera, which looks straight down, is
    gloss (n h)^GLOSS_EXPONENT, with n the normal of the leaf's half and h halfway between lamp and
    camera (Blinn 1977, Models of light reflection for computer synthesized pictures).

    Args:
        rng: draws their shape.
        size: rows and columns of the image.
        leaves: number of leaves of all plants; 0 is the topmost.
        wilting: 0 for turgid plants; leaves of 1 hang steeply in all directions.
        plants: side by side and so close that they touch; leaf i is of plant i modulo `plants`.
        tilt: standard deviation of the slope of a turgid leaf.
        heights: of a leaf above what it shades, from and to, as a share of the image's rows.
        gloss: largest reflectance of the mirrored light; 0 for matt leaves.
    """
    fine = (size[0] * FINER, size[1] * FINER)
    y, x = np.mgrid[: fine[0], : fine[1]].astype(np.float32)
    centre = np.array([fine[0], fine[1]]) / 2 * (1 + rng.uniform(-0.06, 0.06, 2))
    reach = np.array([fine[0], fine[1]]) * rng.uniform(0.30, 0.38, 2)
    moisture = _soil(rng, y, x, np.array(fine) / 2, np.array(fine) * 0.46)
    stem, tray, dry = leaves, leaves + 1, leaves + 2
    material = np.where(moisture > 0, dry, tray).astype(np.int16)
    direct = np.ones(fine, np.float32)
    filtered = np.zeros(fine, np.float32)
    gloss_map = np.zeros(fine, np.float32)
    azimuth = rng.uniform(0, 2 * np.pi)
    to_sun = np.array([np.sin(azimuth), np.cos(azimuth)])
    turned = rng.uniform(0, 2 * np.pi)
    gap = np.array([0.0, fine[1] * 0.8 / plants])
    reach = reach * np.array([1.0, 1.5 / plants if plants > 1 else 1.0])
    for leaf in reversed(range(leaves)):
        root = centre + gap * (leaf % plants - (plants - 1) / 2)
        outward = np.sqrt((leaf // plants + 0.5) / (leaves / plants))
        angle = turned + leaf * GOLDEN_ANGLE + rng.normal(0, 0.2)
        heading = np.array([np.sin(angle), np.cos(angle)])
        middle = root + heading * reach * np.minimum(outward, 1.0)
        length = fine[0] * rng.uniform(0.17, 0.26) * (0.55 + 0.45 * outward)
        petiole = _segment(y, x, root, middle, 0.006 * fine[0] * (1 - 0.5 * outward))
        on_leaf, across, window = _oval(y, x, middle, angle + rng.normal(0, 0.25), length)
        slope = rng.normal(0, tilt + 0.35 * wilting, 2) + 0.35 * wilting * heading
        sides = np.sign(across) * FOLD
        normal = (slope[0] + sides * heading[1], slope[1] - sides * heading[0])
        level = np.sin(SUN_ELEVATION)
        towards = normal[0] * to_sun[0] + normal[1] * to_sun[1]
        facing = (level + np.cos(SUN_ELEVATION) * towards) / np.sqrt(
            1 + normal[0] ** 2 + normal[1] ** 2
        )
        lit = SKY + (1 - SKY) * np.maximum(facing, 0.05) / level
        lit *= 1 + 0.10 * np.exp(-((across / 0.06) ** 2))  # a pale midrib
        height = heights[0] if heights[0] == heights[1] else rng.uniform(*heights)
        _cast_shadow(direct, filtered, gloss_map, on_leaf, window, -to_sun * height * fine[0])
        above = (filtered, 0.0), (moisture, 0.0)
        _paint((material, stem), (direct, 1.0), (gloss_map, 0.0), *above, where=petiole)
        shine = gloss * _mirrored(normal, to_sun) if gloss else 0.0
        on_top = (on_leaf, window)
        _paint((material, leaf), (direct, lit), (gloss_map, shine), *above, where=on_top)
    on_leaves = (material < leaves).reshape(size[0], FINER, size[1], FINER).all(axis=(1, 3))
    shining = on_leaves & (rng.random(size) < GLINTS)
    glint = np.where(shining, rng.uniform(2.0, 5.0, size), 0.0).astype(np.float32)
    glint += gloss_map.reshape(size[0], FINER, size[1], FINER).mean(axis=(1, 3))
    return Canopy(leaves, material, direct, filtered, moisture, glint)


def _mirrored(normal: tuple[Any, Any], to_sun: NDArray[np.float64]) -> Any:
    """Return (n h)^GLOSS_EXPONENT for normals (-y, -x slope, 1), as `draw_canopy` describes."""
    half = np.array([*(np.cos(SUN_ELEVATION) * to_sun), np.sin(SUN_ELEVATION) + 1.0])
    half /= np.linalg.norm(half)
    along = normal[0] * half[0] + normal[1] * half[1] + half[2]
    return np.maximum(along / np.sqrt(1 + normal[0] ** 2 + normal[1] ** 2), 0) ** GLOSS_EXPONENT


def _paint(
    *fields: tuple[NDArray[Any], Any], where: tuple[NDArray[np.bool_], tuple[slice, slice]]
) -> None:
    """Set fields, each to its value, at the points of a window."""
    points, window = where
    for field, value in fields:
        field[window] = np.where(points, value, field[window])


def _soil(
    rng: np.random.Generator, y: Map, x: Map, centre: NDArray[Any], half: NDArray[Any]
) -> Map:
    """Draw the moisture of the soil in an oval tray, above 0 there and 0 outside."""
    inside = ((y - centre[0]) / half[0]) ** 2 + ((x - centre[1]) / half[1]) ** 2 < 1
    coarse = rng.uniform(-1, 1, (9, 9))
    rows = np.linspace(0, 8, y.shape[0])
    columns = np.linspace(0, 8, y.shape[1])
    by_row = np.stack([np.interp(rows, np.arange(9), column) for column in coarse.T], axis=1)
    smooth = np.stack([np.interp(columns, np.arange(9), row) for row in by_row])
    grain = rng.normal(0, 0.12, y.shape)
    moisture = np.clip(rng.uniform(0.2, 0.8) + 0.3 * smooth + grain, 0.02, 0.98)
    return np.where(inside, moisture, 0.0).astype(np.float32)


def _oval(
    y: Map, x: Map, middle: NDArray[np.float64], angle: float, length: float
) -> tuple[NDArray[np.bool_], Map, tuple[slice, slice]]:
    """Return the points of a leaf, the place across it (-1 to 1), and the window of both."""
    half = length / 2
    window = _window(y.shape, middle - half, middle + half)
    dy, dx = y[window] - middle[0], x[window] - middle[1]
    along = (dy * np.sin(angle) + dx * np.cos(angle)) / half
    across = (dx * np.sin(angle) - dy * np.cos(angle)) / (0.8 * half)
    width = np.sqrt(np.clip(1 - along**2, 0, None)) * (1 - 0.35 * along)
    return np.abs(across) < width, across / np.maximum(width, 1e-3), window


def _segment(
    y: Map, x: Map, first: NDArray[np.float64], last: NDArray[np.float64], half_width: float
) -> tuple[NDArray[np.bool_], tuple[slice, slice]]:
    """Return the points near a line from `first` to `last`, and the window that they are in."""
    half_width = max(half_width, 0.7)
    window = _window(
        y.shape, np.minimum(first, last) - half_width, np.maximum(first, last) + half_width
    )
    dy, dx = y[window] - first[0], x[window] - first[1]
    step = last - first
    share = np.clip((dy * step[0] + dx * step[1]) / float(step @ step), 0, 1)
    away = (dy - share * step[0]) ** 2 + (dx - share * step[1]) ** 2
    return away < half_width**2, window


def _cast_shadow(
    direct: Map,
    filtered: Map,
    gloss: Map,
    on_leaf: NDArray[np.bool_],
    window: tuple[slice, slice],
    offset: NDArray[np.float64],
) -> None:
    """Take the sun from what lies below a leaf; some of it comes through, and nothing shines."""
    moved = np.round(offset).astype(int)
    start = [part.start + by for part, by in zip(window, moved, strict=True)]
    stop = [part.stop + by for part, by in zip(window, moved, strict=True)]
    below = _window(direct.shape, np.array(start), np.array(stop) - 1)
    leaf = on_leaf[
        below[0].start - start[0] : below[0].stop - start[0],
        below[1].start - start[1] : below[1].stop - start[1],
    ]
    sun = np.where(leaf, np.maximum(direct[below] - SKY, 0.0), 0.0)
    direct[below] -= sun
    gloss[below] = np.where(leaf, 0.0, gloss[below])
    filtered[below] = np.where(leaf, np.maximum(filtered[below], sun), filtered[below])


def _window(
    shape: tuple[int, ...], first: NDArray[np.generic], last: NDArray[np.generic]
) -> tuple[slice, slice]:
    """Return the part of a map between two corners."""
    spans = [
        slice(
            int(np.clip(np.floor(float(low)), 0, length)),
            int(np.clip(np.ceil(float(high)) + 1, 0, length)),
        )
        for low, high, length in zip(first, last, shape, strict=True)
    ]
    return spans[0], spans[1]
