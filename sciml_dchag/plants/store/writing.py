"""Writing plant stores image by image, block by block of lines: bounded memory, resumable.

The layout is described in `cubes`, which reads it; raw numbers become reflectance in `prepare`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from sciml_dchag._version import __version__
from sciml_dchag.channels import OWN_CHANNELS, own_records
from sciml_dchag.files.checksums import crc_of, files_of, note, part_of, seal
from sciml_dchag.files.moments import RunningMoments
from sciml_dchag.files.places import held, install, zarr_kind
from sciml_dchag.files.resumable import (
    Progress,
    full_disk_explained,
    nothing_kept_of_refused_data,
    resume,
    was_finished,
    write_progress,
)
from sciml_dchag.files.zarr_groups import (
    FINISHED_FOLDER,
    consolidate,
    even_chunk,
    partial_path,
    read_attrs,
    read_progress,
    require_format,
    require_plain_name,
    text,
    write_zarr,
)
from sciml_dchag.plants.channels import band_name
from sciml_dchag.plants.store.cubes import FORMAT, SPLITS, SpectralStatistics
from sciml_dchag.plants.store.new_cube import NewCube
from sciml_dchag.plants.store.statistics import add_plants, spectral_statistics

PLANT_STORE = zarr_kind("a plant store", FORMAT)
REQUIRED_ATTRS = ("title", "attribution", "simulated")

TILE_LINES, TILE_COLUMNS = 32, 64
"""Most lines and columns in a chunk: a crop reads little beside itself."""
BLOCK_BYTES = 128 * 2**20
"""Most bytes of a file of the store, which is also the block of lines that is held in memory."""


def write_cubes(
    cubes: Sequence[NewCube],
    path: str | os.PathLike[str],
    *,
    wavelength_nm: NDArray[np.float64],
    table: pd.DataFrame,
    attrs: Mapping[str, Any],
    overwrite: bool = False,
    progress: Progress | None = None,
    finish: Callable[[Path], None] | None = None,
) -> Path:
    """Write a plant store.

    Repeating a call that was interrupted resumes after the last finished image.

    Args:
        cubes: the images, in the order of the table.
        path: the store's place.
        wavelength_nm: centres of the bands, ascending, (C,).
        table: one row per image, by name; the column `split` is needed, others are the user's.
        attrs: root attributes; `REQUIRED_ATTRS` must be there, `provenance` may be a mapping. Two
            calls with the same attributes, table and sizes are taken to write the same store.
        overwrite: replace a store at `path`, or one begun there with other settings.
        progress: called for lines as they are written.
        finish: called with the path of the store, complete but not yet in its place, to add to it.

    Returns:
        `path`.

    Raises:
        FileExistsError: `path` exists, and `overwrite` is off or it is not only a plant store.
        ValueError: an image is refused, and nothing is kept; another store is being written there.
        OSError: the disk is full, or files may not grow so large.
    """
    path = Path(path)
    wavelength_nm = np.asarray(wavelength_nm, dtype=np.float64)
    _check(cubes, wavelength_nm, table, attrs)
    partial = partial_path(path)
    fingerprint = _fingerprint(cubes, wavelength_nm, table, attrs)
    with held(path, PLANT_STORE, overwrite), full_disk_explained(path):
        if was_finished(path, fingerprint, overwrite):
            return path
        done = resume(
            partial,
            fingerprint,
            overwrite,
            values=partial / FINISHED_FOLDER,
            usable=lambda: _require_usable(partial, [cube.name for cube in cubes]),
        )
        if done is None:
            partial.parent.mkdir(parents=True, exist_ok=True)
            write_zarr(_root(wavelength_nm, table, attrs), partial, consolidated=False)
            zarr.open_group(partial / "cubes", mode="w", zarr_format=3)
            (partial / FINISHED_FOLDER).mkdir()
            done = 0
            write_progress(partial, fingerprint, done, len(cubes), "images")
        reporter = _Lines(progress, cubes, done)
        with nothing_kept_of_refused_data(partial):
            for number, cube in enumerate(cubes[done:], start=done + 1):
                quantity = str(attrs.get("quantity", "reflectance"))
                moments = _write_cube(partial, cube, wavelength_nm, quantity, reporter)
                if cube.finish is not None:
                    cube.finish(partial)
                np.save(partial / FINISHED_FOLDER / f"{cube.name}.npy", moments.to_array())
                folder = partial / "cubes" / cube.name
                noted = [f"cubes/{cube.name}/{path}" for path in files_of(folder)]
                note(partial, [part_of(partial, path) for path in noted])
                write_progress(partial, fingerprint, number, len(cubes), "images")
            _write_statistics(partial, wavelength_nm, table)
            if finish is not None:
                finish(partial)
        consolidate(partial)
        seal(partial)
        install(partial, path)
    return path


def _require_usable(partial: Path, names: Sequence[str]) -> None:
    """Refuse a begun store that lacks its metadata, or the moments of a finished image."""
    require_format(partial, read_attrs(partial), FORMAT, "plant", "prepare plants")
    for name in names[: (read_progress(partial) or {"done": 0})["done"]]:
        np.load(partial / FINISHED_FOLDER / f"{name}.npy")
        zarr.open_array(partial / "cubes" / name / "reflectance", mode="r")


class _Lines:
    """Reports lines written, over all images."""

    def __init__(self, progress: Progress | None, cubes: Sequence[NewCube], done: int) -> None:
        self._progress = progress
        self._total = sum(cube.rows for cube in cubes)
        self._done = 0
        self.add(sum(cube.rows for cube in cubes[:done]))

    def add(self, lines: int) -> None:
        self._done += lines
        if self._progress is not None:
            self._progress(self._done, self._total, "writing lines")


def _check(
    cubes: Sequence[NewCube],
    wavelength_nm: NDArray[np.float64],
    table: pd.DataFrame,
    attrs: Mapping[str, Any],
) -> None:
    """What cannot happen to a user of `prepare`, which has refused it in words of its own."""
    names = [cube.name for cube in cubes]
    assert names and len(set(names)) == len(names), names
    assert names == [str(name) for name in table.index], (names, list(table.index))
    assert set(table["split"]) <= set(SPLITS), set(table["split"])
    assert (np.diff(wavelength_nm) > 0).all(), wavelength_nm
    assert all(cube.rows > 0 and cube.columns > 0 for cube in cubes)
    for name in names:
        require_plain_name(name, "An image")
    assert all(name in attrs for name in REQUIRED_ATTRS), list(attrs)


def _fingerprint(
    cubes: Sequence[NewCube],
    wavelength_nm: NDArray[np.float64],
    table: pd.DataFrame,
    attrs: Mapping[str, Any],
) -> str:
    """Hash of all that decides what a store will hold, but for the reflectance itself."""
    described = {
        "attrs": dict(attrs),
        "sizes": [[cube.name, cube.rows, cube.columns] for cube in cubes],
        "table": table.to_csv(),
        "version": __version__,
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
    digest.update(wavelength_nm.tobytes())
    return digest.hexdigest()


def _wavelength(wavelength_nm: NDArray[np.float64]) -> xr.Variable:
    attrs = {
        "standard_name": "radiation_wavelength",
        "long_name": "centre of the band",
        "units": "nm",
    }
    return xr.Variable(("wavelength",), wavelength_nm, attrs)


def _root(
    wavelength_nm: NDArray[np.float64], table: pd.DataFrame, attrs: Mapping[str, Any]
) -> xr.Dataset:
    dataset = xr.Dataset(coords={"wavelength": _wavelength(wavelength_nm)})
    dataset = dataset.assign_coords(cube=text(table.index))
    dataset["cube"].attrs = {"long_name": "name of the image"}
    for name in table.columns:
        column = table[name]
        number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        dataset[str(name)] = ("cube", column.to_numpy() if number else text(column))
    dataset["split"].attrs = {"long_name": "what the image is for", "values": " ".join(SPLITS)}
    own = own_records(band_name(nm) for nm in wavelength_nm)
    attrs = {**attrs, **({OWN_CHANNELS: own} if own else {})}
    dataset.attrs = {"Conventions": "CF-1.11", "format": FORMAT, **_plain(attrs)}
    return dataset


def _plain(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes that NetCDF knows too: mappings as JSON."""
    return {k: json.dumps(v) if isinstance(v, Mapping | list) else v for k, v in attrs.items()}


def block_lines(bands: int, columns: int) -> int:
    """Number of lines in a block, which is also a file of the store."""
    lines = TILE_LINES
    while lines > 1 and 4 * bands * lines * columns > BLOCK_BYTES:
        lines //= 2
    return lines


def _write_cube(
    partial: Path,
    cube: NewCube,
    wavelength_nm: NDArray[np.float64],
    quantity: str,
    reporter: _Lines,
) -> RunningMoments:
    """Write an image and return the moments of its plant pixels."""
    group = partial / "cubes" / cube.name
    shutil.rmtree(group, ignore_errors=True)  # what an interrupted call left of it
    mask = np.asarray(cube.mask())
    assert mask.shape == (cube.rows, cube.columns), (mask.shape, cube.rows, cube.columns)
    dataset = xr.Dataset(
        {"mask": (("y", "x"), mask.astype(np.int32))},
        coords={"wavelength": _wavelength(wavelength_nm)},
    )
    dataset["mask"].attrs = {
        "long_name": "plants",
        "comment": "0 is background, 1 and so on are the plants",
    }
    tiles = even_chunk(cube.rows, TILE_LINES), even_chunk(cube.columns, TILE_COLUMNS)
    whole = tuple(-(-n // tile) * tile for n, tile in zip(mask.shape, tiles, strict=True))
    encoding = {"mask": {"chunks": tiles, "shards": whole, "compressors": None}}
    write_zarr(dataset, group, encoding=encoding, consolidated=False)
    shards = _Shards.create(group, (len(wavelength_nm), cube.rows, cube.columns), quantity)
    moments = RunningMoments(len(wavelength_nm))
    first = 0
    # One block is written while the next is computed.
    with ThreadPoolExecutor(1) as background:
        writing: Future[None] | None = None
        for number, block in enumerate(_of_one_size(cube, shards.lines)):
            if writing is not None:
                writing.result()
            writing = background.submit(shards.write, number, block)
            lines = block.shape[1]
            add_plants(moments, block, mask[first : first + lines] > 0)
            first += lines
            reporter.add(lines)
        if writing is not None:
            writing.result()
    # `attrs.update` would write the file once for each of them.
    zarr.open_group(group, mode="r+").update_attributes(_plain(cube.attrs()))
    return moments


def _of_one_size(cube: NewCube, lines: int) -> Iterator[NDArray[np.float32]]:
    """The blocks of an image, which are seen to be as they were asked for."""
    first = 0
    for block in cube.blocks(lines):
        wanted = (min(lines, cube.rows - first), cube.columns)
        assert block.dtype == np.float32 and block.shape[1:] == wanted, (block.shape, wanted)
        first += wanted[0]
        yield block
    assert first == cube.rows, (first, cube.rows)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Shards:
    """The files of an image's reflectance: each all bands of a block of lines, chunk after chunk.

    They are put together here in one copy: Zarr's own writer hands every chunk to another thread
    and back, and takes five times as long for an uncompressed block of 100 MB.
    """

    folder: Path
    lines: int
    chunk: tuple[int, int, int]
    counts: tuple[int, int]
    """Chunks along bands and along columns."""
    buffer: NDArray[np.float32]
    """A file's chunks, each with its checksum as a further number, (chunks, values + 1); used
    again, as fresh memory costs as much as a copy."""

    @classmethod
    def create(cls, group: Path, shape: tuple[int, int, int], quantity: str) -> _Shards:
        bands, rows, columns = shape
        lines = even_chunk(rows, block_lines(bands, columns))
        chunk = (even_chunk(bands), lines, even_chunk(columns, TILE_COLUMNS))
        counts = -(-bands // chunk[0]), -(-columns // chunk[2])
        sharding = ShardingCodec(
            chunk_shape=chunk,
            codecs=[BytesCodec(), Crc32cCodec()],
            index_codecs=[BytesCodec(), Crc32cCodec()],
        )
        zarr.create_array(
            group,
            name="reflectance",
            shape=shape,
            chunks=(counts[0] * chunk[0], lines, counts[1] * chunk[2]),
            serializer=sharding,
            compressors=None,
            dtype="float32",
            fill_value=np.nan,
            dimension_names=("wavelength", "y", "x"),
            attributes={"long_name": quantity, "units": "1"},
        )
        buffer = np.empty((counts[0] * counts[1], np.prod(chunk) + 1), dtype="<f4")
        folder = group / "reflectance"
        return cls(folder=folder, lines=lines, chunk=chunk, counts=counts, buffer=buffer)

    def write(self, number: int, block: NDArray[np.float32]) -> None:
        """Write a block (C, lines, columns) as the file that it is."""
        bands, lines, columns = self.chunk
        sums = self.buffer.view("<u4")[:, -1]
        for i in range(self.counts[0]):
            for j in range(self.counts[1]):
                values = self.buffer[i * self.counts[1] + j, :-1]
                chunk = values.reshape(self.chunk)  # a view, as a chunk's values lie together
                part = block[i * bands : (i + 1) * bands, :, j * columns : (j + 1) * columns]
                if part.shape != self.chunk:
                    chunk[:] = np.nan
                chunk[: part.shape[0], : part.shape[1], : part.shape[2]] = part
                sums[i * self.counts[1] + j] = crc_of(values)
        size = 4 * bands * lines * columns + 4
        index = np.empty((self.counts[0] * self.counts[1], 2), dtype="<u8")
        index[:, 0] = np.arange(len(index), dtype=np.uint64) * size
        index[:, 1] = size
        file = self.folder / "c" / "0" / str(number) / "0"
        file.parent.mkdir(parents=True)
        with file.open("wb") as out:
            out.write(self.buffer.data)
            out.write(index.data)
            out.write(crc_of(index).to_bytes(4, "little"))


def _write_statistics(
    partial: Path, wavelength_nm: NDArray[np.float64], table: pd.DataFrame
) -> None:
    """Merge the moments of the training images and put them into the store."""
    training = [str(name) for name in table.index[table["split"] == "train"]]
    if not training:
        return
    moments = RunningMoments(len(wavelength_nm))
    for name in training:
        moments.merge(RunningMoments.from_array(np.load(partial / FINISHED_FOLDER / f"{name}.npy")))
    write_zarr(
        _described(spectral_statistics(moments, wavelength_nm, training), wavelength_nm),
        partial / "statistics",
    )


def _described(statistics: SpectralStatistics, wavelength_nm: NDArray[np.float64]) -> xr.Dataset:
    long_names = {
        "mean": "mean reflectance",
        "std": "standard deviation of reflectance",
        "minimum": "least reflectance",
        "maximum": "greatest reflectance",
        "count": "number of pixels that are known",
    }
    dataset = xr.Dataset(coords={"wavelength": _wavelength(wavelength_nm)})
    for name, long_name in long_names.items():
        dataset[name] = ("wavelength", getattr(statistics, name))
        dataset[name].attrs = {"long_name": long_name, "units": "1"}
    dataset.attrs = {
        "cubes": list(statistics.cubes),
        "comment": "over plant pixels of the training images",
    }
    return dataset
