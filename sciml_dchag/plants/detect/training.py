"""What training a detector asks of a plant store and label images; see `training.task`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.parallel.apply import own_channels
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.plants.channels import band_name
from sciml_dchag.plants.detect.boxes import Floats, boxes_of
from sciml_dchag.plants.detect.config import DetectPlantsRecipe
from sciml_dchag.plants.detect.images import BoxedImages
from sciml_dchag.plants.label_images import LabelImages
from sciml_dchag.plants.training_store import PlantRecord, PlantTrainingStore
from sciml_dchag.plants.whole_images import WholeImages
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.training.detection import DetectionData
from sciml_dchag.training.task import Fingerprint, NothingToScoreError, short_hash

ONE_KIND = "object"
"""Name of the class of all objects."""


@dataclass(frozen=True, kw_only=True)
class DetectPlantsRecord(PlantRecord):
    """What a detector's checkpoint keeps of its data."""

    labelled: int
    """Training images whose objects are known."""
    objects: int
    """Objects in them."""
    objects_sha256: str
    """Hash of their boxes."""


class BoxStore(PlantTrainingStore):
    """A plant store and label images of the objects in it.

    Raises:
        ValueError: store, label images and recipe do not fit together.
        FileNotFoundError: there is no store, or no folder of label images.
    """

    record_type = DetectPlantsRecord

    def __init__(self, recipe: DetectPlantsRecipe) -> None:
        super().__init__(recipe)
        self.recipe: DetectPlantsRecipe = recipe
        self.labels = label_images(recipe, self.store.names)
        self._boxes: dict[str, Floats] = {}
        known = self.known("train")
        if not any(len(boxes) for boxes in known.values()):
            raise ValueError(
                f"No training image in {self.store.path} has an object: task.label is "
                f"{recipe.task.label} and task.least_pixels {recipe.task.least_pixels}; change "
                f"them, or draw more into {self.labels.folder}."
            )
        self.objects = sum(len(boxes) for boxes in known.values())
        named = [part for cube, boxes in known.items() for part in (cube.encode(), boxes.tobytes())]
        self.objects_sha256 = short_hash(*named)

    def boxes(self, cube: str) -> Floats:
        """Boxes of the objects of an image with a label image, (N, 4) in its pixels.

        Raises:
            ValueError: its label image does not do, or has more objects than `task.max_objects`.
        """
        if cube not in self._boxes:
            task, path = self.recipe.task, self.labels.files[cube]
            labels = self.labels.numbers(cube, self.store.size(cube))
            assert labels is not None
            if not np.issubdtype(labels.dtype, np.integer) and labels.dtype != bool:
                raise ValueError(
                    f"The label image {path} holds {labels.dtype} values: save whole numbers."
                )
            found = boxes_of(labels.astype(np.int64), task.label, task.least_pixels)
            if len(found) > task.max_objects:
                raise ValueError(
                    f"The label image {path} has {len(found)} objects, and task.max_objects is "
                    f"{task.max_objects}: raise it to {len(found)} or more."
                )
            self._boxes[cube] = found
        return self._boxes[cube]

    def known(self, split: str) -> dict[str, Floats]:
        """Boxes of the images of a split that have a label image."""
        cubes = [cube for cube in self.store.split(split) if cube in self.labels.files]
        return {cube: self.boxes(cube) for cube in cubes}

    def labelled_test(self) -> list[str]:
        """Names of the test images that have a label image.

        Raises:
            NothingToScoreError: there is none.
        """
        if not (found := list(self.known("test"))):
            raise NothingToScoreError(
                f"None of the test images in {self.store.path} has a label image in "
                f"{self.labels.folder}: prepare it with another split, or draw some."
            )
        return found

    def model_config(self) -> ModelConfig:
        """Fill in bands, the class and size."""
        return detect_model_config(self.recipe, self.store.wavelength_nm)

    def fingerprint(self) -> Fingerprint:
        """As of every plant store, and the objects of the training images."""
        fix = f"let all ranks read the same {self.store.path} and {self.labels.folder}"
        return super().fingerprint() | {"objects": (f"objects {self.objects_sha256}", fix)}

    def difference(self, checkpoint: Checkpoint) -> str | None:
        """Find what was prepared differently, or is of other objects."""
        if (found := super().difference(checkpoint)) is not None:
            return found
        saved = checkpoint.read_data(DetectPlantsRecord, Path("the run's checkpoint"))
        if saved.objects_sha256 != self.objects_sha256:
            return f"whose training images had other objects than {self.labels.folder} has"
        return None

    def record(self) -> dict[str, Any]:
        """The values of a `DetectPlantsRecord`."""
        return {
            **super().record(),
            "labelled": len(self.known("train")),
            "objects": self.objects,
            "objects_sha256": self.objects_sha256,
        }

    def samples(
        self, split: str, inputs: range | None = None, *, turned: bool = False
    ) -> BoxedImages:
        """The images of a split, turned and mirrored at random where asked for."""
        recipe, data = self.recipe, self.recipe.data
        reader = WholeImages(
            self.store, self.statistics.mean, self.statistics.std, image_size=data.image_size,
            crop=data.crop, inputs=inputs,
        )  # fmt: skip
        return BoxedImages(
            reader, self.known(split), most=recipe.task.max_objects, seed=recipe.seed,
            flip=turned and data.flip, rotate=turned and data.rotate,
            memory_mebibytes=data.memory_mebibytes,
        )  # fmt: skip

    def training_data(self, model: ChannelTransformer, ranks: Ranks) -> PlantDetectionData:
        """Build samples and the objective."""
        return PlantDetectionData(self, model, ranks)


class PlantDetectionData(DetectionData):
    """Training and validation images, and the objective."""

    def __init__(self, opened: BoxStore, model: ChannelTransformer, ranks: Ranks) -> None:
        super().__init__(model, ranks)
        self.opened = opened
        inputs, _ = own_channels(model, ranks.mesh)
        self.samples = opened.samples("train", inputs, turned=True)
        self.validation = None
        if opened.recipe.training.validate_every:
            self.validation = opened.samples("validation", inputs)

    def record(self) -> dict[str, Any]:
        """Bands, statistics and objects."""
        return self.opened.record()


def label_images(recipe: DetectPlantsRecipe, names: list[str]) -> LabelImages:
    """Find the label images of a recipe.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no folder is named, or none of its files is called as an image.
    """
    if not recipe.data.objects:
        raise ValueError("data.objects is empty: name a folder of label images of the objects.")
    return LabelImages(recipe.data.objects, names, "data.objects")


def detect_model_config(
    recipe: DetectPlantsRecipe, wavelength_nm: NDArray[np.float64]
) -> ModelConfig:
    """Fill in what the data decide: bands, the class and the size of images."""
    return dataclasses.replace(
        recipe.model,
        input_channels=tuple(band_name(nm) for nm in wavelength_nm),
        output_channels=(ONE_KIND,),
        image_size=recipe.data.image_size,
    )
