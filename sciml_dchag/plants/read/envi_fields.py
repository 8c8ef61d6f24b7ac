"""What an ENVI header says beside where the numbers lie: wavelengths, exposure, saturation.

ENVI names some of these fields and cameras name the others, each in its own way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.plants.read.wavelengths import from_names, to_nm

Header = dict[str, str | list[str]]
"""Fields of a header by their names in small letters."""

EXPOSURE_NAMES = (
    "exposure", "exposure time", "integration time", "tint", "shutter", "shutter time",
    "shutter speed",
)  # fmt: skip
"""What cameras call the exposure time, units in brackets or underscores aside."""
MILLISECONDS = {
    "ms": 1.0, "msec": 1.0, "millisecond": 1.0, "milliseconds": 1.0,
    "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "usec": 1e-3, "microsecond": 1e-3, "microseconds": 1e-3,
    "s": 1e3, "sec": 1e3, "second": 1e3, "seconds": 1e3,
}  # fmt: skip
SETTING_NAMES = {
    "gain": (
        "gain", "camera gain", "sensor gain", "analog gain", "analogue gain", "gain value",
        "gain mode", "gain db",
    ),
    "offset": ("offset", "camera offset", "black level", "blacklevel"),
    "binning": ("binning", "camera binning"),
    "spectral binning": ("spectral binning", "binning spectral"),
    "spatial binning": ("spatial binning", "binning spatial"),
}  # fmt: skip
"""Settings of the camera that counts depend on, and what cameras call them."""
GAIN_FIELDS = (
    (("data reflectance gain values", "data reflectance offset values"), False),
    (("data gain values", "data offset values"), True),
)
"""Factors and offsets by band, and whether they give radiance; reflectance goes before."""
SCALE_NAMES = ("reflectance scale factor", "reflectance scale", "reflectance factor")
"""What numbers are divided by to give reflectance."""
PLAIN_SCALE_NAMES = ("scale factor", "data scale factor", "data scale", "scale")
"""The same, or what they are multiplied by."""
OFFSET_NAMES = (
    "reflectance offset", "reflectance add offset", "reflectance offset factor", "add offset",
    "scale offset", "data offset", "offset factor",
)  # fmt: skip
"""What is added to all bands, before or after scaling."""
FWHM_BY_SPACING = (0.02, 50.0)
"""Widths of bands that are believable, as multiples of the distance of bands."""
FWHM_SPREAD = 20.0
"""The widest band of a camera is no more than so many times as wide as the narrowest."""
QUANTITY_NAMES = ("z plot titles", "data units", "units", "quantity", "description")
"""Where headers say whether numbers are radiance or reflectance."""
CEILING_NAMES = ("ceiling", "saturation", "saturation level", "saturation value")
BIT_DEPTH_NAMES = ("bit depth", "bitdepth", "sensor bit depth", "adc bits", "bits per pixel")

_RADIANCE = re.compile(r"(?<![a-z])[mµμu]?w(att)?s?(?![a-z]).*(?<![a-z])sr(?![a-z])")
"""Units of radiance, such as `W m-2 sr-1 nm-1`."""
_NUMBER = re.compile(r"([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)\s*([a-zµμ]*)", re.IGNORECASE)


def optional_fields(
    header: Header,
    path: Path,
    bands: int,
    dtype: np.dtype[Any],
    wavelengths: NDArray[np.float64] | None,
) -> tuple[dict[str, Any], list[str]]:
    """Read what a header says of the numbers.

    Args:
        header: its fields.
        path: the header, for messages.
        bands: number of bands.
        dtype: of the numbers.
        wavelengths: in nm, instead of the header's.

    Returns:
        Fields of `RawCube` by name, and remarks.

    Raises:
        ValueError: wavelengths are missing, of another number than the bands, or no numbers.
    """
    remarks: list[str] = []
    factor: NDArray[np.float64] | float = 1.0
    if wavelengths is None:
        wavelengths, factor, remark = _wavelengths(header, path, bands)
        remarks += [remark] if remark else []
    elif len(wavelengths) != bands:
        raise ValueError(
            f"{len(wavelengths)} wavelengths are given for the {bands} bands of {path}: give one "
            f"a band."
        )
    fwhm = _numbers(header, "fwhm", path, bands, remarks)
    _refuse_offset(header, path)
    gain, offset, to_radiance = _gains(header, path, bands)
    fields = {
        "wavelength_nm": wavelengths,
        "fwhm_nm": fwhm_nm(None if fwhm is None else fwhm * factor, wavelengths, path, remarks),
        "good_bands": _good_bands(header, path, bands),
        "band_gain": gain,
        "band_offset": offset,
        "settings": _settings(header),
        "exposure_ms": exposure_ms(header),
        "scale": _scale(header, path, remarks),
        "saturation": (ceiling := _saturation(header, dtype)) or largest(dtype),
        "ceiling_said": ceiling is not None,
        "radiance": to_radiance or _says(header, "radiance"),
        "simulated": str(header.get("simulated", "0")).strip().lower() in ("1", "true", "yes"),
    }
    return fields, remarks


def exposure_ms(header: Header) -> float | None:
    """Read an exposure time in ms: units in the name, in the value, or ms; None without one."""
    for text, units in _exposures(header):
        match = _NUMBER.fullmatch(text)
        said = (match[2].lower() if match else "") or units or "ms"
        if match and said in MILLISECONDS and float(match[1]) > 0:
            return float(match[1]) * MILLISECONDS[said]
    return None


def _exposures(header: Header) -> Iterator[tuple[str, str]]:
    """Yield what a header says of the exposure, a decimal comma made a point, and its units."""
    for name, value in header.items():
        words, units = _split_units(name)
        if words in EXPOSURE_NAMES:
            text = " ".join(value) if isinstance(value, list) else value.strip(" {}")
            yield re.sub(r"^(\d+),(\d+)", r"\1.\2", text.strip()), units


def largest(dtype: np.dtype[Any]) -> float | None:
    """Return the largest number of an integer type, at which counts saturate; None for others."""
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else None


def _wavelengths(
    header: Header, path: Path, bands: int
) -> tuple[NDArray[np.float64], NDArray[np.float64] | float, str | None]:
    """Return wavelengths in nm, what turns widths in the header's units into nm, and a remark."""
    units = str(header.get("wavelength units", ""))
    if "wavelength" in header and units.strip().lower() != "index":
        listed = _items(header["wavelength"])
        if len(listed) != bands:
            raise ValueError(
                f"The header {path} lists {len(listed)} wavelengths for {bands} bands: complete "
                f"the list, or give one with `wavelengths=FILE`."
            )
        nm, remark = to_nm(listed, units, str(path))
        # Of wavenumbers too, whose derivative is that of 1 / x but for its sign.
        return nm, nm / np.array([float(item) for item in listed]), remark
    named = from_names(_items(header.get("band names", [])))
    if named is not None and len(named) == bands:
        return named, 1.0, f"{path.name} lists no wavelengths: they are from its band names."
    raise ValueError(
        f"The header {path} says no wavelengths: add the field `wavelength`, or give them with "
        f"`wavelengths=FILE`."
    )


def _numbers(
    header: Header, name: str, path: Path, bands: int, remarks: list[str]
) -> NDArray[np.float64] | None:
    """Read a list of one number a band; what is none is left aside, with a remark."""
    if name not in header:
        return None
    items = _items(header[name])
    try:
        numbers = np.array([float(item) for item in items], np.float64)
    except ValueError:
        numbers = np.array([np.nan])
    if len(items) != bands or not np.isfinite(numbers).all():
        remarks.append(f"The {name} of {path.name} is not one number a band: left aside.")
        return None
    return numbers


def fwhm_nm(
    fwhm: NDArray[np.float64] | None,
    wavelength_nm: NDArray[np.float64],
    path: Path,
    remarks: list[str],
) -> NDArray[np.float64] | None:
    """Check widths of bands against their distances; other units than nm are converted.

    Args:
        fwhm: as the file gives them, in nm by its own words, (bands,).
        wavelength_nm: centres of the bands, (bands,).
        path: the file, for remarks.
        remarks: what had to be assumed is added.
    """
    if fwhm is None:
        return None
    if not (fwhm > 0).all():
        remarks.append(f"The fwhm of {path.name} is not above 0 everywhere: left aside.")
        return None
    spacing = np.diff(np.unique(wavelength_nm))
    if not len(spacing):
        return fwhm
    narrow, wide = float(fwhm.min()), float(fwhm.max())
    least, most = (bound * float(np.median(spacing)) for bound in FWHM_BY_SPACING)
    if wide > FWHM_SPREAD * narrow:
        remarks.append(
            f"The fwhm of {path.name}, {narrow:g} to {wide:g}, differs too much for one camera: "
            f"left aside."
        )
        return None
    for factor, units in ((1.0, "nm"), (1000.0, "um"), (0.001, "thousandths of a nm")):
        if least <= narrow * factor and wide * factor <= most:
            if factor != 1:
                remarks.append(
                    f"The fwhm of {path.name}, {fwhm.min():g} to {fwhm.max():g}, does not fit its "
                    f"wavelengths in nm: taken as {units}."
                )
            return fwhm * factor
    remarks.append(
        f"The fwhm of {path.name}, {fwhm.min():g} to {fwhm.max():g} nm, does not fit bands "
        f"{np.median(spacing):g} nm apart: left aside."
    )
    return None


def good_bands(items: list[str], path: Path, bands: int) -> NDArray[np.bool_]:
    """Read a list of good bands: 1 or true for those that are good.

    Raises:
        ValueError: it is not one flag a band, so that bad bands would be taken for good.
    """
    flags = [_FLAGS.get(item.strip().lower().removesuffix(".0")) for item in items]
    if len(flags) != bands or None in flags:
        raise ValueError(
            f"The list of bad bands (bbl) of {path} is not one 0 or 1 for each of its {bands} "
            f"bands: fix it, or remove it and name the bad bands with `drop_bands=FIRST-LAST`."
        )
    return np.array(flags, bool)


_FLAGS = {"1": True, "true": True, "0": False, "false": False, "-1": False}


def _good_bands(header: Header, path: Path, bands: int) -> NDArray[np.bool_] | None:
    return good_bands(_items(header["bbl"]), path, bands) if "bbl" in header else None


def _gains(
    header: Header, path: Path, bands: int
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None, bool]:
    """Read factors and offsets by band, and whether they give radiance.

    Raises:
        ValueError: they are not one number a band, or a factor is not above 0.
    """
    for names, to_radiance in GAIN_FIELDS:
        if not any(name in header for name in names):
            continue
        values: list[NDArray[np.float64]] = []
        for name, default in zip(names, (1.0, 0.0), strict=True):
            ignored: list[str] = []
            found = np.full(bands, default)
            if name in header:
                read = _numbers(header, name, path, bands, ignored)
                if read is None or (default == 1 and not (read > 0).all()):
                    raise ValueError(
                        f"The {name} of {path} are not one number a band"
                        f"{' above 0' if default else ''}, and numbers cannot be used without "
                        f"them: fix them, or remove the field and say what all are divided by with "
                        f"`scale=NUMBER`."
                    )
                found = read
            values.append(found)
        gain, offset = values
        if (gain == 1).all() and not offset.any():
            continue
        return gain, offset, to_radiance and not _says(header, "reflect")
    return None, None, False


def _refuse_offset(header: Header, path: Path) -> None:
    """Refuse an offset of all bands, which may be added before or after scaling."""
    for field, value in header.items():
        if _words(field) in OFFSET_NAMES and _finite(value) != 0:
            raise ValueError(
                f"The header {path} has {field} = {' '.join(_items(value))}, an offset of all "
                f"bands, which is not applied: give it by band as `data reflectance offset "
                f"values`, or save the numbers with it and remove the field."
            )


def _settings(header: Header) -> tuple[tuple[str, str], ...]:
    """Settings of the camera that counts depend on, numbers in one spelling."""
    found: dict[str, str] = {}
    exposures = [text.lower() for text, _ in _exposures(header)]
    if exposures and exposure_ms(header) is None:  # `automatic`, or in words that are not known
        found["exposure"] = " ".join(exposures)
    for field, value in header.items():
        words = _words(field)
        for name, spellings in SETTING_NAMES.items():
            if words in spellings and (items := _items(value)):
                found[name] = " ".join(
                    f"{number:g}" if (number := _finite(item)) is not None else item.lower()
                    for item in items
                )
    return tuple(sorted(found.items()))


def _scale(header: Header, path: Path, remarks: list[str]) -> float:
    """Return what numbers are divided by. ENVI's field divides; others may multiply.

    Raises:
        ValueError: it is no number above 0.
    """
    said: dict[str, float] = {}
    for field, value in header.items():
        if (name := _words(field)) in (*SCALE_NAMES, *PLAIN_SCALE_NAMES):
            number = _finite(value)
            if number is None or number <= 0:
                raise ValueError(
                    f"The header {path} has {field} = {' '.join(_items(value))}, where a number "
                    f"above 0 is needed: correct it, or remove it and say what numbers are divided "
                    f"by with `scale=NUMBER`."
                )
            said[name] = number
    if (divisor := next((said[name] for name in SCALE_NAMES if name in said), None)) is not None:
        return divisor
    factor = next((said[name] for name in PLAIN_SCALE_NAMES if name in said), 1.0)
    if factor == 1:
        return 1.0
    if factor < 1:
        remarks.append(f"The scale factor {factor:g} of {path.name} is taken to multiply.")
        return 1 / factor
    remarks.append(f"The scale factor {factor:g} of {path.name} is taken to divide.")
    return factor


def _says(header: Header, quantity: Literal["radiance", "reflect"]) -> bool:
    """Whether a header says that numbers are reflectance, or radiance and not reflectance."""
    said = " ".join(" ".join(_items(header.get(name, ""))) for name in QUANTITY_NAMES)
    return is_radiance(said) if quantity == "radiance" else "reflect" in said.lower()


def is_radiance(said: str) -> bool:
    """Whether words say radiance or its units, and nothing of reflectance."""
    plain = said.lower().replace("irradiance", "")
    return "reflect" not in plain and ("radiance" in plain or bool(_RADIANCE.search(plain)))


def _words(field: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", field.lower()))


def _saturation(header: Header, dtype: np.dtype[Any]) -> float | None:
    """Return the sensor's ceiling; None where the header does not say it."""
    plain = {_split_units(name)[0]: value for name, value in header.items()}
    for name in CEILING_NAMES:
        if (ceiling := _finite(plain.get(name))) is not None and ceiling > 0:
            return ceiling
    for name in BIT_DEPTH_NAMES:
        bits = _finite(plain.get(name))
        if bits is not None and 1 <= bits <= 8 * dtype.itemsize:
            return 2.0**bits - 1
    return None


def _split_units(name: str) -> tuple[str, str]:
    """Split `exposure_time (ms)`, `exposure ms` or `shutter_us` into the name and its units."""
    words = re.findall(r"[a-z0-9µμ]+", name.lower())
    units = words.pop() if len(words) > 1 and words[-1] in MILLISECONDS else ""
    return " ".join(words), units


def _items(value: str | list[str]) -> list[str]:
    if isinstance(value, list):
        return value
    return [item.strip() for item in value.strip("{} ").split(",") if item.strip()]


def _finite(value: str | list[str] | None) -> float | None:
    items = [] if value is None else _items(value)
    try:
        number = float(items[0]) if len(items) == 1 else np.nan
    except ValueError:
        return None
    return float(number) if np.isfinite(number) else None
