"""Raw counts to reflectance, with white and dark references, for a push-broom camera.

    reflectance = (raw - dark) / t  /  ((white - dark) / t_white)  x  factor of the panel

with the exposure times t, in which a sensor is linear. The references are averaged by `references`,
whether the result can be is looked at by `believable`; making other bands is `bands`' work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.files.tables import read_rows
from sciml_dchag.plants.prepare.config import References
from sciml_dchag.plants.prepare.panel import brightness, shadow_remarks
from sciml_dchag.plants.prepare.references import (
    DEAD,
    FAINT,
    FAINT_BY_DARK,
    FAINT_BY_NOISE,
    SAME_NM,
    WEAK,
    WEAK_BY_DARK,
    Mean,
    average,
    ceiling_for,
    check_reference,
    is_radiance,
    scanned,
)
from sciml_dchag.plants.read.raw_cube import RawCube

MOST_DEAD = 0.1
"""Fraction of columns from which on a band's white reference is said to be weak."""
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
    referenced: bool = False
    """Whether it is by references, and not the numbers themselves."""
    remarks: tuple[str, ...] = field(default=())
    """What had to be assumed, one sentence each."""
    weak: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    """Bands where white is too little above dark in some columns, which have no value, (B,)."""
    faint: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    """Bands where it is so little that reflectance is noisy, (B,)."""
    white_name: str = ""
    """File of the white reference."""

    def doubts(self, bands: NDArray[np.intp], wavelength_nm: NDArray[np.float64]) -> list[str]:
        """Say at which of some bands white is hardly above dark, one sentence each."""
        said = []
        for flags, words in (
            (self.weak, "which have no value where it is"),
            (self.faint, "where reflectance is noisy"),
        ):
            if len(flags) and flags[bands].any():
                nm = wavelength_nm[bands[flags[bands]]]
                said.append(
                    f"The white reference {self.white_name} is barely above dark in {len(nm)} "
                    f"band{'s' * (len(nm) > 1)} from {nm.min():g} to {nm.max():g} nm, {words}."
                )
        return said

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
        if self.referenced and not raw[:, 0].any() and not raw.any():  # no camera counts 0 all over
            out[:], counts.missing = np.nan, raw.size
            return counts
        for first in range(0, len(raw), _BANDS_AT_ONCE):  # which fit into a core's cache
            part = slice(first, first + _BANDS_AT_ONCE)
            np.copyto(out[part], raw[part], casting="unsafe")
            np.subtract(out[part], self.dark[part], out=out[part])
            np.multiply(out[part], self.gain[part], out=out[part])
        counts.masked = self.unusable * (raw.shape[1] if self.gain.shape[1] == 1 else 1)
        if raw.dtype.kind == "f" and not np.isfinite(out.sum(dtype=np.float64)):
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
        white: its white reference; None where the image is reflectance already, by its scale or
            its gains and offsets by band.
        dark: its dark reference; None takes 0.
        white_reflectance: of the white panel, 1 for a perfect one: a number, or a CSV of
            wavelengths and factors.
        references: how to average them; see `References`.

    Raises:
        FileNotFoundError: a CSV that is not there.
        ValueError: references of another width, other bands, settings or an exposure that does not
            compare; a panel beside the image's columns; a factor of the panel that cannot be.
    """
    if white is None:
        if dark is not None:
            raise ValueError(
                f"A dark reference without a white one gives no reflectance: add `white=FILE` "
                f"for {image.path.name}."
            )
        return _already_reflectance(image)
    for name, reference in (("white", white), ("dark", dark)):
        if reference is not None:
            check_reference(image, name, reference, references)
    factor = panel_factor(white_reflectance, image.wavelength_nm)
    found = ceiling_for(image, white)
    ceiling, white_ceiling = found or image.saturation, found or white.saturation
    level = 0.0 if dark is None else float(brightness(dark)[scanned(dark)].mean())
    bright = average(white, references, white_ceiling, level)
    remarks = [*bright.remarks, *_saturation_remarks(white, bright, white_ceiling)]
    if references == "column":
        remarks += shadow_remarks(image, white, level)
    white_values, white_factor = _values(white, bright)
    if dark is None:
        remarks.append(
            f"{image.path.name} has no dark reference: the dark signal is taken as 0, which makes "
            f"what is dark too bright."
        )
        dark_values, dark_noise, dark_error = (np.zeros_like(white_values) for _ in range(3))
        known = bright.known.copy()
    else:
        low = average(dark, references, found or dark.saturation)
        remarks += low.remarks
        dark_values, dark_factor = _values(dark, low)
        dark_noise, dark_error = low.noise * dark_factor, low.error * dark_factor
        known = bright.known & low.known
        if dark.dtype.kind == "f" and image.may_be_counts and 0 < low.counts.max() < 1:
            remarks.append(
                f"The dark reference {dark.path.name} has no number above {low.counts.max():.2g} "
                f"and {image.path.name} holds counts, as where dark was divided by the largest "
                f"count: give the one that was saved as the image was."
            )
        if image.exposure_ms != dark.exposure_ms and not is_radiance(image, dark):
            remarks.append(
                f"The dark reference {dark.path.name} has an exposure of {dark.exposure_ms:g} ms "
                f"and {image.path.name} of {image.exposure_ms:g} ms: it is taken as it is."
            )
    above = white_values - dark_values
    error = np.hypot(bright.error * white_factor, dark_error)
    noise = np.hypot(bright.noise * white_factor, dark_noise)
    dead = np.broadcast_to(DEAD * np.median(above, axis=1, keepdims=True), above.shape)
    weak = _below(
        above, np.maximum.reduce([WEAK * error, WEAK_BY_DARK * np.abs(dark_values), dead])
    )
    if not (known & ~weak).any():
        raise ValueError(
            f"The white reference {white.path.name} is nowhere above the dark one, noise aside: "
            f"look whether they are exchanged, or one scan."
        )
    faint = _below(
        above,
        np.maximum.reduce(
            [FAINT * error, FAINT_BY_NOISE * noise, FAINT_BY_DARK * np.abs(dark_values)]
        ),
    )
    longer = 1.0
    white_ms, image_ms = white.exposure_ms, image.exposure_ms
    if white_ms is not None and image_ms is not None and not is_radiance(image, white):
        longer = white_ms / image_ms
    image_factor, image_offset = image.factors()
    gain = np.full(above.shape, np.nan)
    np.divide(
        longer * image_factor[:, None] * factor[:, None], above, out=gain, where=known & ~weak
    )
    # Dark is subtracted in the image's own numbers.
    dark_numbers = (dark_values - image_offset[:, None]) / image_factor[:, None]
    return Calibration(
        dark=dark_numbers.astype(np.float32),
        gain=gain.astype(np.float32),
        saturation=ceiling,
        missing=image.missing,
        referenced=True,
        remarks=tuple(remarks),
        # A dead pixel of the sensor is counted, and no property of the light.
        weak=(weak & known).mean(axis=1) > MOST_DEAD,
        faint=(faint & ~weak & known).mean(axis=1) > MOST_DEAD,
        white_name=white.path.name,
    )


def _below(above: NDArray[np.float64], least: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where signal is too small: in a column, or in a band by its median over columns."""
    whole_band = np.median(above, axis=1) <= np.median(least, axis=1)
    return np.asarray((above <= least) | whole_band[:, None])


def _values(reference: RawCube, mean: Mean) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a reference's mean numbers stand for, and the factor of each band, (B, 1)."""
    factor, offset = (array[:, None] for array in reference.factors())
    return mean.counts * factor + offset, factor


def _saturation_remarks(white: RawCube, bright: Mean, ceiling: float | None) -> list[str]:
    if not bright.saturated or ceiling is None:
        return []
    return [
        f"The white reference {white.path.name} is saturated (at "
        f"{ceiling:g}) in {bright.saturated:.1%} of its columns and bands, which "
        f"have no value: take it with a shorter exposure, or give the camera's `bit_depth` if that "
        f"is no ceiling."
    ]


def _already_reflectance(image: RawCube) -> Calibration:
    if image.radiance:
        raise ValueError(
            f"The header of {image.path.name} says that it is radiance, which is no reflectance: "
            f"give a white reference with `white`, or say what its numbers are to be divided by "
            f"with `scale=NUMBER` if they are reflectance even so."
        )
    factor, offset = (array[:, None] for array in image.factors())
    return Calibration(
        # number x factor + offset, written as (number - dark) x gain
        dark=(-offset / factor).astype(np.float32),
        gain=factor.astype(np.float32),
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
    rows, separator = read_rows(path, comments="#")
    if separator != ",":  # a comma is then a decimal one
        rows = [[cell.replace(",", ".") for cell in row] for row in rows]
    numbers = _numbers(rows, _panel_columns(rows[0]))
    if not numbers:
        raise ValueError(
            f"{path} is no table of the panel's reflectance: it needs two columns, wavelength in "
            f"nm and factor, separated by commas, semicolons or tabs; among more of them one "
            f"is called wavelength and one reflectance or factor."
        )
    nm, values = np.array(sorted(numbers)).T
    if (twice := nm[1:][np.diff(nm) == 0]).size:
        raise ValueError(
            f"{path} gives the panel's reflectance at {twice[0]:g} nm twice: keep one of the rows."
        )
    return nm, values


def _panel_columns(names: Sequence[str]) -> list[int]:
    """Places of wavelength and factor: the only two columns, or those of these names."""
    if len(names) == 2:
        return [0, 1]
    small = [name.lower() for name in names]
    found = [
        [i for i, name in enumerate(small) if name.startswith(begins)]
        for begins in (("wave", "lambda"), ("reflect", "factor"))
    ]
    return [places[0] for places in found if len(places) == 1]


def _numbers(rows: Sequence[Sequence[str]], columns: Sequence[int]) -> list[tuple[float, float]]:
    """Pairs of wavelength and factor; the first row may hold names. None where others are there."""
    if len(columns) != 2 or len({len(row) for row in rows}) > 1:
        return []
    for some in (rows, rows[1:]):
        try:
            pairs = [(float(row[columns[0]]), float(row[columns[1]])) for row in some]
        except ValueError:
            continue
        return pairs if np.isfinite(pairs).all() else []
    return []
