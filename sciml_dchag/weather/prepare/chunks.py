"""Whether a Zarr directory has all its chunks: a missing one reads as the fill value."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from sciml_dchag.files.checksums import damage_named
from sciml_dchag.files.remote import is_remote
from sciml_dchag.weather.prepare.layouts import STORED_AS
from sciml_dchag.weather.prepare.reading import RawField

NEVER_CONSTANT = (
    "z", "t", "u", "v", "q", "w", "vo", "t2m", "u10", "v10", "msl", "sp", "sst",
)  # fmt: skip
"""Variables of which no chunk is one value."""

MOST_CHUNKS = 200_000
"""Of an array of more, chunks are not looked for: it takes too long."""


def refuse_missing_chunks(fields: Sequence[RawField]) -> None:
    """Refuse fields of local Zarr directories in which a chunk that reads as a number is missing.

    Where the fill value is NaN a missing chunk reads as missing values, which are looked for when
    fields are read. Where every cell may well be the fill value, as without rain, writers leave
    such chunks out, and nothing is said.

    Raises:
        ValueError: the first missing chunk of a variable that cannot be the fill value everywhere.
    """
    stored = {
        (f.source, str(f.variable.attrs.get(STORED_AS, f.name)))
        for f in fields
        if f.name in NEVER_CONSTANT and not is_remote(f.source)
    }
    for source, name in sorted(stored):
        place = Path(source) / name
        if not (place / "zarr.json").is_file() and not (place / ".zarray").is_file():
            continue
        with damage_named(Path(source)):
            array: Any = zarr.open_array(place, mode="r")
        if array.fill_value is None or not np.isfinite(float(array.fill_value)):
            continue
        sizes = array.shards or array.chunks
        counts = [-(-n // size) for n, size in zip(array.shape, sizes, strict=True)]
        if np.prod(counts) > MOST_CHUNKS:
            continue
        for chunk in itertools.product(*(range(n) for n in counts)):
            key = array.metadata.encode_chunk_key(chunk)
            if not (place / key).exists():
                raise ValueError(
                    f"{source} lacks the chunk {key} of {name}, which would read as "
                    f"{float(array.fill_value):g}: copy or download the store again."
                )
