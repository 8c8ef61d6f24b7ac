"""Samples of a detector: whole images brought to one size, with the boxes of their objects.

Shapes: B batch, C bands, H x W the model's image, M objects.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sciml_dchag.plants.detect.boxes import Floats, Window
from sciml_dchag.plants.whole_images import TurnedImages, WholeImages
from sciml_dchag.training.detection import DetectionBatch


class BoxedImages(TurnedImages[Tensor]):
    """The images of a split whose objects are known.

    Args:
        reader: reads images.
        boxes: of each image, (N, 4) in its pixels.
        most: objects that a sample has room for.
        seed, flip, rotate, memory_mebibytes: as of `TurnedImages`.

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
        super().__init__(
            reader, list(boxes), seed=seed, flip=flip, rotate=rotate,
            memory_mebibytes=memory_mebibytes,
        )  # fmt: skip
        self.boxes, self.most = boxes, most

    def __getitem__(self, number: int) -> DetectionBatch:
        """Return sample `number`, counted on through all epochs, as a batch of one."""
        turn = self.draw(number)
        image = self.kept(turn.cube, self.reader.read)
        boxes = self._window(turn.cube).to_model(self.boxes[turn.cube])
        rows, columns = self.reader.image_size
        if turn.left:
            image, boxes = image.flip(-1), _mirrored(boxes, 0, columns)
        if turn.up:
            image, boxes = image.flip(-2), _mirrored(boxes, 1, rows)
        for _ in range(turn.quarters):  # to the left: what was on the right is on top
            image = image.rot90(1, (-2, -1))
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


def _mirrored(boxes: Floats, axis: int, side: int) -> Floats:
    """Boxes of an image whose columns (axis 0) or rows (1), `side` in number, are mirrored."""
    turned = boxes.copy()
    turned[:, axis], turned[:, axis + 2] = side - boxes[:, axis + 2], side - boxes[:, axis]
    return turned
