"""Area weights of the rows of a latitude-longitude grid.

NumPy alone: the training loss, the scores and the grids of `prepare` import this, so that there is
one definition of how far a row reaches.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def latitude_weights(latitude: ArrayLike) -> NDArray[np.float64]:
    """Relative area of a grid cell in each row, normalised to mean 1.

    A row reaches half way to its neighbours; its area is proportional to the difference of the
    sine of its two bounds. An outermost row that lies within one row spacing of the pole reaches
    the pole, which on a global grid is the convention of WeatherBench 2 (Rasp et al. 2024,
    section 2.4); on a regional grid the outermost rows are as wide beyond their centre as within.

    Args:
        latitude: row centres in degrees, shape (row,), in any order.

    Returns:
        Weights of shape (row,), float64, in the order of `latitude`.

    Raises:
        ValueError: latitudes that are not one-dimensional, finite, distinct and within +-90.
    """
    rows = np.asarray(latitude, dtype=np.float64)
    if rows.ndim != 1 or rows.size == 0:
        raise ValueError(f"latitudes have shape {rows.shape}, but one value a row is needed.")
    if not np.all(np.abs(rows) <= 90.0):  # NaN fails the comparison too
        wrong = rows[~(np.abs(rows) <= 90.0)][0]
        raise ValueError(f"latitude {wrong} found where degrees within -90..90 are needed.")
    order = np.argsort(rows)
    ascending = rows[order]
    if np.any(np.diff(ascending) == 0.0):
        twice = ascending[:-1][np.diff(ascending) == 0.0][0]
        raise ValueError(f"latitude {twice} occurs twice, but every row needs its own.")
    if rows.size == 1:
        return np.ones(1)
    bounds = np.sin(np.deg2rad(row_bounds(ascending)))
    weights = np.empty_like(rows)
    weights[order] = np.diff(bounds)
    normalised: NDArray[np.float64] = weights / weights.mean()
    return normalised


def goes_around(longitude: ArrayLike) -> bool:
    """Whether columns go once around the globe evenly, from the last to the first one too.

    Args:
        longitude: degrees east, growing but for at most one jump of 360, (column,).
    """
    columns = np.asarray(longitude, dtype=np.float64)
    steps = np.mod(np.diff(columns, append=columns[:1]), 360.0)
    return len(steps) > 1 and bool(steps.max() <= 1.001 * steps[:-1].min())


def reaches_poles(ascending: NDArray[np.float64]) -> tuple[bool, bool]:
    """Whether the outermost of ascending rows lie within one row spacing of their pole.

    Args:
        ascending: row centres in degrees, two or more, (row,).
    """
    south_spacing = ascending[1] - ascending[0]
    north_spacing = ascending[-1] - ascending[-2]
    # A float32 coordinate is exact to about 1e-5 degrees.
    return (
        bool(ascending[0] + 90.0 <= south_spacing + 1e-4),
        bool(90.0 - ascending[-1] <= north_spacing + 1e-4),
    )


def row_bounds(ascending: NDArray[np.float64]) -> NDArray[np.float64]:
    """South bound of every row, then the north bound of the last one, in degrees, (row + 1,).

    Args:
        ascending: row centres in degrees, two or more, (row,).
    """
    middle = (ascending[:-1] + ascending[1:]) / 2.0
    south_spacing = ascending[1] - ascending[0]
    north_spacing = ascending[-1] - ascending[-2]
    reaches_south, reaches_north = reaches_poles(ascending)
    south = -90.0 if reaches_south else ascending[0] - south_spacing / 2.0
    north = 90.0 if reaches_north else ascending[-1] + north_spacing / 2.0
    return np.concatenate([[south], middle, [north]])
