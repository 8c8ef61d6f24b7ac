"""Objects of label images as boxes, and boxes from an image's pixels to the model's and back.

A box is (x0, y0, x1, y1) in pixels, x rightward and y downward: a pixel of column j reaches from
x = j to j + 1. Shapes: N objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]

TOUCHING = np.ones((3, 3), bool)
"""Pixels that touch at a corner are of one piece."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Objects of one image, by falling probability."""

    boxes: Floats
    """(N, 4) in pixels of the image."""
    scores: Floats
    """Probabilities, (N,)."""

    def __len__(self) -> int:
        return len(self.boxes)

    def at_least(self, score: float) -> Found:
        """Return those that are as probable."""
        likely = self.scores >= score
        return Found(boxes=self.boxes[likely], scores=self.scores[likely])


def boxes_of(labels: NDArray[Any], label: int, least_pixels: int) -> Floats:
    """Boxes around the objects of a label image, (N, 4).

    Args:
        labels: whole numbers, (rows, columns).
        label: the number whose connected pieces are objects; 0 takes each number above 0 for one.
        least_pixels: objects of fewer are left out.
    """
    if label:
        pieces, _ = ndimage.label(labels == label, TOUCHING)
    else:
        numbers, pieces = np.unique(labels, return_inverse=True)
        pieces = pieces.reshape(labels.shape) + int(numbers[0] > 0)  # 0 is no object
    pixels = np.bincount(pieces.ravel())
    found = [
        (columns.start, rows.start, columns.stop, rows.stop)
        for number, (rows, columns) in enumerate(ndimage.find_objects(pieces), start=1)
        if pixels[number] >= least_pixels
    ]
    return np.array(found, np.float64).reshape(-1, 4)


@dataclass(frozen=True, kw_only=True)
class Window:
    """The part of an image that the model is shown, brought to the model's size."""

    x: float
    """First column that is taken."""
    y: float
    """First row that is taken."""
    across: float
    """Pixels of the model per pixel of the image, along a row."""
    down: float
    """The same along a column."""

    @classmethod
    def of(
        cls, box: tuple[slice, slice], size: tuple[int, int], image_size: tuple[int, int]
    ) -> Window:
        """Return that of rows and columns of an image of a size, for a model of another."""
        (top, bottom, _), (left, right, _) = (
            part.indices(side) for part, side in zip(box, size, strict=True)
        )
        rows, columns = image_size
        return cls(x=left, y=top, across=columns / (right - left), down=rows / (bottom - top))

    def to_model(self, boxes: Floats) -> Floats:
        """(N, 4) in pixels of the image -> the model's."""
        return (boxes - self._corner()) * self._scale()

    def to_image(self, boxes: Floats) -> Floats:
        """(N, 4) in pixels of the model -> the image's."""
        return boxes / self._scale() + self._corner()

    def _corner(self) -> Floats:
        return np.array([self.x, self.y, self.x, self.y])

    def _scale(self) -> Floats:
        return np.array([self.across, self.down, self.across, self.down])
