"""Images of MATLAB (v5 and v7.3) and NumPy, with their wavelengths.

MATLAB and NumPy files say of no array what it is: `_choose` takes the one with three sides and the
one with as many numbers as one of those sides, and refuses where that is not clear.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.files.remote import in_short
from sciml_dchag.plants.read.envi_fields import is_radiance, largest
from sciml_dchag.plants.read.header_words import refuse_other_quantity
from sciml_dchag.plants.read.raw_cube import RawCube, ReadLines
from sciml_dchag.plants.read.wavelengths import read_wavelengths, to_nm, units_in

Shape = tuple[int, ...]
Given = NDArray[np.float64] | None

CUBE_NAMES = ("reflectance", "cube", "data")
"""What the image is called where a file holds several arrays with three sides."""
WAVELENGTH_NAMES = ("wave", "lambda", "wl")
"""How the names of wavelengths begin where a file holds several vectors of that length."""
NOT_WAVELENGTHS = ("fwhm", "bbl", "good", "bad", "gain", "offset", "scale", "snr", "noise")
"""How names of vectors of that length begin that are no wavelengths."""
LARGE_BYTES = 2**28
"""From here on, a file that is read whole is worth a remark."""

MATLAB_TYPES = {
    "double": "float64", "single": "float32", "int8": "int8", "uint8": "uint8", "int16": "int16",
    "uint16": "uint16", "int32": "int32", "uint32": "uint32", "int64": "int64", "uint64": "uint64",
}  # fmt: skip
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def open_matlab(path: Path, wavelengths: Given = None) -> RawCube:
    """Open a MATLAB file: the only array with three sides, and the vector of its wavelengths.

    Version 7.3 is HDF5 and is read line by line. Version 5 cannot be read in parts: it is read
    whole at the first line that is asked for, and stays in memory.

    Raises:
        ValueError: it is no MATLAB file, or which array is the image, which of its sides the bands
            or which vector the wavelengths is not clear.
    """
    with path.open("rb") as file:
        begin = file.read(520)
    if HDF5_SIGNATURE in (begin[:8], begin[512:520]):
        return _open_matlab_73(path, wavelengths)
    _require_whole(path, begin)
    from scipy import io

    try:
        listed = io.whosmat(str(path))
    except Exception as error:  # whatever the numbers of a damaged file lead to
        raise damaged(path, "MATLAB", error) from error
    arrays = {name: shape for name, shape, kind in listed if kind in MATLAB_TYPES}
    kinds = {name: kind for name, _, kind in listed}

    def load(name: str) -> NDArray[Any]:
        try:
            return np.asarray(io.loadmat(str(path), variable_names=[name], mat_dtype=True)[name])
        except Exception as error:
            raise damaged(path, "MATLAB", error) from error

    if not any(len(shape) == 3 for shape in arrays.values()):
        _refuse_structs(
            path, [n for n, _, kind in listed if kind in ("struct", "object", "opaque")]
        )

    def read_whole(name: str) -> tuple[np.dtype[Any], Callable[[], NDArray[Any]]]:
        return np.dtype(MATLAB_TYPES[kinds[name]]), cache(lambda: load(name))

    return _assemble(path, arrays, wavelengths, load, read_whole, fix="save it with -v7.3")


def _require_whole(path: Path, begin: bytes) -> None:
    """Refuse a file of version 5 that ends within one of its arrays, which then is not listed.

    Behind 128 bytes, each array says its length; those that are not compressed are padded.
    """
    if not begin.startswith(b"MATLAB 5"):
        return
    order: Literal["little", "big"] = "little" if begin[126:128] == b"IM" else "big"
    size, place = path.stat().st_size, 128
    with path.open("rb") as file:
        while place < size:
            file.seek(place)
            tag = file.read(8)
            kind, length = (int.from_bytes(part, order) for part in (tag[:4], tag[4:]))
            end = place + 8 + (length if kind == _COMPRESSED else -(-length // 8) * 8)
            if len(tag) < 8 or end > size:
                raise ValueError(
                    f"{path} is cut off: it has {size} bytes where its last array ends after "
                    f"{max(end, place + 8)}, so copy it again."
                )
            place = end


_COMPRESSED = 15


def _opaque(file: Any) -> list[str]:
    """Names of objects of MATLAB's own classes, such as a hypercube, in a file of version 7.3."""
    return [name for name, item in file.items() if "MATLAB_object_decode" in item.attrs]


def _refuse_structs(path: Path, names: list[str]) -> None:
    """Refuse structs and objects, in which MATLAB's own hypercube keeps an image."""
    if names:
        name = names[0]
        raise ValueError(
            f"{path} holds the struct or object {name!r} and no array with three sides: in MATLAB, "
            f"save its arrays, such as cube = {name}.DataCube; wavelength_nm = {name}.Wavelength; "
            f"save('{path.name}', 'cube', 'wavelength_nm', '-v7.3')."
        )


def open_numpy(path: Path, wavelengths: Given = None) -> RawCube:
    """Open `.npy` with `x.wavelengths.txt` or `.csv` beside it, or `.npz` with its wavelengths.

    Both are mapped and read line by line; a compressed `.npz` is read whole.

    Raises:
        ValueError: it is damaged, says no wavelengths, or which array is which is not clear.
    """
    if path.suffix.lower() == ".npz":
        return _open_npz(path, wavelengths)
    beside = [path.with_suffix(f".wavelengths.{suffix}") for suffix in ("txt", "csv")]
    remark = None
    if wavelengths is None:
        sidecar = next((file for file in beside if file.is_file()), None)
        if sidecar is None:
            raise ValueError(
                f"{path} says no wavelengths: put them into {beside[0].name} beside it, or give "
                f"them with `wavelengths=FILE`."
            )
        wavelengths, remark = read_wavelengths(sidecar)

    def mapped() -> NDArray[Any]:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise damaged(path, "NumPy", error) from error
        return np.asanyarray(array)

    array = mapped()
    if array.ndim != 3:
        raise ValueError(
            f"{path} holds an array of shape {array.shape} where (lines, samples, bands) is needed."
        )
    axis, doubt = _band_axis(path, array.shape, len(wavelengths))
    read = _lines_of(mapped, axis)
    return _cube(path, array.shape, axis, array.dtype, wavelengths, read, (remark, doubt))


def _open_npz(path: Path, wavelengths: Given) -> RawCube:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {
                info.filename.removesuffix(".npy"): info
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
            headers = {}
            for name, info in members.items():
                with archive.open(info) as file:
                    headers[name] = _npy_header(file)
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise damaged(path, "NumPy", error) from error

    def load(name: str) -> NDArray[Any]:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return np.asarray(arrays[name])
        except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
            raise damaged(path, "NumPy", error) from error

    def opened(name: str) -> tuple[np.dtype[Any], Callable[[], NDArray[Any]]]:
        shape, fortran, dtype = headers[name]
        if members[name].compress_type != zipfile.ZIP_STORED:
            return dtype, cache(lambda: load(name))

        def mapped() -> NDArray[Any]:
            with path.open("rb") as file:
                # A member lies behind its own header: 30 bytes, its name and its extra field.
                file.seek(members[name].header_offset + 26)
                lengths = np.frombuffer(file.read(4), "<u2")
                file.seek(int(lengths.sum()), 1)
                _npy_header(file)
                return np.memmap(
                    path, dtype, "r", file.tell(), shape, order="F" if fortran else "C"
                )

        return dtype, mapped

    arrays = {name: shape for name, (shape, _, dtype) in headers.items() if dtype.kind in "iuf"}
    return _assemble(path, arrays, wavelengths, load, opened, fix="save it uncompressed")


def _npy_header(file: IO[bytes]) -> tuple[Shape, bool, np.dtype[Any]]:
    """Read shape, whether columns come first, and type; the file then stands at the numbers."""
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    return read(file)


def _open_matlab_73(path: Path, wavelengths: Given) -> RawCube:
    import h5py

    def load(name: str) -> NDArray[Any]:
        with h5py.File(path, "r") as file:
            return np.asarray(file[name]).T

    try:
        with h5py.File(path, "r") as file:
            numeric = {
                name: dataset
                for name, dataset in file.items()
                if isinstance(dataset, h5py.Dataset)
                and dataset.dtype.kind in "iuf"
                and dataset.attrs.get("MATLAB_class", b"double").decode() in MATLAB_TYPES
            }
            # MATLAB counts the first side fastest, HDF5 the last: sides come back reversed.
            arrays = {name: dataset.shape[::-1] for name, dataset in numeric.items()}
            dtypes = {name: dataset.dtype for name, dataset in numeric.items()}
            groups = [
                name
                for name, item in file.items()
                if not name.startswith("#")
                and (isinstance(item, h5py.Group) or name in _opaque(file))
            ]
    except OSError as error:
        raise damaged(path, "MATLAB", error) from error
    if not any(len(shape) == 3 for shape in arrays.values()):
        _refuse_structs(path, groups)
    name, axis, nm, remarks = _choose(path, arrays, wavelengths, load)
    lines_axis = 1 if axis == 0 else 0

    def read(lines: slice) -> NDArray[Any]:
        index = [slice(None)] * 3
        index[lines_axis] = lines
        with h5py.File(path, "r") as file:
            block = np.moveaxis(file[name][tuple(reversed(index))].T, axis, -1)
        return np.asarray(block, dtype=block.dtype.newbyteorder("="))

    cube = _cube(path, arrays[name], axis, dtypes[name], nm, read, remarks)
    return replace(cube, radiance=is_radiance(name))


def _assemble(
    path: Path,
    arrays: Mapping[str, Shape],
    wavelengths: Given,
    load: Callable[[str], NDArray[Any]],
    opened: Callable[[str], tuple[np.dtype[Any], Callable[[], NDArray[Any]]]],
    fix: str,
) -> RawCube:
    """Choose the image among arrays; `opened` gives its type and what reads or maps it."""
    name, axis, nm, remarks = _choose(path, arrays, wavelengths, load)
    dtype, array = opened(name)
    size = int(np.prod(arrays[name])) * dtype.itemsize
    if hasattr(array, "cache_info") and size > LARGE_BYTES:
        remarks += (f"{path.name} is read whole, {size / 1e9:.1f} GB: {fix} to read it in parts.",)
    cube = _cube(path, arrays[name], axis, dtype, nm, _lines_of(array, axis), remarks)
    return replace(cube, radiance=is_radiance(name))


def _choose(
    path: Path, arrays: Mapping[str, Shape], given: Given, load: Callable[[str], NDArray[Any]]
) -> tuple[str, int, NDArray[np.float64], tuple[str | None, ...]]:
    """Choose the image, the side of its bands and its wavelengths in nm, with remarks."""
    images = [name for name, shape in arrays.items() if len(shape) == 3]
    name = _only(images, [name for name in images if name.lower() in CUBE_NAMES])
    if name is None:
        raise ValueError(
            f"{path} holds {len(images)} arrays with three sides "
            f"({', '.join(images) or 'none'}): exactly one is needed, or one that is called "
            f"{', '.join(CUBE_NAMES[:-1])} or {CUBE_NAMES[-1]}."
        )
    refuse_other_quantity({"description": name.replace("_", " ")}, path)
    if given is not None:
        axis, doubt = _band_axis(path, arrays[name], len(given))
        return name, axis, given, (doubt,)
    lengths = {
        vector: max(shape)
        for vector, shape in arrays.items()
        if len(shape) in (1, 2)
        and int(np.prod(shape)) == max(shape) in arrays[name]
        and not vector.lower().startswith(NOT_WAVELENGTHS)
    }
    called = [vector for vector in lengths if vector.lower().startswith(WAVELENGTH_NAMES)]
    vector = _only(list(lengths), called)
    if vector is None:
        found = f"{len(lengths)} vectors" if lengths else "no vector"
        raise ValueError(
            f"{path} holds {found} of as many numbers as one side of its image "
            f"{' x '.join(map(str, arrays[name]))} has"
            f"{' (' + ', '.join(lengths) + ')' if lengths else ''}: call one `wavelength_nm`, or "
            f"give wavelengths with `wavelengths=FILE`."
        )
    axis, doubt = _band_axis(path, arrays[name], lengths[vector])
    ends = next((unit for unit in ("nm", "um") if vector.lower().endswith(unit)), None)
    units = units_in(vector) or ends
    nm, remark = to_nm(load(vector).ravel(), units, str(path))
    return name, axis, nm, (remark, doubt)


def _only(names: list[str], better: list[str]) -> str | None:
    """Return the only name, or the only better one; None where neither is the only one."""
    for found in (names, better):
        if len(found) == 1:
            return found[0]
    return None


def _band_axis(path: Path, shape: Shape, bands: int) -> tuple[int, str | None]:
    """Find the side of the bands by its length; a sentence where another is as long.

    Raises:
        ValueError: no side is as long, or the first two are and the last is not.
    """
    fitting = [axis for axis, length in enumerate(shape) if length == bands]
    sides = " x ".join(map(str, shape))
    if not fitting:
        raise ValueError(
            f"There are {bands} wavelengths for the image {sides} of {path}, no side of which is "
            f"as long: give one a band."
        )
    if len(fitting) > 1 and 2 not in fitting:
        raise ValueError(
            f"Two sides of the image {sides} of {path} are as long as its {bands} wavelengths: "
            f"save it as (lines, samples, bands)."
        )
    doubt = (
        f"Several sides of the image {sides} of {path.name} may be its bands: the last is taken."
    )
    return fitting[-1], doubt if len(fitting) > 1 else None


def _cube(
    path: Path,
    shape: Shape,
    axis: int,
    dtype: np.dtype[Any],
    wavelengths: NDArray[np.float64],
    read: ReadLines,
    remarks: tuple[str | None, ...],
) -> RawCube:
    lines, samples = (length for side, length in enumerate(shape) if side != axis)
    return RawCube(
        path=path,
        lines=lines,
        samples=samples,
        wavelength_nm=wavelengths,
        dtype=plain_type(dtype, path),
        read_lines=read,
        saturation=largest(dtype),
        remarks=tuple(remark for remark in remarks if remark),
    )


def _lines_of(array: Callable[[], NDArray[Any]], axis: int) -> ReadLines:
    """Return what reads lines of an array that is mapped, or was read whole."""

    def read(lines: slice) -> NDArray[Any]:
        block = np.moveaxis(array(), axis, -1)[lines]
        return np.array(block, dtype=block.dtype.newbyteorder("="))

    return read


def plain_type(dtype: np.dtype[Any], path: Path) -> np.dtype[Any]:
    """Return a type in this machine's order of bytes; refuse what holds no plain numbers."""
    if dtype.kind not in "iuf":
        raise ValueError(
            f"{path} holds numbers of type {dtype.name}, where integers or floating-point numbers "
            f"are needed."
        )
    return dtype.newbyteorder("=")


def damaged(path: Path, kind: str, error: Exception) -> ValueError:
    """Say that a file cannot be read as what its name says."""
    return ValueError(
        f"{path} cannot be read as {kind} ({in_short(error)}): it is damaged or another format, so "
        f"copy it again."
    )
