"""What a plant store says of each plant: its mean spectrum, and its indices pixel by pixel.

Images are read in blocks of lines, so that no memory needs to hold one.
The formulas of the indices are `indices`', files and pictures `index_maps`'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.files.zarr_groups import even_chunk
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.store.writing import block_lines
from sciml_dchag.plants.traits.indices import compute_index, find_bands

BLOCK_BYTES = 32 * 2**20
"""About the size of a block of reflectance as it is read, float32."""
STATISTICS = {
    "mean": "mean",
    "median": "median",
    "std": "standard deviation about the mean",
    "undefined": "pixels without a value",
}
"""Columns of each index, over the pixels of a plant that have a value, and what they mean."""


POSITION = {
    "centroid_y": ("pixels", "mean row of the plant's pixels, 0 at the top"),
    "centroid_x": ("pixels", "mean column of the plant's pixels, 0 at the left"),
    "box_top": ("pixels", "first row of the plant"),
    "box_left": ("pixels", "first column of the plant"),
    "box_bottom": ("pixels", "last row of the plant"),
    "box_right": ("pixels", "last column of the plant"),
    "area_cm2": ("cm2", "pixels times the area of one, from `pixel_mm`"),
}
"""Columns that say where a plant is and how large: units and meaning."""


def plant_positions(plants: NDArray[np.int32], pixel_mm: float | None = None) -> pd.DataFrame:
    """Say where each plant is.

    Args:
        plants: 0 for background, and the number of the plant, (rows, columns).
        pixel_mm: side of a pixel, for areas.

    Returns:
        One row per plant, ascending: `plant`, `pixels` and the columns of `POSITION`; `area_cm2`
        only where `pixel_mm` is given.
    """
    rows, columns = np.nonzero(plants)
    numbers, place = np.unique(plants[rows, columns], return_inverse=True)
    size = len(numbers)
    pixels = np.bincount(place, minlength=size)
    ends: dict[str, NDArray[np.intp]] = {}
    for name, values, find, start in (
        ("box_top", rows, np.minimum, plants.shape[0]),
        ("box_left", columns, np.minimum, plants.shape[1]),
        ("box_bottom", rows, np.maximum, -1),
        ("box_right", columns, np.maximum, -1),
    ):
        ends[name] = np.full(size, start, np.intp)
        find.at(ends[name], place, values)
    area = {} if pixel_mm is None else {"area_cm2": pixels * (pixel_mm / 10) ** 2}
    return pd.DataFrame(
        {
            "plant": numbers.astype(np.int64),
            "pixels": pixels.astype(np.int64),
            "centroid_y": np.bincount(place, rows, minlength=size) / np.maximum(pixels, 1),
            "centroid_x": np.bincount(place, columns, minlength=size) / np.maximum(pixels, 1),
            **ends,
            **area,
        }
    )


def map_indices(
    store: CubeStore, cube: str, names: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Compute indices at every pixel of an image, reading the bands that they need and no others.

    Returns:
        A map (rows, columns) by name of the index, NaN where it has no value.

    Raises:
        ValueError: there is no such image or index, or the bands do not reach it.
    """
    needed = np.unique(np.concatenate([find_bands(name, store.wavelength_nm) for name in names]))
    wavelength_nm = store.wavelength_nm[needed]
    maps = {name: np.full(store.size(cube), np.nan) for name in names}
    for rows, block in _row_blocks(store, cube, needed):
        for name in names:
            maps[name][rows] = compute_index(name, block, wavelength_nm)
    return maps


def index_statistics(
    maps: dict[str, NDArray[np.float64]],
    plants: NDArray[np.int32],
    pixel_mm: float | None = None,
) -> pd.DataFrame:
    """Mean, median and standard deviation of maps over the pixels of each plant.

    Args:
        maps: (rows, columns) by name, NaN where there is no value.
        plants: 0 for background, 1, 2, ... for each plant, (rows, columns).
        pixel_mm: side of a pixel, for areas.

    Returns:
        One row per plant, ascending: the columns of `plant_positions`, and NAME_mean, NAME_median,
        NAME_std (about the mean, divided by the number of pixels) and NAME_undefined (pixels
        without a value).
    """
    on_plant = plants > 0
    number = plants[on_plant]
    columns: list[pd.DataFrame | pd.Series] = [plant_positions(plants, pixel_mm).set_index("plant")]
    for name, values in maps.items():
        by_plant = pd.Series(values[on_plant]).groupby(number)
        columns += [
            by_plant.mean().rename(f"{name}_mean"),
            by_plant.median().rename(f"{name}_median"),
            by_plant.std(ddof=0).rename(f"{name}_std"),
            (by_plant.size() - by_plant.count()).rename(f"{name}_undefined"),
        ]
    return pd.concat(columns, axis=1).rename_axis("plant").reset_index()


def plant_indices(
    store: CubeStore, names: Sequence[str], cubes: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return `cube` and the columns of `index_statistics`, one row per plant of each image."""
    tables = [
        index_statistics(
            map_indices(store, cube, names), store.plants(cube), store.pixel_mm
        ).assign(cube=cube)
        for cube in (store.names if cubes is None else cubes)
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[["cube", *table.columns.drop("cube")]]


def plant_spectra(store: CubeStore, cubes: Sequence[str] | None = None) -> pd.DataFrame:
    """Average the spectra of each plant.

    Returns:
        One row per plant of each image: `cube`, `plant`, `pixels`, and the mean reflectance by band
        under the bands' names, NaN where no pixel of the plant is known.
    """
    tables = [_spectra(store, cube) for cube in (store.names if cubes is None else cubes)]
    return pd.concat(tables, ignore_index=True)


def _spectra(store: CubeStore, cube: str) -> pd.DataFrame:
    plants = store.plants(cube)
    numbers = np.unique(plants[plants > 0])
    totals = np.zeros((len(store.channels), len(numbers)))
    counts, pixels = np.zeros_like(totals), np.zeros(len(numbers), dtype=np.int64)
    for rows, block in _row_blocks(store, cube, np.arange(len(totals))):
        on_plant = plants[rows] > 0
        place = np.searchsorted(numbers, plants[rows][on_plant])
        pixels += np.bincount(place, minlength=len(numbers))
        for band, image in enumerate(block):
            values = image[on_plant].astype(np.float64)
            known = np.isfinite(values)
            counts[band] += np.bincount(place[known], minlength=len(numbers))
            totals[band] += np.bincount(place[known], values[known], minlength=len(numbers))
    means = np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
    keys = pd.DataFrame({"cube": cube, "plant": numbers.astype(np.int64), "pixels": pixels})
    return pd.concat([keys, pd.DataFrame(means.T, columns=list(store.channels.names))], axis=1)


def _row_blocks(
    store: CubeStore, cube: str, bands: NDArray[np.intp]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Read some bands in blocks of rows: the rows, and reflectance (bands, rows, columns)."""
    rows, columns = store.size(cube)
    # Whole files of the store, so that no chunk is read twice.
    tile = even_chunk(rows, block_lines(len(store.channels), columns))
    step = tile * max(1, BLOCK_BYTES // (4 * len(bands) * columns * tile))
    runs = np.split(bands, np.flatnonzero(np.diff(bands) > 1) + 1)
    for first in range(0, rows, step):
        span = slice(first, min(first + step, rows))
        parts = [store.reflectance(cube, range(int(r[0]), int(r[-1]) + 1), span) for r in runs]
        yield span, np.concatenate(parts)
