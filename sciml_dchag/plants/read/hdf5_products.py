"""HDF5 of known products: NEON and EMIT are read; PRISMA, EnMAP and others are refused by name.

Each keeps reflectance, wavelengths, scale and its number for no data in places of its own, so that
nothing has to be guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sciml_dchag.plants.read.envi_fields import fwhm_nm, largest
from sciml_dchag.plants.read.formats import HDF5_SIGNATURE, damaged, plain_type
from sciml_dchag.plants.read.raw_cube import RawCube
from sciml_dchag.plants.read.wavelengths import to_nm

_CONVERT = "save it as an ENVI image or a GeoTIFF with wavelengths, or as MATLAB or NumPy arrays"


def open_hdf5(path: Path, wavelengths: NDArray[np.float64] | None = None) -> RawCube:
    """Open reflectance of NEON's airborne platform or of EMIT, read line by line.

    Raises:
        ValueError: it is no HDF5, or another product, which is named.
    """
    try:
        with h5py.File(path, "r") as file:
            product, place = _product(file)
            if product in _READERS and place is not None:
                return _READERS[product](path, file, place, wavelengths)
    except (OSError, KeyError, RuntimeError) as error:
        raise damaged(path, "HDF5", error) from error
    raise ValueError(f"{path} is {product}, which is not read: {_CONVERT}.")


def is_known_hdf5(path: Path) -> bool:
    """Whether a file holds a hyperspectral product that is known, read or not."""
    try:
        with path.open("rb") as begun:
            if begun.read(8) != HDF5_SIGNATURE:
                return False
        with h5py.File(path, "r") as file:
            return _product(file)[0] != _UNKNOWN
    except (OSError, KeyError, RuntimeError):
        return False


_NEON, _EMIT = "NEON surface reflectance", "EMIT reflectance"
_UNKNOWN = "HDF5 of no known product (NEON and EMIT reflectance are)"


def _product(file: h5py.File) -> tuple[str, str | None]:
    """Recognise a product by its layout, and where its reflectance is."""
    sites = [s for s in _groups(file) if "Reflectance/Reflectance_Data" in file[s]]
    if len(sites) > 1:
        return f"NEON surface reflectance of {len(sites)} sites ({', '.join(sites[:3])})", None
    for site in _groups(file):
        if site in sites:
            return _NEON, site
        if "Radiance" in file[site]:
            return "NEON at-sensor radiance", None
    if "sensor_band_parameters" in file:
        if "reflectance" in file:
            return _EMIT, "reflectance"
        return "EMIT radiance or another product of EMIT without reflectance", None
    if "HDFEOS/SWATHS" in file and any(n.startswith("PRS") for n in file["HDFEOS/SWATHS"]):
        return "a PRISMA image", None
    names = " ".join(_groups(file)).lower()
    for mark, product in (("enmap", "an EnMAP image"), ("desis", "a DESIS image")):
        if mark in names or any(mark in str(value).lower() for value in file.attrs.values()):
            return product, None
    if "#refs#" in file or any("MATLAB_class" in file[name].attrs for name in _own(file)):
        return "a MATLAB file (call it .mat)", None
    return _UNKNOWN, None


def _groups(file: h5py.File) -> Iterator[str]:
    yield from (name for name in _own(file) if isinstance(file[name], h5py.Group))


def _own(file: h5py.File) -> list[str]:
    """What a file holds itself: links may lead to any file of the system."""
    return [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]


def _neon(path: Path, file: h5py.File, site: str, given: NDArray[np.float64] | None) -> RawCube:
    data = file[site]["Reflectance/Reflectance_Data"]
    spectral = file[site]["Reflectance/Metadata/Spectral_Data"]
    missing = _attribute(data, "Data_Ignore_Value")
    return _cube(
        path,
        data,
        _nm(spectral["Wavelength"], given, path),
        np.asarray(spectral["FWHM"]) if "FWHM" in spectral else None,
        scale=_attribute(data, "Scale_Factor") or 1.0,
        missing=missing,
        good=None,
    )


def _emit(path: Path, file: h5py.File, place: str, given: NDArray[np.float64] | None) -> RawCube:
    data, bands = file[place], file["sensor_band_parameters"]
    packed = _attribute(data, "scale_factor"), _attribute(data, "add_offset")
    cube = _cube(
        path,
        data,
        _nm(bands["wavelengths"], given, path),
        np.asarray(bands["fwhm"]) if "fwhm" in bands else None,
        scale=1.0,
        missing=_attribute(data, "_FillValue"),
        good=np.asarray(bands["good_wavelengths"]) > 0 if "good_wavelengths" in bands else None,
    )
    if packed == (None, None):
        return cube
    factor, offset = 1.0 if packed[0] is None else packed[0], packed[1] or 0.0
    return replace(
        cube, band_gain=np.full(cube.bands, factor), band_offset=np.full(cube.bands, offset)
    )


_READERS: dict[str, Callable[..., RawCube]] = {_NEON: _neon, _EMIT: _emit}


def _nm(data: h5py.Dataset, given: NDArray[np.float64] | None, path: Path) -> NDArray[np.float64]:
    if given is not None:
        return given
    units = np.ravel(data.attrs.get("Units", data.attrs.get("units", "nm")))[0]
    units = units.decode() if isinstance(units, bytes) else str(units)
    return to_nm(np.asarray(data, np.float64), units, str(path))[0]


def _attribute(data: h5py.Dataset, name: str) -> float | None:
    value = data.attrs.get(name)
    return None if value is None else float(np.ravel(value)[0])


def _cube(
    path: Path,
    data: h5py.Dataset,
    nm: NDArray[np.float64],
    widths: NDArray[Any] | None,
    *,
    scale: float,
    missing: float | None,
    good: NDArray[np.bool_] | None,
) -> RawCube:
    """An image (lines, samples, bands) of an open file, which is opened anew to read lines."""
    name, shape = data.name, data.shape
    if data.file.filename != str(path) or data.external:
        raise ValueError(
            f"{path} keeps its reflectance in another file, to which it has a link: name the file "
            f"that holds it, or copy the values into one."
        )
    if len(shape) != 3 or shape[2] != len(nm):
        raise ValueError(
            f"{path} has reflectance of {' x '.join(map(str, shape))} values for {len(nm)} "
            f"wavelengths: it is damaged, so download it again."
        )
    remarks: list[str] = []

    def read(lines: slice) -> NDArray[Any]:
        with h5py.File(path, "r") as file:
            block = np.asarray(file[name][lines])
        return block.astype(block.dtype.newbyteorder("="), copy=False)

    return RawCube(
        path=path,
        lines=shape[0],
        samples=shape[1],
        wavelength_nm=nm,
        dtype=plain_type(data.dtype, path),
        read_lines=read,
        fwhm_nm=None if widths is None else fwhm_nm(widths.astype(np.float64), nm, path, remarks),
        good_bands=good,
        scale=scale,
        saturation=largest(data.dtype),
        missing=missing,
        remarks=tuple(remarks),
    )
