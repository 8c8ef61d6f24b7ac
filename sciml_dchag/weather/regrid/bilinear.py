"""ESMF's bilinear interpolation weights, computed with NumPy.

Here: `bilinear_weights`, for rectilinear grids on the sphere. Not here: other methods, checks of
coverage and rounding (`regrid_weights.py`).

The method is not bilinear in latitude and longitude. In the quadrilateral of the four source points
p_k (unit vectors) around a target t, the weights are the bilinear shape functions N_k(u, v) at the
(u, v) for which sum_k N_k p_k is parallel to t (ESMF Reference Manual, "Regridding Methods":
bilinear, in 3D Cartesian space). Newton's method finds it from the position in latitude and
longitude.

Corners are always in the order south-west, south-east, north-west, north-east. A cell is named by
its row interval j, between rows j and j + 1 counted from the south, where -1 and n_rows - 1 are the
caps around the poles.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.grid_checks import SLACK_DEGREES, FloatArray

IntArray = npt.NDArray[np.int64]

_INSIDE = 1e-12
"""How far outside its cell, in u and v, a point may lie by rounding."""


def bilinear_weights(source: Grid, target: Grid) -> sp.csr_array:
    """The weights of shape (target.size, source.size); the source must cover the target.

    Poleward of the last row, triangles run to a pole whose value is the mean of that row
    (`PoleMethod.ALLAVG`), unless the last row is the pole. A target at a pole that is a source row
    takes the two nearest columns of that row, so that wind keeps its meridian. Below the chords of
    a regional source's outermost row, values are those on the chord.

    Raises:
        ValueError: if source columns are more than 90 degrees apart.
    """
    ascending = np.argsort(source.latitude)
    rows, columns = source.latitude[ascending], source.unwrapped_longitude
    latitude, longitude = (
        values.ravel() for values in np.meshgrid(target.latitude, target.longitude, indexing="ij")
    )
    points = _unit_vectors(latitude, longitude)

    slack = 0.0 if source.is_periodic else SLACK_DEGREES
    offset = np.mod(longitude - columns[0] + slack, 360.0) - slack
    west = np.searchsorted(columns - columns[0], offset, side="right") - 1
    west = np.clip(west, 0, columns.size - (1 if source.is_periodic else 2))
    east = (west + 1) % columns.size
    width = np.mod(columns[east] - columns[west], 360.0)
    if width.max() > 90.0 + SLACK_DEGREES:
        raise ValueError(
            f"The source's columns are {width.max():g} degrees apart, but bilinear interpolation "
            f"needs 90 or less; use a finer source."
        )
    meridians = np.stack([columns[west], columns[west] + width], axis=1)
    u = (np.mod(longitude - columns[west] + 180.0, 360.0) - 180.0) / width

    south_cap, north_cap = (
        reached and abs(row) < 90.0 - SLACK_DEGREES
        for reached, row in zip(source.reaches_poles, rows[[0, -1]], strict=True)
    )
    lowest = -1 if south_cap else 0
    highest = rows.size - (1 if north_cap else 2)
    interval = np.clip(np.searchsorted(rows, latitude, side="right") - 1, lowest, highest)

    # Edges are great circles, which bulge poleward of the parallels, so a point just inside one
    # row of cells can belong to the next: solve, step to the neighbour, and solve those again.
    weights = np.empty((points.shape[0], 5))  # four corners, pole
    todo = np.arange(points.shape[0])
    for _ in range(rows.size + 1):
        in_cap = (interval[todo] < 0) | (interval[todo] == rows.size - 1)
        step = np.zeros(todo.size, dtype=np.int64)
        part = todo[~in_cap]
        weights[part], step[~in_cap] = _in_quadrilaterals(
            points[part], rows, interval[part], meridians[part], latitude[part], u[part]
        )
        part = todo[in_cap]
        weights[part], step[in_cap] = _in_caps(points[part], rows, interval[part], meridians[part])
        moved = np.clip(interval[todo] + step, lowest, highest)
        changed = moved != interval[todo]
        interval[todo] = moved
        todo = todo[changed]
        if todo.size == 0:
            break
    return _assemble(weights, interval, west, east, ascending, columns.size)


def _in_quadrilaterals(
    points: FloatArray,
    rows: FloatArray,
    interval: IntArray,
    meridians: FloatArray,
    latitude: FloatArray,
    u: FloatArray,
) -> tuple[FloatArray, IntArray]:
    """Weights (n, 5) of points between two rows, and the step to the row interval they are in."""
    south, north = rows[interval], rows[interval + 1]
    corners = np.stack(
        [_unit_vectors(row, lon) for row in (south, north) for lon in meridians.T], axis=1
    )
    u, v = _solve_parallel(corners, points, u, (latitude - south) / (north - south))
    weights = np.zeros((points.shape[0], 5))
    weights[:, :4] = _shape_functions(np.clip(u, 0.0, 1.0), np.clip(v, 0.0, 1.0))
    return weights, (v > 1.0 + _INSIDE).astype(np.int64) - (v < -_INSIDE).astype(np.int64)


def _in_caps(
    points: FloatArray, rows: FloatArray, interval: IntArray, meridians: FloatArray
) -> tuple[FloatArray, IntArray]:
    """Weights (n, 5) of points in the triangles around a pole, and the step to where they are."""
    sign = np.where(interval < 0, -1, 1)
    last_row = np.where(interval < 0, rows[0], rows[-1])
    pole = np.stack([np.zeros(sign.size), np.zeros(sign.size), sign], axis=1)
    corners = np.stack([*(_unit_vectors(last_row, lon) for lon in meridians.T), pole], axis=2)
    shares = np.linalg.solve(corners, points[:, :, None])[:, :, 0]
    shares /= shares.sum(axis=1, keepdims=True)
    weights = np.zeros((points.shape[0], 5))
    weights[:, :2] = shares[:, :2]  # `_assemble` takes both corners of a cap from its last row
    weights[:, 4] = shares[:, 2]
    return weights, np.where(shares[:, 2] < -_INSIDE, -sign, 0)


def _solve_parallel(
    corners: FloatArray, points: FloatArray, u: FloatArray, v: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The (u, v) at which sum_k N_k(u, v) p_k is parallel to t, by Newton's method.

    Args:
        corners: p_k, shape (n, 4, 3).
        points: t, shape (n, 3).
        u: first guess, shape (n,).
        v: first guess, shape (n,).
    """
    # Parallel to t means invisible from two directions perpendicular to it: two equations.
    # The axis that t is furthest from gives the first of them without loss of digits.
    axis = np.eye(3)[np.argmin(np.abs(points), axis=1)]
    first = np.cross(points, axis)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    seen = np.stack([first, np.cross(points, first)], axis=1) @ corners.transpose(0, 2, 1)
    for _ in range(20):
        residual = np.einsum("nak,nk->na", seen, _shape_functions(u, v))
        by_u = np.einsum("nak,nk->na", seen, np.stack([v - 1, 1 - v, -v, v], axis=1))
        by_v = np.einsum("nak,nk->na", seen, np.stack([u - 1, -u, 1 - u, u], axis=1))
        determinant = by_u[:, 0] * by_v[:, 1] - by_u[:, 1] * by_v[:, 0]
        # It vanishes at a pole that is a source row, where all u are one point: keep the guess.
        solvable = np.abs(determinant) > 1e-14 * np.sum(by_v**2, axis=1)
        divisor = np.where(solvable, determinant, np.inf)
        step_u = (residual[:, 0] * by_v[:, 1] - residual[:, 1] * by_v[:, 0]) / divisor
        step_v = (by_u[:, 0] * residual[:, 1] - by_u[:, 1] * residual[:, 0]) / divisor
        u, v = u - step_u, v - step_v
        if max(np.abs(step_u).max(initial=0.0), np.abs(step_v).max(initial=0.0)) < 1e-13:
            break
    return u, v


def _assemble(
    weights: FloatArray,
    interval: IntArray,
    west: IntArray,
    east: IntArray,
    ascending: IntArray,
    n_columns: int,
) -> sp.csr_array:
    """The sparse matrix, in the source's own order of rows, from each target's cell and weights."""
    lower = ascending[np.maximum(interval, 0)]  # of a cap: its last row
    upper = ascending[np.minimum(interval + 1, ascending.size - 1)]
    corners = [lower * n_columns + west, lower * n_columns + east]
    corners += [upper * n_columns + west, upper * n_columns + east]

    capped = np.flatnonzero(weights[:, 4])
    whole_row = lower[capped, None] * n_columns + np.arange(n_columns)
    values = [weights[:, :4].T.ravel(), np.repeat(weights[capped, 4] / n_columns, n_columns)]
    targets = [np.tile(np.arange(west.size), 4), np.repeat(capped, n_columns)]
    sources = [*corners, whole_row.ravel()]
    return sp.csr_array(
        (np.concatenate(values), (np.concatenate(targets), np.concatenate(sources))),
        shape=(west.size, ascending.size * n_columns),
    )


def _shape_functions(u: FloatArray, v: FloatArray) -> FloatArray:
    """N_k(u, v) of the four corners, shape (n, 4)."""
    return np.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v], axis=1)


def _unit_vectors(latitude: FloatArray, longitude: FloatArray) -> FloatArray:
    """Cartesian points on the unit sphere, shape (n, 3), from degrees."""
    phi, theta = np.deg2rad(latitude), np.deg2rad(longitude)
    return np.stack([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)], axis=1)
