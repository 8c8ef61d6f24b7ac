"""One raw file, whatever its layout, as a Dataset under our names, not yet read.

Opening NetCDF, GRIB, Zarr and URLs, and giving dimensions, variables, times and levels one form.
Reading values is `reading`'s work, choosing channels and joining files `sources`'.
"""

from __future__ import annotations

import glob
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from sciml_dchag.channels import VARIABLES, Channel, canonical_units
from sciml_dchag.data.layout import FORMAT
from sciml_dchag.data.store import Store

DIMENSION_NAMES = {
    "latitude": ("lat", "y"),
    "longitude": ("lon", "x"),
    "level": ("pressure_level", "isobaricInhPa", "isobaricInPa", "plev", "lev", "pressure"),
    "time": ("valid_time", "time_index", "initial_time0_hours"),
}
"""Our name of a dimension, and the names that files give it."""

GEOPOTENTIAL_HEIGHT = ("gh", "geopotential_height", "zg", "hgt")
"""Names of the height that is geopotential over standard gravity; its units must say metres."""

VARIABLE_NAMES = {
    alias: short
    for short, variable in VARIABLES.items()
    for alias in (short, variable.long, *variable.aliases)
} | dict.fromkeys(GEOPOTENTIAL_HEIGHT, "z")
"""Our short name of a variable by each name that files give it, the likeliest first."""

CONVERTIBLE = {
    ("hPa", "Pa"): 100.0,
    ("mbar", "Pa"): 100.0,
    ("g kg-1", "kg kg-1"): 1e-3,
    ("gpm", "m2 s-2"): 9.80665,
    ("m", "m2 s-2"): 9.80665,
    ("mm", "m"): 1e-3,
}
"""Factor from a file's units to ours, where there is no doubt; metres are geopotential height."""

SAME = {
    "(0 - 1)": "1", "0-1": "1", "~": "1", "": "1", "dimensionless": "1",
    "Kelvin": "K", "kelvin": "K", "percent": "%",
}  # fmt: skip
"""Other spellings of units."""

# SciPy warns of every classic file whose arrays outlive it; nothing is lost, the map lives on.
warnings.filterwarnings("ignore", "Cannot close a netcdf_file opened with mmap=True")

ANONYMOUS: dict[str, dict[str, Any]] = {
    "gs": {"token": "anon"},
    "gcs": {"token": "anon"},
    "s3": {"anon": True},
}
"""By scheme, what lets fsspec read public data without credentials."""

HECTOPASCAL = ("hpa", "millibar", "millibars", "mbar", "mb")
PASCAL = ("pa", "pascal", "pascals")


def expand_sources(sources: Sequence[str]) -> list[str]:
    """Resolve globs to sorted paths; URLs and plain paths stay.

    Raises:
        FileNotFoundError: no source is given, or one that is not there.
    """
    found: list[str] = []
    for source in map(str, sources):
        if "://" in source and "*" in source:
            found.extend(_expand_url(source))
        elif "://" in source or Path(source).exists():
            found.append(source)
        elif matches := sorted(glob.glob(source, recursive=True)):  # noqa: PTH207 - may be absolute
            found.extend(matches)
        else:
            raise FileNotFoundError(f"There is no file {source!r}: check the path or the pattern.")
    if not found:
        raise FileNotFoundError("No source files are given: name NetCDF, GRIB or Zarr files.")
    return list(dict.fromkeys(found))


def _expand_url(pattern: str) -> list[str]:
    """List what a remote pattern matches, sorted."""
    filesystem = _filesystem(pattern)
    try:
        matches = sorted(map(str, filesystem.glob(pattern)))
    except Exception as error:  # every filesystem has exceptions of its own
        raise _unreachable(pattern, error) from error
    if not matches:
        raise FileNotFoundError(f"Nothing matches {pattern!r}: check the address and the pattern.")
    return [str(filesystem.unstrip_protocol(match)) for match in matches]


def open_raw(source: str) -> list[xr.Dataset]:
    """Open one source under our names, reading no fields; GRIB may hold several hypercubes.

    Known variables alone are kept, in the file's units. Dimensions of one value are dropped. Where
    there is one time or one level, it may be a scalar coordinate. Levels are whole hPa; others are
    left out.

    Raises:
        ValueError: an unreadable or half-written source, or times or levels without meaning.
        ModuleNotFoundError: an extra is missing; the message names it.
    """
    return [part for dataset in _open(source) for part in _tidy(dataset, source)]


def units_factor(field: xr.DataArray, source: str) -> float:
    """Tell by what to multiply a field to have it in our units.

    Raises:
        ValueError: units that are not ours, nor certain to be convertible.
    """
    variable = VARIABLES[str(field.name)]
    found = field.attrs.get("units")
    if found is None:
        return 1.0
    units = canonical_units(SAME.get(str(found).strip(), str(found)))
    ours = canonical_units(variable.units)
    if units == ours:
        return 1.0
    if (units, ours) not in CONVERTIBLE:
        raise ValueError(
            f"{source} has {variable.short} in {found!r} where {variable.units!r} is needed: "
            f"convert it and set its units attribute."
        )
    return CONVERTIBLE[units, ours]


def _open(source: str) -> list[xr.Dataset]:
    remote, directory = "://" in source, Path(source).is_dir()
    engine = None if remote or directory else _engine(source)
    try:
        if remote:
            return [_open_url(source)]
        if directory:
            return [_open_zarr(source)]
        return _open_grib(source) if engine == "cfgrib" else [_lazily(source, engine)]
    except ModuleNotFoundError:
        raise
    except Exception as error:  # every backend has exceptions of its own
        if remote:
            raise _unreachable(source, error) from error
        cure = "it is truncated or damaged, so download it again"
        if directory:
            cure = "it is no whole Zarr store; name the files in it one by one or by a pattern"
        raise ValueError(f"{source} cannot be read ({in_short(error)}): {cure}.") from error


def _engine(source: str) -> Literal["cfgrib", "scipy", "h5netcdf"]:
    """Tell by a file's first bytes what opens it."""
    with Path(source).open("rb") as file:
        magic = file.read(4)
    if magic == b"GRIB":
        return "cfgrib"
    if magic in (b"CDF\x01", b"CDF\x02"):
        return "scipy"  # the netCDF library would read zeros beyond the end of a truncated file
    if magic == b"\x89HDF":
        return "h5netcdf"  # not the netCDF library, which can crash where several threads read
    if magic == b"CDF\x05":
        raise ValueError(
            f"{source} cannot be read, because it is of NetCDF's rare format CDF-5: convert it "
            f"with nccopy -k nc4."
        )
    if magic == b"PK\x03\x04":
        raise ValueError(
            f"{source} cannot be read, because it is a ZIP archive, as the Climate Data Store "
            f"sends them: unpack it first."
        )
    what = "is neither NetCDF nor GRIB" if magic else "is empty"
    raise ValueError(f"{source} cannot be read, because it {what}: download it again.")


def in_short(error: Exception) -> str:
    """Say a backend's error in some words of one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else f"{text[:117]}..."


def _lazily(source: Any, engine: Any, **options: Any) -> xr.Dataset:
    """Open without Dask, whose graph would have to be built for all times at once."""
    return xr.open_dataset(
        source, engine=engine, chunks=None, cache=False, decode_timedelta=False, **options
    )


def _open_zarr(source: str, storage_options: dict[str, Any] | None = None) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # files beside the arrays, consolidation: not the user's
        dataset = _lazily(source, "zarr", storage_options=storage_options)
    if dataset.attrs.get("format") == FORMAT and "://" not in source:
        Store.open(source)  # refuses a store that is half written
    return dataset


def _open_url(url: str) -> xr.Dataset:
    filesystem = _filesystem(url)
    if url.endswith((".nc", ".nc4", ".h5")):
        return _lazily(filesystem.open(url), "h5netcdf")
    return _open_zarr(url, ANONYMOUS.get(_scheme(url), {}))


def _filesystem(url: str) -> Any:
    """Return fsspec's file system for a URL, without credentials where data are public."""
    import fsspec

    scheme = _scheme(url)
    try:
        return fsspec.filesystem(scheme, **ANONYMOUS.get(scheme, {}))
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{scheme}:// needs a package that is not installed: pip install 'sciml-dchag[cloud]'."
        ) from error


def _scheme(url: str) -> str:
    return url.split("://")[0]


def _unreachable(url: str, error: Exception) -> ValueError:
    return ValueError(
        f"{url} cannot be read ({in_short(error)}): check the address, the network and your rights "
        f"to read it."
    )


def _open_grib(source: str) -> list[xr.Dataset]:
    try:
        import cfgrib
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{source} is GRIB, which needs cfgrib: pip install 'sciml-dchag[grib]'."
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # cfgrib's own use of xarray
        # No index file is left beside the user's data; a truncated file is an error.
        options = {"indexpath": "", "errors": "raise"}
        return list(cfgrib.open_datasets(source, backend_kwargs=options, cache=False))


def _tidy(dataset: xr.Dataset, source: str) -> list[xr.Dataset]:
    """Give dimensions, variables, times and levels our form; drop what is no field.

    A variable with its level in its name, such as u850, becomes a dataset of its own.
    """
    dataset = _level_in_hpa(_decode_time(_rename_dimensions(dataset), source), source)
    if "expver" in dataset.coords and "expver" in dataset.dims:
        dataset = dataset.sortby("expver")  # final data (1) come before preliminary ones (5)
    if "state" in dataset and "channel" in dataset.dims:
        return [dataset[["state", *(["static"] if "static" in dataset else [])]]]
    single = {d: 0 for d, size in dataset.sizes.items() if size == 1 and d not in DIMENSION_NAMES}
    dataset = dataset.isel(single, drop=True)
    there = {str(name).lower(): str(name) for name in dataset.data_vars}
    names: dict[str, str] = {}
    for alias, short in VARIABLE_NAMES.items():
        if alias in there and short not in names.values():
            names[there[alias]] = short
            if alias in GEOPOTENTIAL_HEIGHT:
                _require_metres(dataset[there[alias]], source)
    further = [c for c in dataset.coords if c not in DIMENSION_NAMES]
    dataset = dataset.drop_vars(further)
    return [dataset[list(names)].rename(names), *_levels_in_names(dataset, set(names))]


def _levels_in_names(dataset: xr.Dataset, taken: set[str]) -> list[xr.Dataset]:
    """Return the variables that are named like our channels, each at the level of its name."""
    found = []
    for name in map(str, dataset.data_vars):
        if name in taken or "level" in dataset[name].dims:
            continue
        try:
            channel = Channel.parse(name.lower())
        except ValueError:
            continue
        if channel.level_hpa is not None:
            field = dataset[[name]].rename({name: channel.variable})
            found.append(field.assign_coords(level=channel.level_hpa))
    return found


def _require_metres(field: xr.DataArray, source: str) -> None:
    if str(field.attrs.get("units", "")).strip() not in ("m", "gpm"):
        raise ValueError(
            f"{source} has the geopotential height {field.name} in {field.attrs.get('units')!r}: "
            f"set its units attribute to m."
        )


def _rename_dimensions(dataset: xr.Dataset) -> xr.Dataset:
    """Give the four dimensions our names, taking the first that a file has."""
    names: dict[str, str] = {}
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
    """Make `time` the time for which the fields are valid, as datetime64[ns]."""
    if "valid_time" in dataset.coords and dataset["valid_time"].dims in (("time",), ()):
        # GRIB's own `time` is when a forecast began.
        dataset = dataset.assign_coords(time=dataset["valid_time"].variable)
    if "time" not in dataset.coords:
        return dataset
    time = dataset["time"].variable
    if time.dtype.kind == "O":
        raise ValueError(
            f"{source} has times of the calendar {time.encoding.get('calendar', 'unknown')!r}: "
            f"only the standard calendar can be read."
        )
    if time.dtype.kind != "M":
        units = time.attrs.get("units") or dataset.attrs.get("time_units")
        if units is None:
            raise ValueError(
                f"{source} has times without units: write `units`, such as hours since 1900-01-01."
            )
        units = str(units).split(" (")[0]
        try:
            bare = xr.Dataset({"time": (time.dims, time.values, {"units": units})})
            time = xr.decode_cf(bare)["time"].variable
            if time.dtype.kind != "M":  # units of no time are left as they are
                raise ValueError(units)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(
                f"{source} has times in {units!r}, which cannot be read: write units such as "
                f"hours since 1900-01-01."
            ) from error
    values = time.values.astype("datetime64[ns]")
    if np.isnat(values).any():
        raise ValueError(
            f"{source} has {int(np.isnat(values).sum())} missing times: repair its time coordinate."
        )
    return dataset.assign_coords(time=(time.dims, values))


def _level_in_hpa(dataset: xr.Dataset, source: str) -> xr.Dataset:
    """Turn levels into whole hPa; Pa is told by the units, or by the size where there are none.

    Raises:
        ValueError: levels labelled hPa that can only be Pa, or levels of no pressure.
    """
    if "level" not in dataset.coords:
        return dataset
    level = dataset["level"].variable
    values = level.values.astype(np.float64)
    units = str(level.attrs.get("units", "")).strip()
    too_large = values.max() > 1100
    if units.lower() in HECTOPASCAL and too_large:
        raise ValueError(
            f"{source} has level {values.max():g} labelled {units}, which only Pa can be: correct "
            f"the units attribute of its level coordinate."
        )
    if units and units.lower() not in (*HECTOPASCAL, *PASCAL):
        raise ValueError(
            f"{source} has levels in {units!r}: only pressure levels in hPa or Pa can be read."
        )
    if units.lower() in PASCAL or (not units and too_large):
        values = values / 100.0
    whole = np.rint(values).astype(np.int64)
    # Channels are on whole hPa: 1.5 must not pass for 2. Files of float32 round to 1e-4.
    exact = np.abs(values - whole) < 1e-3
    if not level.dims:
        return dataset.assign_coords(level=whole) if exact else dataset.drop_vars("level")
    dataset = dataset.assign_coords(level=(level.dims, whole)).isel({level.dims[0]: exact})
    values_once, counts = np.unique(dataset["level"].values, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"{source} holds the level {values_once[counts > 1][0]} hPa twice: remove one of the "
            f"two."
        )
    return dataset
