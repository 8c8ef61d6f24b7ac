"""What traits are read off: a store's mean spectra and indices, and embeddings if there are any."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sciml_dchag.files.checksums import sums_of
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.traits.embeddings import ARRAYS, Embeddings, read_embeddings
from sciml_dchag.plants.traits.indices import reached_indices
from sciml_dchag.plants.traits.plant_means import plant_indices, plant_spectra

EMBEDDING, SPECTRUM, INDICES = "embedding", "mean spectrum", "indices"
"""Kinds of features."""
KEYS = ["cube", "plant"]


@dataclass(frozen=True, eq=False, kw_only=True)
class PlantSource:
    """Plants whose traits are predicted."""

    path: Path
    """The folder of embeddings, or the store."""
    plants: pd.DataFrame
    """One row per plant: `cube`, `plant` and what the store's table knows of the image."""
    embeddings: Embeddings | None
    """None where `path` is a store."""
    store: CubeStore | None
    """None where the store of the embeddings is not there."""
    attribution: str
    """Whose the images are."""
    simulated: bool
    """Whether any image is synthetic."""

    def features(self, cubes: Sequence[str]) -> dict[str, pd.DataFrame]:
        """Features by kind, a row per plant of some images, by cube and plant."""
        found = {}
        if self.embeddings is not None:
            by_plant = self.embeddings.plants.set_index(KEYS)
            found[EMBEDDING] = by_plant[self.embeddings.features]
        if self.store is not None:
            self.store.require_reflectance("mean reflectance and spectral indices")
            spectra = plant_spectra(self.store, cubes).set_index(KEYS)
            found[SPECTRUM] = spectra.drop(columns="pixels")
            if names := reached_indices(self.store.wavelength_nm)[0]:
                means = plant_indices(self.store, names, cubes).set_index(KEYS)
                found[INDICES] = means[[f"{name}_mean" for name in names]]
        return found


def open_source(
    path: str | os.PathLike[str], store_path: str | os.PathLike[str] | None = None
) -> PlantSource:
    """Open a folder of embeddings with the store that they are from, or a store.

    Args:
        path: either.
        store_path: the store of embeddings; None takes the one that they name.

    Raises:
        FileNotFoundError: there is nothing, or no store.
        ValueError: what is there is neither, or the store is not that of the embeddings.
    """
    path = Path(path)
    if path.is_dir() and not (path / ARRAYS).exists() and (path / "zarr.json").exists():
        return _of_store(CubeStore.open(path))
    embeddings = read_embeddings(path)
    return PlantSource(
        path=embeddings.path,
        plants=embeddings.plants.drop(columns=embeddings.features),
        embeddings=embeddings,
        store=_store_of(embeddings, store_path),
        attribution=embeddings.attribution,
        simulated=embeddings.simulated,
    )


def _of_store(store: CubeStore) -> PlantSource:
    plants = pd.DataFrame(
        [
            {"cube": cube, "plant": int(plant)}
            for cube in store.names
            for plant in np.unique(store.plants(cube))
            if plant > 0
        ],
        columns=KEYS,
    )
    if plants.empty:
        raise ValueError(f"No image of {store.path} has a plant: prepare it with a mask of yours.")
    known = store.table.drop(columns=[c for c in store.table.columns if c in KEYS])
    return PlantSource(
        path=store.path,
        plants=plants.join(known, on="cube"),
        embeddings=None,
        store=store,
        attribution=store.attribution,
        simulated=store.simulated,
    )


def _store_of(embeddings: Embeddings, path: str | os.PathLike[str] | None) -> CubeStore | None:
    recorded = embeddings.attrs.get("store") if path is None else path
    if path is not None or (recorded and Path(str(recorded)).exists()):
        store = CubeStore.open(str(recorded))
        sums = embeddings.attrs.get("store_sums")
        if sums and sums != sums_of(store.path):
            raise ValueError(
                f"{store.path} is not the store that {embeddings.path} was made from, or has "
                f"changed since, so that numbers of plants may differ: repeat `sciml-dchag embed`, "
                f"or give the store with `store_path`."
            )
        return store
    warnings.warn(
        "The store of the embeddings is not where it was, so that they are scored alone: give it "
        "with `store_path` to see mean spectra and indices beside them.",
        stacklevel=4,
    )
    return None
