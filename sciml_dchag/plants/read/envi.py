"""ENVI images: a file of numbers and a header of text, opened lazily through `spectral`.

Headers of cameras leave fields out. What the header says beside the layout (wavelengths, exposure,
saturation) is read by `envi_fields.py`; what has to be assumed of the layout is decided here, from
the file's size and its numbers, and said in `RawCube.remarks`. No file is ever written.
"""

from __future__ import annotations

import glob
import re
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.plants.read.envi_fields import Header, optional_fields
from sciml_dchag.plants.read.header_words import missing_number, refuse_other_quantity
from sciml_dchag.plants.read.jumbled import require_in_order
from sciml_dchag.plants.read.raw_cube import RawCube

DATA_SUFFIXES = ("raw", "dat", "bin", "img", "bil", "bip", "bsq", "hyspex")
"""What files of numbers are called beside `x.hdr`, in either case; none is a suffix too."""
NOT_NUMBERS = (
    "hdr", "png", "jpg", "jpeg", "gif", "txt", "csv", "tsv", "xml", "json", "yaml", "yml", "log",
    "pdf", "html", "tif", "tiff", "mat", "npy", "npz", "h5", "hdf5", "he5", "nc", "zip", "gz", "py",
    "xlsx", "enp", "sta",
)  # fmt: skip
"""What files beside `x.hdr` are called that do not hold its numbers; another one does."""
INTERLEAVES = ("bil", "bip", "bsq")
DATA_TYPES = {
    1: "uint8", 2: "int16", 3: "int32", 4: "float32", 5: "float64", 12: "uint16", 13: "uint32",
    14: "int64", 15: "uint64",
}  # fmt: skip
"""ENVI's codes of types that are read."""
COMPLEX_TYPES = {6: "complex64", 9: "complex128"}
REQUIRED = ("samples", "lines", "bands", "data type", "interleave")

PROBED_BYTES = 2**20
"""At the middle of a file, to detect the order of its bytes."""
ROUGHER = 2.0
"""How many times rougher little endian has to be than big endian to be given up."""


def open_envi(path: Path, wavelengths: NDArray[np.float64] | None = None) -> RawCube:
    """Open an ENVI image by its header or by its file of numbers.

    Args:
        path: `x.hdr`, `x.raw.hdr` or the file of numbers.
        wavelengths: in nm, instead of those of the header.

    Raises:
        FileNotFoundError: the header or the numbers are missing.
        ValueError: a header that is not ENVI, is cut off or lacks what is needed, an unknown
            interleave or type, a size that does not match, or no wavelengths.
    """
    header_path, data = find_pair(path)
    header = read_header(header_path)
    layout, remarks = _layout(header, header_path, data)
    fields, more = optional_fields(header, header_path, layout.bands, layout.dtype, wavelengths)
    refuse_other_quantity(header, header_path)
    require_in_order(
        data, header_path, layout.interleave, (layout.lines, layout.samples, layout.bands),
        layout.dtype, layout.offset, fields["wavelength_nm"],
    )  # fmt: skip
    fields["missing"] = missing_number(header, header_path)
    return RawCube(
        path=data,
        lines=layout.lines,
        samples=layout.samples,
        dtype=layout.dtype.newbyteorder("="),
        read_lines=layout.read,
        remarks=(*remarks, *more),
        **fields,
    )


def find_pair(path: Path) -> tuple[Path, Path]:
    """Find header and numbers, given either: `x.hdr` and `x`, `x.raw`, ...; `x.raw.hdr`.

    Raises:
        FileNotFoundError: one of the two is missing.
        ValueError: several files may hold the numbers.
    """
    if path.suffix.lower() != ".hdr":
        beside = [path.with_name(path.name + hdr) for hdr in (".hdr", ".HDR")]
        beside += [path.with_suffix(hdr) for hdr in (".hdr", ".HDR")]
        header = next((file for file in beside if file.is_file()), None)
        if header is None:
            raise FileNotFoundError(
                f"There is no ENVI header {beside[0].name} or {beside[2].name} beside {path}: put "
                f"it there, or name a GeoTIFF, MATLAB or NumPy file."
            )
        return header, path
    stem = path.with_suffix("")
    names = [stem.name, *(f"{stem.name}.{suffix}" for suffix in DATA_SUFFIXES)]
    names += [f"{stem.name}.{suffix.upper()}" for suffix in DATA_SUFFIXES]
    found: list[Path] = []
    for file in map(path.with_name, names):
        # Where a file system takes .raw and .RAW for one, it is counted once.
        if file.is_file() and not any(file.samefile(other) for other in found):
            found.append(file)
    if not found:
        found = [file for file in sorted(path.parent.glob(f"{glob.escape(stem.name)}.*"))
                 if file.is_file() and file.suffix.lower().strip(".") not in NOT_NUMBERS
                 and file.with_suffix("") == stem]  # fmt: skip
    if not found:
        raise FileNotFoundError(
            f"There are no numbers beside the header {path}, such as {names[0]} or {names[1]}: put "
            f"them there."
        )
    if len(found) > 1:
        raise ValueError(
            f"{' and '.join(file.name for file in found)} may both belong to the header {path}: "
            f"name the one that is meant instead of the header."
        )
    return path, found[0]


def read_header(path: Path) -> Header:
    """Read the fields of a header; names are in small letters, lists are lists of text.

    Lines that begin with `;` are comments, and commas at the ends of a list are ignored. A field
    without a value says nothing, and is left out.

    Raises:
        ValueError: it is not ENVI, empty, or cut off within a list.
    """
    from spectral.io import envi

    content = path.read_bytes()
    if not content.strip():
        raise ValueError(f"The header {path} is empty: copy it again from the camera.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if not text.lstrip().startswith("ENVI"):
        raise ValueError(
            f"{path} is not an ENVI header, whose first line is ENVI: name the header or the "
            f"numbers of an ENVI image."
        )
    # The library reads files alone, and those in UTF-8 without a byte order mark.
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that names with capitals are made small
        copy = Path(folder) / "header.hdr"
        copy.write_text(_plain_text(text), encoding="utf-8")
        try:
            fields = envi.read_envi_header(str(copy))
        except envi.EnviException as error:
            raise ValueError(
                f"The header {path} is cut off within a list that no brace ends: copy it again "
                f"from the camera."
            ) from error
    read = {
        name: [item for item in value if item] if isinstance(value, list) else str(value)
        for name, value in fields.items()
    }
    return {name: value for name, value in read.items() if value}


def _plain_text(text: str) -> str:
    """Drop comments, blanks around lines, and the line break between `=` and a brace."""
    lines = [line.strip() for line in text.lstrip().splitlines()]
    kept = "\n".join(line for line in lines if not line.startswith(";"))
    return re.sub(r"=\s*\n\s*\{", "= {", kept) + "\n"


@dataclass(frozen=True)
class _Layout:
    """Where the numbers lie in a file."""

    data: Path
    interleave: str
    lines: int
    samples: int
    bands: int
    dtype: np.dtype[Any]
    """With the file's order of bytes."""
    offset: int

    def read(self, lines: slice) -> NDArray[Any]:
        """Read lines as (lines, samples, bands), in this machine's order of bytes.

        The file is mapped anew at each call, so that what was read does not stay in memory.
        """
        from spectral.io import bilfile, bipfile, bsqfile, envi

        kinds = {"bil": bilfile.BilFile, "bip": bipfile.BipFile, "bsq": bsqfile.BsqFile}
        codes = {name: code for code, name in DATA_TYPES.items()}
        big = self.dtype.newbyteorder(">") == self.dtype and self.dtype.itemsize > 1
        params = envi.gen_params(
            {
                "lines": self.lines,
                "samples": self.samples,
                "bands": self.bands,
                "header offset": self.offset,
                "data type": codes[self.dtype.newbyteorder("=").name],
                "byte order": int(big),
            }
        )
        params.filename = str(self.data.absolute())
        image = kinds[self.interleave](params, {})
        mapped = image.open_memmap(interleave="bip")
        return np.array(mapped[lines], dtype=self.dtype.newbyteorder("="))


def _layout(header: Header, path: Path, data: Path) -> tuple[_Layout, list[str]]:
    """Read where the numbers lie, and say what had to be assumed."""
    if missing := [name for name in REQUIRED if name not in header]:
        raise ValueError(
            f"The header {path} has no {' and no '.join(missing)}: it is cut off, or the fields "
            f"have to be added."
        )
    _check_kind(header, path)
    lines, samples, bands = (_whole(header, name, path) for name in ("lines", "samples", "bands"))
    interleave = str(header["interleave"]).strip().lower()
    if interleave not in INTERLEAVES:
        raise ValueError(
            f"The header {path} has interleave {header['interleave']!r}, where bil, bip and bsq "
            f"are known, the nearest of which is {nearest_interleave(interleave)}: correct it."
        )
    dtype = _data_type(header, path)
    found = data.stat().st_size
    if found == 0:
        raise ValueError(f"{data} is empty: copy it again from the camera.")
    needed = lines * samples * bands * dtype.itemsize
    assumed: list[str] = []
    if "header offset" in header:
        offset = _whole(header, "header offset", path, least=0)
    else:
        # Fewer bytes than a line makes are a header within the file; more are other lines.
        spare = found - needed
        offset = spare if 0 <= spare < samples * bands * dtype.itemsize else 0
        assumed.append(f"header offset {offset} by the file's size")
    if found != offset + needed:
        raise ValueError(_size_sentence(path, data, (lines, samples, bands), dtype, offset))
    if "byte order" in header:
        order = str(header["byte order"]).strip()
        if order not in ("0", "1"):
            raise ValueError(
                f"The header {path} has byte order {order!r} where 0 (little endian) or 1 (big "
                f"endian) is needed: correct it, or leave it out."
            )
        dtype = dtype.newbyteorder("<" if order == "0" else ">")
    elif dtype.itemsize > 1:
        dtype, why = guess_byte_order(data, dtype, offset)
        assumed.append(f"byte order {'little' if dtype.str[0] == '<' else 'big'} endian ({why})")
    if "file type" not in header:
        assumed.append("file type ENVI Standard")
    said = f"The header {path.name} leaves fields out, which were assumed: {', '.join(assumed)}."
    layout = _Layout(data, interleave, lines, samples, bands, dtype, offset)
    return layout, [said] if assumed else []


def nearest_interleave(name: str) -> str:
    """Return the interleave that shares most letters with a name, place by place."""
    return max(
        INTERLEAVES, key=lambda known: sum(a == b for a, b in zip(known, name, strict=False))
    )


def guess_byte_order(data: Path, dtype: np.dtype[Any], offset: int) -> tuple[np.dtype[Any], str]:
    """Detect the order of bytes from the numbers in the middle of a file.

    Neighbours of an image are alike: read in the wrong order, integers jump by what their low bytes
    differ, and floating-point numbers take magnitudes that no image has.

    Returns:
        The type with an order, and why in a few words.
    """
    size = dtype.itemsize
    count = (data.stat().st_size - offset) // size
    probed = min(count, PROBED_BYTES // size)
    start = offset + (count - probed) // 2 * size
    probe = np.fromfile(data, np.uint8, probed * size, offset=start)
    little, big = probe.view(dtype.newbyteorder("<")), probe.view(dtype.newbyteorder(">"))
    if dtype.kind == "f":
        plain_little, plain_big = _plain(little), _plain(big)
        if plain_big > plain_little:
            return big.dtype, "other magnitudes are not believable"
        known = plain_little > plain_big
        return little.dtype, (
            "other magnitudes are not believable" if known else "the numbers do not show it"
        )
    rough_little, rough_big = _roughness(little), _roughness(big)
    if rough_little > ROUGHER * rough_big:
        return big.dtype, "neighbouring numbers are alike"
    if rough_big > ROUGHER * rough_little:
        return little.dtype, "neighbouring numbers are alike"
    return little.dtype, "the numbers do not show it"


def _roughness(numbers: NDArray[Any]) -> float:
    """Mean difference of neighbours."""
    return float(np.abs(np.diff(numbers.astype(np.float64))).mean()) if len(numbers) > 1 else 0.0


def _plain(numbers: NDArray[Any]) -> float:
    """Share of numbers that are 0 or of a magnitude that images have."""
    with np.errstate(invalid="ignore"):
        size = np.abs(numbers.astype(np.float64))
    return float(((size == 0) | ((size > 1e-9) & (size < 1e9))).mean())


def _check_kind(header: Header, path: Path) -> None:
    kind = str(header.get("file type", "")).lower()
    if "library" in kind or "classification" in kind:
        raise ValueError(
            f"{path} is an {header['file type']} and no image: name an image of counts or "
            f"reflectance."
        )
    if str(header.get("file compression", "0")).strip() not in ("0", ""):
        raise ValueError(f"The numbers of {path} are compressed: save the image uncompressed.")
    for name in ("major frame offsets", "minor frame offsets"):
        value = header.get(name, [])
        items = value if isinstance(value, list) else [value]
        if any(item.strip() not in ("0", "") for item in items):
            raise ValueError(
                f"{path} has {name} other than 0, which are not read: save the image without them."
            )


def _data_type(header: Header, path: Path) -> np.dtype[Any]:
    text = str(header["data type"]).strip()
    code = int(text) if text.isdecimal() else -1
    if code in COMPLEX_TYPES:
        raise ValueError(
            f"{path} holds complex numbers (data type {code}), which are no counts or reflectance: "
            f"save their real part or magnitude."
        )
    if code not in DATA_TYPES:
        known = ", ".join(f"{code} ({name})" for code, name in DATA_TYPES.items())
        raise ValueError(
            f"The header {path} has data type {text!r}, where {known} are known: correct it."
        )
    return np.dtype(DATA_TYPES[code])


def _whole(header: Mapping[str, object], name: str, path: Path, least: int = 1) -> int:
    text = str(header[name]).strip()
    if not text.isdecimal() or int(text) < least:
        raise ValueError(
            f"The header {path} has {name} = {text!r}, where a whole number from {least} on is "
            f"needed: correct it."
        )
    return int(text)


def _size_sentence(
    path: Path, data: Path, shape: tuple[int, int, int], dtype: np.dtype[Any], offset: int
) -> str:
    """Say that a file's size does not match its header, and what might be wrong."""
    lines, samples, bands = shape
    found, line_bytes = data.stat().st_size, samples * bands * dtype.itemsize
    whole, rest = divmod(found - offset, line_bytes)
    fix = "copy it again, or correct the header"
    if rest == 0 and whole > 0:
        fix = f"it holds {whole} whole lines, so copy it again or set `lines = {whole}`"
    return (
        f"{data} has {found} bytes where its header {path.name} makes them "
        f"{offset + lines * line_bytes} ({lines} lines x {samples} samples x {bands} bands of "
        f"{dtype.name}{f' after {offset} bytes' if offset else ''}): {fix}."
    )
