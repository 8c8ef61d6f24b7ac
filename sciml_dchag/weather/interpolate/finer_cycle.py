"""The daily cycle at hours of day that the training period does not have.

Harmonics of the day that its hours resolve are evaluated at any hour. The last one of an even
number of hours (12 h of six-hourly data: the semidiurnal pressure tide) is seen at two phases only,
half a period apart, so that its course in between is not in the data. What of it has as many waves
around the globe as a day has periods follows the sun, as the migrating tide does (Chapman and
Lindzen 1970, Atmospheric Tides), and is turned westward with it; the rest swings in place.

Shapes: K hours, J terms of the season, C channels, H x W grid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.weather.area import goes_around
from sciml_dchag.weather.store.cycles import Cycle


def finer_cycle(cycle: Cycle, longitude: NDArray[np.float64], step_hours: int) -> Cycle:
    """Return the cycle at all hours of day that are multiples of a step; as it is at its own.

    Args:
        cycle: of evenly spaced hours of day.
        longitude: column centres, degrees east, (W,).
        step_hours: hours between those wanted, a divisor of 24.

    Raises:
        ValueError: hours of day that are not evenly spaced.
    """
    known = cycle.hours.tolist()
    wanted = sorted({*range(0, 24, step_hours), *known})
    if wanted == known:
        return cycle
    if len(set(np.diff([*known, known[0] + 24]).tolist())) > 1:
        raise ValueError(
            f"The mean by hour of day is of the hours {known}, which are not evenly spaced: "
            f"interpolate to these hours alone, or train on even steps of a divisor of 24 h."
        )
    count = len(known)
    waves = np.fft.rfft(cycle.mean.astype(np.float64), axis=0) / count
    found = np.empty((len(wanted), *cycle.mean.shape[1:]), np.float32)
    for place, hour in enumerate(wanted):
        if hour in known:
            found[place] = cycle.mean[known.index(hour)]
            continue
        since = (hour - known[0]) / 24
        field = waves[0].real.copy()
        for harmonic in range(1, len(waves)):
            if 2 * harmonic == count:
                field += _unresolved(waves[harmonic].real, harmonic, since, longitude)
            else:
                field += 2 * (waves[harmonic] * np.exp(2j * np.pi * harmonic * since)).real
        found[place] = field
    return Cycle(np.array(wanted, np.int64), found)


def _unresolved(
    wave: NDArray[np.float64], harmonic: int, days: float, longitude: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A harmonic of the day that alternates in sign from hour to hour, some time after the first.

    Args:
        wave: its field at the first hour, (J, C, H, W).
        harmonic: periods in a day.
        days: time since the first hour.
        longitude: of the columns.
    """
    phase = 2 * np.pi * harmonic * days
    if not goes_around(longitude):
        return wave * np.cos(phase)
    around = np.fft.rfft(wave, axis=-1)
    with_sun = np.zeros_like(around)
    with_sun[..., harmonic] = around[..., harmonic]
    # East is along growing longitude, and the sun goes west: the phase grows with both.
    turned = np.fft.irfft(with_sun * np.exp(1j * phase), wave.shape[-1], axis=-1)
    stays = np.fft.irfft(around - with_sun, wave.shape[-1], axis=-1)
    return turned + stays * np.cos(phase)
