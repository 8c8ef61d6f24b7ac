"""Spectral indices of plants: which there are, their formulas and sources, and their values.

Everything is a pure function of reflectance and wavelengths; maps and tables of a store are
`index_maps`'.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

TOLERANCE_NM = 5.0
"""A band stands for a wavelength of a formula if its centre is no further away."""
MOST_SPACING_NM = 10.0
"""Neighbouring bands further apart than this do not resolve a spectrum's slope."""
VANISHING = 1e-6
"""A denominator below this, in units of reflectance, is rounding, and its quotient undefined; so is
the place of a slope below this by nm."""

RED_EDGE_NM = (680.0, 760.0)
"""Where the red edge's inflection is looked for."""
SLOPE_HALF_WIDTH_NM = 8.0
"""Bands on either side that a slope is fitted to; narrower lets noise through, wider flattens."""
SLOPE_BANDS = 5
"""Fewest bands that a slope is fitted to, for cameras with few bands."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """A spectral index: what it means, how it is computed, and who proposed it."""

    name: str
    """Short name, such as `NDVI`."""
    long_name: str
    """Full name."""
    formula: str
    """In words of reflectance R at a wavelength in nm."""
    wavelengths_nm: tuple[float, ...]
    """Wavelengths that it needs, in the order of the formula; the ends of a span."""
    units: str
    """Of its values: `1` where it has none."""
    source: str
    """The paper."""
    values: Callable[[Array, Array], Array]
    """From reflectance of its bands, (K, ...), and their wavelengths in nm, (K,): values (...)."""
    span: bool = False
    """Whether it needs every band between the ends."""


def compute_index(name: str, reflectance: ArrayLike, wavelength_nm: ArrayLike) -> Array:
    """Compute an index from spectra.

    Args:
        name: a name of `INDICES`.
        reflectance: (C, ...), NaN where not known; the bands that the index needs are enough.
        wavelength_nm: centres of the bands, ascending, (C,).

    Returns:
        Values in the index's units, float64, (...). NaN where a band that it needs is not known,
        and where it has no value: a denominator below `VANISHING`, a spectrum without a red edge.

    Raises:
        ValueError: no such index; bands that do not reach it or do not fit the reflectance.
    """
    reflectance = np.asarray(reflectance)
    wavelength_nm = np.asarray(wavelength_nm, dtype=np.float64)
    if reflectance.ndim == 0 or len(reflectance) != len(wavelength_nm):
        raise ValueError(
            f"Reflectance has the shape {reflectance.shape} but there are {len(wavelength_nm)} "
            f"wavelengths: give one wavelength a band, bands first."
        )
    bands = find_bands(name, wavelength_nm)
    return INDICES[name].values(reflectance[bands].astype(np.float64), wavelength_nm[bands])


def find_bands(name: str, wavelength_nm: ArrayLike) -> NDArray[np.intp]:
    """Find the bands of an index: the nearest ones within `TOLERANCE_NM`, or a whole span.

    Args:
        name: a name of `INDICES`.
        wavelength_nm: centres of the bands, ascending or descending, (C,).

    Returns:
        Places among the bands, in the order of the formula, (K,).

    Raises:
        ValueError: no such index; bands that do not reach it.
    """
    index, centres = find_index(name), np.asarray(wavelength_nm, dtype=np.float64)
    distance = np.abs(centres[:, None] - np.asarray(index.wavelengths_nm))
    missed = distance.min(axis=0) > TOLERANCE_NM
    if missed.any():
        wanted = ", ".join(f"{nm:g}" for nm in np.asarray(index.wavelengths_nm)[missed])
        raise ValueError(
            f"{name} needs a band within {TOLERANCE_NM:g} nm of {wanted} nm, which none of the "
            f"{len(centres)} bands from {centres.min():g} to {centres.max():g} nm is: prepare the "
            f"store with `bands` that reach it, or leave {name} out."
        )
    nearest = distance.argmin(axis=0)
    if not index.span:
        return nearest
    first, last = nearest[0], nearest[-1]
    # In a store wavelengths ascend; a user's spectra may have them the other way round.
    bands = np.arange(first, last + 1) if first <= last else np.arange(first, last - 1, -1)
    if (spacing := np.abs(np.diff(centres[bands])).max()) > MOST_SPACING_NM:
        raise ValueError(
            f"{name} needs bands at most {MOST_SPACING_NM:g} nm apart between "
            f"{index.wavelengths_nm[0]:g} and {index.wavelengths_nm[-1]:g} nm, but there are gaps "
            f"of {spacing:g} nm: use REIP, which needs four bands, or leave {name} out."
        )
    return bands


def reached_indices(wavelength_nm: ArrayLike) -> tuple[list[str], dict[str, str]]:
    """Say which indices the bands reach, in the order of `INDICES`, and why not the others."""
    reached, left_out = [], {}
    for name in INDICES:
        try:
            find_bands(name, wavelength_nm)
        except ValueError as error:
            left_out[name] = str(error)
        else:
            reached.append(name)
    return reached, left_out


def find_index(name: str) -> Index:
    """Return the index of a name.

    Raises:
        ValueError: there is none; with the nearest name.
    """
    if name not in INDICES:
        nearest = difflib.get_close_matches(name.upper(), INDICES, n=1)
        meant = f"did you mean {nearest[0]}?" if nearest else f"choose from {', '.join(INDICES)}."
        raise ValueError(f"There is no index {name!r}: {meant}")
    return INDICES[name]


def _quotient(numerator: Array, denominator: Array) -> Array:
    vanishes = np.abs(denominator) < VANISHING
    return np.where(vanishes, np.nan, numerator / np.where(vanishes, 1.0, denominator))


def _normalised_difference(R: Array, _: Array) -> Array:
    return _quotient(R[0] - R[1], R[0] + R[1])


def _ratio(R: Array, _: Array) -> Array:
    return _quotient(R[0], R[1])


def _anthocyanin(R: Array, _: Array) -> Array:
    return _quotient(np.ones_like(R[0]), R[0]) - _quotient(np.ones_like(R[1]), R[1])


def _anthocyanin_by_near_infrared(R: Array, wavelength_nm: Array) -> Array:
    return R[2] * _anthocyanin(R, wavelength_nm)


def _four_points(R: Array, _: Array) -> Array:
    half_way = (R[0] + R[3]) / 2
    return 700.0 + 40.0 * _quotient(half_way - R[1], R[2] - R[1])


def _steepest(R: Array, wavelength_nm: Array) -> Array:
    """Wavelength of the greatest slope between the ends of `RED_EDGE_NM`.

    Slopes are those of parabolas fitted to the bands around each band (Savitzky and Golay's
    derivative, for bands at any spacing). The parabola through the greatest slope and its two
    neighbours gives its place between bands. NaN where the slope rises or falls throughout, or is
    that of a flat spectrum.
    """
    inside = np.flatnonzero((wavelength_nm >= RED_EDGE_NM[0]) & (wavelength_nm <= RED_EDGE_NM[1]))
    slopes = np.tensordot(_slope_weights(wavelength_nm, inside), R, axes=1)
    # Without an inner greatest slope there is no inflection; the clip is for indexing alone.
    greatest = slopes.argmax(axis=0)
    found = (greatest > 0) & (greatest < len(inside) - 1)
    middle = np.clip(greatest, 1, len(inside) - 2)
    x0, x1, x2 = (wavelength_nm[inside][middle + step] for step in (-1, 0, 1))
    y0, y1, y2 = (
        np.take_along_axis(slopes, (middle + step)[None], axis=0)[0] for step in (-1, 0, 1)
    )
    found &= y1 > VANISHING
    rise, fall = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    curvature = np.where(found & (fall < rise), (fall - rise) / (x2 - x0), np.nan)
    return (x0 + x1) / 2 - rise / (2 * curvature)


def _slope_weights(wavelength_nm: Array, places: NDArray[np.intp]) -> Array:
    """Weights (places, bands) whose product with spectra is their slope at some bands."""
    weights = np.zeros((len(places), len(wavelength_nm)))
    for row, place in enumerate(places):
        offset = wavelength_nm - wavelength_nm[place]
        near = np.argsort(np.abs(offset), kind="stable")
        count = max(SLOPE_BANDS, int((np.abs(offset) <= SLOPE_HALF_WIDTH_NM).sum()))
        fitted = near[:count]
        weights[row, fitted] = np.linalg.pinv(np.vander(offset[fitted], 3, increasing=True))[1]
    return weights


_TABLE = (
    Index(
        name="NDVI",
        long_name="normalised difference vegetation index",
        formula="(R800 - R670) / (R800 + R670)",
        wavelengths_nm=(800.0, 670.0),
        units="1",
        source="Rouse et al. (1974), NASA SP-351, 309-317",
        values=_normalised_difference,
    ),
    Index(
        name="PRI",
        long_name="photochemical reflectance index",
        formula="(R531 - R570) / (R531 + R570)",
        wavelengths_nm=(531.0, 570.0),
        units="1",
        source="Gamon, Serrano and Surfus (1997), Oecologia 112, 492-501",
        values=_normalised_difference,
    ),
    Index(
        name="REP",
        long_name="red-edge position",
        formula="wavelength of the maximum of dR/dlambda in 680-760 nm",
        wavelengths_nm=(670.0, 770.0),
        units="nm",
        source="Horler, Dockray and Barber (1983), Int. J. Remote Sensing 4, 273-288",
        values=_steepest,
        span=True,
    ),
    Index(
        name="REIP",
        long_name="red-edge inflection point by four bands",
        formula="700 + 40 ((R670 + R780) / 2 - R700) / (R740 - R700)",
        wavelengths_nm=(670.0, 700.0, 740.0, 780.0),
        units="nm",
        source="Guyot and Baret (1988), ESA SP-287, 279-286",
        values=_four_points,
    ),
    Index(
        name="NDRE",
        long_name="normalised difference red-edge index",
        formula="(R790 - R720) / (R790 + R720)",
        wavelengths_nm=(790.0, 720.0),
        units="1",
        source="Barnes et al. (2000), Proc. 5th Int. Conf. on Precision Agriculture",
        values=_normalised_difference,
    ),
    Index(
        name="CCI",
        long_name="chlorophyll/carotenoid index",
        formula="(R531 - R645) / (R531 + R645)",
        wavelengths_nm=(531.0, 645.0),
        units="1",
        source="Gamon et al. (2016), PNAS 113, 13087-13092",
        values=_normalised_difference,
    ),
    Index(
        name="ARI1",
        long_name="anthocyanin reflectance index 1",
        formula="1 / R550 - 1 / R700",
        wavelengths_nm=(550.0, 700.0),
        units="1",
        source="Gitelson, Merzlyak and Chivkunova (2001), Photochem. Photobiol. 74, 38-45",
        values=_anthocyanin,
    ),
    Index(
        name="ARI2",
        long_name="anthocyanin reflectance index 2",
        formula="R800 (1 / R550 - 1 / R700)",
        wavelengths_nm=(550.0, 700.0, 800.0),
        units="1",
        source="Gitelson, Merzlyak and Chivkunova (2001), Photochem. Photobiol. 74, 38-45",
        values=_anthocyanin_by_near_infrared,
    ),
    Index(
        name="WI",
        long_name="water index",
        formula="R900 / R970",
        wavelengths_nm=(900.0, 970.0),
        units="1",
        source="Peñuelas et al. (1997), Int. J. Remote Sensing 18, 2869-2875",
        values=_ratio,
    ),
)
INDICES: dict[str, Index] = {index.name: index for index in _TABLE}
"""Every index by name."""
