"""A folder of label images that go with the images of a store, called as they are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.files.samples import resolve_samples
from sciml_dchag.plants.read.pictures import only_picture

MASK_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
"""How names of label images end."""


class LabelImages:
    """A folder of label images, called as the images of a store.

    Args:
        folder: the folder.
        names: names of the store's images.
        key: the recipe's key that names the folder, for messages.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no label image of any of them.
    """

    def __init__(self, folder: str | Path, names: Sequence[str], key: str) -> None:
        self.folder, self.key = Path(resolve_samples([str(folder)])[0]), key
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"{key} {self.folder} is no folder: name one of label images, or leave it empty."
            )
        known = set(names)
        self.files: dict[str, Path] = {}
        for file in sorted(self.folder.iterdir()):
            if file.suffix.lower() not in MASK_SUFFIXES or file.stem not in known:
                continue
            if file.stem in self.files:
                raise ValueError(
                    f"{key} has {self.files[file.stem].name} and {file.name} for the image "
                    f"{file.stem}: keep one of them."
                )
            self.files[file.stem] = file
        if not self.files:
            raise ValueError(
                f"{key} {self.folder} has no PNG, TIFF or NPY called as an image of the "
                f"store, such as {names[0]}.png: rename them, or leave it empty."
            )

    def numbers(self, name: str, size: tuple[int, int]) -> NDArray[Any] | None:
        """Read the numbers of an image's label image, (rows, columns); None where it has none.

        Raises:
            ValueError: another size than the image.
        """
        if (path := self.files.get(name)) is None:
            return None
        labels = _numbers(path)
        if labels.shape != size:
            raise ValueError(
                f"The label image {path} has {' x '.join(map(str, labels.shape))} values and the "
                f"image {size[0]} x {size[1]}: draw it on the image as it was taken."
            )
        return labels


def _numbers(path: Path) -> NDArray[Any]:
    try:
        if path.suffix.lower() == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        from PIL import Image

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                return only_picture(image)
    except (ValueError, OSError, SyntaxError, EOFError) as error:
        raise ValueError(
            f"The label image {path} cannot be read ({error}): give a PNG, TIFF or NPY file."
        ) from error
