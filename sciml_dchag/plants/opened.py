"""Plants as they are opened in Python: a store of images, a trained masked autoencoder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from sciml_dchag.files.checksums import damage_named
from sciml_dchag.files.facts import Described
from sciml_dchag.files.resumable import Progress
from sciml_dchag.files.samples import Sources
from sciml_dchag.files.zarr_groups import read_attrs
from sciml_dchag.plants.colour import colour_weights, show, true_colour
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.plants.masked.embed import embed
from sciml_dchag.plants.masked.reconstruct import reconstruct_store
from sciml_dchag.plants.prepare.images import prepare_plants
from sciml_dchag.plants.store.cubes import FORMAT, SPLITS, CubeStore
from sciml_dchag.plants.traits.embeddings import Embeddings, read_embeddings
from sciml_dchag.plants.traits.indices import INDICES, compute_index, find_bands, reached_indices
from sciml_dchag.plants.traits.plant_means import (
    POSITION,
    plant_indices,
    plant_positions,
    plant_spectra,
)
from sciml_dchag.training.trained import TrainedModel


class PlantStore(Described, CubeStore):
    """A store of hyperspectral images: `store["kernel"]` is one as labelled xarray."""

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, cube: str) -> xr.Dataset:
        """An image by name, read when it is used.

        `reflectance` (wavelength, y, x), NaN where not known, and `mask` (y, x), 0 for background
        and 1, 2, ... for each plant.
        """
        attrs = self.cube_attrs(cube)
        with damage_named(self.path):
            dataset: xr.Dataset = xr.open_zarr(
                self.path, group=f"cubes/{cube}", chunks=None, consolidated=False
            )
        nm = ("wavelength", self.wavelength_nm, {"units": "nm", "long_name": "wavelength"})
        origin = {
            "attribution": self.attribution, "simulated": int(self.simulated),
            "quantity": self.quantity,
        }  # fmt: skip
        return dataset.assign_coords(wavelength=nm).assign_attrs({**attrs, **origin})

    def rgb(self, cube: str) -> xr.DataArray:
        """An image in the colours that the eye sees, (y, x, colour), from 0 to 1."""
        pixels = true_colour(self.reflectance(cube), self.wavelength_nm)
        return _in_colours(pixels, colour_weights(self.wavelength_nm)[1], self.attribution)

    def spectra(self, cubes: Sequence[str] | None = None) -> xr.DataArray:
        """Mean spectra of plants, (plant, wavelength); NaN where no pixel of a plant is known.

        Args:
            cubes: names of images; None takes all.

        Returns:
            Reflectance with the coordinates `cube`, `number` (of the plant in its image), `pixels`
            and where it is (`centroid_y`, `box_top`, ...; `area_cm2` where the store knows the
            side of a pixel) along `plant`.
        """
        table = plant_spectra(self, cubes)
        places = [
            plant_positions(self.plants(cube), self.pixel_mm).assign(cube=cube)
            for cube in (self.names if cubes is None else cubes)
        ]
        places_of = pd.concat(places, ignore_index=True).drop(columns="pixels")
        table = table.merge(places_of, how="left", on=["cube", "plant"], validate="one_to_one")
        keys = {"cube": "cube", "number": "plant", "pixels": "pixels"}
        keys |= {name: name for name in POSITION if name in table}
        return xr.DataArray(
            table[self.channels.names].to_numpy(),
            dims=("plant", "wavelength"),
            coords={
                "wavelength": ("wavelength", self.wavelength_nm, {"units": "nm"}),
                **{name: ("plant", table[column].to_numpy()) for name, column in keys.items()},
            },
            name="reflectance",
            attrs={
                "units": "1", "long_name": str(self.attrs.get("quantity", "reflectance")),
                "attribution": self.attribution,
            },
        )  # fmt: skip

    def indices(
        self, names: Sequence[str] = (), cubes: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Spectral indices over the pixels of each plant, one row per plant.

        Args:
            names: which; none takes all that the bands reach.
            cubes: names of images; None takes all.

        Returns:
            `cube`, `plant`, `pixels`, statistics of each index (`NDVI_mean`, `NDVI_median`,
            `NDVI_std`, `NDVI_undefined`), and what the store knows of the image.
        """
        self.require_reflectance("spectral indices")
        chosen = [names] if isinstance(names, str) else list(names)
        chosen = chosen or reached_indices(self.wavelength_nm)[0]
        table = plant_indices(self, chosen, cubes)
        new = self.table[self.table.columns.difference(table.columns, sort=False)]
        return table.join(new, on="cube")

    def facts(self) -> dict[str, Any]:
        """Images, bands and origin."""
        nm = self.wavelength_nm
        kind = "plant store" + (" (simulated, not observations)" if self.simulated else "")
        return {
            "path": str(self.path),
            "kind": kind,
            "title": self.attrs.get("title", ""),
            "images": [f"{name} ({self.table['split'][name]})" for name in self.names],
            "splits": {split: len(self.split(split)) for split in SPLITS},
            "bands": f"{len(nm)}, {nm[0]:g} to {nm[-1]:g} nm",
            "quantity": self.attrs.get("quantity", "reflectance"),
            "columns": [str(column) for column in self.table.columns],
            "attribution": self.attribution,
        }


class MaskedModel(TrainedModel[MaskedRecipe]):
    """A trained masked autoencoder."""

    kind = "masked autoencoder"
    recipe_type = MaskedRecipe

    def facts(self) -> dict[str, Any]:
        """What was trained, and what it hides."""
        from sciml_dchag.plants.masked.task import MaskedTask

        return {
            **super().facts(),
            **MaskedTask.describe(self.saved.checkpoint, self.saved.path),
        }

    def embed(
        self,
        store: CubeStore | str | os.PathLike[str],
        out: str | os.PathLike[str] | None = None,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Embeddings:
        """Embed every image of a store: each patch that is mostly plant, and each plant.

        Args:
            store: the images.
            out: the folder to write; None writes `NAME_embeddings` beside the store.
            overwrite: replace embeddings that are there.
            progress: called as the work goes on.

        Raises:
            FileExistsError: `out` exists and `overwrite` is off.
            ValueError: model and store do not fit together, or no patch is mostly plant.
        """
        path = _path(store)
        folder = path.with_name(f"{path.stem}_embeddings") if out is None else Path(out)
        embed(self.saved.path, path, folder, overwrite=overwrite, progress=progress)
        return read_embeddings(folder)

    def reconstruct(
        self,
        store: CubeStore | str | os.PathLike[str],
        out: str | os.PathLike[str],
        *,
        batch: int = 8,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> PlantStore:
        """Reconstruct every image of a store from others of its locations; see `reconstruct`.

        Args:
            store: the images.
            out: a folder, which gets the reconstructions as a store and as ENVI files.
            batch: passes over a crop that are computed at once.
            overwrite: replace reconstructions that are there.
            progress: called as the work goes on.

        Raises:
            FileExistsError: the reconstructions are there and `overwrite` is off.
            ValueError: model and store do not fit together.
        """
        written = reconstruct_store(
            self.saved.path, _path(store), Path(out), batch=batch, overwrite=overwrite,
            progress=progress,
        )  # fmt: skip
        return PlantStore.open(written)


def prepare(
    sources: Sources,
    out: str | os.PathLike[str],
    **settings: Any,
) -> PlantStore:
    """Prepare a plant store from raw images and open it.

    Args:
        sources: one or several images, patterns, folders, or `sample:NAME`.
        out: the store's place.
        settings: as of `plants.prepare.images.prepare_plants`: `white`, `dark`, `bands`, `mask`,
            `split` and others.

    Raises:
        ValueError, OSError: as `prepare_plants`.
    """
    return PlantStore.open(prepare_plants(sources, out, **settings))


def index(name: str, image: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """Compute a spectral index at every pixel, reading the bands that it needs and no others.

    Args:
        name: such as `NDVI`; `plants.INDICES` has all, with formulas and sources.
        image: reflectance along `wavelength` (nm), with any other dimensions; or a Dataset with the
            variable `reflectance`, as a plant store's images are.

    Returns:
        Values in the index's units on the other dimensions, NaN where it has no value.

    Raises:
        ValueError: no such index, an image without wavelengths, or bands that do not reach it.

    Example:
        >>> sd.plants.index("NDVI", store["kernel"]).mean()  # doctest: +SKIP
    """
    if "of reflectance" in str(image.attrs.get("quantity", "")):
        raise ValueError(
            f"The image holds the {image.attrs['quantity']}, of which {name} has no meaning: take "
            f"reflectance."
        )
    field = _along_wavelength(image)
    nm = field["wavelength"].values.astype(np.float64)
    bands = find_bands(name, nm)
    chosen = field.isel(wavelength=bands).transpose("wavelength", ...)
    about = INDICES[name]
    return xr.DataArray(
        compute_index(name, chosen.values, nm[bands]),
        dims=chosen.dims[1:],
        coords={key: c for key, c in chosen.coords.items() if "wavelength" not in c.dims},
        name=name,
        attrs={
            "long_name": about.long_name, "units": about.units, "comment": about.formula,
            "references": about.source,
        },
    )  # fmt: skip


def rgb(image: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """Draw an image in the colours that the eye sees, (y, x, colour), from 0 to 1.

    Args:
        image: as for `index`, with two dimensions beside `wavelength`.
    """
    field = _along_wavelength(image).transpose("wavelength", ...)
    nm = field["wavelength"].values.astype(np.float64)
    weights, what = colour_weights(nm)
    linear = np.einsum("kc,chw->khw", weights, field.values.astype(np.float32))
    return _in_colours(show(linear), what, str(image.attrs.get("attribution", "")))


def open_store(path: Path) -> PlantStore | None:
    """Open a plant store; None where there is none."""
    if not (path / "zarr.json").is_file() or read_attrs(path).get("format") != FORMAT:
        return None
    return PlantStore.open(path)


def _along_wavelength(image: xr.Dataset | xr.DataArray) -> xr.DataArray:
    field = image["reflectance"] if isinstance(image, xr.Dataset) else image
    if "wavelength" not in field.dims or "wavelength" not in field.coords:
        raise ValueError(
            f"The image has the dimensions {', '.join(map(str, field.dims))} and no coordinate "
            f"wavelength: name that of its bands wavelength, with their centres in nm."
        )
    return field.sortby("wavelength")


def _in_colours(pixels: np.ndarray[Any, Any], what: str, attribution: str) -> xr.DataArray:
    return xr.DataArray(
        pixels,
        dims=("y", "x", "colour"),
        coords={"colour": ["red", "green", "blue"]},
        attrs={"long_name": what, "attribution": attribution},
    )


def _path(store: CubeStore | str | os.PathLike[str]) -> Path:
    return store.path if isinstance(store, CubeStore) else Path(store)
