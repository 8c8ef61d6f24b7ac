"""The recipe of a masked autoencoder: from raw hyperspectral images to reconstruction scores."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from sciml_dchag.config.common import MOST_SAMPLES, MaskingConfig, require_at_least
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.plants.recipe import ImagesConfig, PlantRecipe


@dataclass(frozen=True, kw_only=True)
class CubesConfig(ImagesConfig):
    """From the store to batches: crops of its training images."""

    image_size: tuple[int, int] = (192, 384)
    """Rows and columns of a crop, and of the model's image."""
    crops: int = 0
    """Random crops of each image in an epoch; 0 for as many as cover it once."""
    flip: bool = True
    """Mirror crops at random, left-right and top-bottom."""
    rotate: bool = True
    """Turn crops by a random multiple of 90 degrees, if they are square."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, "data.crops", self.crops)


@dataclass(frozen=True, kw_only=True)
class MaskedConfig(MaskingConfig):
    """What is learnt: what is hidden of an image from what is shown."""

    kind: Literal["masked"] = "masked"
    """Which task this is."""
    plants_only: bool = True
    """Errors count on plants alone; off, on the background too."""
    gaussian_process: bool = False
    """Start from the visible pixels, interpolated band by band as Gaussian processes that are
    fitted on the training images; the model then learns what they miss."""


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """What is scored of the test images."""

    batch: int = 8
    """Crops that are reconstructed at once."""
    components: int = 0
    """Components of the PCA that is the second baseline; 0 for a fifth of the bands."""
    spectra: int = 6
    """Pixels whose true and reconstructed spectra are drawn."""

    def __post_init__(self) -> None:
        require_at_least(1, "evaluation.batch", self.batch, MOST_SAMPLES)
        if self.components < 0 or self.spectra < 1:
            raise ValueError(
                f"evaluation.spectra {self.spectra} must be at least 1 and evaluation.components "
                f"{self.components} at least 0."
            )


@dataclass(frozen=True, kw_only=True)
class MaskedRecipe(PlantRecipe):
    """Plants: learn to reconstruct hidden parts of hyperspectral images."""

    data: CubesConfig = field(default_factory=CubesConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig(head="masked"))
    task: MaskedConfig = field(default_factory=MaskedConfig)
    evaluation: ReconstructionConfig = field(default_factory=ReconstructionConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        # The task says it all; a recipe need not say it twice.
        object.__setattr__(self, "model", dataclasses.replace(self.model, head="masked"))
