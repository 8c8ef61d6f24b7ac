"""Whole images of a plant store, cut to their plants and brought to one size, in random order.

Shapes: C bands, H x W the model's image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.training.batches import drawn

Kept = TypeVar("Kept")
"""What is read of an image."""


class WholeImages:
    """Reads whole images of a store, cut to their plants and brought to the model's size.

    Args:
        store: the images.
        mean, std: by band of the store.
        image_size: (H, W).
        crop: cut images to the box around their plants.
        inputs: positions of the bands to read; None for all.
    """

    def __init__(
        self,
        store: CubeStore,
        mean: NDArray[np.float64],
        std: NDArray[np.float64],
        *,
        image_size: tuple[int, int],
        crop: bool,
        inputs: range | None = None,
    ) -> None:
        self.store, self.image_size, self.crop = store, image_size, crop
        self.inputs = range(len(store.channels)) if inputs is None else inputs
        own = slice(self.inputs.start, self.inputs.stop)
        self._mean = torch.from_numpy(mean[own].astype(np.float32))[:, None, None]
        self._std = torch.from_numpy(std[own].astype(np.float32))[:, None, None]

    def box(self, cube: str) -> tuple[slice, slice]:
        """Rows and columns that are taken of an image: those around its plants, or all."""
        if not self.crop:
            return slice(None), slice(None)
        return plant_box(self.store.plants(cube))

    def read(self, cube: str) -> Tensor:
        """Return an image, normalised, NaN where nothing is known: (C, H, W)."""
        rows, columns = self.box(cube)
        values = self.store.reflectance(cube, self.inputs, rows, columns)
        return (area_means(torch.from_numpy(values), self.image_size) - self._mean) / self._std


@dataclass(frozen=True)
class Turn:
    """A sample that is drawn: which image, and how it is turned."""

    cube: str
    up: bool
    """Whether rows are mirrored."""
    left: bool
    """Whether columns are mirrored."""
    quarters: int
    """By how many quarters it is turned to the left, after that."""


class TurnedImages(Generic[Kept]):
    """Images in an order of their own for each epoch, mirrored and turned at random.

    Which sample is drawn is a pure function of (seed, number of the sample).

    Args:
        reader: reads images.
        cubes: names of the images.
        seed: what order and turns are drawn from.
        flip: mirror at random along both sides.
        rotate: turn by multiples of 90 degrees at random, if images are square.
        memory_mebibytes: images are kept in memory if they are no larger than this together.
    """

    def __init__(
        self,
        reader: WholeImages,
        cubes: Sequence[str],
        *,
        seed: int,
        flip: bool,
        rotate: bool,
        memory_mebibytes: int,
    ) -> None:
        self.reader, self.cubes, self.seed, self.flip = reader, list(cubes), seed, flip
        self.rotate = rotate and reader.image_size[0] == reader.image_size[1]
        size = len(self.cubes) * len(reader.inputs) * int(np.prod(reader.image_size)) * 4
        self._keep = size <= memory_mebibytes * 2**20
        self._kept: dict[str, Kept] = {}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.cubes)

    def draw(self, number: int) -> Turn:
        """Draw sample `number`, counted on through all epochs."""
        epoch, index = drawn(self.seed, number, len(self))
        up, left, quarters = np.random.default_rng([self.seed, epoch, index]).integers((2, 2, 4))
        return Turn(
            cube=self.cubes[index], up=self.flip and bool(up), left=self.flip and bool(left),
            quarters=int(quarters) if self.rotate else 0,
        )  # fmt: skip

    def kept(self, cube: str, read: Callable[[str], Kept]) -> Kept:
        """Return what is read of an image, from memory where it is kept there."""
        if cube in self._kept:
            return self._kept[cube]
        found = read(cube)
        if self._keep:
            self._kept[cube] = found
        return found


def plant_box(plants: NDArray[np.int32]) -> tuple[slice, slice]:
    """The box around all plants of an image; all of it where there is none."""
    rows, columns = (np.flatnonzero((plants > 0).any(axis)) for axis in (1, 0))
    if not len(rows):
        return slice(0, plants.shape[0]), slice(0, plants.shape[1])
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def area_means(values_CHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Means over the known values of areas that divide an image evenly: (C, *size).

    An area without a known value is NaN.
    """
    known = values_CHW.isfinite()
    if bool(known.all()):
        return F.adaptive_avg_pool2d(values_CHW, size)
    summed = F.adaptive_avg_pool2d(values_CHW.nan_to_num(0.0), size)
    return summed / F.adaptive_avg_pool2d(known.float(), size)
