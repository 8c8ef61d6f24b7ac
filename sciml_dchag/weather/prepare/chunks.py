"""Whether a Zarr directory has all its chunks: a missing one reads as the fill value."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from sciml_dchag.files.checksums import damage_named
from sciml_dchag.files.remote import ANONYMOUS, filesystem_of, is_remote
from sciml_dchag.weather.prepare.axes import STORED_AS
from sciml_dchag.weather.prepare.reading import VERTICAL, Part

NEVER_CONSTANT = (
    "z", "t", "u", "v", "q", "w", "vo", "t2m", "u10", "v10", "msl", "sp", "sst", "strd", "i10fg",
)  # fmt: skip
"""Variables of which no chunk is one value."""

MOST_CHUNKS, MOST_REMOTE_CHUNKS = 200_000, 20_000
"""Of an array of more, chunks are not looked for: it takes too long."""


def check_missing_chunks(parts: Sequence[Part], *, allow_missing: bool) -> None:
    """Refuse fields of Zarr stores of which a chunk that will be read is missing.

    Remote ones are looked at where their place lists its files, as web servers seldom do.

    Where every cell may well be the fill value, as without rain, writers leave such chunks out, and
    nothing is said. A chunk that reads as missing values was left out as empty or is lost: that is
    refused or, where missing values are allowed, warned of.

    Raises:
        ValueError: the first missing chunk of a variable that cannot be the fill value everywhere.

    Warns:
        UserWarning: how many chunks of a variable are missing and read as missing values.
    """
    seen: set[tuple[str, str]] = set()
    for part, number in [(p, n) for p in parts for n in range(len(p.fields))]:
        field = part.fields[number]
        name = str(field.variable.attrs.get(STORED_AS, field.name))
        read = {
            "time": part.place_in_field[part.field_of_time == number],
            **dict.fromkeys(VERTICAL, np.array(part.levels[number], np.int64)),
        }
        lost = _missing(field.source, name, field.variable, read)
        if lost is None:
            continue
        if np.isfinite(lost.fill):
            if field.name in NEVER_CONSTANT:
                raise _lacks(field.source, name, lost.keys[0], f"{lost.fill:g}")
        elif not allow_missing:
            raise _lacks(field.source, name, lost.keys[0], "missing values")
        elif (field.source, name) not in seen:
            seen.add((field.source, name))
            warnings.warn(
                f"{field.source} lacks {len(lost.keys)} of {lost.looked_at} chunks of {name}, the "
                f"first {lost.keys[0]}, which are kept as missing values: Zarr leaves out chunks "
                f"of nothing but missing values and a lost one looks the same, so compare them "
                f"with their source.",
                UserWarning,
                stacklevel=2,
            )


def refuse_lost_coordinates(source: str, dataset: xr.Dataset) -> None:
    """Refuse axes of a Zarr directory of which a chunk is missing, and reads as 0.

    An axis that goes one way throughout is whole: 0 may be its only value in a chunk, which
    writers leave out.

    Raises:
        ValueError: the first missing chunk of an axis.
    """
    for name in map(str, dataset.dims):
        if name in dataset.coords and dataset[name].dtype.kind in "iuf":
            steps = np.diff(dataset[name].values.astype(np.float64))
            one_way = (steps > 0).all() or (steps < 0).all()
            if not one_way and (lost := _missing(source, name)) and np.isfinite(lost.fill):
                raise _lacks(source, name, lost.keys[0], f"{lost.fill:g}")


def _lacks(source: str, name: str, key: str, reads_as: str) -> ValueError:
    empty = reads_as == "missing values"
    fix = ", or pass `allow_missing=True` if it was left out as empty" if empty else ""
    return ValueError(
        f"{source} lacks the chunk {key} of {name}, which would read as {reads_as}: copy or "
        f"download the store again{fix}."
    )


class _Lost(NamedTuple):
    """Chunks of an array that are missing."""

    keys: list[str]
    """Their names; one at least."""
    looked_at: int
    """Number of chunks that were looked for."""
    fill: float
    """What they read as."""


def _missing(
    source: str,
    name: str,
    variable: xr.Variable | None = None,
    read: Mapping[str, NDArray[np.int64]] | None = None,
) -> _Lost | None:
    """Find chunks of an array that are missing, of those that will be read.

    Args:
        source: the Zarr store.
        name: the array.
        variable: the array as it is read; None to look for all chunks.
        read: by dimension of `variable`, which positions are read; of other dimensions all are.
    """
    with damage_named(Path(source)) if not is_remote(source) else nullcontext():
        array = _array(source, name)
    if array is None or array.dtype.kind not in "iuf":
        return None
    sizes = array.shards or array.chunks
    along = [range(-(-n // size)) for n, size in zip(array.shape, sizes, strict=True)]
    if variable is not None and read is not None and variable.shape == array.shape:
        for axis, dim in enumerate(map(str, variable.dims)):
            if dim in read and read[dim].size:
                along[axis] = np.unique(read[dim] // sizes[axis]).tolist()
    number = math.prod(map(len, along))
    if number > (MOST_REMOTE_CHUNKS if is_remote(source) else MOST_CHUNKS):
        return None
    there = _listed(source, name) if is_remote(source) else None
    if is_remote(source) and there is None:
        return None
    keys = map(array.metadata.encode_chunk_key, itertools.product(*along))
    lost = [
        key
        for key in keys
        if not (Path(source, name, key).exists() if there is None else key in there)
    ]
    return _Lost(lost, number, _reads_as(array, variable)) if lost else None


def _reads_as(array: Any, variable: xr.Variable | None) -> float:
    """What a missing chunk of an array reads as, NaN where that marks missing values."""
    fill = float(array.fill_value or 0)
    declared = {} if variable is None else variable.encoding
    marks = [np.ravel(declared[key]) for key in ("_FillValue", "missing_value") if key in declared]
    if any(mark.dtype.kind in "iuf" and fill in mark for mark in marks):
        return float("nan")
    return fill


def _array(source: str, name: str) -> Any:
    """Open an array of a Zarr store; None where the source is none."""
    if is_remote(source):
        if source.endswith((".nc", ".nc4", ".h5")):
            return None
        options = ANONYMOUS.get(source.split("://")[0], {})
        return zarr.open_array(f"{source.rstrip('/')}/{name}", mode="r", storage_options=options)
    place = Path(source) / name
    if not (place / "zarr.json").is_file() and not (place / ".zarray").is_file():
        return None
    return zarr.open_array(place, mode="r")


def _listed(source: str, name: str) -> set[str] | None:
    """List the files of a remote array by their paths in it; None where its place does not."""
    filesystem = filesystem_of(source)
    try:
        root = str(filesystem._strip_protocol(f"{source.rstrip('/')}/{name}"))
        found = {str(path)[len(root) :].lstrip("/") for path in filesystem.find(root)}
    except Exception:  # every file system has exceptions of its own; reading says what is wrong
        return None
    return found if found & {"zarr.json", ".zarray"} else None
