"""What of a masked autoencoder's recipe would fail; see `sciml_dchag.checking`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.summary import in_words
from sciml_dchag.plants.crops import require_crop, require_large_enough
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.plants.masked.training import (
    MaskedTrainingStore,
    masked_model_config,
)
from sciml_dchag.plants.prepare.bands import parse_bands
from sciml_dchag.plants.prepare.finding import find_all_plants, require_in_part
from sciml_dchag.plants.prepare.numbering import read_pots
from sciml_dchag.plants.prepare.opening import (
    OpenedImage,
    find_sources,
    open_images,
    used_references,
)
from sciml_dchag.plants.prepare.splits import Split, known_images, name_images
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.store.summary import in_short
from sciml_dchag.training.masked import masked_objective
from sciml_dchag.training.task import Attempt

MOST_SEARCHED_BYTES = 2**28
"""Plants are looked for where all images together are not larger, which takes seconds."""


def check(recipe: MaskedRecipe, attempt: Attempt) -> None:
    """Attempt what preparing and training ask of a recipe."""
    path = Path(recipe.data.store)
    if not path.exists():
        _check_before_store(recipe, attempt)
    elif attempt(lambda: f"store {path}: {in_short(CubeStore.open(path))}"):
        _check_with_store(recipe, attempt)


def _check_with_store(recipe: MaskedRecipe, attempt: Attempt) -> None:
    """Attempt what training asks of a store that is there."""
    store = CubeStore.open(recipe.data.store)

    def crops() -> str:
        for cube in store.names:
            require_large_enough(store, cube, recipe.data.image_size)
        rows, columns = recipe.data.image_size
        return f"crops of {rows} x {columns} pixels"

    attempt(
        lambda: f"statistics of {len(MaskedTrainingStore(recipe).statistics.cubes)} training images"
    )
    attempt(crops)
    _check_model(recipe, store.wavelength_nm, attempt)


def _check_before_store(recipe: MaskedRecipe, attempt: Attempt) -> None:
    """Attempt to open what a store is to be prepared from."""
    bands: list[NDArray[np.float64]] = []
    images: dict[str, OpenedImage] = {}
    training: list[str] = []

    def sources() -> str:
        if not recipe.prepare.sources:
            raise ValueError("prepare.sources is empty: name the images.")
        found = find_sources(recipe.prepare)
        names = dict(zip(found.images, name_images(found.images), strict=True))
        nm = parse_bands(recipe.prepare.bands)
        opened = open_images(recipe.prepare, found, names, nm, most_bytes=0)
        images.update({names[path]: image for path, image in opened.images.items()})
        split = Split.parse(recipe.prepare.split)
        known, _ = known_images(
            recipe.prepare, split, list(opened.images), list(images), recipe.seed
        )
        training.extend(known.index if split.guard is not None else known.index[
            known["split"] == "train"
        ])  # fmt: skip
        if opened.left_out:
            path, reason = next(iter(opened.reasons().items()))
            raise ValueError(f"{len(opened.left_out)} image(s) would be left out: {path}: {reason}")
        numbers = {image.raw.bands for image in opened.images.values()}
        files = used_references(opened.images.values())
        what = f"{len(files)} reference(s)" if files else "taken for reflectance"
        return (
            f"sources: {len(images)} image(s) of {', '.join(map(str, sorted(numbers)))} bands, "
            f"{what}"
        )

    def crops() -> str:
        split = Split.parse(recipe.prepare.split)
        for name, image in images.items():
            parts = {name: slice(0, image.raw.samples)}
            if split.guard is not None:
                parts = {
                    f"{name}_{part}": c for part, c in split.cut(image.raw.samples, name).items()
                }
            for part, columns in parts.items():
                require_crop(part, (image.raw.lines, columns.stop - columns.start),
                             recipe.data.image_size)  # fmt: skip
        return "crops of {} x {} pixels".format(*recipe.data.image_size)

    def plants() -> str:
        if (pots := read_pots(recipe.prepare.pots)) is not None:
            for image in images.values():
                pots.at((image.raw.lines, image.raw.samples))
        if sum(image.raw.path.stat().st_size for image in images.values()) > MOST_SEARCHED_BYTES:
            return "plants: not looked for, as the images are large"
        found, _ = find_all_plants(recipe.prepare, images, None)
        number = {
            name: len(np.unique(one.labels()[one.labels() > 0])) for name, one in found.items()
        }
        if not any(number[name] for name in training):
            raise ValueError(
                f"None of the {len(training)} training images shows a plant: choose another "
                f"`split`, or give plants with `mask=FILE`."
            )
        split = Split.parse(recipe.prepare.split)
        for name, image in images.items() if split.guard is not None else ():
            for columns in split.cut(image.raw.samples, name).values():
                require_in_part(found[name].labels(), columns, image.raw.path)
        empty = sum(not count for count in number.values())
        without = f", none in {empty} of them" if empty else ""
        return f"plants: {sum(number.values())} in {len(number)} image(s){without}"

    def target() -> str:
        if (nm := parse_bands(recipe.prepare.bands)) is None:
            return "bands: the camera's own; the model's size is known once the store is there"
        bands.append(nm)
        return f"bands: {len(nm)} from {nm[0]:g} to {nm[-1]:g} nm"

    if attempt(sources):
        attempt(crops)
        attempt(plants)
    if attempt(target) and bands:
        _check_model(recipe, bands[0], attempt)


def expected_model(recipe: MaskedRecipe) -> ModelConfig:
    """Return the architecture that a recipe will train, from its store or from what will be in it.

    Raises:
        ValueError: there is no store yet and the recipe does not say its bands.
    """
    if Path(recipe.data.store).exists():
        return masked_model_config(recipe, CubeStore.open(recipe.data.store).wavelength_nm)
    if (nm := parse_bands(recipe.prepare.bands)) is None:
        raise ValueError(
            f"There is no store {recipe.data.store}, and prepare.bands native does not say how "
            f"many bands there are: prepare it first, or set prepare.bands."
        )
    return masked_model_config(recipe, nm)


def _check_model(
    recipe: MaskedRecipe, wavelength_nm: NDArray[np.float64], attempt: Attempt
) -> None:
    def masks() -> str:
        task = masked_objective(
            recipe.seed, recipe.task, masked_model_config(recipe, wavelength_nm)
        )
        return f"{task.visible} of {task.locations} locations are seen"

    if attempt(lambda: in_words(masked_model_config(recipe, wavelength_nm))):
        attempt(masks)
