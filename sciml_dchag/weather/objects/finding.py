"""Finds the lows or highs of one field on a latitude-longitude grid.

A low is a cell, or a plateau of equal cells, below all its neighbours. A parabola through the cells
around it gives its place and the value at its bottom, the mean of the field on a ring around it the
depth.

Shapes: H x W grid, N objects, P cells of a parabola, R places on a ring.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.weather.area import goes_around, reaches_poles
from sciml_dchag.weather.objects.sphere import distance_km, from_plane, to_plane

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Kind = Literal["lows", "highs"]

NEARNESS = 3.0
"""Cells of a parabola weigh exp(-3 r^2), r = 1 at those straight on: it goes almost through the
middle cell, and what the corners add is noise of higher orders."""
RING_PLACES = 36
"""Places on the ring whose mean the depth is taken against."""
LEAST_OF_RING = 0.5
"""Fraction of the ring that must be known; an object with less has no depth and is left out."""
AT_POLE = 1e-4
"""A row so near to the pole, in degrees, is one point."""


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """What counts as a low or high."""

    min_depth: float
    """Least difference from the mean of the ring, in units of the field."""
    band: tuple[float, float] = (20.0, 75.0)
    """Least and greatest absolute latitude in degrees."""
    ring_km: float = 600.0
    """Radius of the ring."""
    separation_km: float = 400.0
    """Of objects nearer to each other than this the most extreme one is kept."""


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The lows or highs of one field, each array (N,)."""

    latitude: Floats
    """Degrees north."""
    longitude: Floats
    """Degrees east, 0 to 360."""
    value: Floats
    """The parabola's extreme, in units of the field."""
    depth: Floats
    """Difference of the ring's mean and `value`, positive, in units of the field."""

    def __len__(self) -> int:
        return len(self.latitude)

    def at(self, chosen: Mask | NDArray[np.intp]) -> Self:
        """Return some of them."""
        return type(self)(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})


class Finder:
    """Finds objects in fields of one grid.

    Args:
        latitude: row centres in degrees, growing or falling, (H,).
        longitude: column centres in degrees east, growing but for at most one jump of 360, (W,).
            A grid that does not go around has no objects in its outermost cells.
        kind: lows or highs.
        criteria: what counts as one.
    """

    def __init__(self, latitude: Floats, longitude: Floats, kind: Kind, criteria: Criteria) -> None:
        self.kind, self.criteria = kind, criteria
        self.upside_down = bool(latitude[0] > latitude[-1])
        self.latitude = np.sort(np.asarray(latitude, np.float64))
        steps = np.mod(np.diff(longitude), 360.0)
        self.longitude = float(longitude[0]) + np.concatenate([[0.0], np.cumsum(steps)])
        self.shape = len(self.latitude), len(self.longitude)
        self.periodic = goes_around(longitude)
        reached = reaches_poles(self.latitude) if self.periodic else (False, False)
        self.over_pole = {-1: reached[0], 1: reached[1]}
        low, high = criteria.band
        spacing = float(np.diff(self.latitude).max())  # a parabola leads no farther
        away = abs(self.latitude)
        self.looked_at = (away >= low - spacing) & (away <= high + spacing)
        self.neighbours_8C = self._neighbours()
        self.strides = self._strides()

    def find(self, field_HW: NDArray[np.floating]) -> Objects:
        """Find the objects of a field, which may have NaN where values are missing.

        A cell with a missing neighbour is none. Sorted by latitude, then longitude.
        """
        field = np.array(field_HW, np.float64)
        if self.upside_down:
            field = field[::-1]
        sign = 1.0 if self.kind == "lows" else -1.0
        field = sign * field
        for row in (0, -1):
            if abs(self.latitude[row]) >= 90.0 - AT_POLE and self.periodic:
                field[row] = field[row].mean()  # a point; regridding leaves rounding errors
        rows, columns = self._candidates(field)
        latitude, longitude, value = self._parabola(field, rows, columns)
        depth = self._ring_mean(field, latitude, longitude) - value
        found = Objects(latitude=latitude, longitude=longitude, value=value, depth=depth)
        low, high = self.criteria.band
        inside = (abs(latitude) >= low) & (abs(latitude) <= high)
        found = found.at(inside & (depth >= self.criteria.min_depth))  # NaN compares false
        found = _apart(found, self.criteria.separation_km)
        order = np.lexsort((found.longitude, found.latitude))
        return Objects(
            latitude=found.latitude[order],
            longitude=found.longitude[order],
            value=sign * found.value[order],
            depth=found.depth[order],
        )

    def _cell(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.int64]:
        """Flat positions of cells, counted on around the globe and over the poles; -1 is none."""
        height, width = self.shape
        rows, columns = np.broadcast_arrays(rows, columns)
        rows, columns = rows.astype(np.int64), columns.astype(np.int64)
        known = np.ones(rows.shape, bool)
        for side, beyond, edge in ((-1, rows < 0, 0), (1, rows >= height, height - 1)):
            if self.over_pole[side]:
                at_pole = abs(self.latitude[edge]) >= 90.0 - AT_POLE
                mirrored = 2 * edge - rows + (0 if at_pole else side)
                rows = np.where(beyond, mirrored, rows)
                columns = np.where(beyond, columns + width // 2, columns)
            else:
                known &= ~beyond
        if self.periodic:
            columns = columns % width
        known &= (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        return np.where(known, rows * width + columns, -1)

    def _neighbours(self) -> NDArray[np.int64]:
        """Positions of the eight neighbours of each cell, (8, H W); -1 is none."""
        rows, columns = np.indices(self.shape)
        steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
        return np.stack([self._cell(rows + i, columns + j).reshape(-1) for i, j in steps])

    def _strides(self) -> NDArray[np.int64]:
        """Columns from one cell of a parabola to the next, by row.

        As far apart as rows, where meridians converge; an eighth of the circle at most.
        """
        apart = np.median(np.diff(self.latitude)) / np.median(np.diff(self.longitude))
        wanted = apart / np.maximum(np.cos(np.deg2rad(self.latitude)), 1e-6)
        most = max(1, self.shape[1] // 8)
        return np.clip(np.rint(wanted), 1, most).astype(np.int64)

    def _candidates(self, field: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of the closed minima; of a plateau the cell nearest to its middle."""
        flat = np.append(field.reshape(-1), np.nan)  # -1 is the last one
        around = flat[self.neighbours_8C]
        low: Mask = np.all(flat[:-1] <= around, axis=0)
        cells = np.flatnonzero(low)
        ties: Mask = np.equal(around[:, cells], flat[cells])
        if ties.any():
            cells = self._one_of_each_plateau(cells, low, ties)
        rows, columns = np.divmod(cells, self.shape[1])
        return rows[self.looked_at[rows]], columns[self.looked_at[rows]]

    def _one_of_each_plateau(
        self, cells: NDArray[np.int64], low: Mask, ties: Mask
    ) -> NDArray[np.int64]:
        """Drop plateaus that have a way down; keep one cell of each of the others."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        which, place = np.nonzero(ties)
        equal = self.neighbours_8C[:, cells][which, place]
        number = np.full(low.size, -1)
        number[cells] = np.arange(len(cells))
        inside = low[equal]
        pairs = (place[inside], number[equal[inside]])
        graph = coo_array((np.ones(len(pairs[0])), pairs), shape=(len(cells), len(cells)))
        count, plateau = connected_components(graph, directed=False)
        open_ = np.zeros(count, bool)
        open_[plateau[place[~inside]]] = True
        rows, columns = np.divmod(cells, self.shape[1])
        phi, turned = np.deg2rad(self.latitude[rows]), np.deg2rad(self.longitude[columns])
        equator = np.cos(phi) * np.stack([np.cos(turned), np.sin(turned)])
        vectors = np.append(equator, np.sin(phi)[None], axis=0)
        middle = np.stack([np.bincount(plateau, axis, count) for axis in vectors])
        nearness = (vectors * middle[:, plateau]).sum(axis=0)
        order = np.lexsort((cells, -np.round(nearness, 9), plateau))
        _, first = np.unique(plateau[order], return_index=True)
        kept = order[first]
        return np.sort(cells[kept[~open_[plateau[kept]]]])

    def _parabola(
        self, field: Floats, rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> tuple[Floats, Floats, Floats]:
        """Latitude, longitude and value of the bottom of the parabola around each cell, (N,) each.

        z = a + b x + c y + d x^2 + e x y + f y^2 by weighted least squares on 3 x 3 cells, x and y
        in km on the plane that touches the sphere in the middle one. Where it has no bottom within
        one spacing, the cell itself.
        """
        latitude, longitude = self.latitude[rows], self.longitude[columns] % 360.0
        value = field[rows, columns]
        if not len(rows):
            return latitude, longitude, value
        cells = self._around(rows, columns)
        there, place = np.divmod(cells, self.shape[1])
        x, y = to_plane(
            latitude[:, None], longitude[:, None], self.latitude[there], self.longitude[place]
        )
        scale = np.stack([abs(x).max(axis=1), abs(y).max(axis=1)])
        x, y = x / scale[0][:, None], y / scale[1][:, None]
        weight = np.exp(-NEARNESS * (x**2 + y**2))
        z = field.reshape(-1)[cells] - value[:, None]
        z = np.where(cells >= 0, z, np.nan)
        terms_N6P = np.stack([np.ones_like(x), x, y, x**2, x * y, y**2], axis=1)
        weighted = terms_N6P * weight[:, None]
        normal = weighted @ terms_N6P.transpose(0, 2, 1)
        known: Mask = np.all(np.isfinite(z), axis=1)
        right = (weighted @ np.where(known[:, None], z, 0.0)[..., None])[..., 0]
        a, b, c, d, e, f = (np.linalg.pinv(normal) @ right[..., None])[..., 0].T
        determinant = 4 * d * f - e**2
        convex = known & (determinant > 0) & (d + f > 0)
        safe = np.where(convex, determinant, 1.0)
        east, north = (e * c - 2 * f * b) / safe, (e * b - 2 * d * c) / safe
        convex &= np.hypot(east, north) <= 1.0
        east, north = np.where(convex, east, 0.0), np.where(convex, north, 0.0)
        bottom = value + np.where(convex, a + (b * east + c * north) / 2, 0.0)
        latitude, longitude = from_plane(latitude, longitude, east * scale[0], north * scale[1])
        return latitude, longitude % 360.0, bottom

    def _around(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions of the 3 x 3 cells of each parabola, (N, P); -1 is none."""
        height, width = self.shape
        near = np.clip(rows[:, None] + np.array([-1, 0, 1]), 0, height - 1)
        strides = self.strides[near]
        if not self.periodic:  # an object is no outermost cell: one column each side is there
            room = np.minimum(columns, width - 1 - columns)
            strides = np.minimum(strides, np.maximum(room, 1)[:, None])
        across = columns[:, None, None] + strides[..., None] * np.array([-1, 0, 1])
        down = np.broadcast_to((rows[:, None] + np.array([-1, 0, 1]))[..., None], across.shape)
        cells = self._cell(down, across).reshape(len(rows), -1)
        at_pole = self.periodic & (abs(self.latitude[rows]) >= 90.0 - AT_POLE)
        inward = np.where(rows == 0, 1, height - 2)  # eight of the next row, around the pole
        circle = np.rint(np.arange(8) * width / 8).astype(np.int64)
        around = self._cell(inward[:, None], columns[:, None] + circle)
        own = (rows * width + columns)[:, None]
        return np.where(at_pole[:, None], np.concatenate([own, around], axis=1), cells)

    def _ring_mean(self, field: Floats, latitude: Floats, longitude: Floats) -> Floats:
        """Mean on a ring of `ring_km` around each place, (N,); NaN where too little is known."""
        bearing = np.linspace(0.0, 2 * np.pi, RING_PLACES, endpoint=False)
        radius = self.criteria.ring_km
        places = from_plane(
            latitude[:, None],
            longitude[:, None],
            radius * np.sin(bearing),
            radius * np.cos(bearing),
        )
        ring_NR = self._between_cells(field, *places)
        known = np.isfinite(ring_NR)
        enough = known.mean(axis=1) >= LEAST_OF_RING
        total = np.where(known, ring_NR, 0.0).sum(axis=1)
        return np.where(enough, total / np.maximum(known.sum(axis=1), 1), np.nan)

    def _between_cells(self, field: Floats, latitude: Floats, longitude: Floats) -> Floats:
        """The field at places, bilinear in degrees; NaN outside and beside missing cells."""
        height, width = self.shape
        first, last = int(self.over_pole[-1]), int(self.over_pole[1])
        rows, columns = np.arange(-first, height + last), np.arange(width + int(self.periodic))
        axis = self.latitude
        axis = np.concatenate([[-180.0 - axis[0]] * first, axis, [180.0 - axis[-1]] * last])
        across = np.append(self.longitude, [self.longitude[0] + 360.0] * int(self.periodic))
        turned = self.longitude[0] + np.mod(longitude - self.longitude[0], 360.0)
        i = np.interp(latitude, axis, rows, left=np.nan, right=np.nan)
        j = np.interp(turned, across, columns, left=np.nan, right=np.nan)
        known = np.isfinite(i) & np.isfinite(j)
        i, j = np.where(known, i, 0.0), np.where(known, j, 0.0)
        row = np.clip(np.floor(i), rows[0], rows[-1] - 1).astype(np.int64)
        column = np.clip(np.floor(j), 0, columns[-1] - 1).astype(np.int64)
        flat, up, on = np.append(field.reshape(-1), np.nan), i - row, j - column
        lower = [flat[self._cell(row, column + k)] for k in (0, 1)]
        upper = [flat[self._cell(row + 1, column + k)] for k in (0, 1)]
        south, north = (a + on * (b - a) for a, b in (lower, upper))
        return np.where(known, south + up * (north - south), np.nan)


def _apart(found: Objects, separation_km: float) -> Objects:
    """Drop each object that has a more extreme one within a distance; `value` is least at first."""
    order = np.argsort(found.value, kind="stable")
    found = found.at(order)
    column = found.latitude[:, None], found.longitude[:, None]
    near = distance_km(*column, found.latitude, found.longitude) < separation_km
    kept = np.ones(len(found), bool)
    for one in range(len(found)):
        if kept[one]:
            kept[one + 1 :] &= ~near[one, one + 1 :]
    return found.at(kept)
