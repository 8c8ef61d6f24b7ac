"""What training a grader asks of a plant store and its labels; see `training.task`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.objectives.grading import GradingObjective
from sciml_dchag.parallel.apply import own_channels
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.plants.channels import band_name
from sciml_dchag.plants.grade.config import GradeRecipe
from sciml_dchag.plants.grade.images import GradeBatch, GradedImages, true_ratio
from sciml_dchag.plants.grade.labels import UNKNOWN, LesionImages, grades_of
from sciml_dchag.plants.training_store import PlantRecord, PlantTrainingStore
from sciml_dchag.plants.whole_images import WholeImages
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.training.task import Fingerprint, NothingToScoreError, short_hash


@dataclass(frozen=True, kw_only=True)
class GradeRecord(PlantRecord):
    """What a grader's checkpoint keeps of its data."""

    graded: int
    """Training images with a grade."""
    drawn: int
    """Training images with drawn lesions."""
    labels_sha256: str
    """Hash of the training images' grades and of which have drawn lesions."""


class GradeStore(PlantTrainingStore):
    """A plant store, the grades of its table and the label images of its lesions.

    Raises:
        ValueError: store, labels and recipe do not fit together.
        FileNotFoundError: there is no store, or no folder of label images.
    """

    record_type = GradeRecord

    def __init__(self, recipe: GradeRecipe) -> None:
        super().__init__(recipe)
        self.recipe: GradeRecipe = recipe
        self.lesions = None
        if recipe.data.lesions:
            self.lesions = LesionImages(recipe.data.lesions, self.store.names)
        found = grades_of(self.store.table, recipe.task.column, recipe.task.grades, self.store.path)
        self.grades = dict(zip(self.store.names, found.tolist(), strict=True))
        training = self.store.split("train")
        drawn = self.drawn(training)
        known = {cube: (self.grades[cube], cube in drawn) for cube in training}
        self.labels_sha256 = short_hash(repr(known).encode())

    def graded(self, cubes: list[str]) -> list[str]:
        """Those of some images whose grade is known."""
        return [cube for cube in cubes if self.grades[cube] != UNKNOWN]

    def drawn(self, cubes: list[str]) -> list[str]:
        """Those of some images whose lesions are drawn."""
        files = {} if self.lesions is None else self.lesions.files
        return [cube for cube in cubes if cube in files]

    def labelled_test(self) -> list[str]:
        """Names of the test images that have a grade or drawn lesions.

        Raises:
            NothingToScoreError: there is none.
        """
        test = self.store.split("test")
        known = {*self.graded(test), *self.drawn(test)}
        if not known:
            raise NothingToScoreError(
                f"None of the test images in {self.store.path} has a grade or drawn lesions: "
                f"prepare it with another split, or complete its table."
            )
        return [cube for cube in test if cube in known]

    def lesion_percent(self, cube: str) -> float:
        """Fraction of the plant that is lesion as it is drawn, in percent.

        Raises:
            ValueError: its label image does not do.
        """
        assert self.lesions is not None
        labels = self.lesions.read(cube, self.store.size(cube))
        assert labels is not None
        return 100 * true_ratio(labels)

    def model_config(self) -> ModelConfig:
        """Fill in bands, grades and size."""
        return grade_model_config(self.recipe, self.store.wavelength_nm)

    def fingerprint(self) -> Fingerprint:
        """As of every plant store, and the labels of the training images."""
        fix = f"let all ranks read the same {self.store.path} and {self.recipe.data.lesions}"
        return super().fingerprint() | {"labels": (f"labels {self.labels_sha256}", fix)}

    def difference(self, checkpoint: Checkpoint) -> str | None:
        """Find what was prepared differently, or graded differently."""
        if (found := super().difference(checkpoint)) is not None:
            return found
        saved = checkpoint.read_data(GradeRecord, Path("the run's checkpoint"))
        if saved.labels_sha256 != self.labels_sha256:
            return f"whose training images had other grades or lesions than {self.store.path} has"
        return None

    def record(self) -> dict[str, Any]:
        """The values of a `GradeRecord`."""
        training = self.store.split("train")
        return {
            **super().record(),
            "graded": len(self.graded(training)),
            "drawn": len(self.drawn(training)),
            "labels_sha256": self.labels_sha256,
        }

    def samples(
        self, split: str, inputs: range | None = None, *, turned: bool = False
    ) -> GradedImages:
        """The images of a split, turned and mirrored at random where asked for."""
        recipe, data = self.recipe, self.recipe.data
        reader = WholeImages(
            self.store, self.statistics.mean, self.statistics.std, image_size=data.image_size,
            crop=data.crop, inputs=inputs,
        )  # fmt: skip
        return GradedImages(
            reader, {cube: self.grades[cube] for cube in self.store.split(split)}, self.lesions,
            cells=cells_of(recipe), seed=recipe.seed, flip=turned and data.flip,
            rotate=turned and data.rotate, memory_mebibytes=data.memory_mebibytes,
        )  # fmt: skip

    def training_data(self, model: ChannelTransformer, ranks: Ranks) -> GradeTrainingData:
        """Build samples and the objective."""
        return GradeTrainingData(self, model, ranks)


class GradeTrainingData:
    """Training and validation images, their errors and weights, on this rank."""

    def __init__(self, opened: GradeStore, model: ChannelTransformer, ranks: Ranks) -> None:
        self.opened, recipe = opened, opened.recipe
        self.objective = grading_objective(recipe).to(ranks.device)
        self.objective.complete = ranks.complete
        rank, count = ranks.channels
        self.objective.own_samples = slice(rank, None, count)
        inputs, _ = own_channels(model, ranks.mesh)
        self.samples = opened.samples("train", inputs, turned=True)
        self.validation = None
        if recipe.training.validate_every:
            self.validation = opened.samples("validation", inputs)

    def error(self, model: ChannelTransformer, batch: GradeBatch) -> Tensor:
        """Sum the errors of grades, areas and ratios."""
        return self.objective.error(model, *batch.tensors)

    def weight(self, batch: GradeBatch) -> Tensor:
        """Count the images."""
        return self.objective.weight(batch.counts)

    def without(self, batch: GradeBatch, absent: list[bool]) -> GradeBatch:
        """Leave some samples out."""
        return batch.without(absent)

    def record(self) -> dict[str, Any]:
        """Bands, statistics and labels."""
        return self.opened.record()


def grading_objective(recipe: GradeRecipe) -> GradingObjective:
    """Build the objective of a recipe."""
    return GradingObjective(grades=recipe.task.grades, lesion_weight=recipe.task.lesion_weight)


def cells_of(recipe: GradeRecipe) -> tuple[int, int]:
    """Rows and columns of the map of lesions: cells of half a patch."""
    rows, columns = (2 * side // recipe.model.patch for side in recipe.data.image_size)
    return rows, columns


def grade_model_config(recipe: GradeRecipe, wavelength_nm: NDArray[np.float64]) -> ModelConfig:
    """Fill in what the data decide: bands, grades and the size of images."""
    return dataclasses.replace(
        recipe.model,
        input_channels=tuple(band_name(nm) for nm in wavelength_nm),
        output_channels=tuple(str(grade) for grade in range(recipe.task.grades)),
        image_size=recipe.data.image_size,
    )
