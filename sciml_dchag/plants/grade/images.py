"""Samples of a grader: whole images brought to one size, with their grades and lesions.

Shapes: B batch, C bands, H x W the model's image, h x w cells of half a patch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciml_dchag.plants.grade.labels import BACKGROUND, LESION, UNKNOWN, LesionImages
from sciml_dchag.plants.whole_images import WholeImages, area_means
from sciml_dchag.training.batches import Batch


@dataclass(frozen=True)
class GradeBatch(Batch):
    """Images with what is known of them."""

    images: Tensor
    """(B, C, H, W): the bands that this rank reads, normalised, NaN where missing."""
    grades: Tensor
    """(B,): -1 where not known."""
    areas: Tensor
    """(B, 2, h, w): fractions of cells that are plant and lesion, NaN where not known."""
    counts: Tensor
    """(B,): False where a sample fills a batch up and counts nothing."""

    def without(self, absent: list[bool]) -> GradeBatch:
        """Return the batch with some samples counting nothing."""
        return dataclasses.replace(self, counts=self.counts & ~torch.tensor(absent))


class GradedImages:
    """The images of a split of which something is known.

    A sample is a pure function of (seed, number of the sample).

    Args:
        reader: reads images.
        grades: of each image, `UNKNOWN` where not known.
        lesions: their label images; None for none.
        cells: rows and columns of the map of lesions.
        seed: what order and turns are drawn from.
        flip: mirror at random along both sides.
        rotate: turn by multiples of 90 degrees at random, if images are square.
        memory_mebibytes: images are kept in memory if they are no larger than this together.

    Raises:
        ValueError: no image has a grade or drawn lesions.
    """

    def __init__(
        self,
        reader: WholeImages,
        grades: dict[str, int],
        lesions: LesionImages | None,
        *,
        cells: tuple[int, int],
        seed: int,
        flip: bool = False,
        rotate: bool = False,
        memory_mebibytes: int = 0,
    ) -> None:
        self.reader, self.grades, self.lesions, self.cells = reader, grades, lesions, cells
        drawn = {} if lesions is None else lesions.files
        self.cubes = [cube for cube, g in grades.items() if g != UNKNOWN or cube in drawn]
        if not self.cubes:
            raise ValueError(
                f"None of {len(grades)} images of one split in {reader.store.path} has a grade or "
                f"drawn lesions: complete the table, or prepare the store with another split."
            )
        self.seed, self.flip = seed, flip
        self.rotate = rotate and reader.image_size[0] == reader.image_size[1]
        size = len(self.cubes) * len(reader.inputs) * int(np.prod(reader.image_size)) * 4
        self._keep = size <= memory_mebibytes * 2**20
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.cubes)

    def __getitem__(self, number: int) -> GradeBatch:
        """Return sample `number`, counted on through all epochs, as a batch of one."""
        epoch, position = divmod(number, len(self))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self))
        index = int(order[position])
        up, left, quarters = np.random.default_rng([self.seed, epoch, index]).integers((2, 2, 4))
        image, areas = self._of(self.cubes[index])
        if self.flip:
            over = [side for side, turned in ((-2, up), (-1, left)) if turned]
            image, areas = image.flip(over), areas.flip(over)
        if self.rotate:
            image, areas = (one.rot90(int(quarters), (-2, -1)) for one in (image, areas))
        return GradeBatch(
            images=image[None],
            grades=torch.tensor([self.grades[self.cubes[index]]]),
            areas=areas[None],
            counts=torch.ones(1, dtype=torch.bool),
        )

    def areas(self, cube: str) -> Tensor:
        """Fractions of cells that are plant and lesion, (2, h, w); NaN where they are not drawn."""
        store = self.reader.store
        labels = None if self.lesions is None else self.lesions.read(cube, store.size(cube))
        if labels is None:
            return torch.full((2, *self.cells), torch.nan)
        here = labels[self.reader.box(cube)]
        masks = np.stack([here > BACKGROUND, here == LESION]).astype(np.float32)
        return area_means(torch.from_numpy(masks), self.cells)

    def _of(self, cube: str) -> tuple[Tensor, Tensor]:
        if cube in self._kept:
            return self._kept[cube]
        found = self.reader.read(cube), self.areas(cube)
        if self._keep:
            self._kept[cube] = found
        return found


def true_ratio(labels: NDArray[np.uint8]) -> float:
    """Area of lesions over that of the plant, of a label image."""
    return float((labels == LESION).sum() / (labels > BACKGROUND).sum())
