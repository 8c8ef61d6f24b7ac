"""One raw file, whatever its layout, as a Dataset under our names, lazily.

Opening NetCDF, GRIB, Zarr and URLs, and giving dimensions, variables, levels and units one form.
Choosing channels and joining files is `sources`' work.
"""

from __future__ import annotations

import glob
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from sciml_dchag.channels import VARIABLES, canonical_units

DIMENSION_NAMES = {
    "latitude": ("lat", "y"),
    "longitude": ("lon", "x"),
    "level": ("pressure_level", "isobaricInhPa", "isobaricInPa", "plev", "lev", "pressure"),
    "time": ("valid_time", "time_index", "initial_time0_hours"),
}
"""Our name of a dimension, and the names that files give it."""

VARIABLE_NAMES = {
    alias: short
    for short, variable in VARIABLES.items()
    for alias in (short, variable.long, *variable.aliases)
}
"""Our short name of a variable by each name that files give it."""

CONVERTIBLE = {
    ("hPa", "Pa"): 100.0,
    ("mbar", "Pa"): 100.0,
    ("g kg-1", "kg kg-1"): 1e-3,
    ("gpm", "m2 s-2"): 9.80665,
    ("mm", "m"): 1e-3,
    ("percent", "%"): 1.0,
}
"""Factor from a file's units to ours, where there is no doubt; gpm is geopotential height."""

SAME = {"(0 - 1)": "1", "": "1", "dimensionless": "1", "kg/kg": "kg kg-1", "Kelvin": "K"}


def expand_sources(sources: Sequence[str]) -> list[str]:
    """Resolve globs to sorted paths; URLs and plain paths stay.

    Raises:
        FileNotFoundError: no source is given, or one that is not there.
    """
    found: list[str] = []
    for source in map(str, sources):
        if "://" in source:
            found.append(source)
            continue
        # pathlib's own glob takes no absolute pattern.
        matches = sorted(glob.glob(source)) if glob.has_magic(source) else [source]  # noqa: PTH207
        if not matches or not Path(matches[0]).exists():
            raise FileNotFoundError(f"There is no file {source!r}: check the path or the pattern.")
        found.extend(matches)
    if not found:
        raise FileNotFoundError("No source files are given: name NetCDF, GRIB or Zarr files.")
    return list(dict.fromkeys(found))


def open_raw(source: str) -> list[xr.Dataset]:
    """Open one source lazily and give it our names; GRIB may hold several hypercubes.

    Raises:
        ValueError: unreadable, truncated, or of units that are not ours.
        ModuleNotFoundError: an extra is missing; the message names it.
    """
    return [_tidy(dataset, source) for dataset in _open(source)]


def _open(source: str) -> list[xr.Dataset]:
    try:
        if "://" in source:
            return [_open_url(source)]
        path = Path(source)
        if path.is_dir():
            return [_open_zarr(source)]
        with path.open("rb") as file:
            magic = file.read(4)
        if magic == b"GRIB":
            return _open_grib(source)
        # h5py serialises its calls between threads, which the netCDF4 library does not.
        engine: Literal["h5netcdf", "netcdf4"] = "h5netcdf" if magic == b"\x89HDF" else "netcdf4"
        return [xr.open_dataset(path, chunks={}, decode_timedelta=False, engine=engine)]
    except ModuleNotFoundError:
        raise
    except Exception as error:  # every backend has exceptions of its own
        reason = " ".join(str(error).split())[:160]
        raise ValueError(
            f"{source} cannot be read ({reason}): it is truncated, empty or of another format, so "
            f"download it again."
        ) from error


def _open_zarr(source: str, storage_options: dict[str, Any] | None = None) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # files beside the arrays, consolidation: not the user's
        return xr.open_zarr(
            source, chunks={}, decode_timedelta=False, storage_options=storage_options
        )


def _open_url(url: str) -> xr.Dataset:
    scheme = url.split("://")[0]
    anonymous: dict[str, dict[str, Any]] = {
        "gs": {"token": "anon"},
        "gcs": {"token": "anon"},
        "s3": {"anon": True},
    }
    try:
        return _open_zarr(url, anonymous.get(scheme))
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{scheme}:// needs a package that is not installed: pip install 'sciml-dchag[cloud]'."
        ) from error


def _open_grib(source: str) -> list[xr.Dataset]:
    try:
        import cfgrib
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{source} is GRIB, which needs cfgrib: pip install 'sciml-dchag[grib]'."
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # cfgrib's own use of xarray
        # No index file is left beside the user's data.
        datasets = cfgrib.open_datasets(source, backend_kwargs={"indexpath": ""}, chunks={})
    return list(datasets)


def _tidy(dataset: xr.Dataset, source: str) -> xr.Dataset:
    """Give dimensions and variables our names, drop what is no field, check units."""
    dataset = _decode_time(_rename_dimensions(dataset), source)
    dataset = _one_member(_merge_expver(dataset), source)
    if "level" in dataset.coords:
        dataset = _level_in_hpa(dataset, source)
    if "state" in dataset and "channel" in dataset.dims:
        kept = dataset[["state", *(["static"] if "static" in dataset else [])]]
        return kept
    names = {name: VARIABLE_NAMES[str(name)] for name in dataset.data_vars
             if str(name) in VARIABLE_NAMES}  # fmt: skip
    kept = dataset[list(names)].rename(names)
    extra = [c for c in kept.coords if c not in ("time", "level", "latitude", "longitude")]
    kept = kept.drop_vars(extra)
    for name in kept.data_vars:
        kept[name] = _in_our_units(kept[name], source)
    return kept


def _rename_dimensions(dataset: xr.Dataset) -> xr.Dataset:
    """Give the four dimensions our names, taking the first that a file has."""
    names = {}
    for ours, theirs in DIMENSION_NAMES.items():
        on_axis = [name for name in theirs if name in dataset.dims]
        scalar = [name for name in theirs if name in dataset.coords and not dataset[name].dims]
        if ours in dataset.dims:
            continue
        if on_axis:
            names[on_axis[0]] = ours
        elif ours not in dataset.variables and scalar:
            names[scalar[0]] = ours
    dataset = dataset.drop_vars([n for n in names.values() if n in dataset.variables])
    return dataset.rename(names)


def _decode_time(dataset: xr.Dataset, source: str) -> xr.Dataset:
    """Decode whole-number times whose units stand in the file's attributes."""
    if "time" not in dataset.coords or np.issubdtype(dataset["time"].dtype, np.datetime64):
        return dataset
    units = dataset["time"].attrs.get("units") or dataset.attrs.get("time_units")
    if units is None:
        raise ValueError(
            f"{source} has times without units: write `units`, such as hours since 1900-01-01."
        )
    units = str(units).split(" (")[0]
    decoded = xr.decode_cf(xr.Dataset({"time": ("time", dataset["time"].values, {"units": units})}))
    return dataset.assign_coords(time=decoded["time"].values)


def _merge_expver(dataset: xr.Dataset) -> xr.Dataset:
    """Fill ERA5 (expver 1) with the preliminary ERA5T (expver 5) where it is not there yet."""
    if "expver" not in dataset.dims:
        return dataset.drop_vars("expver", errors="ignore")
    merged = dataset.isel(expver=0, drop=True)
    for position in range(1, dataset.sizes["expver"]):
        merged = merged.fillna(dataset.isel(expver=position, drop=True))
    return merged


def _one_member(dataset: xr.Dataset, source: str) -> xr.Dataset:
    if "number" in dataset.dims:
        if dataset.sizes["number"] > 1:
            raise ValueError(
                f"{source} holds {dataset.sizes['number']} ensemble members (number "
                f"{dataset['number'].values[0]} to {dataset['number'].values[-1]}) where one is "
                f"needed: write one of them to a file of its own."
            )
        dataset = dataset.isel(number=0, drop=True)
    return dataset.drop_vars("number", errors="ignore")


def _level_in_hpa(dataset: xr.Dataset, source: str) -> xr.Dataset:
    """Turn levels into whole hPa; Pa is told by the units, or by the size where there are none.

    Raises:
        ValueError: levels labelled hPa that can only be Pa.
    """
    level = dataset["level"]
    values = np.atleast_1d(level.values).astype(np.float64)
    units = str(level.attrs.get("units", "")).strip()
    too_large = values.max() > 1100
    if units in ("hPa", "millibars", "mbar", "mb") and too_large:
        raise ValueError(
            f"{source} has level {values.max():g} labelled {units}, which only Pa can be: correct "
            f"the units attribute of its level coordinate."
        )
    if units == "Pa" or (not units and too_large):
        values = values / 100.0
    whole = np.rint(values).astype(np.int64)
    return (
        dataset.assign_coords(level=whole if level.dims else ("level", whole))
        if level.dims
        else (dataset.drop_vars("level").expand_dims(level=whole))
    )


def _in_our_units(field: xr.DataArray, source: str) -> xr.DataArray:
    """Check a field's units, converting where there is no doubt.

    Raises:
        ValueError: units that are not ours.
    """
    variable = VARIABLES[str(field.name)]
    found = field.attrs.get("units")
    if found is None:
        return field
    units = canonical_units(SAME.get(str(found), str(found)))
    ours = canonical_units(variable.units)
    if units in (ours, "~") or (ours == "1" and units in ("0-1", "1")):
        return field
    factor = CONVERTIBLE.get((units, ours))
    if factor is None:
        raise ValueError(
            f"{source} has {variable.short} in {found!r} where {variable.units!r} is needed: "
            f"convert it and set its units attribute."
        )
    return (field * np.float32(factor)).assign_attrs({**field.attrs, "units": variable.units})


def lazy(field: xr.DataArray) -> xr.DataArray:
    """Put the dimensions in order and one time in a Dask chunk, whole fields each."""
    order = [d for d in ("time", "level", "channel") if d in field.dims]
    field = field.transpose(*order, "latitude", "longitude")
    if field.chunks is None:
        field = field.chunk()
    return field.chunk({d: (1 if d == "time" else -1) for d in field.dims})
