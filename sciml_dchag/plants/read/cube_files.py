"""Finding hyperspectral images and opening them, whatever their format.

ENVI is read by `envi.py`, GeoTIFF by `geotiff.py`, MATLAB and NumPy by `formats.py`, HDF5 products
by `hdf5_products.py`, pictures of three colours by `pictures.py`.
Nothing is calibrated.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sciml_dchag.files.samples import resolve_samples
from sciml_dchag.plants.read.envi import DATA_SUFFIXES, find_pair, open_envi
from sciml_dchag.plants.read.formats import open_matlab, open_numpy
from sciml_dchag.plants.read.geotiff import open_geotiff
from sciml_dchag.plants.read.hdf5_products import is_known_hdf5, open_hdf5
from sciml_dchag.plants.read.own_references import Folder, Kind, OwnReference, sort_folder
from sciml_dchag.plants.read.pictures import SUFFIXES, open_picture
from sciml_dchag.plants.read.raw_cube import RawCube
from sciml_dchag.plants.read.wavelengths import read_wavelengths, to_nm

OPENERS: dict[str, Callable[[Path, NDArray[np.float64] | None], RawCube]] = {
    ".tif": open_geotiff, ".tiff": open_geotiff, ".mat": open_matlab, ".npy": open_numpy,
    ".npz": open_numpy, ".h5": open_hdf5, ".hdf5": open_hdf5, ".he5": open_hdf5, ".nc": open_hdf5,
    **dict.fromkeys(SUFFIXES, open_picture),
}  # fmt: skip
"""What opens a file by how its name ends; anything else is ENVI."""
ENVI_SUFFIXES = (".hdr", *(f".{suffix}" for suffix in DATA_SUFFIXES))

MIXED_SUFFIXES = (".nc", ".h5", ".hdf5", ".he5")
"""How names of files end that may hold anything: in folders, only known products are images."""


def open_cube(path: str | Path, wavelengths: str | Path | ArrayLike | None = None) -> RawCube:
    """Open an image lazily: ENVI by either of its files, GeoTIFF, MATLAB, NumPy, HDF5, pictures.

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
    if not cube.lines or not cube.samples:
        raise ValueError(
            f"{path} holds an image of {cube.lines} lines and {cube.samples} samples, which is "
            f"nothing: copy it again from the camera."
        )
    return replace(cube, remarks=(*cube.remarks, remark)) if remark else cube


@dataclass(frozen=True)
class FoundImages:
    """The images that are meant, and what lies beside them."""

    images: list[Path]
    """The files with the numbers, sorted within a folder or pattern, each once."""
    references: dict[Path, dict[Kind, OwnReference]]
    """White and dark references of their own, by image: of the scan, or of its folder."""
    unused: list[Path]
    """References by their names that belong to no image."""
    failed: dict[Path, Exception]
    """Why files are not recognised: a header without numbers, or with several files of them."""


def find_images(
    sources: Sequence[str | Path], references: Iterable[str | Path] = ()
) -> FoundImages:
    """Find the images that are meant by files, patterns, folders and `sample:NAME`.

    A folder gives the images in it and in the folders below, a pattern those that it matches: an
    ENVI image once, however many of its files are there, and neither white nor dark references (see
    `own_references`). Pictures (JPEG, PNG) count where nothing else is found: beside scans they are
    previews. Files that are named one by one are taken as they are.

    Args:
        sources: what the user names.
        references: files and folders that hold no images, whatever they are called.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: no image is recognised.
    """
    aside = {_numbers_of(Path(reference)).resolve() for reference in references}
    failed: dict[Path, Exception] = {}
    found: dict[Path, Path] = {}
    folders: dict[Path, Folder] = {}
    for source in resolve_samples([str(source) for source in sources]):
        path = Path(source)
        named = path.exists() and not path.is_dir()
        matched = [path] if path.exists() else map(Path, glob.glob(source, recursive=True))  # noqa: PTH207
        files = [
            file for place in matched for file in (_below(place) if place.is_dir() else [place])
        ]
        images = _images_among(files, failed, named=named)
        pictures = not images and not failed
        if pictures:
            images = _images_among(files, failed, named=named, pictures=True)
        for folder in {image.parent for image in images} - folders.keys():
            beside = _images_among(sorted(folder.iterdir()), {}, named=False, pictures=pictures)
            folders[folder] = sort_folder(beside)
        if not named:
            images = [image for image in images if image in folders[image.parent].images]
        images = [
            image for image in images if not aside & {image.resolve(), *image.resolve().parents}
        ]
        if not images and not failed:
            raise FileNotFoundError(
                f"There is no hyperspectral image at {source!r}: name ENVI, GeoTIFF, MATLAB, NumPy "
                f"or HDF5 files or pictures (JPEG, PNG), a pattern, or a folder of them."
            )
        for image in images:
            found.setdefault(image.resolve(), image)
    if not found and failed:
        raise next(iter(failed.values()))
    if not found:
        raise FileNotFoundError("No images are given: name ENVI files, a pattern or a folder.")
    own = {image: folders[image.parent].references(image) for image in found.values()}
    unused = [file for folder in folders.values() for file in folder.unused]
    return FoundImages(
        images=list(found.values()),
        references=own,
        unused=[file for file in unused if file.resolve() not in aside and file not in own],
        failed=failed,
    )


def expand_cubes(
    sources: Sequence[str | Path], references: Iterable[str | Path] = ()
) -> list[Path]:
    """Return the images of `find_images`.

    Raises:
        FileNotFoundError, ValueError: as there, and for a header without its numbers.
    """
    found = find_images(sources, references)
    if found.failed:
        raise next(iter(found.failed.values()))
    return found.images


def _below(folder: Path) -> list[Path]:
    """Files in a folder and those below, sorted; none of hidden folders and of stores."""
    files: list[Path] = []
    for place, folders, names in [] if ".zarr" in folder.name else os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and ".zarr" not in name
        )
        files += [Path(place) / name for name in sorted(names)]
    return files


def _images_among(
    files: Iterable[Path],
    failed: dict[Path, Exception],
    *,
    named: bool,
    pictures: bool = False,
) -> list[Path]:
    """Choose the images among files, each ENVI pair once; those that fail are noted."""
    chosen: dict[Path, None] = {}
    for file in files if named else sorted(files):
        if not named and not (_known(file) or (pictures and file.suffix.lower() in SUFFIXES)):
            continue
        if not named and (not file.is_file() or file.name.startswith(".")):
            continue
        try:
            chosen[_numbers_of(file)] = None
        except (ValueError, OSError) as error:
            failed[file] = error
    return list(chosen)


def _known(file: Path) -> bool:
    """Whether a file is an image by its name, or by what it holds where the name says little."""
    suffix = file.suffix.lower()
    if suffix in MIXED_SUFFIXES:
        return is_known_hdf5(file)
    known = {*ENVI_SUFFIXES, *OPENERS} - set(SUFFIXES)
    return suffix in known or _has_header(file)


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
