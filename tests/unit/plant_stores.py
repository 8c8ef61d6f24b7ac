"""Small plant stores of known spectra for tests."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sciml_dchag.plants.store.new_cube import NewCube
from sciml_dchag.plants.store.writing import write_cubes

ATTRIBUTION = "Simulated for tests, not observed."
WAVELENGTH_NM = np.arange(400.0, 901.0, 4.0)


def write_store(
    path: Path,
    cubes: Mapping[str, tuple[np.ndarray, np.ndarray]],
    wavelength_nm: np.ndarray = WAVELENGTH_NM,
    table: Mapping[str, Sequence[object]] | None = None,
    simulated: int = 1,
    **attrs: str,
) -> Path:
    """Write images, each reflectance (C, rows, columns) and a mask (rows, columns), by name."""
    columns = {"split": ["train"] * len(cubes), **(table or {})}
    return write_cubes(
        [new_cube(name, *image) for name, image in cubes.items()], path,
        wavelength_nm=wavelength_nm,
        table=pd.DataFrame(columns, index=pd.Index(list(cubes), name="cube")),
        attrs={"title": "A test", "attribution": ATTRIBUTION, "simulated": simulated, **attrs},
    )  # fmt: skip


def new_cube(name: str, reflectance: np.ndarray, mask: np.ndarray) -> NewCube:
    rows, columns = mask.shape

    def blocks(lines: int) -> Iterator[np.ndarray]:
        for first in range(0, rows, lines):
            yield reflectance[:, first : first + lines].astype(np.float32)

    return NewCube(
        name=name, rows=rows, columns=columns, mask=lambda: mask, blocks=blocks,
        attrs=lambda: {"source": f"{name}.raw"},
    )  # fmt: skip


def pairs_of_leaves(
    plants: pd.DataFrame, rng: np.random.Generator
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """An image and a mask of two plants for each `cube`, of given `red_edge_nm` and `green`."""
    images = {}
    for cube, rows in plants.groupby("cube", sort=False):
        mask = np.zeros((6, 12), int)
        mask[1:5, 1:5], mask[1:5, 7:11] = 1, 2
        edge, green = (np.where(mask == 1, *rows[name]) for name in ("red_edge_nm", "green"))
        image = leaf(WAVELENGTH_NM, edge, green)
        images[str(cube)] = image + rng.normal(0, 0.003, image.shape), mask
    return images


def leaf(
    wavelength_nm: np.ndarray,
    red_edge_nm: float | np.ndarray = 715.0,
    green: float | np.ndarray = 0.1,
    plateau: float | np.ndarray = 0.5,
) -> np.ndarray:
    """A leaf-like spectrum: a green peak and a logistic red edge whose inflection is known.

    Shape (C, *pixels); the three numbers may be arrays of pixels.
    """
    red_edge_nm, green, plateau = np.broadcast_arrays(red_edge_nm, green, plateau)
    nm = wavelength_nm.reshape(-1, *[1] * red_edge_nm.ndim)
    peak = green * np.exp(-(((nm - 550.0) / 30.0) ** 2))
    return 0.04 + peak + (plateau - 0.04) / (1.0 + np.exp(-(nm - red_edge_nm) / 11.0))


def scene(
    plants: pd.DataFrame, wavelength_nm: np.ndarray = WAVELENGTH_NM, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """An image of some round plants on soil, a row of `plants` each with the numbers of `leaf`."""
    rng = np.random.default_rng(seed)
    size = 20
    rows, columns = np.mgrid[0:size, 0:size]
    images, masks = [], []
    for number, plant in enumerate(plants.itertuples(), start=1):
        mask = (rows - 9.5) ** 2 + (columns - 9.5) ** 2 < 64
        spread = rng.normal(0, 1, (size, size))
        spectrum = leaf(
            wavelength_nm, plant.red_edge_nm + 1.0 * spread, plant.green + 0.004 * spread,
            plant.plateau,
        )  # fmt: skip
        soil = (0.1 + 0.0002 * (wavelength_nm - 400))[:, None, None] * np.ones((size, size))
        images.append(np.where(mask, spectrum, soil))
        masks.append(mask * number)
    image = np.concatenate(images, axis=2)
    return image + rng.normal(0, 0.002, image.shape), np.concatenate(masks, axis=1)
