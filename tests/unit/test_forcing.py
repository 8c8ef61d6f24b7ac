"""Forcings against almanac values and against what must hold everywhere."""

import numpy as np
import pytest

from sciml_dchag.channels import Channel
from sciml_dchag.weather.forcing import (
    FORCINGS,
    SOLAR_CONSTANT,
    compute_forcing,
    insolation,
    sin_solar_time,
)

GREENWICH = np.array([0.0])


def times(*values: str) -> np.ndarray:
    return np.array(values, dtype="datetime64[ns]")


def minutes_of(day: str) -> np.ndarray:
    start = np.datetime64(day, "m")
    return (start + np.arange(1440)).astype("datetime64[ns]")


def test_noon_at_the_equator_on_an_equinox() -> None:
    """Equinox 2021-03-20 09:37 UTC, when the sun was at 0.99589 au (Horizons ephemeris).

    The brightest minute has the sun overhead to within 0.05 degrees: a part in 10^6.
    """
    flux = insolation(minutes_of("2021-03-20"), np.array([0.0]), GREENWICH)[:, 0, 0]
    assert flux.max() == pytest.approx(SOLAR_CONSTANT / 0.99589**2, rel=1e-4)
    # The equation of time is -7.4 minutes: true noon comes 7.4 minutes after mean noon.
    assert flux.argmax() == pytest.approx(12 * 60 + 7.4, abs=1)


@pytest.mark.parametrize(
    ("day", "minutes"),
    [("2021-02-11", 14.2), ("2021-05-14", -3.7), ("2021-07-26", 6.5), ("2021-11-03", -16.4)],
)
def test_true_noon_follows_the_equation_of_time(day: str, minutes: float) -> None:
    """The four extremes of the equation of time, from the almanac, to the minute."""
    flux = insolation(minutes_of(day), np.array([0.0]), GREENWICH)[:, 0, 0]
    assert flux.argmax() - 720 == pytest.approx(minutes, abs=1)


def test_daily_mean_on_an_equinox_is_the_closed_form() -> None:
    """With the sun over the equator the daily mean is S cos(lat) / pi.

    Declination moves by 0.4 degrees in the day, which matters by 0.2 % at 60 degrees.
    """
    latitude = np.array([0.0, 30.0, 60.0])
    flux = insolation(minutes_of("2021-03-20"), latitude, GREENWICH).mean(axis=(0, 2))
    expected = SOLAR_CONSTANT / 0.99589**2 * np.cos(np.deg2rad(latitude)) / np.pi
    np.testing.assert_allclose(flux, expected, rtol=3e-3)


def test_solstice_declination_shows_at_the_pole() -> None:
    """At the pole cos Z = sin(declination), all day; obliquity 23.436 degrees, 1.01625 au."""
    flux = insolation(times("2021-06-21T00", "2021-06-21T12"), np.array([90.0]), GREENWICH)
    expected = SOLAR_CONSTANT / 1.01625**2 * np.sin(np.deg2rad(23.436))
    np.testing.assert_allclose(flux[:, 0, 0], expected, rtol=1e-4)


def test_polar_night_is_dark() -> None:
    flux = insolation(minutes_of("2021-12-21"), np.array([70.0, 90.0]), GREENWICH)
    assert (flux == 0).all()
    assert (insolation(minutes_of("2021-12-21"), np.array([-70.0]), GREENWICH) > 0).all()


def test_perihelion_is_seven_percent_brighter_than_aphelion() -> None:
    """The sun passes the zenith of the latitude that equals its declination."""
    january = insolation(minutes_of("2021-01-02"), np.array([-22.9]), GREENWICH).max()
    july = insolation(minutes_of("2021-07-05"), np.array([22.7]), GREENWICH).max()
    assert january / july == pytest.approx((1.01673 / 0.98326) ** 2, rel=2e-4)


def test_longitudes_either_way_round_are_the_same() -> None:
    latitude = np.array([-40.0, 10.0])
    day = times("2020-02-29T06", "2020-12-31T18")
    for name in FORCINGS:
        east = compute_forcing([name], day, latitude, np.array([190.0, 350.0]))
        west = compute_forcing([name], day, latitude, np.array([-170.0, -10.0]))
        np.testing.assert_allclose(east, west, rtol=1e-5, atol=1e-4)  # float32


def test_solar_time_is_local() -> None:
    """6 h local is 6 UTC at Greenwich and 0 UTC at 90 degrees east."""
    assert sin_solar_time(times("2021-01-01T06"), GREENWICH, GREENWICH)[0, 0, 0] == pytest.approx(1)
    east = sin_solar_time(times("2021-01-01T00"), GREENWICH, np.array([90.0]))
    assert east[0, 0, 0] == pytest.approx(1)


def test_stacked_in_the_order_asked_and_named_as_channels() -> None:
    latitude, longitude = np.array([0.0, 60.0]), np.array([0.0, 120.0, 240.0])
    day = times("2021-06-01T00", "2021-06-01T06")
    out = compute_forcing(["insolation", "cos_latitude"], day, latitude, longitude)
    assert out.shape == (2, 2, 2, 3) and out.dtype == np.float32
    np.testing.assert_allclose(out[:, 1, 1], 0.5, rtol=1e-6)
    assert compute_forcing([], day, latitude, longitude).shape == (2, 0, 2, 3)
    assert all(Channel.parse(name).kind == "forcing" for name in FORCINGS)
    with pytest.raises(ValueError, match="'sunshine' is unknown"):
        compute_forcing(["sunshine"], day, latitude, longitude)
