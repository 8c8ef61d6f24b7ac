"""Raw counts to reflectance, with white and dark references, for a push-broom camera.

    reflectance = (raw - dark) / t  /  ((white - dark) / t_white)  x  factor of the panel

with the exposure times t, in which a sensor is linear. Each column of the image has been seen by
pixels of its own, so that references are averaged over lines alone, unless asked otherwise. Making
other bands is `bands`' work.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.plants.prepare.config import References
from sciml_dchag.plants.read.raw_cube import RawCube

SAME_NM = 0.5
"""Wavelengths of an image and its references may differ by as much."""
MOST_REFLECTANCE = 2.0
"""A median above it means counts, or percent, where reflectance is said to be."""
_LINES_AT_ONCE = 32
_BANDS_AT_ONCE = 32


@dataclass
class Counts:
    """How many values of an image were set to NaN or to a bound, by reason."""

    values: int = 0
    """All that were read."""
    saturated: int = 0
    """At or above the sensor's ceiling."""
    missing: int = 0
    """The file's number for no data, NaN or infinite."""
    masked: int = 0
    """Where the white reference is not above the dark one, or either is saturated."""
    clipped: int = 0
    """Bound by `clip`, after bands were made."""

    def add(self, other: Counts) -> None:
        """Add another part of the image."""
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration:
    """What turns raw numbers of one image into reflectance: (raw - dark) x gain."""

    dark: NDArray[np.float32]
    """(B, columns) or (B, 1), in raw numbers."""
    gain: NDArray[np.float32]
    """(B, columns) or (B, 1); NaN where nothing can be known."""
    saturation: float | None
    """Raw numbers from here on are saturated."""
    missing: float | None
    """The raw number for no data."""
    remarks: tuple[str, ...] = field(default=())
    """What had to be assumed, one sentence each."""

    @cached_property
    def unusable(self) -> int:
        """Pairs of a column and a band at which nothing can be known."""
        return int(np.isnan(self.gain).sum())

    def select(self, bands: NDArray[np.intp], columns: slice) -> Calibration:
        """Return the calibration of some bands and columns."""

        def cut(array: NDArray[np.float32]) -> NDArray[np.float32]:
            chosen = array[bands]
            return np.ascontiguousarray(chosen if chosen.shape[1] == 1 else chosen[:, columns])

        return replace(self, dark=cut(self.dark), gain=cut(self.gain))

    def apply(self, raw: NDArray[Any], out: NDArray[np.float32]) -> Counts:
        """Calibrate raw numbers (B, pixels of one line) into `out`; NaN where not known.

        Returns:
            What was counted.
        """
        counts = Counts(values=raw.size)
        for first in range(0, len(raw), _BANDS_AT_ONCE):  # which fit into a core's cache
            part = slice(first, first + _BANDS_AT_ONCE)
            np.copyto(out[part], raw[part], casting="unsafe")
            np.subtract(out[part], self.dark[part], out=out[part])
            np.multiply(out[part], self.gain[part], out=out[part])
        counts.masked = self.unusable * (raw.shape[1] if self.gain.shape[1] == 1 else 1)
        if raw.dtype.kind == "f" and not np.isfinite(out.sum()):
            wrong = ~np.isfinite(raw)
            counts.missing += int(wrong.sum())
            out[wrong] = np.nan
        if self.missing is not None and (wrong := raw == self.missing).any():
            counts.missing += int(wrong.sum())
            out[wrong] = np.nan
        if self.saturation is not None and raw.max() >= self.saturation:
            wrong = raw >= self.saturation
            if self.missing is not None:
                wrong &= raw != self.missing
            counts.saturated = int(wrong.sum())
            out[wrong] = np.nan
        return counts


def calibrate(
    image: RawCube,
    white: RawCube | None,
    dark: RawCube | None,
    *,
    white_reflectance: str | float = 1.0,
    references: References = "column",
) -> Calibration:
    """Work out the calibration of an image.

    Args:
        image: the image.
        white: its white reference; None where the image is reflectance already, which its `scale`
            then divides.
        dark: its dark reference; None takes 0.
        white_reflectance: of the white panel, 1 for a perfect one: a number, or a CSV of
            wavelengths and factors.
        references: how to average them; see `References`.

    Raises:
        FileNotFoundError: a CSV that is not there.
        ValueError: references of another width, other bands or an exposure that does not compare;
            no reference for what is not reflectance; a factor of the panel that cannot be.
    """
    if white is None:
        if dark is not None:
            raise ValueError(
                f"A dark reference without a white one gives no reflectance: add `white=FILE` "
                f"for {image.path.name}."
            )
        return _already_reflectance(image)
    remarks: list[str] = []
    for name, reference in (("white", white), ("dark", dark)):
        if reference is not None:
            _check_reference(image, name, reference, references)
    factor = panel_factor(white_reflectance, image.wavelength_nm)
    white_counts, white_known = _average(white, references)
    if dark is None:
        remarks.append(
            f"{image.path.name} has no dark reference: the dark signal is taken as 0, which makes "
            f"what is dark too bright."
        )
        dark_counts, dark_known = np.zeros_like(white_counts), np.ones_like(white_known)
    else:
        dark_counts, dark_known = _average(dark, references)
        if image.exposure_ms != dark.exposure_ms:
            remarks.append(
                f"The dark reference {dark.path.name} has an exposure of {dark.exposure_ms:g} ms "
                f"and {image.path.name} of {image.exposure_ms:g} ms: it is taken as it is."
            )
    above = white_counts - dark_counts
    known = (above > 0) & white_known & dark_known
    if not known.any():
        raise ValueError(
            f"The white reference {white.path.name} is nowhere above the dark one: look whether "
            f"they are exchanged."
        )
    longer = 1.0
    if image.exposure_ms is not None and white.exposure_ms is not None:
        longer = white.exposure_ms / image.exposure_ms
    # Counts of image and dark in the image's own numbers, of the white in the image's scale.
    same_scale = white.scale / image.scale
    gain = np.full(above.shape, np.nan)
    np.divide(longer * same_scale * factor[:, None], above, out=gain, where=known)
    return Calibration(
        dark=dark_counts.astype(np.float32),
        gain=gain.astype(np.float32),
        saturation=image.saturation,
        missing=image.missing,
        remarks=tuple(remarks),
    )


def _check_reference(image: RawCube, name: str, reference: RawCube, references: References) -> None:
    there = f"The {name} reference {reference.path.name}"
    if reference.bands != image.bands:
        raise ValueError(
            f"{there} has {reference.bands} bands and {image.path.name} {image.bands}: give the "
            f"one that was taken with the same settings of the camera."
        )
    apart = np.abs(reference.wavelength_nm - image.wavelength_nm)
    if apart.max() > SAME_NM:
        band = int(apart.argmax())
        raise ValueError(
            f"{there} has band {band + 1} at {reference.wavelength_nm[band]:g} nm and "
            f"{image.path.name} at {image.wavelength_nm[band]:g} nm: give the one that was taken "
            f"with the same camera."
        )
    if references == "column" and reference.samples != image.samples:
        raise ValueError(
            f"{there} is {reference.samples} pixels wide and {image.path.name} {image.samples}: "
            f"give one of the same width, or average it over all columns with `references=band`."
        )
    if (reference.exposure_ms is None) != (image.exposure_ms is None):
        said, unsaid = (reference, image) if image.exposure_ms is None else (image, reference)
        raise ValueError(
            f"{said.path.name} has an exposure of {said.exposure_ms:g} ms and {unsaid.path.name} "
            f"does not say its own, so that counts do not compare: add `exposure = MS` to its "
            f"header."
        )


@lru_cache(maxsize=4)  # white and dark are those of many images
def _average(
    reference: RawCube, references: References
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Mean raw numbers over lines (and columns), (B, columns or 1), and where they can be used."""
    shape = (reference.bands, reference.samples)
    total, count = np.zeros(shape), np.zeros(shape)
    saturated = np.zeros(shape, bool)
    for first in range(0, reference.lines, _LINES_AT_ONCE):
        block = reference.read_lines(slice(first, min(first + _LINES_AT_ONCE, reference.lines)))
        known = np.isfinite(block) if block.dtype.kind == "f" else np.True_
        if reference.missing is not None:
            known = known & (block != reference.missing)
        if reference.saturation is not None and block.max() >= reference.saturation:
            saturated |= np.any((block >= reference.saturation) & known, axis=0).T
        total += block.sum(axis=0, dtype=np.float64, where=known).T
        count += len(block) if known is np.True_ else np.count_nonzero(known, axis=0).T
    if references == "band":
        total, count = (array.sum(axis=1, keepdims=True) for array in (total, count))
        saturated = np.any(saturated, axis=1, keepdims=True)
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    return mean, (count > 0) & ~saturated


def _already_reflectance(image: RawCube) -> Calibration:
    middle = image.lines // 2
    sample = image.read_lines(slice(middle, middle + 1)).astype(np.float64).ravel()
    sample = sample[np.isfinite(sample) & (sample != image.missing)]
    median = float(np.median(sample)) / image.scale if len(sample) else 0.0
    if median > MOST_REFLECTANCE:
        raise ValueError(
            f"{image.path.name} has a median of {median:.4g} in its middle line, which is no "
            f"reflectance: give its references with `white` and `dark`, or add `reflectance "
            f"scale factor` to its header."
        )
    ones = np.ones((image.bands, 1), np.float32)
    return Calibration(
        dark=0 * ones,
        gain=ones / np.float32(image.scale),
        # The largest integer is no ceiling of a sensor where numbers are reflectance.
        saturation=None,
        missing=image.missing,
    )


def panel_factor(
    white_reflectance: str | float, wavelength_nm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the white panel's reflectance at some wavelengths, (B,).

    Args:
        white_reflectance: one number, or a CSV of two columns, wavelength in nm and factor.
        wavelength_nm: where it is needed.

    Raises:
        FileNotFoundError: a CSV that is not there.
        ValueError: it does not cover the wavelengths, or holds what no panel reflects.
    """
    where = "`white_reflectance`"
    try:
        factor = np.full(len(wavelength_nm), float(white_reflectance))
    except ValueError:
        where = str(white_reflectance)
        nm, values = _read_panel(Path(where))
        if wavelength_nm.min() < nm[0] - SAME_NM or wavelength_nm.max() > nm[-1] + SAME_NM:
            raise ValueError(
                f"{where} covers {nm[0]:g} to {nm[-1]:g} nm, but the image has bands from "
                f"{wavelength_nm.min():g} to {wavelength_nm.max():g} nm: give the panel's "
                f"reflectance for all of them, or one number."
            ) from None
        factor = np.interp(wavelength_nm, nm, values)
    if not ((factor > 0) & (factor <= 1.5)).all():
        wrong = factor[~((factor > 0) & (factor <= 1.5))][0]
        raise ValueError(
            f"A panel's reflectance of {wrong:g} in {where} cannot be: give it as a fraction, 0.99 "
            f"for 99 percent."
        )
    return factor


def _read_panel(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {path} of the panel's reflectance: give a CSV, or a number."
        )
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row and not row[0].lstrip().startswith("#")]
    numbers = _numbers(rows) or _numbers(rows[1:])  # the first row may hold names
    if not numbers:
        raise ValueError(
            f"{path} is no table of the panel's reflectance: it needs two columns, wavelength in "
            f"nm and factor, separated by a comma."
        )
    nm, values = np.array(sorted(numbers)).T
    return nm, values


def _numbers(rows: Sequence[Sequence[str]]) -> list[tuple[float, float]]:
    try:
        return [(float(row[0]), float(row[1])) for row in rows]
    except (ValueError, IndexError):
        return []
