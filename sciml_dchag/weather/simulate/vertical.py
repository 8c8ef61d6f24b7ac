"""From a model's sigma levels to pressure levels, linear in the logarithm of pressure.

Here: fields held constant beyond the outer levels, and geopotential continued hydrostatically.
Not here: hybrid levels, and any reading of files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRY_AIR_GAS_CONSTANT = 287.05
"""J kg-1 K-1 (WMO, Technical Regulations, 1988)."""

FloatArray = NDArray[np.float64]


class SigmaToPressure:
    """Interpolation from the sigma levels of many columns to pressure levels, in float64.

    Levels have the pressure `sigma * surface_pressure`, so that in the coordinate
    `log(pressure / surface_pressure)` they lie at `log(sigma)` in every column.

    Args:
        surface_pressure: (..., latitude, longitude), Pa.
        sigma: pressure of the levels over surface pressure, ascending, shape (level,).
        level_hpa: target levels, hPa.

    Raises:
        ValueError: sigma levels that do not ascend from above zero, or fewer than two.
    """

    def __init__(
        self, surface_pressure: ArrayLike, sigma: ArrayLike, level_hpa: Sequence[float]
    ) -> None:
        pressure = np.asarray(surface_pressure, dtype=np.float64)
        levels = np.asarray(sigma, dtype=np.float64)
        if levels.ndim != 1 or levels.size < 2 or levels[0] <= 0 or (np.diff(levels) <= 0).any():
            raise ValueError(
                f"The sigma levels {levels.tolist()} do not ascend from above zero: give two or "
                "more that do."
            )
        knots = np.log(levels)
        target_pa = 100.0 * np.asarray(level_hpa, dtype=np.float64)[:, None, None]
        at = np.log(target_pa / pressure[..., None, :, :])
        inside = np.clip(at, knots[0], knots[-1])
        self._field_shape = (*pressure.shape[:-2], levels.size, *pressure.shape[-2:])
        self._beyond = at - inside
        """log(pressure / that of the outer level): above the top < 0, within 0, below > 0."""
        self._lower = np.clip(np.searchsorted(knots, inside), 1, knots.size - 1)
        self._weight = (inside - knots[self._lower - 1]) / np.diff(knots)[self._lower - 1]

    def interpolate(self, field: ArrayLike) -> FloatArray:
        """Interpolate a field, constant beyond the outer levels.

        Args:
            field: (..., level, latitude, longitude), any units.

        Returns:
            (..., target, latitude, longitude), units of `field`.

        Raises:
            ValueError: a shape that does not belong to the surface pressure and levels.
        """
        values = self._checked(field)
        above = np.take_along_axis(values, self._lower - 1, axis=-3)
        below = np.take_along_axis(values, self._lower, axis=-3)
        return np.asarray(above + self._weight * (below - above))

    def interpolate_geopotential(
        self, geopotential: ArrayLike, temperature: ArrayLike
    ) -> FloatArray:
        """Interpolate geopotential, and continue it hydrostatically beyond the outer levels.

        Above the model's top and below its lowest level (under mountains that is far below ground)
        the temperature of the outer level holds, as in `interpolate`, and the hydrostatic equation
        `d(geopotential) = -R T d(log pressure)` is integrated from that level.

        Args:
            geopotential: (..., level, latitude, longitude), m2 s-2.
            temperature: that of the model's own hydrostatic equation (virtual, if moisture enters
                there), K, same shape.

        Returns:
            (..., target, latitude, longitude), m2 s-2.

        Raises:
            ValueError: a shape that does not belong to the surface pressure and levels.
        """
        values = self._checked(temperature)
        outer = np.where(self._beyond < 0, values[..., :1, :, :], values[..., -1:, :, :])
        continued = -DRY_AIR_GAS_CONSTANT * outer * self._beyond
        return np.asarray(self.interpolate(geopotential) + continued)

    def _checked(self, field: ArrayLike) -> FloatArray:
        values = np.asarray(field, dtype=np.float64)
        if values.shape != self._field_shape:
            raise ValueError(
                f"A field of shape {values.shape} was given where the surface pressure and levels "
                f"need {self._field_shape}: give (..., level, latitude, longitude)."
            )
        return values
