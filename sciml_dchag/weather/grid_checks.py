"""Checks that coordinates make a usable latitude-longitude grid of the kind that they claim.

Here: `check_grid`, its parts, and the recognition of Gaussian rows. Not here: the grid itself
(`grids.py`).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.special

FloatArray = npt.NDArray[np.float64]
Kind = Literal["regular", "gaussian", "irregular"]

SLACK_DEGREES = 1e-4
"""Positions closer than this are the same where areas are compared: ten metres, above the rounding
of float32 coordinates (3e-5) and far below any grid spacing."""

# Rows count as regular or Gaussian when they lie within this part of a row spacing of the ideal.
# Gaussian rows deviate from even spacing by 0.009 (32 rows) to 0.014 (1280 rows) of a spacing, and
# files that keep two or three decimals round to 0.002 of it.
_ROW_TOLERANCE = 0.003
# The outermost Gaussian row is 2.405 / pi of a spacing from the pole: J0's first zero.
_GAUSSIAN_POLE_GAP = 0.7655

_LABELS: dict[str, Kind] = {
    "regular": "regular",
    "regular_ll": "regular",
    "latlon": "regular",
    "gaussian": "gaussian",
    "regular_gg": "gaussian",
}


def check_grid(latitude: npt.ArrayLike, longitude: npt.ArrayLike, label: str | None = None) -> Kind:
    """Check that coordinates make a rectilinear grid, and one of the kind that its label says.

    Args:
        latitude: degrees north, shape (n_latitude,), in either order.
        longitude: degrees east, shape (n_longitude,), eastward.
        label: what the file calls the grid: "regular" or "gaussian", or GRIB's `regular_ll` or
            `regular_gg`; other labels say nothing about the rows and are not compared.

    Returns:
        The kind of the rows: "regular", "gaussian" or "irregular".

    Raises:
        ValueError: if rows or columns are unusable, if the label contradicts the rows, or if the
            rows are evenly spaced between the outermost rows of a Gaussian grid, as they are when
            a Gaussian grid has been relabelled.
    """
    rows = np.asarray(latitude, dtype=np.float64)
    check_latitude(rows)
    check_longitude(np.asarray(longitude, dtype=np.float64))
    kind = kind_of_rows(rows)
    if kind == "regular" and _has_gaussian_ends(rows):
        raise ValueError(
            f"The {rows.size} latitudes are evenly spaced but end at {np.abs(rows).max():.4f}, "
            f"where a Gaussian grid ends, so this is a Gaussian grid labelled regular; give the "
            f"file its true latitudes (scipy.special.roots_legendre)."
        )
    expected = _LABELS.get(label.lower()) if label else None
    # Part of a Gaussian grid cannot be recognised by its rows; a whole one can.
    tellable = expected == "regular" or bool(_pole_gaps(rows).max() < 1.001)
    if expected is not None and kind != expected and tellable:
        raise ValueError(
            f'The grid is labelled "{label}" but its {rows.size} latitudes (from {rows[0]:.4f} to '
            f"{rows[-1]:.4f}) are {kind}; correct the label or the latitudes."
        )
    return kind


def check_latitude(latitude: FloatArray) -> None:
    """Refuse rows that are not finite, leave the sphere, repeat or turn back."""
    _check_axis(latitude, "latitude")
    if np.abs(latitude).max() > 90.0 + SLACK_DEGREES:
        raise ValueError(
            f"Latitudes run to {latitude[np.abs(latitude).argmax()]:g}, but must lie within -90 "
            f"and 90 degrees; check the units, and that latitude and longitude are not swapped."
        )
    steps = np.diff(latitude)
    if not (np.all(steps > 0) or np.all(steps < 0)):
        wrong = int(np.argmax(np.sign(steps) != np.sign(steps[0]))) if steps[0] else 0
        raise ValueError(
            f"Latitudes must go one way without repeats, but {latitude[wrong + 1]:g} follows "
            f"{latitude[wrong]:g}; sort them with sortby('latitude') and drop repeats."
        )


def check_longitude(longitude: FloatArray) -> None:
    """Refuse columns that are not finite, repeat, or do not run eastward once around."""
    _check_axis(longitude, "longitude")
    steps = np.mod(np.diff(longitude), 360.0)
    repeated = np.minimum(steps, 360.0 - steps) < SLACK_DEGREES
    if repeated.any() or abs(steps.sum() - 360.0) < SLACK_DEGREES:
        value = longitude[int(np.argmax(repeated)) + 1] if repeated.any() else longitude[-1]
        raise ValueError(
            f"Longitude {value:g} is there twice (modulo 360); drop the repeated column."
        )
    if steps.sum() > 360.0:
        wrong = int(np.argmax(steps > 180.0))
        raise ValueError(
            f"Longitudes must run eastward once around, but {longitude[wrong + 1]:g} follows "
            f"{longitude[wrong]:g}; sort them with sortby('longitude')."
        )


def _check_axis(values: FloatArray, name: str) -> None:
    if values.ndim != 1 or values.size < 2:
        raise ValueError(
            f"The {name} has shape {values.shape}, but a grid needs one dimension of at least two "
            f"values; curvilinear grids and single points cannot be regridded."
        )
    if not np.isfinite(values).all():
        raise ValueError(
            f"{np.count_nonzero(~np.isfinite(values))} values of {name} are missing or infinite; "
            f"repair the coordinate."
        )


def kind_of_rows(latitude: FloatArray) -> Kind:
    """Whether rows are evenly spaced, those of a full Gaussian grid, or neither."""
    rows = np.sort(latitude)
    spacing = (rows[-1] - rows[0]) / (rows.size - 1)
    from_even = np.abs(rows - np.linspace(rows[0], rows[-1], rows.size)).max() / spacing
    if from_even < 1e-4:  # the roots below take a second for thousands of rows
        return "regular"
    gaussian = np.rad2deg(np.arcsin(scipy.special.roots_legendre(rows.size)[0]))
    from_gaussian = np.abs(rows - gaussian).max() / spacing
    if min(from_even, from_gaussian) > _ROW_TOLERANCE:
        return "irregular"
    return "regular" if from_even < from_gaussian else "gaussian"


def _has_gaussian_ends(latitude: FloatArray) -> bool:
    """Whether evenly spaced rows end where Gaussian rows would, at both ends."""
    gaps = _pole_gaps(latitude)
    return bool(latitude.size > 4 and np.abs(gaps - _GAUSSIAN_POLE_GAP).max() < 0.02)


def _pole_gaps(latitude: FloatArray) -> FloatArray:
    """Distance of the outermost rows from their poles in mean row spacings, south and north."""
    south, north = latitude.min(), latitude.max()
    spacing = (north - south) / (latitude.size - 1)
    return np.array([south + 90.0, 90.0 - north], dtype=np.float64) / spacing
