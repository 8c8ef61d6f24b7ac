"""The weights of a regridding as one sparse matrix, by our own two methods or by ESMF.

Here: `native_weights`, `xesmf_weights`, the conservative method, and the check that a source covers
a target. Not here: the bilinear method (`regrid_bilinear.py`), the cache of weights
(`regrid_cache.py`), and their product with data (`regrid.py`).

Matrices are of shape (target.size, source.size), float64, over the grids flattened in C order
(latitude, longitude), in the order in which each grid lists its rows and columns.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import xarray as xr

from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.grid_checks import SLACK_DEGREES, FloatArray
from sciml_dchag.weather.regrid.bilinear import bilinear_weights

METHODS = ("bilinear", "conservative")

# Weights below this are the rounding of a zero (ESMF's reach 1e-13). Dropping them keeps a missing
# value from spreading to targets to which it does not contribute.
_ROUNDING = 1e-12


def native_weights(source: Grid, target: Grid, method: str) -> sp.csr_array:
    """The weights by NumPy and SciPy alone; `bilinear_weights` or `conservative_weights`.

    Raises:
        ValueError: if the source does not cover the target.
    """
    check_coverage(source, target, method)
    build = {"bilinear": bilinear_weights, "conservative": conservative_weights}[method]
    return finished(build(source, target))


def xesmf_weights(source: Grid, target: Grid, method: str) -> sp.csr_array:
    """The weights by ESMF through xESMF (0.9 or newer).

    Raises:
        ImportError: if xESMF or ESMF is not installed.
        ValueError: if the source does not cover the target.
    """
    import xesmf

    check_coverage(source, target, method)
    regridder = xesmf.Regridder(
        _for_xesmf(source), _for_xesmf(target), method, periodic=source.is_periodic
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.nc"
        regridder.to_netcdf(str(path))
        return finished(read_weights(path, source, target))


def read_weights(path: Path, source: Grid, target: Grid) -> sp.csr_array:
    """Read an ESMF weight file: `S`, and 1-based `row` and `col`, on the dimension `n_s`.

    Raises:
        ValueError: if it is no weight file, or not between two grids of these sizes.
        OSError: if it cannot be read.
    """
    with xr.open_dataset(path, engine="h5netcdf") as weights:
        if missing := {"S", "row", "col"} - set(weights.variables):
            raise ValueError(f"{path} has no variable {', '.join(sorted(missing))}.")
        values = np.asarray(weights["S"].to_numpy(), dtype=np.float64)
        rows = np.asarray(weights["row"].to_numpy(), dtype=np.int64) - 1
        columns = np.asarray(weights["col"].to_numpy(), dtype=np.int64) - 1
    for indices, size in ((rows, target.size), (columns, source.size)):
        if indices.size == 0 or indices.min() < 0 or indices.max() >= size:
            raise ValueError(f"{path} has indices outside the grids {source.name}, {target.name}.")
    return sp.csr_array((values, (rows, columns)), shape=(target.size, source.size))


def finished(matrix: sp.csr_array) -> sp.csr_array:
    """The matrix without rounded zeros, its rows summing to 1, sorted.

    Raises:
        ValueError: if some rows are no mean (weights negative, or not summing to 1 as they are),
            which is how ESMF leaves targets that it could not place.
    """
    matrix = sp.csr_array(matrix, dtype=np.float64, copy=True)
    matrix.sum_duplicates()
    # 1e-3: a target cell may stand out by SLACK_DEGREES.
    is_mean = (np.abs(matrix.sum(axis=1) - 1.0) < 1e-3) & (abs(matrix).sum(axis=1) < 1.0 + 1e-3)
    if not is_mean.all():
        raise ValueError(
            f"The weights of {np.count_nonzero(~is_mean)} of {is_mean.size} target points are no "
            f"mean of source points, so the source does not reach them; choose a target inside the "
            f'source or try engine="native".'
        )
    matrix.data[np.abs(matrix.data) < _ROUNDING] = 0.0
    matrix.eliminate_zeros()
    # Rows that sum to 1 but for rounding stay to the last bit, so that weights read back from a
    # file are the weights that were written.
    sums = matrix.sum(axis=1)
    sums[np.abs(sums - 1.0) < 1e-13] = 1.0
    matrix.data /= np.repeat(sums, np.diff(matrix.indptr))
    return matrix


def check_coverage(source: Grid, target: Grid, method: str) -> None:
    """Refuse a target that the source does not cover.

    Bilinear needs target points between source points (or poleward of the last row of a source
    that reaches the pole), conservative needs target cells inside source cells.

    Raises:
        ValueError: naming the first latitude or longitude outside.
    """
    if method == "bilinear":
        rows, columns = source.latitude, source.unwrapped_longitude
        wanted_rows, wanted_columns = target.latitude, target.unwrapped_longitude
    else:
        rows, columns = source.latitude_edges, source.longitude_edges
        wanted_rows, wanted_columns = target.latitude_edges, target.longitude_edges
    south, north = source.reaches_poles
    low = -90.0 if south else float(rows.min())
    high = 90.0 if north else float(rows.max())
    beyond = (wanted_rows < low - SLACK_DEGREES) | (wanted_rows > high + SLACK_DEGREES)
    if beyond.any():
        raise ValueError(
            f"The source grid {source.name} covers latitudes {low:g} to {high:g} but the target "
            f"{target.name} asks for {wanted_rows[beyond][0]:g}; choose a target inside it or a "
            f"global source."
        )
    if source.is_periodic:
        return
    extent = columns[-1] - columns[0] + 2 * SLACK_DEGREES
    beyond = np.mod(wanted_columns - columns[0] + SLACK_DEGREES, 360.0) > extent
    if method == "conservative":  # both ends inside do not mean that all between is
        beyond |= wanted_columns[-1] - wanted_columns[0] > extent
    if beyond.any():
        raise ValueError(
            f"The source grid {source.name} covers longitudes {columns[0]:g} to {columns[-1]:g} "
            f"only but the target {target.name} asks for {wanted_columns[beyond][0]:g}; choose a "
            f"target inside it or a source that goes once around."
        )


def conservative_weights(source: Grid, target: Grid) -> sp.csr_array:
    """First-order conservative weights by the exact overlap of latitude-longitude cells.

    The weight of a source cell is the part of the target cell's area that it covers (Jones 1999,
    Mon. Wea. Rev. 127, 2204, equation 4, first order). Between parallels and meridians the overlap
    area is a product of overlaps in sine of latitude and in longitude, so the matrix is a Kronecker
    product. ESMF's cells have great-circle edges instead, which changes a weight by about 2e-3.
    """
    rows = _overlap(
        np.sin(np.deg2rad(source.latitude_edges)), np.sin(np.deg2rad(target.latitude_edges))
    )
    start = source.longitude_edges
    columns = sum(
        _overlap(start + turn, target.longitude_edges) for turn in (-720.0, -360.0, 0.0, 360.0, 720)
    )
    return sp.csr_array(sp.kron(rows, columns))


def _overlap(source_edges: FloatArray, target_edges: FloatArray) -> sp.csr_array:
    """Part of each target interval that each source interval covers; edges run either way."""
    source_low = np.minimum(source_edges[1:], source_edges[:-1])
    source_high = np.maximum(source_edges[1:], source_edges[:-1])
    low = np.minimum(target_edges[1:], target_edges[:-1])
    high = np.maximum(target_edges[1:], target_edges[:-1])
    shared = np.minimum(high[:, None], source_high) - np.maximum(low[:, None], source_low)
    return sp.csr_array(np.maximum(shared, 0.0) / (high - low)[:, None])


def _for_xesmf(grid: Grid) -> xr.Dataset:
    """Centres and edges under the names that xESMF looks for."""
    return xr.Dataset(
        coords={
            "lat": ("lat", grid.latitude),
            "lon": ("lon", grid.unwrapped_longitude),
            "lat_b": ("lat_b", grid.latitude_edges),
            "lon_b": ("lon_b", grid.longitude_edges),
        }
    )
