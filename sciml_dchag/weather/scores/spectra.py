"""Zonal power spectra of fields on a latitude-longitude grid. Their picture is in `plots`."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sciml_dchag.weather.area import goes_around, latitude_weights


def why_no_spectrum(
    latitude: ArrayLike, longitude: ArrayLike, band: tuple[float, float] = (30.0, 60.0)
) -> str | None:
    """Say why a grid has no zonal spectrum, or None where it has one.

    Args:
        latitude: degrees, (row,).
        longitude: degrees east, growing but for at most one jump of 360, (column,).
        band: least and greatest absolute latitude of the spectrum.
    """
    if not goes_around(longitude):
        return "the columns do not go around the globe evenly"
    rows = np.abs(np.asarray(latitude, float))
    if not ((rows >= band[0]) & (rows <= band[1])).any():
        return f"no row lies between {band[0]:g} and {band[1]:g} degrees"
    return None


def zonal_power_spectrum(
    field: ArrayLike, latitude: ArrayLike, band: tuple[float, float] = (30.0, 60.0)
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Variance along latitude circles by zonal wavenumber, averaged over a band of latitudes.

    The discrete Fourier transform along longitude of each row, |F_k|^2 / N^2, doubled for the
    wavenumbers that stand for two conjugate ones, so that the sum over k is the row's zonal
    variance (Parseval). Rows are averaged by area, all leading dimensions equally. A row that
    holds a NaN is left out.

    Args:
        field: shape (..., latitude, longitude), longitude going once around the globe.
        latitude: degrees.
        band: least and greatest absolute latitude, both hemispheres together; (0, 90) is all.

    Returns:
        Wavenumbers 1 to N/2 and the power at each, in the field's units squared.

    Raises:
        ValueError: no row without NaN in the band.
    """
    values, rows = np.asarray(field, float), np.asarray(latitude, float)
    size = values.shape[-1]
    inside = (np.abs(rows) >= band[0]) & (np.abs(rows) <= band[1])
    whole = np.isfinite(values).all(axis=-1)
    weights = np.where(whole & inside, latitude_weights(rows), 0.0)
    if not weights.any():
        raise ValueError(
            f"no row without missing values between {band[0]:g} and {band[1]:g} degrees: widen "
            "the band or fill the field."
        )
    power = np.abs(np.fft.rfft(np.where(whole[..., None], values, 0.0), axis=-1) / size) ** 2
    power[..., 1 : (size + 1) // 2] *= 2
    flat = power.reshape(-1, power.shape[-1])
    mean = np.average(flat, axis=0, weights=weights.ravel())
    return np.arange(1, power.shape[-1]), mean[1:]


def spectra_table(
    channel: str,
    pairs: Iterable[tuple[int, NDArray[np.floating], NDArray[np.floating]]],
    latitude: ArrayLike,
) -> pd.DataFrame:
    """Tabulate mean power of forecasts and of their truth, a row per lead time and wavenumber.

    Args:
        channel: whose fields.
        pairs: of each lead time in hours the forecasts and their truth, (time, row, column).
        latitude: degrees, (row,).
    """
    found = []
    for lead, forecast, truth in pairs:
        numbers, power = zonal_power_spectrum(forecast, latitude)
        _, true_power = zonal_power_spectrum(truth, latitude)
        found.append(
            pd.DataFrame(
                {"channel": channel, "lead_hours": lead, "wavenumber": numbers, "model": power,
                 "truth": true_power, "ratio": power / np.where(true_power > 0, true_power, np.nan)}
            )
        )  # fmt: skip
    return pd.concat(found)
