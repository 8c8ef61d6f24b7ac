"""GeoTIFF images with wavelengths, read window by window.

With rasterio and not rioxarray, which leaves out the tags of bands, where wavelengths are.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.plants.read.envi_fields import (
    QUANTITY_NAMES,
    fwhm_nm,
    good_bands,
    is_radiance,
    largest,
)
from sciml_dchag.plants.read.formats import damaged, plain_type
from sciml_dchag.plants.read.header_words import refuse_other_quantity
from sciml_dchag.plants.read.raw_cube import RawCube
from sciml_dchag.plants.read.wavelengths import from_names, to_nm


def open_geotiff(path: Path, wavelengths: NDArray[np.float64] | None = None) -> RawCube:
    """Open a GeoTIFF, read window by window.

    Wavelengths are looked for in the tags of the bands (`wavelength`, or GDAL's
    `CENTRAL_WAVELENGTH_UM`), in their descriptions (`652.3 nm`), and in a list `wavelength` in the
    tags of the file; widths (`fwhm`) and bad bands (`bbl`) likewise. Scales and offsets are
    applied.

    Raises:
        ValueError: it is no GeoTIFF, or says no wavelengths.
        ModuleNotFoundError: rasterio, which the extra `geotiff` brings, does not import.
    """
    try:
        import rasterio
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{path} is a GeoTIFF, which needs rasterio: pip install 'sciml-dchag[geotiff]'.",
            name="rasterio",
        ) from error
    from rasterio.windows import Window

    try:
        with _opened(path) as image:
            _refuse_pages(path, image)
            own = _bands_of(image)
            lines, samples, bands = image.height, image.width, len(own)
            dtypes, missing = {image.dtypes[band - 1] for band in own}, image.nodata
            masked = _masked(image)
            scales, offsets = (
                np.array(v, np.float64)[:bands] for v in (image.scales, image.offsets)
            )
            tags = image.tags()
            each = [{**image.tags(i), **image.tags(i, ns="IMAGERY")} for i in own]
            names = [image.descriptions[band - 1] or "" for band in own]
            units = " ".join(unit or "" for unit in image.units)
    except rasterio.errors.RasterioError as error:
        raise damaged(path, "GeoTIFF", error) from error
    refuse_other_quantity(_quantities(tags, [*names, units]), path)
    remarks: list[str] = []
    if wavelengths is None:
        wavelengths = _wavelengths(path, tags, each, names, remarks)
    _require_count(path, wavelengths, bands)
    if not (np.isfinite(scales) & np.isfinite(offsets) & (scales > 0)).all():
        raise ValueError(
            f"{path} has scales or offsets of bands that cannot be, from {scales.min():g} to "
            f"{scales.max():g}: write them anew, or save the numbers as reflectance."
        )
    one_scale = bool((scales == scales[0]).all()) and not offsets.any()
    stored = np.result_type(*dtypes)
    # What a mask leaves out has no number of its own.
    dtype = stored if masked is None else np.result_type(stored, np.float32)

    def read(wanted: slice) -> NDArray[Any]:
        start, stop, _ = wanted.indices(lines)
        with _opened(path) as image:
            block = image.read(own, window=Window(0, start, samples, max(stop - start, 0)))
        numbers = np.moveaxis(block.astype(dtype, copy=False), 0, -1)
        if masked is not None:
            numbers[masked[start:stop]] = np.nan
        return numbers

    return RawCube(
        path=path,
        lines=lines,
        samples=samples,
        wavelength_nm=wavelengths,
        dtype=plain_type(dtype, path),
        read_lines=read,
        fwhm_nm=_widths(path, tags, each, wavelengths, remarks),
        good_bands=_good_bands(path, tags, each),
        scale=1 / float(scales[0]) if one_scale else 1.0,
        band_gain=None if one_scale else scales,
        band_offset=None if one_scale else offsets,
        saturation=largest(stored),
        missing=None if missing is None or np.isnan(missing) else float(missing),
        radiance=_says_radiance(tags, [*names, units]),
        simulated=str(tags.get("simulated", "0")) == "1",
        remarks=tuple(remarks),
    )


def _says_radiance(tags: Mapping[str, str], words: Sequence[str]) -> bool:
    """Whether tags of the file, descriptions of bands or their units say radiance."""
    return is_radiance(" ".join(_quantities(tags, words).values()))


def _quantities(tags: Mapping[str, str], words: Sequence[str]) -> dict[str, str]:
    """What a file says of its quantity, as fields of a header."""
    small = {name.lower().replace("_", " "): value for name, value in tags.items()}
    said = {name: small[name] for name in QUANTITY_NAMES if name in small}
    description = [said.get("description", ""), small.get("tifftag imagedescription", "")]
    return {**said, "description": " ".join([*description, *words])}


def _refuse_pages(path: Path, image: Any) -> None:
    """Refuse a file of several images as large as the first, which alone would be read."""
    pages = image.subdatasets
    if not pages:
        return
    if image.count > 1 and not any(_shape(page) == image.shape for page in pages[1:]):
        return  # the others are previews
    raise ValueError(
        f"{path} holds {len(pages)} images (pages), and not one of several bands: save it as one "
        f"image whose bands are the pages, or as a NumPy array (lines, samples, bands)."
    )


def _shape(page: str) -> tuple[int, int]:
    with _opened(page) as image:
        shape: tuple[int, int] = image.shape
        return shape


def _bands_of(image: Any) -> list[int]:
    """Numbers of the bands, from 1 on, but for a last one that says what is transparent."""
    return list(image.indexes)[: -1 if _ends_in_alpha(image) else None]


def _ends_in_alpha(image: Any) -> bool:
    return image.count > 1 and image.colorinterp[-1].name == "alpha"


def _masked(image: Any) -> NDArray[np.bool_] | None:
    """What a mask or a band of transparency leaves out, (lines, samples); None for nothing."""
    if _ends_in_alpha(image):
        out = np.asarray(image.read(image.count) == 0)
    else:
        flags = [flag.name for flag in image.mask_flag_enums[0]]
        # Among other bands GDAL may call the second transparency, whatever it is.
        if "per_dataset" not in flags or "alpha" in flags:
            return None
        out = np.asarray(image.read_masks(1) == 0)
    return out if out.any() else None


@contextmanager
def _opened(path: Path | str) -> Iterator[Any]:
    import rasterio

    with warnings.catch_warnings():
        # An image of a laboratory lies nowhere on Earth, which needs no saying.
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        image = rasterio.open(path)
    with image:
        yield image


def _require_count(path: Path, wavelengths: NDArray[np.float64], bands: int) -> None:
    if len(wavelengths) != bands:
        raise ValueError(
            f"There are {len(wavelengths)} wavelengths for the {bands} bands of {path}: give one "
            f"a band."
        )


def _of_each_band(
    tags: Mapping[str, str], each: Sequence[Mapping[str, str]], name: str
) -> list[str] | None:
    """Return a tag of each band, or the list in the file's tag of that name; None without."""
    small = {key.lower(): value for key, value in tags.items()}
    of_bands = [{key.lower(): value for key, value in band.items()} for band in each]
    if any(name in band for band in of_bands):
        return [band.get(name, "") for band in of_bands]
    return _listed(small[name]) if name in small else None


def _listed(text: str) -> list[str]:
    return [item for item in re.split(r"[\s,;{}()\[\]]+", text) if item]


def _good_bands(
    path: Path, tags: Mapping[str, str], each: Sequence[Mapping[str, str]]
) -> NDArray[np.bool_] | None:
    listed = _of_each_band(tags, each, "bbl")
    return None if listed is None else good_bands(listed, path, len(each))


def _widths(
    path: Path,
    tags: Mapping[str, str],
    each: Sequence[Mapping[str, str]],
    wavelength_nm: NDArray[np.float64],
    remarks: list[str],
) -> NDArray[np.float64] | None:
    """Find the widths of bands in nm; what is no number a band is left aside, with a remark."""
    for name, factor in (("fwhm_um", 1000.0), ("fwhm", 1.0)):
        listed = _of_each_band(tags, each, name)
        if listed is None:
            continue
        try:
            widths = np.array([float(item) for item in listed]) * factor
        except ValueError:
            widths = np.zeros(0)
        if len(widths) == len(each) and np.isfinite(widths).all():
            return fwhm_nm(widths, wavelength_nm, path, remarks)
        remarks.append(f"The {name} of {path.name} is not one number a band: left aside.")
    return None


def _wavelengths(
    path: Path,
    tags: Mapping[str, str],
    each: Sequence[Mapping[str, str]],
    names: list[str],
    remarks: list[str],
) -> NDArray[np.float64]:
    """Find wavelengths in nm: in tags of bands, in their descriptions, in tags of the file."""
    small = {name.lower(): value for name, value in tags.items()}
    of_bands = [{name.lower(): value for name, value in band.items()} for band in each]
    units = small.get("wavelength_units")
    values: list[str] = []
    if all("central_wavelength_um" in band for band in of_bands):
        values, units = [band["central_wavelength_um"] for band in of_bands], "um"
    elif all("wavelength" in band for band in of_bands):
        values = [band["wavelength"] for band in of_bands]
        units = of_bands[0].get("wavelength_units", units)
    elif (named := from_names(names)) is not None:
        return named
    elif "wavelength" in small:
        values = _listed(small["wavelength"])
    if not values:
        raise ValueError(
            f"{path} says no wavelengths: give its bands descriptions such as '652.3 nm', or give "
            f"wavelengths with `wavelengths=FILE`."
        )
    nm, remark = to_nm(values, units, str(path))
    remarks += [remark] if remark else []
    return nm
