"""Finding hyperspectral images and opening them, whatever their format.

ENVI is read by `envi.py`, GeoTIFF by `geotiff.py`, MATLAB and NumPy by `cube_formats.py`.
Nothing is calibrated.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sciml_dchag.files.samples import resolve_samples
from sciml_dchag.plants.read.envi import DATA_SUFFIXES, find_pair, open_envi
from sciml_dchag.plants.read.formats import open_matlab, open_numpy
from sciml_dchag.plants.read.geotiff import open_geotiff
from sciml_dchag.plants.read.raw_cube import RawCube
from sciml_dchag.plants.read.wavelengths import read_wavelengths, to_nm

OPENERS: dict[str, Callable[[Path, NDArray[np.float64] | None], RawCube]] = {
    ".tif": open_geotiff, ".tiff": open_geotiff, ".mat": open_matlab, ".npy": open_numpy,
    ".npz": open_numpy,
}  # fmt: skip
"""What opens a file by how its name ends; anything else is ENVI."""
ENVI_SUFFIXES = (".hdr", *(f".{suffix}" for suffix in DATA_SUFFIXES))

REFERENCE_NAME = re.compile(
    r"(white|dark)[ _-]?(ref|panel|frame|current)|(^|[^a-z])(white|dark)[^a-z]*$", re.IGNORECASE
)
"""Names of white and dark references: white_reference, DARKREF_1, dark; not white_poplar."""


def open_cube(path: str | Path, wavelengths: str | Path | ArrayLike | None = None) -> RawCube:
    """Open an image lazily: ENVI by either of its files, GeoTIFF, MATLAB, or NumPy.

    Args:
        path: the file.
        wavelengths: a text file of wavelengths, or numbers in nm, instead of what the image says.

    Returns:
        The image; what had to be assumed is in its `remarks`, for the caller to warn of.

    Raises:
        FileNotFoundError: a file that is missing.
        ValueError: a file that is damaged, says no wavelengths, or contradicts itself.
        ModuleNotFoundError: an extra is missing; the message names it.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name one image in it.")
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}: check its name.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: copy it again from the camera.")
    given, remark = _given(wavelengths)
    cube = OPENERS.get(path.suffix.lower(), open_envi)(path, given)
    return replace(cube, remarks=(*cube.remarks, remark)) if remark else cube


def expand_cubes(
    sources: Sequence[str | Path], references: Iterable[str | Path] = ()
) -> list[Path]:
    """Find the images that are meant by files, patterns, folders and `sample:NAME`.

    A folder gives the images right in it, a pattern those that it matches: an ENVI image once,
    however many of its files are there, and no white or dark reference. Files that are named one by
    one are taken as they are.

    Args:
        sources: what the user names.
        references: files that are no images, whatever they are called.

    Returns:
        The files with the numbers, sorted within a folder or pattern, each once.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a header beside which several files may be its numbers.
    """
    aside = {_numbers_of(Path(reference)).resolve() for reference in references}
    found: dict[Path, Path] = {}
    for source in resolve_samples([str(source) for source in sources]):
        path = Path(source)
        if path.is_dir():
            images = _images_among(path.iterdir())
        elif path.exists():
            images = [_numbers_of(path)]
        else:
            images = _images_among(map(Path, glob.glob(source, recursive=True)))  # noqa: PTH207
        images = [image for image in images if image.resolve() not in aside]
        if not images:
            raise FileNotFoundError(
                f"There is no hyperspectral image at {source!r}: name ENVI, GeoTIFF, MATLAB or "
                f"NumPy files, a pattern, or a folder of them."
            )
        for image in images:
            found.setdefault(image.resolve(), image)
    if not found:
        raise FileNotFoundError("No images are given: name ENVI files, a pattern or a folder.")
    return list(found.values())


def is_reference(path: Path) -> bool:
    """Say whether a file is a white or dark reference by its name."""
    return REFERENCE_NAME.search(path.stem) is not None


def _images_among(files: Iterable[Path]) -> list[Path]:
    """Choose the images among files, sorted, each ENVI pair once, references left out."""
    chosen: dict[Path, None] = {}
    for file in sorted(files):
        known = file.suffix.lower() in (*ENVI_SUFFIXES, *OPENERS) or _has_header(file)
        if known and file.is_file() and not file.name.startswith("."):
            chosen[_numbers_of(file)] = None
    return [file for file in chosen if not is_reference(file)]


def _has_header(file: Path) -> bool:
    return not file.suffix and file.with_name(f"{file.name}.hdr").is_file()


def _numbers_of(file: Path) -> Path:
    """Return the file with the numbers where a header is named."""
    return find_pair(file)[1] if file.suffix.lower() == ".hdr" and file.exists() else file


def _given(
    wavelengths: str | Path | ArrayLike | None,
) -> tuple[NDArray[np.float64] | None, str | None]:
    """Read the wavelengths that the user gives, with a remark."""
    if wavelengths is None:
        return None, None
    if isinstance(wavelengths, str | Path):
        return read_wavelengths(wavelengths)
    return to_nm(np.asarray(wavelengths, np.float64), "nm", "the list given")
