"""A synthetic push-broom camera: reflectance to counts, with its references and its faults.

The numbers are those of a common silicon camera in kind, of no camera in particular.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WHITE_REFLECTANCE = 0.99
"""Of the white panel, at every wavelength."""
EXPOSURE_MS = 12.0
WHITE_EXPOSURE_MS = 8.0
"""The panel is brighter than leaves, so that it is taken with a shorter exposure."""
WHITE_FILL = 0.8
"""Share of the range that the panel takes in the brightest band and column."""

FULL_WELL_ELECTRONS = 40_000.0
"""Electrons at the largest number; the photons' noise is the root of their number."""
READ_NOISE_ELECTRONS = 20.0
DARK_LEVEL = 0.025
"""Offset of the counts, as a share of the range."""
DARK_CURRENT = 5e-5
"""What a column gathers without light in a ms, as a share of the range."""

Lines = NDArray[np.float32]


@dataclass(frozen=True)
class LineCamera:
    """One camera: every image and reference that it takes shares its faults."""

    largest: int
    """Largest number, at which it saturates."""
    gain: Lines
    """Counts of a white surface in a ms, (samples, bands)."""
    dark: Lines
    """Counts without light at no exposure, (samples, bands)."""
    dark_current: Lines
    """Counts that a ms adds without light, (samples, 1)."""

    @classmethod
    def build(
        cls, rng: np.random.Generator, samples: int, wavelength_nm: NDArray[np.float64], bits: int
    ) -> LineCamera:
        """Build a camera whose columns differ, with a lamp that is brighter in the middle."""
        largest = 2**bits - 1
        response = _response(wavelength_nm)
        place = np.linspace(-1, 1, samples)
        columns = np.cos(0.5 * place) ** 4 * (1 + 0.05 * place)
        columns *= 1 + rng.normal(0, 0.012, samples)
        pixels = 1 + rng.normal(0, 0.004, (samples, len(response)))
        gain = (columns / columns.max())[:, None] * (response / response.max()) * pixels
        gain *= largest * WHITE_FILL / WHITE_EXPOSURE_MS
        dark = DARK_LEVEL * (
            1 + rng.normal(0, 0.02, (samples, 1)) + rng.normal(0, 0.01, (samples, len(response)))
        )
        current = DARK_CURRENT * rng.gamma(4.0, 0.25, (samples, 1))
        return cls(
            largest,
            gain.astype(np.float32),
            (dark * largest).astype(np.float32),
            (current * largest).astype(np.float32),
        )

    def take(
        self, rng: np.random.Generator, reflectance: Lines, exposure_ms: float
    ) -> NDArray[np.uint16]:
        """Take lines of (lines, samples, bands) reflectance, 0 for a closed shutter.

        Photons are drawn from the normal distribution that the Poisson distribution tends to.
        """
        per_electron = np.float32(self.largest / FULL_WELL_ELECTRONS)
        counts = reflectance * (self.gain * np.float32(exposure_ms))
        counts += self.dark_current * np.float32(exposure_ms)
        noise = rng.standard_normal(counts.shape, dtype=np.float32)
        # Var = electrons + read noise**2, in counts: a count is 1 / per_electron electrons.
        noise *= np.sqrt(counts * per_electron + (READ_NOISE_ELECTRONS * per_electron) ** 2)
        counts += noise
        counts += self.dark
        np.rint(counts, out=counts)
        return np.clip(counts, 0, self.largest, out=counts).astype(np.uint16)


def _response(wavelength_nm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Photons of a halogen lamp (a black body at 3000 K) times efficiencies of silicon and grating.

    Planck's law in photons; the efficiencies are smooth curves with their maxima at 650 and 600 nm.
    """
    metres = wavelength_nm * 1e-9
    hc_over_k = 1.438776877e-2  # m K, CODATA 2018
    photons = metres**-4 / np.expm1(hc_over_k / (metres * 3000.0))
    silicon = np.exp(-(((wavelength_nm - 650.0) / 280.0) ** 2))
    grating = 0.3 + 0.7 * np.exp(-(((wavelength_nm - 600.0) / 200.0) ** 2))
    return photons * silicon * grating
