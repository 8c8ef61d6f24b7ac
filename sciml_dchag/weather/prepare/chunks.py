"""Whether a Zarr directory has all its chunks: a missing one reads as the fill value."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from sciml_dchag.files.checksums import damage_named
from sciml_dchag.files.remote import ANONYMOUS, filesystem_of, is_remote
from sciml_dchag.weather.prepare.axes import STORED_AS
from sciml_dchag.weather.prepare.reading import RawField

NEVER_CONSTANT = (
    "z", "t", "u", "v", "q", "w", "vo", "t2m", "u10", "v10", "msl", "sp", "sst", "strd", "i10fg",
)  # fmt: skip
"""Variables of which no chunk is one value."""

MOST_CHUNKS, MOST_REMOTE_CHUNKS = 200_000, 20_000
"""Of an array of more, chunks are not looked for: it takes too long."""


def refuse_missing_chunks(fields: Sequence[RawField]) -> None:
    """Refuse fields of Zarr stores in which a chunk that reads as a number is missing.

    Remote ones are looked at where their place lists its files, as web servers seldom do.

    Where the fill value is NaN a missing chunk reads as missing values, which are looked for when
    fields are read. Where every cell may well be the fill value, as without rain, writers leave
    such chunks out, and nothing is said.

    Raises:
        ValueError: the first missing chunk of a variable that cannot be the fill value everywhere.
    """
    stored = {
        (f.source, str(f.variable.attrs.get(STORED_AS, f.name)))
        for f in fields
        if f.name in NEVER_CONSTANT
    }
    for source, name in sorted(stored):
        if missing := _missing(source, name):
            raise _lacks(source, name, *missing)


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
            if not one_way and (missing := _missing(source, name)):
                raise _lacks(source, name, *missing)


def _lacks(source: str, name: str, key: str, fill: float) -> ValueError:
    return ValueError(
        f"{source} lacks the chunk {key} of {name}, which would read as {fill:g}: copy or download "
        f"the store again."
    )


def _missing(source: str, name: str) -> tuple[str, float] | None:
    """Find a chunk of an array that is missing and reads as a number: its key, and the number."""
    with damage_named(Path(source)) if not is_remote(source) else nullcontext():
        array = _array(source, name)
    if array is None or array.dtype.kind not in "iuf":
        return None
    fill = float(array.fill_value or 0)
    if not np.isfinite(fill):
        return None
    sizes = array.shards or array.chunks
    counts = [-(-n // size) for n, size in zip(array.shape, sizes, strict=True)]
    if np.prod(counts) > (MOST_REMOTE_CHUNKS if is_remote(source) else MOST_CHUNKS):
        return None
    there = _listed(source, name) if is_remote(source) else None
    if is_remote(source) and there is None:
        return None
    for chunk in itertools.product(*(range(n) for n in counts)):
        key = array.metadata.encode_chunk_key(chunk)
        if not (Path(source, name, key).exists() if there is None else key in there):
            return key, fill
    return None


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
