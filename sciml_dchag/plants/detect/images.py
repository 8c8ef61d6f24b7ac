"""Samples of a detector: whole images brought to one size, with the boxes of their objects.

Shapes: B batch, C bands, H x W the model's image, M objects.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sciml_dchag.plants.detect.boxes import Floats, Window
from sciml_dchag.plants.whole_images import WholeImages
from sciml_dchag.training.detection import DetectionBatch


class BoxedImages:
    """The images of a split whose objects are known.

    A sample is a pure function of (seed, number of the sample).

    Args:
        reader: reads images.
        boxes: of each image, (N, 4) in its pixels.
        most: objects that a sample has room for.
        seed: what order and turns are drawn from.
        flip: mirror at random along both sides.
        rotate: turn by multiples of 90 degrees at random, if images are square.
        memory_mebibytes: images are kept in memory if they are no larger than this together.

    Raises:
        ValueError: there is no image.
    """

    def __init__(
        self,
        reader: WholeImages,
        boxes: Mapping[str, Floats],
        *,
        most: int,
        seed: int,
        flip: bool = False,
        rotate: bool = False,
        memory_mebibytes: int = 0,
    ) -> None:
        if not boxes:
            raise ValueError(
                f"No image of one split in {reader.store.path} has a label image in data.objects: "
                f"draw some, or prepare the store with another split."
            )
        self.reader, self.boxes, self.most = reader, boxes, most
        self.cubes, self.seed, self.flip = list(boxes), seed, flip
        self.rotate = rotate and reader.image_size[0] == reader.image_size[1]
        size = len(self.cubes) * len(reader.inputs) * int(np.prod(reader.image_size)) * 4
        self._keep = size <= memory_mebibytes * 2**20
        self._kept: dict[str, Tensor] = {}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.cubes)

    def __getitem__(self, number: int) -> DetectionBatch:
        """Return sample `number`, counted on through all epochs, as a batch of one."""
        epoch, position = divmod(number, len(self))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self))
        index = int(order[position])
        up, left, quarters = np.random.default_rng([self.seed, epoch, index]).integers((2, 2, 4))
        cube = self.cubes[index]
        image, boxes = self._image(cube), self._window(cube).to_model(self.boxes[cube])
        rows, columns = self.reader.image_size
        if self.flip and left:
            image, boxes = image.flip(-1), _mirrored(boxes, 0, columns)
        if self.flip and up:
            image, boxes = image.flip(-2), _mirrored(boxes, 1, rows)
        if self.rotate:
            image = image.rot90(int(quarters), (-2, -1))
            for _ in range(int(quarters)):  # to the left: what was on the right is on top
                boxes = _mirrored(boxes[:, [1, 0, 3, 2]], 1, rows)
        return self._sample(image, boxes)

    def _sample(self, image: Tensor, boxes: Floats) -> DetectionBatch:
        padded = np.zeros((self.most, 4), np.float32)
        padded[: len(boxes)] = boxes
        classes = np.full(self.most, -1, np.int64)
        classes[: len(boxes)] = 0
        return DetectionBatch(
            images=image[None],
            boxes=torch.from_numpy(padded)[None],
            classes=torch.from_numpy(classes)[None],
            attributes=torch.full((1, self.most, 0), torch.nan),
            counts=torch.ones(1, dtype=torch.bool),
        )

    def _window(self, cube: str) -> Window:
        reader = self.reader
        return Window.of(reader.box(cube), reader.store.size(cube), reader.image_size)

    def _image(self, cube: str) -> Tensor:
        if cube in self._kept:
            return self._kept[cube]
        image = self.reader.read(cube)
        if self._keep:
            self._kept[cube] = image
        return image


def _mirrored(boxes: Floats, axis: int, side: int) -> Floats:
    """Boxes of an image whose columns (axis 0) or rows (1), `side` in number, are mirrored."""
    turned = boxes.copy()
    turned[:, axis], turned[:, axis + 2] = side - boxes[:, axis + 2], side - boxes[:, axis]
    return turned
