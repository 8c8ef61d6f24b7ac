"""The plant store: hyperspectral images as reflectance, opened and read.

A store is a Zarr v3 group `NAME.zarr/`:

    wavelength              centres of the bands in nm, ascending, (wavelength,)
    cube                    names of the images, (cube,); beside it `split` (train, validation,
                            test) and the columns of the user's table, each (cube,)
    cubes/NAME/reflectance  (wavelength, y, x), float32, NaN where not known
    cubes/NAME/mask         (y, x), 0 for background and 1, 2, ... for each plant
    statistics/             mean, std, minimum, maximum and count by wavelength, over plant pixels
                            of the training images
    quicklooks/NAME.png     a picture of each image, for people

`data.cube_writing` writes it; nothing of the masked task is known here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr
import zarr
from numpy.typing import NDArray

from sciml_dchag.channels import OWN_CHANNELS, Channel, ChannelSet, declare_records
from sciml_dchag.files import checksums
from sciml_dchag.files.zarr_groups import (
    PROGRESS_FILE,
    read_attrs,
    read_progress,
    require_format,
    require_plain_name,
    require_there,
)
from sciml_dchag.plants.channels import band_name

FORMAT = "sciml-dchag-cubes-1"
"""Value of the root attribute `format`; a reader refuses any other."""
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False, kw_only=True)
class SpectralStatistics:
    """Statistics by wavelength over plant pixels of the training images, float64, each (C,)."""

    mean: NDArray[np.float64]
    """Mean reflectance."""
    std: NDArray[np.float64]
    """Standard deviation about that mean."""
    minimum: NDArray[np.float64]
    """Least value."""
    maximum: NDArray[np.float64]
    """Greatest value."""
    count: NDArray[np.float64]
    """Pixels that are known."""
    cubes: tuple[str, ...]
    """Names of the images that they are from."""


def _half_written(path: Path) -> bool:
    """Whether a store has a record of being written that is not complete."""
    if not (path / PROGRESS_FILE).exists():
        return False
    progress = read_progress(path)
    return progress is None or progress["done"] < progress["total"]


class CubeStore:
    """A plant store, opened for reading; cheap to open, safe to pickle and to fork."""

    path: Path
    """Where it lies."""
    wavelength_nm: NDArray[np.float64]
    """Centres of the bands, ascending, (C,)."""
    channels: ChannelSet
    """The bands by name."""
    table: pd.DataFrame
    """What is known of each image, by its name; the column `split` is always there."""
    attrs: dict[str, Any]
    """Root attributes."""

    def __init__(
        self, path: Path, dataset: xr.Dataset, parts: Iterable[checksums.Part] = ()
    ) -> None:
        self.path = path
        self._parts: dict[str, list[checksums.Part]] = {}
        for part in parts:
            array, chunk, _ = part.path.partition("/c/")
            if chunk:
                self._parts.setdefault(array, []).append(part)
        self.wavelength_nm = dataset["wavelength"].values.astype(np.float64)
        declare_records(json.loads(dataset.attrs.get(OWN_CHANNELS, "[]")))
        self.channels = ChannelSet(Channel.parse(band_name(nm)) for nm in self.wavelength_nm)
        names = [str(name) for name in dataset["cube"].values]
        for name in names:  # they become names of files, those of results too
            require_plain_name(name, f"An image of {path}")
        if len(set(names)) < len(names):
            raise ValueError(f"{path} holds two images of one name: prepare it again.")
        columns = [str(name) for name in dataset.variables if dataset[name].dims == ("cube",)]
        self.table = pd.DataFrame(
            {name: dataset[name].values for name in columns if name != "cube"},
            index=pd.Index(names, name="cube"),
        )
        self.attrs = dict(dataset.attrs)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a finished store.

        Raises:
            FileNotFoundError: there is nothing at `path`.
            ValueError: what is there is no plant store, or one that is not finished.
        """
        path = Path(path)
        require_there(path, "prepare plants")
        attrs: dict[str, Any] = {}
        try:
            attrs = read_attrs(path)
        except checksums.DamagedError:
            raise
        except ValueError:  # what is no group has no format either
            pass
        require_format(path, attrs, FORMAT, "plant", "prepare plants")
        if path.name.endswith(".partial") or _half_written(path):
            raise ValueError(
                f"{path} is not finished: repeat the command that was writing it, which goes on "
                f"where it stopped."
            )
        parts = checksums.require_whole(path)
        with checksums.damage_named(path), xr.open_zarr(path, chunks=None) as dataset:
            return cls(path, dataset.load(), parts or ())

    @property
    def names(self) -> list[str]:
        """Names of all images, in order."""
        return [str(name) for name in self.table.index]

    @property
    def attribution(self) -> str:
        """One sentence to print on every picture made from this store."""
        return str(self.attrs.get("attribution", ""))

    @property
    def simulated(self) -> bool:
        """Whether any image is synthetic."""
        return bool(self.attrs.get("simulated", 0))

    @property
    def quantity(self) -> str:
        """What the values are: reflectance, unless spectra were standardised or derived."""
        return str(self.attrs.get("quantity", "reflectance"))

    @property
    def pixel_mm(self) -> float | None:
        """Side of a pixel on the plants in mm; None where it was not given."""
        return float(self.attrs["pixel_mm"]) if "pixel_mm" in self.attrs else None

    @property
    def is_reflectance(self) -> bool:
        """Whether values are reflectance, and have colours and indices."""
        return "of reflectance" not in self.quantity

    def require_reflectance(self, what: str) -> None:
        """Refuse a store whose values are no reflectance.

        Args:
            what: what needs it, for the message.

        Raises:
            ValueError: values were standardised (SNV) or are derivatives.
        """
        if not self.is_reflectance:
            raise ValueError(
                f"{self.path} holds the {self.quantity}, of which {what} have no meaning: prepare "
                f"a store without `snv` and `derivative`, and use that."
            )

    def split(self, name: str) -> list[str]:
        """Names of the images of a split: `train`, `validation` or `test`."""
        assert name in SPLITS, name
        return [cube for cube in self.names if self.table["split"][cube] == name]

    def size(self, cube: str) -> tuple[int, int]:
        """Rows and columns of an image."""
        _, rows, columns = self._array(cube, "reflectance").shape
        return int(rows), int(columns)

    def cube_attrs(self, cube: str) -> dict[str, Any]:
        """Attributes of an image: its source, and what was counted while it was prepared."""
        self._require(cube)
        with checksums.damage_named(self.path):
            return dict(zarr.open_group(self.path / "cubes" / cube, mode="r").attrs)

    def reflectance(
        self,
        cube: str,
        bands: range | None = None,
        rows: slice = slice(None),
        columns: slice = slice(None),
    ) -> NDArray[np.float32]:
        """Read reflectance, NaN where not known: (bands, rows, columns).

        Reads the chunks that hold what is asked for and no others, each of a few bands.
        """
        wanted = slice(None) if bands is None else slice(bands.start, bands.stop, bands.step)
        return self._read(cube, "reflectance", (wanted, rows, columns))

    def plants(
        self, cube: str, rows: slice = slice(None), columns: slice = slice(None)
    ) -> NDArray[np.int32]:
        """Read the mask: 0 for background, 1, 2, ... for each plant: (rows, columns)."""
        return self._read(cube, "mask", (rows, columns)).astype(np.int32)

    def statistics(self) -> SpectralStatistics:
        """Read the statistics over the training images.

        Raises:
            FileNotFoundError: there are none, as there is no training image.
        """
        if not (self.path / "statistics").exists():
            raise FileNotFoundError(
                f"{self.path} has no statistics, as none of its images is for training: prepare it "
                f"with another split."
            )
        with (
            checksums.damage_named(self.path),
            xr.open_zarr(self.path, group="statistics", chunks=None) as dataset,
        ):
            arrays = {
                name: dataset[name].values.astype(np.float64)
                for name in ("mean", "std", "minimum", "maximum", "count")
            }
            cubes = tuple(str(name) for name in dataset.attrs["cubes"])
        if cubes != tuple(self.split("train")):
            raise ValueError(
                f"The statistics of {self.path} are from {len(cubes)} images which are not its "
                f"training images: prepare the store again."
            )
        return SpectralStatistics(cubes=cubes, **arrays)

    def _read(self, cube: str, name: str, where: tuple[slice, ...]) -> NDArray[Any]:
        """Read some of an array, whose files are seen to be there: Zarr takes lost ones for NaN."""
        array = self._array(cube, name)
        checksums.require_sizes(self.path, self._parts.get(f"cubes/{cube}/{name}", ()))
        with checksums.damage_named(self.path):
            return np.asarray(array[where])

    def _array(self, cube: str, name: str) -> zarr.Array[Any]:
        self._require(cube)
        with checksums.damage_named(self.path):
            return zarr.open_array(self.path / "cubes" / cube / name, mode="r")

    def _require(self, cube: str) -> None:
        if cube not in self.table.index:
            raise ValueError(
                f"There is no image {cube!r} in {self.path}: it holds {', '.join(self.names[:8])}"
                f"{' and others' if len(self.names) > 8 else ''}."
            )
