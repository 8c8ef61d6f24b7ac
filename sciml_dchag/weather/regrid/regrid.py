"""Regridding of labelled data between latitude-longitude grids.

Here: `regrid`, which applies weights to xarray objects, lazily where these are lazy. Not here: how
weights are made (`regrid_weights.py`, `regrid_bilinear.py`) and kept (`regrid_cache.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import dask.array as da
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import xarray as xr
from dask.delayed import delayed

from sciml_dchag.weather.grid import Grid, coordinate_names
from sciml_dchag.weather.regrid.cache import ENGINES, Weights, weights_between
from sciml_dchag.weather.regrid.weights import METHODS

Labelled = TypeVar("Labelled", xr.Dataset, xr.DataArray)

# What GRIB readers note about the grid of a variable: untrue on another grid.
_GRIB_GRID_ATTRIBUTES = frozenset(
    {
        "GRIB_gridType",
        "GRIB_gridDefinitionDescription",
        "GRIB_numberOfPoints",
        "GRIB_N",
        "GRIB_Nx",
        "GRIB_Ny",
        "GRIB_iDirectionIncrementInDegrees",
        "GRIB_jDirectionIncrementInDegrees",
        "GRIB_iScansNegatively",
        "GRIB_jScansPositively",
        "GRIB_jPointsAreConsecutive",
        "GRIB_latitudeOfFirstGridPointInDegrees",
        "GRIB_latitudeOfLastGridPointInDegrees",
        "GRIB_longitudeOfFirstGridPointInDegrees",
        "GRIB_longitudeOfLastGridPointInDegrees",
        "GRIB_pl",
    }
)


def regrid(
    ds: Labelled,
    target: object,
    method: str = "bilinear",
    engine: str = "auto",
    *,
    weights_directory: str | Path | None = None,
) -> Labelled:
    """Put data on another latitude-longitude grid.

    Every variable with both horizontal dimensions is regridded; its other dimensions, coordinates
    and attributes stay, `latitude` and `longitude` come last, and floating-point types stay (sums
    are in float64; integers become float64). Variables with neither dimension pass through.
    Coordinates and bounds of the old grid are dropped. A target to which a missing value (NaN)
    contributes is missing, with either method. Dask arrays stay lazy and keep their chunks, but for
    latitude and longitude, which become one chunk each.

    The result's attributes say `regrid_method`, `regrid_engine` and `regrid_weights_sha256`.

    Args:
        ds: Dataset or DataArray with dimension coordinates `latitude` and `longitude` (or `lat` and
            `lon`), in degrees: rows in either order, longitudes 0..360 or -180..180.
        target: a grid's name ("5.625", "2.8125", "1.40625", "LATxLON" such as "32x64"), a step in
            degrees, or anything with coordinates latitude and longitude.
        method: "bilinear", ESMF's, interpolates; "conservative" keeps the area-weighted mean.
        engine: what makes the weights: "xesmf", "native", or "auto": xESMF if it imports. The two
            agree to 1e-9 in bilinear weights; conservative ones differ by up to 2e-3, because
            ESMF's cells have great-circle edges and the native ones parallels.
        weights_directory: where weights are kept between calls; by default `sciml_dchag/weights` in
            the user's cache directory.

    Raises:
        ValueError: if the method, engine or target is unknown, a coordinate is missing or unusable,
            the source does not cover the target, or a variable cannot be regridded.
    """
    if method not in METHODS:
        raise ValueError(
            f'There is no regridding method "{method}"; choose one of {", ".join(METHODS)}.'
        )
    if engine not in ENGINES:
        raise ValueError(f'There is no engine "{engine}"; choose one of {", ".join(ENGINES)}.')
    if not isinstance(ds, (xr.Dataset, xr.DataArray)):
        raise ValueError(f"regrid takes a Dataset or DataArray, not a {type(ds).__name__}.")
    if isinstance(ds, xr.DataArray):
        # The array's own name may be that of a coordinate, which a Dataset does not allow.
        result = _regrid_dataset(
            ds.to_dataset(name="__data__"), target, method, engine, weights_directory
        )
        array = result["__data__"].rename(ds.name)
        return array.assign_attrs(result.attrs)
    return _regrid_dataset(ds, target, method, engine, weights_directory)


def _regrid_dataset(
    ds: xr.Dataset, target: object, method: str, engine: str, weights_directory: str | Path | None
) -> xr.Dataset:
    horizontal = coordinate_names(ds)
    old_grid = {*horizontal, *(ds[name].attrs.get("bounds", "") for name in horizontal)}
    moved, dropped = [], []
    for name, variable in ds.variables.items():
        shared = set(horizontal) & set(variable.dims)
        if name in old_grid or (name in ds.coords and len(shared) == 1):
            dropped.append(name)
        elif len(shared) == 1:
            raise ValueError(
                f'The variable "{name}" lies on {shared.pop()} alone, so it belongs to the old '
                f"grid; drop it first."
            )
        elif shared and variable.dtype.kind not in "biuf":
            raise ValueError(
                f'The variable "{name}" is of type {variable.dtype}, which has no mean; drop it '
                f"first or convert it to a floating-point type."
            )
        elif shared:
            moved.append(name)
    if not moved:
        raise ValueError(
            f"No variable lies on both {horizontal[0]} and {horizontal[1]}, so there is nothing to "
            f"regrid; check the dimensions' names."
        )

    source_grid, target_grid = Grid.of(ds), Grid.of(target)
    weights = weights_between(source_grid, target_grid, method, engine, weights_directory)
    operator = _Operator(weights, target_grid.shape)
    regridded = {name: _regrid_variable(ds.variables[name], horizontal, operator) for name in moved}
    kept = ds.drop_vars([*dropped, *moved])
    result = kept.drop_vars(list(kept.data_vars)).assign_coords(target_grid.coordinates())
    result = result.assign_coords({name: regridded[name] for name in moved if name in ds.coords})
    # Variables in the order in which they came.
    result = result.assign(
        {
            name: regridded[name] if name in regridded else kept[name]
            for name in ds.data_vars
            if name not in dropped
        }
    )
    return result.drop_attrs(deep=False).assign_attrs(
        _without_grid(ds.attrs),
        regrid_method=method,
        regrid_engine=weights.engine,
        regrid_weights_sha256=weights.sha256,
    )


def _regrid_variable(
    variable: xr.Variable, horizontal: tuple[str, str], operator: _Operator
) -> xr.Variable:
    others = [dim for dim in variable.dims if dim not in horizontal]
    values: Any = variable.transpose(*others, *horizontal).data
    dtype = _result_dtype(variable.dtype)
    dask_array: Any = da  # untyped
    if isinstance(values, da.Array):
        values = dask_array.rechunk(values, {values.ndim - 2: -1, values.ndim - 1: -1})
        values = dask_array.map_blocks(
            _apply,
            values,
            # One node of the graph, so that a cluster is sent the weights once and not per chunk.
            operator=delayed(operator, name=f"regrid-{operator.sha256}", traverse=False),
            dtype=dtype,
            chunks=(*values.chunks[:-2], *((size,) for size in operator.shape)),
            meta=np.empty((0,) * values.ndim, dtype=dtype),
        )
    else:
        values = _apply(np.asarray(values), operator)
    return xr.Variable((*others, "latitude", "longitude"), values, _without_grid(variable.attrs))


class _Operator:
    """Weights ready to apply, to the contributing source cells alone where these are few."""

    def __init__(self, weights: Weights, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.sha256 = weights.sha256
        self.cells: npt.NDArray[np.int64] | slice = slice(None)
        self.matrix = weights.matrix
        contributing, columns = np.unique(weights.matrix.indices, return_inverse=True)
        if contributing.size < weights.matrix.shape[1] // 2:
            self.cells = contributing
            self.matrix = sp.csr_array(
                (weights.matrix.data, columns.astype(np.int32), weights.matrix.indptr),
                shape=(weights.matrix.shape[0], contributing.size),
            )


def _apply(values: npt.NDArray[Any], operator: _Operator) -> npt.NDArray[Any]:
    """Fields (..., n_latitude, n_longitude) on the target grid; floating-point types stay."""
    leading = values.shape[:-2]
    fields = values.reshape(int(np.prod(leading)), values.shape[-2] * values.shape[-1])
    result = np.empty((fields.shape[0], operator.matrix.shape[0]), _result_dtype(values.dtype))
    # Field by field: a product with many at once would first copy them all, transposed, to
    # float64, which takes several times as long and their size in memory.
    for field, regridded in zip(fields, result, strict=True):
        regridded[:] = operator.matrix @ field[operator.cells].astype(np.float64)
    return result.reshape(*leading, *operator.shape)


def _result_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Floating-point types stay, in this machine's byte order; integers have fractional means."""
    return dtype.newbyteorder("=") if dtype.kind == "f" else np.dtype(np.float64)


def _without_grid(attrs: dict[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in attrs.items() if key not in _GRIB_GRID_ATTRIBUTES}
