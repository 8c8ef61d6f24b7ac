"""Spectra as colours: what weights make an image of them, and how it is shown on a screen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

VISIBLE_NM = (430.0, 670.0)
"""What a camera has to see for colours as the eye sees them."""
FALSE_COLOURS_NM = (800.0, 670.0, 550.0)
"""Near infrared, red and green shown as red, green and blue."""

_D65 = (0.9505, 1.0, 1.0891)
_XYZ_TO_SRGB = np.array(
    [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
)
"""IEC 61966-2-1, annex."""


def colour_matching(wavelength_nm: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE 1931 colour matching functions x, y, z, (3, C), by sums of Gaussians.

    Multi-lobe fit of Wyman, Sloan and Shirley 2013 (Journal of Computer Graphics Techniques 2(2)),
    equation 4.
    """

    def lobe(height: float, centre: float, below: float, above: float) -> NDArray[np.float64]:
        apart = wavelength_nm - centre
        return np.asarray(height * np.exp(-0.5 * (apart / np.where(apart < 0, below, above)) ** 2))

    x = lobe(1.056, 599.8, 37.9, 31.0) + lobe(0.362, 442.0, 16.0, 26.7)
    x += lobe(-0.065, 501.1, 20.4, 26.2)
    y = lobe(0.821, 568.8, 46.9, 40.5) + lobe(0.286, 530.9, 16.3, 31.1)
    z = lobe(1.217, 437.0, 11.8, 36.0) + lobe(0.681, 459.0, 26.0, 13.8)
    return np.stack([x, y, z])


def colour_weights(wavelength_nm: NDArray[np.float64]) -> tuple[NDArray[np.float32], str]:
    """Weights that make linear sRGB from reflectance, (3, C), and what is shown.

    Under light of equal energy, white balanced so that a perfect reflector is white. Where the
    visible is not covered, the bands nearest to 650, 550 and 450 nm.
    """
    if wavelength_nm[0] <= VISIBLE_NM[0] and wavelength_nm[-1] >= VISIBLE_NM[1]:
        step = np.gradient(wavelength_nm)
        matching = colour_matching(wavelength_nm) * step
        matching *= (np.array(_D65) / matching.sum(axis=1))[:, None]
        return (_XYZ_TO_SRGB @ matching).astype(np.float32), "as the eye sees it (CIE 1931)"
    return _nearest(wavelength_nm, (650.0, 550.0, 450.0))


def false_colour_weights(wavelength_nm: NDArray[np.float64]) -> tuple[NDArray[np.float32], str]:
    """The same for near infrared, red and green; evenly spread bands where those are not seen."""
    wanted = FALSE_COLOURS_NM
    if wavelength_nm[-1] < wanted[0] - 30 or wavelength_nm[0] > wanted[2] + 30:
        high, middle, low = np.quantile(wavelength_nm, (0.9, 0.5, 0.1))
        wanted = (float(high), float(middle), float(low))
    return _nearest(wavelength_nm, wanted)


def _nearest(
    wavelength_nm: NDArray[np.float64], wanted: tuple[float, float, float]
) -> tuple[NDArray[np.float32], str]:
    bands = [int(np.abs(wavelength_nm - nm).argmin()) for nm in wanted]
    weights = np.zeros((3, len(wavelength_nm)), np.float32)
    weights[range(3), bands] = 1.0
    return weights, f"{', '.join(f'{wavelength_nm[band]:.0f}' for band in bands)} nm"


def show(
    linear: NDArray[np.float32], like: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Turn linear colours, (3, rows, columns), into what screens expect, (rows, columns, 3).

    Args:
        linear: NaN where not known; a pixel that lacks one of the three is drawn black.
        like: linear colours whose brightest hundredth is white, for pictures side by side; None
            for its own.
    """
    scale = linear if like is None else like
    known = scale[np.isfinite(scale)]
    white = float(np.quantile(known, 0.995)) if len(known) else 1.0
    # Without one of the three, what is left would be a colour that nothing has.
    whole = np.where(np.isfinite(linear).all(axis=0), linear, 0.0)
    scaled = np.clip(whole / max(white, 1e-6), 0.0, 1.0)
    encoded = np.where(scaled <= 0.0031308, 12.92 * scaled, 1.055 * scaled ** (1 / 2.4) - 0.055)
    return np.asarray(encoded.transpose(1, 2, 0), np.float32)


def true_colour(
    reflectance: NDArray[np.float32],
    wavelength_nm: NDArray[np.float64],
    like: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Draw reflectance (C, rows, columns) in colours, (rows, columns, 3); see `colour_weights`.

    Args:
        reflectance: NaN where not known.
        wavelength_nm: (C,).
        like: an image whose brightest hundredth is white, for pictures side by side.
    """
    weights, _ = colour_weights(wavelength_nm)

    def linear(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.einsum("kc,chw->khw", weights, image)

    return show(linear(reflectance), None if like is None else linear(like))


def as_seen(
    reflectance: NDArray[np.float32], wavelength_nm: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return colours as a screen shows them, (rows, columns, 3), of a picture or of a spectrum.

    Args:
        reflectance: (C, rows, columns); three bands are a picture's colours, as they are.
        wavelength_nm: centres, ascending, (C,): blue comes first.
    """
    if len(reflectance) == 3:
        return np.moveaxis(reflectance[::-1], 0, -1).clip(0, 1)
    return true_colour(reflectance, wavelength_nm)
