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
from sciml_dchag.plants.whole_images import TurnedImages, WholeImages, area_means
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


class GradedImages(TurnedImages[tuple[Tensor, Tensor]]):
    """The images of a split of which something is known.

    Args:
        reader: reads images.
        grades: of each image, `UNKNOWN` where not known.
        lesions: their label images; None for none.
        cells: rows and columns of the map of lesions.
        seed, flip, rotate, memory_mebibytes: as of `TurnedImages`.

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
        drawn = {} if lesions is None else lesions.files
        cubes = [cube for cube, g in grades.items() if g != UNKNOWN or cube in drawn]
        if not cubes:
            raise ValueError(
                f"None of {len(grades)} images of one split in {reader.store.path} has a grade or "
                f"drawn lesions: complete the table, or prepare the store with another split."
            )
        super().__init__(
            reader, cubes, seed=seed, flip=flip, rotate=rotate, memory_mebibytes=memory_mebibytes
        )
        self.grades, self.lesions, self.cells = grades, lesions, cells

    def __getitem__(self, number: int) -> GradeBatch:
        """Return sample `number`, counted on through all epochs, as a batch of one."""
        turn = self.draw(number)
        image, areas = self.kept(turn.cube, lambda cube: (self.reader.read(cube), self.areas(cube)))
        over = [side for side, turned in ((-2, turn.up), (-1, turn.left)) if turned]
        image, areas = (one.flip(over).rot90(turn.quarters, (-2, -1)) for one in (image, areas))
        return GradeBatch(
            images=image[None],
            grades=torch.tensor([self.grades[turn.cube]]),
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


def true_ratio(labels: NDArray[np.uint8]) -> float:
    """Area of lesions over that of the plant, of a label image."""
    return float((labels == LESION).sum() / (labels > BACKGROUND).sum())
