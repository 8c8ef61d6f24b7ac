"""Spectra as colours that people see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RED_GREEN_BLUE_NM = (650.0, 550.0, 450.0)
"""Wavelengths that stand for the three primaries."""


def true_colour(
    reflectance: NDArray[np.floating],
    wavelength_nm: NDArray[np.float64],
    *,
    like: NDArray[np.floating] | None = None,
) -> NDArray[np.float64]:
    """Draw reflectance in the bands nearest to red, green and blue.

    All three are scaled alike, the 99.5th percentile to white, so that hues are kept; then
    gamma 2.2, as screens expect.

    Args:
        reflectance: (C, H, W), NaN where not known (drawn black, also if in one of the bands).
        wavelength_nm: (C,).
        like: an image whose scale is used, for pictures side by side; None for its own.

    Returns:
        (H, W, 3), in 0 .. 1.
    """
    bands = [int(np.abs(wavelength_nm - nm).argmin()) for nm in RED_GREEN_BLUE_NM]
    of_scale = np.asarray((reflectance if like is None else like)[bands], np.float64)
    known = of_scale[np.isfinite(of_scale)]
    white = float(np.percentile(known, 99.5)) if known.size else 1.0
    picture = np.asarray(reflectance[bands], np.float64) / max(white, 1e-6)
    # Without one of the three, what is left would be a colour that nothing has.
    picture = np.where(np.isfinite(picture).all(0), picture, 0.0)
    return np.clip(np.moveaxis(picture, 0, -1), 0.0, 1.0) ** (1 / 2.2)
