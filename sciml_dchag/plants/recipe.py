"""What the recipes of all tasks on a plant store share."""

from __future__ import annotations

from dataclasses import dataclass, field

from sciml_dchag.channels import OwnChannel, declare
from sciml_dchag.config.common import Recipe, StoreConfig
from sciml_dchag.plants.prepare.config import PreparePlants


@dataclass(frozen=True, kw_only=True)
class ImagesConfig(StoreConfig):
    """From the store to batches of images of one size."""

    image_size: tuple[int, int] = (192, 384)
    """Rows and columns of the model's image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.image_size) < 1:
            raise ValueError(f"data.image_size {list(self.image_size)} must be at least 1.")


@dataclass(frozen=True, kw_only=True)
class WholeImagesConfig(ImagesConfig):
    """From the store to batches of whole images, brought to one size."""

    image_size: tuple[int, int] = (96, 192)
    """Rows and columns that images are brought to, by means over areas, whatever theirs are."""
    crop: bool = True
    """Cut images to the box around their plants first."""
    flip: bool = True
    """Mirror training images at random, left-right and top-bottom."""
    rotate: bool = True
    """Turn training images by a random multiple of 90 degrees, if they are square."""


@dataclass(frozen=True, kw_only=True)
class PlantRecipe(Recipe):
    """Plants: learn from the images of a store."""

    channels: tuple[OwnChannel, ...] = ()
    """Bands with a name of one's own."""
    prepare: PreparePlants = field(default_factory=PreparePlants)
    data: ImagesConfig = field(default_factory=ImagesConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        declare(self.channels)
        if bad := [side for side in self.data.image_size if side % self.model.patch]:
            raise ValueError(
                f"model.patch {self.model.patch} does not divide data.image_size "
                f"{list(self.data.image_size)} ({bad[0]}): change one of them."
            )


@dataclass(frozen=True, kw_only=True)
class WholeImagesRecipe(PlantRecipe):
    """Plants: learn from whole images of a store."""

    data: WholeImagesConfig = field(default_factory=WholeImagesConfig)
