"""Which bands a store holds, and how they are made from a camera's: one matrix a camera.

Gaussian response, linear interpolation, averaging of repeated wavelengths and Savitzky-Golay
smoothing are all linear in the spectrum, so that they are one product, applied to blocks of pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.plants.prepare.config import Response
from sciml_dchag.plants.read.raw_cube import RawCube
from sciml_dchag.plants.read.wavelengths import read_wavelengths

NATIVE = "native"
"""The band set's name that keeps the camera's bands."""

MOST_TARGETS_A_BAND = 5
"""More bands than that made from each of the camera's would be invention."""
MOST_STEPS = 2.0
"""A band reaches no further to one side than so many times as far as to the other."""
MOST_WIDTHS_AWAY = 0.75
"""A band wanted is no further from one of the camera's than so many of its widths."""
ROWS_AT_ONCE = 32
"""Bands that one product makes: neighbours, which are made from the same few of the camera's."""

_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*x\s*(\d+)\s*")


def parse_bands(text: str) -> NDArray[np.float64] | None:
    """Read a band set: centres in nm, ascending, (C,); None for `native`.

    Args:
        text: `native`, `400-900x500` (500 bands from 400 to 900 nm, both included), numbers
            separated by commas, or a text file of wavelengths.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: it is none of these, or names fewer than two bands, or one twice.
    """
    if text.strip() == NATIVE:
        return None
    if match := _SPAN.fullmatch(text):
        low, high, number = float(match[1]), float(match[2]), int(match[3])
        if not (low < high and number >= 2):
            raise ValueError(
                f"The band set {text!r} has no two bands: give it as 400-900x500, the lower end "
                f"first."
            )
        return np.linspace(low, high, number)
    try:
        nm = np.array([float(part) for part in text.split(",") if part.strip()], np.float64)
    except ValueError:
        if not Path(text).is_file():
            raise ValueError(
                f"{text!r} is no band set: give {NATIVE}, a span such as 400-900x500, wavelengths "
                f"in nm separated by commas, or a file of them."
            ) from None
        nm, _ = read_wavelengths(text)
    nm = np.sort(nm)
    if len(nm) < 2 or (np.diff(nm) == 0).any():
        raise ValueError(
            f"The band set {text!r} needs two or more wavelengths, each once: it has {len(nm)}, of "
            f"which {len(np.unique(nm))} differ."
        )
    return nm


def parse_spans(text: str) -> list[tuple[float, float]]:
    """Read spans of wavelengths such as `1350-1460,1790-1960`, nm.

    Raises:
        ValueError: it is no such list.
    """
    spans = []
    for part in text.split(",") if text.strip() else []:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*", part)
        if match is None or float(match[1]) > float(match[2]):
            raise ValueError(
                f"{part.strip()!r} is no span of wavelengths: give `drop_bands=FIRST-LAST`, in nm, "
                f"such as 1350-1460,1790-1960."
            )
        spans.append((float(match[1]), float(match[2])))
    return spans


def without_bands(cube: RawCube, spans: Sequence[tuple[float, float]]) -> RawCube:
    """Mark the bands of some spans as bad.

    Raises:
        ValueError: a span holds no band of the camera.
    """
    good = np.ones(cube.bands, bool) if cube.good_bands is None else cube.good_bands.copy()
    for low, high in spans:
        inside = (cube.wavelength_nm >= low) & (cube.wavelength_nm <= high)
        if not inside.any():
            raise ValueError(
                f"`drop_bands` {low:g}-{high:g} holds no band of {cube.path.name}, whose bands run "
                f"from {cube.wavelength_nm.min():g} to {cube.wavelength_nm.max():g} nm: leave it "
                f"out."
            )
        good[inside] = False
    return replace(cube, good_bands=good) if spans else cube


@dataclass(frozen=True, eq=False, kw_only=True)
class BandMaker:
    """Makes the bands of a store from some of a camera's."""

    wavelength_nm: NDArray[np.float64]
    """Centres of what is made, ascending, (C,)."""
    used: NDArray[np.intp]
    """Which of the camera's bands it is made from, in the order of `matrix`, (B,)."""
    matrix: NDArray[np.float64]
    """Weights, each row summing to one, of derivatives to zero, (C, B)."""

    @classmethod
    def for_camera(
        cls,
        cube: RawCube,
        target_nm: NDArray[np.float64] | None,
        *,
        response: Response = "gaussian",
        merge_bands: bool = False,
        smooth: tuple[int, int] | None = None,
    ) -> BandMaker:
        """Work out how a camera's bands become those of a store.

        Args:
            cube: an image of the camera.
            target_nm: centres wanted; None keeps the camera's own, sorted, without its bad ones.
            response: `gaussian` weights the camera's bands by a Gaussian response whose full width
                at half height is the distance of the centres wanted (`spectral.BandResampler`);
                `linear` interpolates between the two nearest.
            merge_bands: average bands of one wavelength instead of refusing them.
            smooth: window (bands) and order of a Savitzky-Golay filter (Savitzky and Golay 1964).

        Raises:
            ValueError: repeated wavelengths, or the camera does not cover what is wanted, or the
                filter does not fit.
        """
        own_nm, merging = _own_bands(cube, merge_bands)
        if target_nm is None:
            weights = np.eye(len(own_nm))
            target_nm = own_nm
        else:
            width = _widths(cube, own_nm)
            _check_cover(cube, own_nm, target_nm)
            seen = (
                width if cube.fwhm_nm is None else np.maximum(width, _means(merging, cube.fwhm_nm))
            )
            _check_gaps(cube, own_nm, seen, target_nm)
            if response == "linear":
                weights = np.stack(
                    [np.interp(target_nm, own_nm, row) for row in np.eye(len(own_nm))]
                )
                weights = weights.T
            else:
                fwhm = width if cube.fwhm_nm is None else _means(merging, cube.fwhm_nm)
                weights = _gaussian(cube, own_nm, fwhm, target_nm)
        if smooth is not None:
            weights = _smoothed(weights, target_nm, smooth)
        matrix = weights @ merging
        used = np.flatnonzero(matrix.any(axis=0))
        used = used[np.argsort(cube.wavelength_nm[used], kind="stable")]
        return cls(wavelength_nm=target_nm, used=used, matrix=matrix[:, used])

    @property
    def selects(self) -> bool:
        """Whether it takes bands as they are."""
        return self.matrix.shape[0] == self.matrix.shape[1] and bool(
            (self.matrix == np.eye(len(self.matrix))).all()
        )

    def products(self) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
        """Cut the product into few rows by the few columns that are not zero there.

        Yields:
            Bands made, bands used, and the weights between them.
        """
        for first in range(0, len(self.matrix), ROWS_AT_ONCE):
            rows = slice(first, min(first + ROWS_AT_ONCE, len(self.matrix)))
            columns = np.flatnonzero(self.matrix[rows].any(axis=0))
            span = slice(int(columns[0]), int(columns[-1]) + 1)
            yield rows, span, np.ascontiguousarray(self.matrix[rows, span], dtype=np.float32)


def apply(
    products: list[tuple[slice, slice, NDArray[np.float32]]],
    spectra: NDArray[np.float32],
    out: NDArray[np.float32],
    *,
    gaps: bool,
) -> None:
    """Make bands: `out` (C, pixels) from `spectra` (B, pixels).

    What is made from a NaN is NaN, other bands of that pixel are not touched.

    Args:
        products: from `BandMaker.products`.
        spectra: the bands used; NaN becomes zero in it.
        out: filled.
        gaps: whether there may be a NaN.
    """
    unknown: NDArray[Any] | None = None
    where = np.zeros(0, np.intp)
    if gaps:
        missing = np.isnan(spectra)
        where = np.flatnonzero(missing.any(axis=0))
        if len(where):
            unknown = missing[:, where].astype(np.float32)
            spectra[missing] = 0.0
    for rows, span, weights in products:
        out[rows] = weights @ spectra[span]
        if unknown is not None:
            touched = (weights != 0).astype(np.float32) @ unknown[span] > 0
            made = out[rows]
            made[:, where] = np.where(touched, np.nan, made[:, where])


def _own_bands(cube: RawCube, merge_bands: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The camera's good bands, each wavelength once, and the means that make them, (own, bands)."""
    good = np.ones(cube.bands, bool) if cube.good_bands is None else cube.good_bands
    if not good.any():
        raise ValueError(f"{cube.path.name} lists all of its {cube.bands} bands as bad.")
    own_nm, of_band, times = np.unique(
        cube.wavelength_nm[good], return_inverse=True, return_counts=True
    )
    if (times > 1).any() and not merge_bands:
        raise ValueError(
            f"{cube.path.name} has {int(times.max())} bands at {own_nm[times.argmax()]:g} nm, "
            f"{int((times > 1).sum())} such wavelengths in all: average them with "
            f"`merge_bands=True`, or give the right ones with `wavelengths=FILE`."
        )
    if len(own_nm) < 2:
        raise ValueError(f"{cube.path.name} has {len(own_nm)} usable band, where 2 are needed.")
    means = np.zeros((len(own_nm), cube.bands))
    means[of_band, np.flatnonzero(good)] = 1.0 / times[of_band]
    return own_nm, means


def _means(merging: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(merging @ values)


def _covers(cube: RawCube, own_nm: NDArray[np.float64]) -> str:
    return (
        f"{cube.path.name} covers {own_nm[0]:g} to {own_nm[-1]:g} nm in {len(own_nm)} usable bands"
    )


def _check_cover(
    cube: RawCube, own_nm: NDArray[np.float64], target_nm: NDArray[np.float64]
) -> None:
    # Half a band beyond the outermost centres is still seen by them.
    low = own_nm[0] - (own_nm[1] - own_nm[0]) / 2
    high = own_nm[-1] + (own_nm[-1] - own_nm[-2]) / 2
    outside = target_nm[(target_nm < low) | (target_nm > high)]
    if len(outside):
        raise ValueError(
            f"{_covers(cube, own_nm)}, but bands from {target_nm[0]:g} to {target_nm[-1]:g} nm are "
            f"wanted, {len(outside)} of them outside: choose others with `bands`, or "
            f"`bands={NATIVE}`."
        )
    within = int(((own_nm >= target_nm[0]) & (own_nm <= target_nm[-1])).sum())
    if within * MOST_TARGETS_A_BAND < len(target_nm):
        raise ValueError(
            f"{_covers(cube, own_nm)}, {within} of them between {target_nm[0]:g} and "
            f"{target_nm[-1]:g} nm, too few to make {len(target_nm)}: choose fewer with `bands`, "
            f"or `bands={NATIVE}`."
        )


def _widths(cube: RawCube, own_nm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Widths of the camera's good bands by the distance of all bands, good and bad, (own,).

    A band reaches half way to its neighbours. Beside a gap it does not reach into it further than
    as if the gap were as wide as twice the distance on its other side.
    """
    every = np.unique(cube.wavelength_nm)
    steps = np.diff(every)
    before = np.concatenate([steps[:1], steps])
    after = np.concatenate([steps, steps[-1:]])
    nearer = np.minimum(before, after)
    width = (np.minimum(before, MOST_STEPS * nearer) + np.minimum(after, MOST_STEPS * nearer)) / 2
    return np.asarray(width[np.searchsorted(every, own_nm)])


def _check_gaps(
    cube: RawCube,
    own_nm: NDArray[np.float64],
    width_nm: NDArray[np.float64],
    target_nm: NDArray[np.float64],
) -> None:
    """Refuse bands that nothing was measured of: in a gap, or where bands are bad."""
    apart = np.abs(target_nm[:, None] - own_nm) / width_nm
    absent = target_nm[apart.min(axis=1) > MOST_WIDTHS_AWAY]
    absent = absent[(absent > own_nm[0]) & (absent < own_nm[-1])]
    if len(absent):
        after = int(np.searchsorted(own_nm, absent[0]))
        raise ValueError(
            f"{cube.path.name} has no good band between {own_nm[after - 1]:g} and "
            f"{own_nm[after]:g} nm, where some of the bands wanted lie ({len(absent)} in all such "
            f"gaps): list those it has with `bands`, or keep the camera's with `bands={NATIVE}`."
        )


def _gaussian(
    cube: RawCube,
    own_nm: NDArray[np.float64],
    fwhm_nm: NDArray[np.float64],
    target_nm: NDArray[np.float64],
) -> NDArray[np.float64]:
    from spectral import BandResampler

    matrix = np.asarray(BandResampler(own_nm, target_nm, fwhm_nm).matrix, np.float64)
    empty = np.isnan(matrix).any(axis=1)  # how it marks a band that none of the camera's overlaps
    if empty.any():
        raise ValueError(
            f"{_covers(cube, own_nm)}, none of which overlaps the band wanted at "
            f"{target_nm[int(empty.argmax())]:g} nm: choose fewer with `bands`, or interpolate "
            f"with `response=linear`."
        )
    return matrix


def _smoothed(
    weights: NDArray[np.float64], target_nm: NDArray[np.float64], smooth: tuple[int, int]
) -> NDArray[np.float64]:
    from scipy.signal import savgol_filter

    _check_filter("smooth", smooth, target_nm)
    return np.asarray(savgol_filter(weights, *smooth, axis=0))


def derivative_maker(target_nm: NDArray[np.float64], derivative: tuple[int, int]) -> BandMaker:
    """Work out how reflectance becomes its first derivative, its change from band to band.

    That of the polynomial that a Savitzky-Golay filter (Savitzky and Golay 1964) fits around each
    band; at both ends of the spectrum that of the outermost one.

    Args:
        target_nm: centres of the bands, evenly spaced, ascending.
        derivative: window (bands) and order of the filter.

    Raises:
        ValueError: the filter does not fit the bands.
    """
    from scipy.signal import savgol_filter

    _check_filter("derivative", derivative, target_nm)
    weights = savgol_filter(np.eye(len(target_nm)), *derivative, deriv=1, axis=0)
    return BandMaker(wavelength_nm=target_nm, used=np.arange(len(target_nm)), matrix=weights)


def _check_filter(
    name: str, window_and_order: tuple[int, int], target_nm: NDArray[np.float64]
) -> None:
    """Refuse a Savitzky-Golay filter that does not fit the bands."""
    window, order = window_and_order
    least = int(name == "derivative")
    if window % 2 == 0 or not least <= order < window <= len(target_nm):
        raise ValueError(
            f"A Savitzky-Golay filter of {window} bands and order {order} does not fit "
            f"{len(target_nm)} bands: give `{name}=WINDOW,ORDER` with an odd window above the "
            f"order, such as 11,2."
        )
    steps = np.diff(target_nm)
    if steps.max() > 1.05 * steps.min():
        raise ValueError(
            f"A Savitzky-Golay filter needs evenly spaced bands, but these are {steps.min():g} to "
            f"{steps.max():g} nm apart: choose a span such as `bands=400-900x500`."
        )
