"""Finding sources and opening them: paths, patterns and URLs; NetCDF, GRIB and Zarr.

Nothing is read but metadata. Giving what is found one form is `layouts`' work.
"""

from __future__ import annotations

import glob
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import xarray as xr

from sciml_dchag.files.checksums import DamagedError
from sciml_dchag.files.remote import ANONYMOUS, filesystem_of, in_short, is_remote
from sciml_dchag.weather.prepare.grib import open_grib
from sciml_dchag.weather.store.layout import FORMAT
from sciml_dchag.weather.store.store import Store

# SciPy warns of every classic file whose arrays outlive it; nothing is lost, the map lives on.
warnings.filterwarnings("ignore", "Cannot close a netcdf_file opened with mmap=True")


_UNPACK = "unpack it first"
_CONVERT = "convert it to NetCDF 4 first"
FOREIGN = (
    (b"CDF\x05", "of NetCDF's rare format CDF-5", "convert it with nccopy -k nc4"),
    (b"PK\x03\x04", "a ZIP archive, as the Climate Data Store sends them", _UNPACK),
    (b"\x1f\x8b", "compressed by gzip", "unpack it first, with gunzip"),
    (b"\x1f\x9d", "compressed by compress", "unpack it first, with uncompress"),
    (b"BZh", "compressed by bzip2", "unpack it first, with bunzip2"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it first, with unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", "unpack it first, with unzstd"),
    (b"ustar", "a tar archive", _UNPACK),
    (b"\x0e\x03\x13\x01", "HDF4, which is not NetCDF", f"{_CONVERT}, with h4tonccf_nc4"),
    (b"MATLAB", "a MATLAB file", f"{_CONVERT}, with ncwrite or scipy.io.loadmat and xarray"),
    (b"BUFR", "BUFR, which holds observations", "name files of fields on a grid"),
    (b"{", "JSON, as kerchunk's references are", "name the files to which it refers"),
    (b"PAR1", "a Parquet table", "name files of fields on a grid"),
    (b"II*\0", "a TIFF image", _CONVERT),
    (b"MM\0*", "a TIFF image", _CONVERT),
    (
        b"<",
        "neither NetCDF nor GRIB but a web page or XML, as failed downloads are",
        "open it to see why, and download it again",
    ),
)
"""First bytes of files of other kinds, what such a file is, and what to do with it."""

_ZARR = ("zarr.json", ".zgroup", ".zarray", ".zmetadata", ".zattrs")
"""Files of which a Zarr store has one at least."""


def expand_sources(sources: Sequence[str]) -> list[str]:
    """Resolve patterns, of URLs too, to sorted paths; plain URLs and paths stay.

    Raises:
        FileNotFoundError: no source is given, or one that is not there.
        ValueError: a remote place that cannot be listed.
        ModuleNotFoundError: an extra is missing; the message names it.
    """
    found: list[str] = []
    for source in filter(None, map(str, sources)):
        if is_remote(source):
            # A question mark begins the query of a URL.
            found.extend(_expand_url(source) if re.search(r"[*\[]", source) else [source])
        elif Path(source).exists():
            found.append(source)
        elif matches := sorted(glob.glob(source, recursive=True)):  # noqa: PTH207 - may be absolute
            found.extend(matches)
        else:
            raise FileNotFoundError(f"There is no file {source!r}: check the path or the pattern.")
    if not found:
        raise FileNotFoundError("No source files are given: name NetCDF, GRIB or Zarr files.")
    return list(dict.fromkeys(found))


def open_source(source: str) -> list[xr.Dataset]:
    """Open one source as its backend gives it; GRIB may hold several hypercubes.

    Raises:
        ValueError: it cannot be read, or is half written.
        ModuleNotFoundError: an extra is missing; the message names it.
    """
    place = Path(source)
    directory = place.is_dir()
    if not is_remote(source) and place.exists() and not (directory or place.is_file()):
        raise ValueError(
            f"{source} is no file but a pipe, socket or device: write what it gives to a file."
        )
    if directory and not any((place / name).exists() for name in _ZARR):
        held = sorted(path.name for path in place.iterdir())
        what = ", ".join(held[:3]) + (", ..." if len(held) > 3 else "") if held else "nothing"
        raise ValueError(
            f"{source} is a folder of no Zarr store and holds {what}: name what is meant in it, "
            f"one by one or by a pattern."
        )
    engine = None if is_remote(source) or directory else _engine(source)
    try:
        if is_remote(source):
            return [_open_url(source)]
        if engine == "grib":
            return open_grib(source)
        dataset = _open_zarr(source) if directory else _lazily(source, engine)
        if not dataset.data_vars and (groups := _groups(source, engine)):
            raise InGroupsError(_in_groups(source, groups, directory=directory))
        return [dataset]
    except (ModuleNotFoundError, DamagedError, InGroupsError):
        raise
    except Exception as error:  # every backend has exceptions of its own
        if is_remote(source):
            raise _unreachable(source, error) from error
        fix = "it is truncated or damaged, so download it again"
        if "dimension scale" in str(error):
            fix = "it is HDF5 without NetCDF's dimensions, so convert it to NetCDF 4 first"
        if directory:
            fix = "it is no whole Zarr store; name the files in it one by one or by a pattern"
        raise ValueError(f"{source} cannot be read ({in_short(error)}): {fix}.") from error


class InGroupsError(ValueError):
    """A file whose variables are in groups."""


def _groups(source: str, engine: str | None) -> list[str]:
    """Names of the groups at the root of a file or Zarr store that hold something."""
    if engine == "h5netcdf":
        with h5py.File(source) as file:
            return [name for name, held in file.items() if isinstance(held, h5py.Group) and held]
    if engine is None:
        folders = sorted(path for path in Path(source).iterdir() if path.is_dir())
        return [path.name for path in folders if any((path / name).exists() for name in _ZARR)]
    return []


def _in_groups(source: str, groups: Sequence[str], *, directory: bool) -> str:
    """Say that the variables of a source are in groups, and how to name one."""
    fix = f"name the one that is meant as {source.rstrip('/')}/{groups[0]}"
    if not directory:
        fix = (
            f"copy the one that is meant to a file of its own, as "
            f"ncks -G : -g {groups[0]} {Path(source).name} {groups[0]}.nc does"
        )
    return f"{source} has no variables but groups ({', '.join(groups[:6])}): {fix}."


def _expand_url(pattern: str) -> list[str]:
    """List what a remote pattern matches, sorted."""
    try:
        filesystem = filesystem_of(pattern)
        matches = sorted(map(str, filesystem.glob(pattern)))
    except ModuleNotFoundError:
        raise
    except FileNotFoundError:  # what some file systems say of a bucket that is not there
        matches = []
    except Exception as error:  # every file system has exceptions of its own
        raise _unreachable(pattern, error) from error
    if not matches:
        raise FileNotFoundError(f"Nothing matches {pattern!r}: check the address and the pattern.")
    return [str(filesystem.unstrip_protocol(match)) for match in matches]


def _unreachable(url: str, error: Exception) -> ValueError:
    return ValueError(
        f"{url} cannot be read ({in_short(error)}): check the address, the network and your rights "
        f"to read it."
    )


def _engine(source: str) -> Literal["grib", "scipy", "h5netcdf"]:
    """Detect by a file's first bytes what opens it."""
    with Path(source).open("rb") as file:
        start = file.read(2048)
    magic = start[:4]
    if magic == b"GRIB":
        return "grib"
    if magic in (b"CDF\x01", b"CDF\x02"):
        return "scipy"  # the netCDF library would read zeros beyond the end of a truncated file
    if magic == b"\x89HDF":
        return "h5netcdf"  # not the netCDF library, which can crash where several threads read
    if (before := start.find(b"GRIB")) > 0 and b"\0" not in start[:before]:
        raise ValueError(
            f"{source} cannot be read, because {before} bytes of a bulletin's header stand before "
            f"its GRIB messages: take them off with tail -c +{before + 1} {source} > bare.grib."
        )
    for signature, what, fix in FOREIGN:
        if start.startswith(signature) or (signature == b"ustar" and start[257:262] == signature):
            raise ValueError(f"{source} cannot be read, because it is {what}: {fix}.")
    if not magic:
        raise ValueError(f"{source} cannot be read, because it is empty: download it again.")
    raise ValueError(
        f"{source} cannot be read, because it is neither NetCDF nor GRIB: name files of fields in "
        f"one of these, or download it again."
    )


def _lazily(source: Any, engine: Any, **options: Any) -> xr.Dataset:
    """Open without Dask, whose graph would have to be built for all times at once.

    Times are left as they are: `calendars` decodes more of them, and names what is wrong. Of
    several numbers that stand for no data (`_FillValue`, and a list of `missing_value`) all do.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*has multiple fill values", xr.SerializationWarning)
        return xr.open_dataset(
            source, engine=engine, chunks=None, cache=False, decode_times=False, **options
        )


def _open_zarr(source: str, storage_options: dict[str, Any] | None = None) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # files beside the arrays, consolidation: not the user's
        dataset = _lazily(source, "zarr", storage_options=storage_options)
    if dataset.attrs.get("format") == FORMAT and not is_remote(source):
        Store.open(source)  # refuses a store that is half written or damaged
    return dataset


def _open_url(url: str) -> xr.Dataset:
    filesystem = filesystem_of(url)
    if url.endswith((".nc", ".nc4", ".h5")):
        return _lazily(filesystem.open(url), "h5netcdf")
    return _open_zarr(url, ANONYMOUS.get(url.split("://")[0], {}))
