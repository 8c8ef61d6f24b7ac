"""Embedding plants: what a trained encoder makes of each patch, and of each plant.

All locations are shown. How embeddings are kept is `embeddings`'.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.files.checksums import sums_of
from sciml_dchag.files.places import check_place
from sciml_dchag.files.resumable import Progress
from sciml_dchag.plants.masked.reconstructor import Reconstructor
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.traits.embeddings import EMBEDDINGS, write_embeddings
from sciml_dchag.plants.traits.plant_means import plant_positions

MOST_NAMED = 20
"""Plants without an embedding that are named."""


def embed(
    checkpoint: str | os.PathLike[str],
    store_path: str | os.PathLike[str],
    out: Path,
    *,
    overwrite: bool = False,
    device: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Embed every image of a store: each patch that is mostly plant, and each plant.

    Args:
        checkpoint: a checkpoint or run folder of a masked autoencoder.
        store_path: the images.
        out: the folder of embeddings.
        overwrite: replace embeddings that are there.
        device: as `parallel.device`; None is the run's.
        progress: called for crops.

    Raises:
        FileNotFoundError: no checkpoint or store.
        FileExistsError: `out` exists and `overwrite` is off.
        ValueError: checkpoint and store do not fit together, or no patch is mostly plant.
    """
    check_place(out, EMBEDDINGS, overwrite)
    store = CubeStore.open(store_path)
    model = Reconstructor(checkpoint, store, device)
    tiles = [(cube, tile) for cube in store.names for tile in model.tiles(cube)]
    rows: list[dict[str, Any]] = []
    values: list[NDArray[np.float32]] = []
    patch = model.config.patch
    for number, (cube, tile) in enumerate(tiles):
        plants = store.plants(cube, tile.rows, tile.columns)
        # An overlap of crops gives a patch once: to the crop that first had its first pixel.
        first = _patches(tile.new, patch)[:, 0]
        plant = np.array([_majority(pixels) for pixels in _patches(plants, patch)])
        kept = first & (plant > 0)
        if kept.any():
            reflectance = store.reflectance(cube, rows=tile.rows, columns=tile.columns)
            values.append(model.features(reflectance)[kept])
            columns = plants.shape[1] // patch
            for place in np.flatnonzero(kept):
                rows.append(
                    {
                        "cube": cube,
                        "plant": int(plant[place]),
                        "y": tile.rows.start + (place // columns + 0.5) * patch - 0.5,
                        "x": tile.columns.start + (place % columns + 0.5) * patch - 0.5,
                    }
                )
        if progress is not None:
            progress(number + 1, len(tiles), "embedding crops")
    if not rows:
        raise ValueError(
            f"No patch of {patch} x {patch} pixels in {store.path} is mostly plant: prepare it "
            f"with a mask of yours."
        )
    positions = _positions(store)
    _tell_left_out(store, positions, rows, patch)
    attrs = {
        "attribution": store.attribution,
        "simulated": int(store.simulated),
        "store": str(store.path.resolve()),
        "store_sums": sums_of(store.path),
        "encoder": model.encoder(),
        "checkpoint": str(model.path),
        "step": model.step,
        "patch": patch,
    }
    return write_embeddings(
        out,
        pd.DataFrame(rows),
        np.concatenate(values),
        table=store.table,
        attrs=attrs,
        positions=positions,
        overwrite=overwrite,
    )


def _positions(store: CubeStore) -> pd.DataFrame:
    """Where the plants of all images are; a column of the store's table goes before its name."""
    tables = [
        plant_positions(store.plants(cube), store.pixel_mm).assign(cube=cube)
        for cube in store.names
    ]
    found = pd.concat(tables, ignore_index=True)
    return found.drop(columns=[name for name in found.columns if name in store.table.columns])


def _tell_left_out(
    store: CubeStore, positions: pd.DataFrame, rows: list[dict[str, Any]], patch: int
) -> None:
    """Warn of plants that have no patch, and so no embedding."""
    embedded = {(row["cube"], row["plant"]) for row in rows}
    every = positions[["cube", "plant"]].itertuples(index=False)
    left = [f"{cube} plant {plant}" for cube, plant in every if (cube, plant) not in embedded]
    left += [f"{cube} (no plant)" for cube in store.names if cube not in set(positions["cube"])]
    if left:
        more = f" and {len(left) - MOST_NAMED} others" if len(left) > MOST_NAMED else ""
        warnings.warn(
            f"No embedding, as no patch of {patch} x {patch} pixels is mostly theirs: "
            f"{', '.join(left[:MOST_NAMED])}{more}. Train with a smaller model.patch to have them.",
            stacklevel=3,
        )


def _patches(image: NDArray[Any], patch: int) -> NDArray[Any]:
    """Cut (H, W) into patches, rows of patches from the top: (L, P)."""
    rows, columns = (side // patch for side in image.shape)
    cut = image.reshape(rows, patch, columns, patch).transpose(0, 2, 1, 3)
    return cut.reshape(rows * columns, patch * patch)


def _majority(plants: NDArray[np.int32]) -> int:
    """The plant that has more than half of the pixels, or 0 where none has."""
    names, counts = np.unique(plants, return_counts=True)
    largest = int(counts.argmax())
    return int(names[largest]) if 2 * counts[largest] > len(plants) else 0
