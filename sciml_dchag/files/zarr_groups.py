"""What a weather store looks like on disk: its format, chunks, attributes, and added groups.

The blocks of states are written by `data.writing` and read by `data.store`.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import zarr
import zarr.errors
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from sciml_dchag.files import checksums

PROGRESS_FILE = "progress.json"
"""Lies in a store while it grows; absent, or complete, in a store that may be read."""
PICTURES_FOLDER = "quicklooks"
"""Holds a picture of each image of a plant store."""
FINISHED_FOLDER = "finished"
"""Holds what is known of each finished image while a plant store grows."""

MOST_NAME_BYTES = 200
"""Longest name of an image or column: file systems take 255, with a suffix."""

CHUNK_CHANNELS = 16
"""Most channels in one chunk, the least that is read: a rank of many reads little else."""


def partial_path(path: Path) -> Path:
    """Return where a store lies while it is being written: beside its place."""
    return path.with_name(f"{path.name}.partial")


def require_there(path: Path, command: str) -> None:
    """Refuse a store that is not there, saying whether one was begun.

    Raises:
        FileNotFoundError: there is nothing at `path`; `command` writes what belongs there.
    """
    if path.exists():
        return
    partial = partial_path(path)
    begun = (
        f"; {partial} was begun, so repeat the command that writes it"
        if partial.exists()
        else f": write it with `sciml-dchag {command}`"
    )
    raise FileNotFoundError(f"There is no store at {path}{begun}.")


def read_attrs(path: Path) -> dict[str, Any]:
    """Read a Zarr group's attributes.

    Raises:
        ValueError: `path` is no Zarr group.
    """
    with checksums.damage_named(path):
        try:
            return dict(zarr.open_group(path, mode="r").attrs)
        except (zarr.errors.GroupNotFoundError, zarr.errors.ContainsArrayError, OSError) as error:
            checksums.require_whole(path)
            raise ValueError(
                f"{path} is no Zarr group: give a store written by `sciml-dchag prepare era5`."
            ) from error


def open_zarr(path: Path, **options: Any) -> xr.Dataset:
    """Open a store with xarray, reading nothing yet; options are those of `xarray.open_zarr`.

    Raises:
        ValueError: its metadata is damaged.
    """
    with checksums.damage_named(path):
        dataset: xr.Dataset = xr.open_zarr(path, **options)
        return dataset


def require_format(
    path: Path, attrs: Mapping[str, Any], store_format: str, kind: str, command: str
) -> None:
    """Refuse a store of another format.

    Raises:
        ValueError: the format that was found, and which is needed.
    """
    if attrs.get("format") != store_format:
        raise ValueError(
            f"{path} has format {attrs.get('format', 'unknown')!r} where a {kind} store "
            f"({store_format}) is needed: write one with `sciml-dchag {command}`."
        )


def require_plain_name(name: str, what: str) -> None:
    """Refuse a name that is not one file's or folder's, which foreign data may hold.

    Raises:
        ValueError: a name with a separator or a control character, `.`, `..`, or one too long.
    """
    plain = name.isprintable() and not set("/\\") & set(name) and name not in ("", ".", "..")
    if not plain or len(name.encode("utf-8", "replace")) > MOST_NAME_BYTES:
        shown = name if len(name) <= 60 else f"{name[:60]}..."
        raise ValueError(
            f"{what} is called {shown!r}, which is no name of a file: use up to "
            f"{MOST_NAME_BYTES} letters, digits, '.', '_' and '-'."
        )


def text(values: Iterable[Any]) -> NDArray[np.object_]:
    """Variable-length strings, the kind that Zarr v3 specifies; nothing where nothing is said."""
    return np.array(["" if pd.isna(value) else str(value) for value in values], dtype=object)


def read_progress(path: Path) -> dict[str, Any] | None:
    """Read how far the writing of a store has come; None where that is not known."""
    try:
        found = json.loads((path / PROGRESS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    # A file of that name may be anybody's.
    if not isinstance(found, dict) or not isinstance(found.get("fingerprint"), str):
        return None
    numbers = [found.get("done"), found.get("total")]
    return found if all(isinstance(number, int) for number in numbers) else None


def write_group(path: Path, name: str, dataset: xr.Dataset) -> None:
    """Put a group into a store, in place of one of the same name, all of it or nothing."""
    beside = begun_group(path, name)
    try:
        write_zarr(dataset, beside)
        install_group(path, name, beside)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def begun_group(path: Path, name: str) -> Path:
    """Return where a group of a store grows, inside the store, with nothing there."""
    beside = path / f".{name}.partial"
    shutil.rmtree(beside, ignore_errors=True)
    return beside


def install_group(path: Path, name: str, beside: Path) -> None:
    """Give a finished group its name; one of that name is removed once the new one is there."""
    former = path / f".{name}.former"
    shutil.rmtree(former, ignore_errors=True)
    listed = checksums.require_whole(path) if read_progress(path) is None else None
    if listed is not None:
        # Killed from here on, the store has no list until this is repeated, and no false one.
        (path / checksums.LIST).unlink()
        checksums.note(path, [part for part in listed if not _is_of_group(part.path, name)])
    if (path / name).exists():
        (path / name).rename(former)
    beside.rename(path / name)
    shutil.rmtree(former, ignore_errors=True)
    consolidate(path)
    if listed is not None:
        checksums.seal(path)


def _is_of_group(path: str, name: str) -> bool:
    """Whether a file of a store changes with one of its groups."""
    return path == "zarr.json" or path.startswith(f"{name}/")


def write_zarr(
    dataset: xr.Dataset,
    path: Path,
    *,
    consolidated: bool = True,
    encoding: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> None:
    """Write a Dataset as Zarr v3, every chunk of it, each with its checksum.

    Args:
        dataset: what is written.
        path: where to.
        consolidated: gather the metadata at the root, unless more is to be put beside it.
        encoding: by variable, as of `to_zarr`; compressed is what says nothing of `compressors`.
        options: of `to_zarr`.
    """
    summed = {}
    for name in dataset.variables:
        own = {**(encoding or {}).get(str(name), {})}
        compressors = own.get("compressors", (ZstdCodec(level=0),)) or ()
        summed[name] = {**own, "compressors": (*compressors, Crc32cCodec())}
    with _consolidation_unremarked(), every_chunk_written():
        dataset.to_zarr(
            path, mode="w", zarr_format=3, consolidated=consolidated, encoding=summed,
            write_empty_chunks=True, **options,
        )  # fmt: skip


@contextmanager
def every_chunk_written() -> Iterator[None]:
    """Let arrays that are opened or made within write chunks of fill values, too.

    A chunk that is not there is then always damage.
    """
    with zarr.config.set({"array.write_empty_chunks": True}):
        yield


def open_to_write(path: Path) -> zarr.Array[Any]:
    """Open an array that is there to write every chunk of it."""
    with every_chunk_written():
        return zarr.open_array(path, mode="r+")


def consolidate(path: Path) -> None:
    """Gather the metadata of all groups at the root, which spares `xarray.open_zarr` a search."""
    with _consolidation_unremarked():
        zarr.consolidate_metadata(path, zarr_format=3)


@contextmanager
def _consolidation_unremarked() -> Iterator[None]:
    with warnings.catch_warnings():
        # The v3 specification has no text yet for consolidated metadata; xarray relies on it.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        for name in (PROGRESS_FILE, FINISHED_FOLDER, PICTURES_FOLDER, checksums.LIST):
            warnings.filterwarnings("ignore", message=f"Object at {name}")
        yield


def even_chunk(size: int, most: int = CHUNK_CHANNELS) -> int:
    """Split a dimension into the fewest chunks allowed, as even as they come."""
    return -(-size // -(-size // most))
