"""Samples of a masked autoencoder: crops of hyperspectral images and what is hidden of them.

A sample is a pure function of (seed, number of the sample), so that a run that is resumed, on any
number of ranks, repeats and skips nothing. What is done with a sample is `objectives.masked`'s.

Shapes: B batch, C bands, H x W crop, V locations that are seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.training.batches import MaskedBatch, drawn

DrawMask = Callable[[int, int], tuple[NDArray[np.int64], NDArray[np.bool_]]]
"""From (epoch, index) to the locations that are seen, (V,), and which bands are hidden, (C,)."""


class CubePatches:
    """Random crops of images, each of which holds some plant.

    Args:
        store: the prepared store.
        cubes: names of the images to draw from; those without a plant are not.
        mean, std: by band of the store.
        image_size: (H, W).
        draw_mask: what is hidden of a sample.
        seed: what order, places and augmentation are drawn from.
        crops: of each image in an epoch; 0 for as many as cover it once.
        flip: mirror at random along both sides.
        rotate: turn by multiples of 90 degrees at random, if a crop is square.
        plants_only: background counts nothing.
        memory_mebibytes: images are kept in memory if they are no larger than this together.
        inputs: positions of the bands to read; None for all.

    Raises:
        ValueError: no image with a plant, or one smaller than a crop.
    """

    def __init__(
        self,
        store: CubeStore,
        cubes: Sequence[str],
        *,
        mean: NDArray[np.float64],
        std: NDArray[np.float64],
        image_size: tuple[int, int],
        draw_mask: DrawMask,
        seed: int = 0,
        crops: int = 0,
        flip: bool = False,
        rotate: bool = False,
        plants_only: bool = True,
        memory_mebibytes: int = 0,
        inputs: range | None = None,
    ) -> None:
        self.store, self.image_size, self.draw_mask, self.seed = store, image_size, draw_mask, seed
        self.flip, self.plants_only = flip, plants_only
        self.rotate = rotate and image_size[0] == image_size[1]
        self.inputs = range(len(store.channels)) if inputs is None else inputs
        own = slice(self.inputs.start, self.inputs.stop)
        self._mean = mean[own].astype(np.float32)[:, None, None]
        self._std = std[own].astype(np.float32)[:, None, None]
        planted = [cube for cube in cubes if store.plants(cube).any()]
        sizes = {cube: require_large_enough(store, cube, image_size) for cube in planted}
        if not sizes:
            raise ValueError(
                f"There is no image with a plant to draw from in {store.path}: prepare it with a "
                f"split that gives some to training, and to validation if training.validate_every "
                f"is set."
            )
        self.order = [
            cube
            for cube, (rows, columns) in sizes.items()
            for _ in range(crops or -(-rows // image_size[0]) * -(-columns // image_size[1]))
        ]
        numbers = sum(rows * columns for rows, columns in sizes.values()) * len(self.inputs)
        self._kept: dict[str, NDArray[np.float32]] | None = None
        if 4 * numbers <= memory_mebibytes * 2**20:
            self._kept = {cube: store.reflectance(cube, self.inputs) for cube in sizes}
        self._plants: dict[str, NDArray[np.int32]] = {}

    def __len__(self) -> int:
        """Return the number of crops in an epoch."""
        return len(self.order)

    def _cube_of(self, number: int) -> str:
        """The image that a sample is cut from."""
        return self.order[drawn(self.seed, number, len(self))[1]]

    def name_of(self, number: int) -> str:
        """Name a sample by its image."""
        return f"{number} ({self._cube_of(number)})"

    def __getitem__(self, number: int) -> MaskedBatch:
        """Return sample `number`, counted on through all epochs, as a batch of one."""
        epoch, index = divmod(number, len(self))
        cube = self._cube_of(number)
        draws = np.random.default_rng([self.seed, epoch, index])
        if cube not in self._plants:
            self._plants[cube] = self.store.plants(cube)
        plants = self._plants[cube]
        rows, columns = self._place(plants, draws)
        reflectance = self._read(cube, rows, columns)
        image = (reflectance - self._mean) / self._std
        weight = plants[rows, columns] > 0 if self.plants_only else np.ones(self.image_size, bool)
        image, weight = self._turn(image, weight, draws)
        visible, hidden = self.draw_mask(epoch, index)
        fields = (image, visible, hidden, weight.astype(np.float32))
        return MaskedBatch(*(torch.from_numpy(np.ascontiguousarray(f))[None] for f in fields))

    def _place(self, plants: NDArray[np.int32], draws: np.random.Generator) -> tuple[slice, slice]:
        """Draw a place that holds some plant: a plant's pixel, then where it lies in the crop."""
        pixels = np.flatnonzero(plants)
        pixel = np.unravel_index(pixels[draws.integers(len(pixels))], plants.shape)
        slices = []
        for at, whole, side in zip(pixel, plants.shape, self.image_size, strict=True):
            first, last = max(0, int(at) - side + 1), min(int(at), whole - side)
            start = int(draws.integers(first, last + 1))
            slices.append(slice(start, start + side))
        return slices[0], slices[1]

    def _turn(
        self, image: NDArray[np.float32], weight: NDArray[np.bool_], draws: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        up, left, quarters = draws.integers(2), draws.integers(2), int(draws.integers(4))
        if self.flip and up:
            image, weight = image[:, ::-1], weight[::-1]
        if self.flip and left:
            image, weight = image[:, :, ::-1], weight[:, ::-1]
        if self.rotate:
            image, weight = np.rot90(image, quarters, (1, 2)), np.rot90(weight, quarters)
        return image, weight

    def _read(self, cube: str, rows: slice, columns: slice) -> NDArray[np.float32]:
        if self._kept is not None:
            return self._kept[cube][:, rows, columns]
        return self.store.reflectance(cube, self.inputs, rows, columns)


def require_large_enough(
    store: CubeStore, cube: str, image_size: tuple[int, int]
) -> tuple[int, int]:
    """Return an image's rows and columns.

    Raises:
        ValueError: it is smaller than a crop.
    """
    size = store.size(cube)
    require_crop(f"{cube} in {store.path}", size, image_size)
    return size


def require_crop(image: str, size: tuple[int, int], image_size: tuple[int, int]) -> None:
    """Refuse an image of some rows and columns that is smaller than a crop.

    Raises:
        ValueError: it is.
    """
    if size[0] < image_size[0] or size[1] < image_size[1]:
        raise ValueError(
            f"The image {image} has {size[0]} x {size[1]} pixels, fewer than a crop of "
            f"{image_size[0]} x {image_size[1]}: lower data.image_size."
        )
