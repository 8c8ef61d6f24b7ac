"""What of a recipe's images would fail before there is a store; see `sciml_dchag.checking`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.files.moments import RunningMoments
from sciml_dchag.plants.prepare.bands import parse_bands
from sciml_dchag.plants.prepare.blocks import ImageToPrepare
from sciml_dchag.plants.prepare.finding import FoundPlants, find_all_plants
from sciml_dchag.plants.prepare.images import to_prepare
from sciml_dchag.plants.prepare.numbering import read_pots
from sciml_dchag.plants.prepare.opening import (
    OpenedImage,
    find_sources,
    open_images,
    used_references,
)
from sciml_dchag.plants.prepare.sampling import SAMPLED_BYTES
from sciml_dchag.plants.prepare.splits import Split, known_images, name_images
from sciml_dchag.plants.recipe import PlantRecipe
from sciml_dchag.plants.store.cubes import SPLITS, CubeStore
from sciml_dchag.plants.store.statistics import add_plants, spectral_statistics
from sciml_dchag.plants.store.writing import block_lines
from sciml_dchag.training.task import Attempt

RequireSize = Callable[[str, tuple[int, int]], None]
"""Given the name of an image and its rows and columns, raises ValueError if they do not do."""
MOST_SEARCHED_BYTES = 2**28
"""Images are read whole where they are not larger together, which takes seconds."""
Together = tuple[dict[str, ImageToPrepare], list[dict[str, Any]]]
"""What is prepared, and its rows of the table."""


def check_before_store(
    recipe: PlantRecipe,
    attempt: Attempt,
    *,
    require_size: RequireSize,
    size: Callable[[], str],
    labels: Callable[[pd.DataFrame], str] | None = None,
    model: Callable[[NDArray[np.float64]], None],
) -> None:
    """Attempt to open what a store is to be prepared from.

    Args:
        recipe: says how it is prepared.
        attempt: called with each check.
        require_size: refuses an image, or a part of it, of a size that does not do.
        size: what is said of images that do.
        labels: what is said of what the user's table knows of the images; None asks nothing of it.
        model: attempts what depends on the bands.
    """
    bands: list[NDArray[np.float64]] = []
    images: dict[str, OpenedImage] = {}
    tables: list[pd.DataFrame] = []
    put_together: list[Callable[[Mapping[str, FoundPlants]], Together]] = []

    def sources() -> str:
        if not recipe.prepare.sources:
            raise ValueError("prepare.sources is empty: name the images.")
        found = find_sources(recipe.prepare)
        names = dict(zip(found.images, name_images(found.images), strict=True))
        nm = parse_bands(recipe.prepare.bands)
        most = SAMPLED_BYTES if _are_small(found.images) else 0
        opened = open_images(recipe.prepare, found, names, nm, most_bytes=most)
        images.update({names[path]: image for path, image in opened.images.items()})
        split = Split.parse(recipe.prepare.split)
        known, _ = known_images(
            recipe.prepare, split, list(opened.images), list(images), recipe.seed
        )
        tables.append(known)
        put_together.append(
            lambda plants: to_prepare(recipe.prepare, opened, names, plants, known, split)
        )
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

    def purposes() -> str:
        given = Split.parse(recipe.prepare.split)
        counts = {
            part: (part_of_all > 0) * len(images)
            for part, part_of_all in zip(SPLITS, given.fractions, strict=True)
        }
        if given.guard is None:
            counts = {part: list(tables[0]["split"]).count(part) for part in SPLITS}
        said = ", ".join(f"{number} for {part}" for part, number in counts.items())
        fix = "choose another prepare.split, or complete the column split of prepare.table"
        if recipe.training.validate_every and not counts["validation"]:
            raise ValueError(
                f"training.validate_every is {recipe.training.validate_every}, but the images are "
                f"{said}: set it to 0, or {fix}."
            )
        alone = "" if counts["test"] else ": `evaluate` and `run` need a test image, `train` none"
        return f"images: {said}{alone}"

    def sizes() -> str:
        split = Split.parse(recipe.prepare.split)
        for name, image in images.items():
            parts = {name: slice(0, image.raw.samples)}
            if split.guard is not None:
                parts = {
                    f"{name}_{part}": c for part, c in split.cut(image.raw.samples, name).items()
                }
            for part, columns in parts.items():
                require_size(part, (image.raw.lines, columns.stop - columns.start))
        return size()

    def plants() -> str:
        if (pots := read_pots(recipe.prepare.pots, [])) is not None:
            for image in images.values():
                pots.at((image.raw.lines, image.raw.samples))
        if not _are_small(image.raw.path for image in images.values()):
            return "plants and their spectra: not looked for, as the images are large"
        found, _ = find_all_plants(recipe.prepare, images, None)
        _require_statistics(*put_together[0](found))
        number = {
            name: len(np.unique(one.labels()[one.labels() > 0])) for name, one in found.items()
        }
        empty = sum(not count for count in number.values())
        without = f", none in {empty} of them" if empty else ""
        return f"plants: {sum(number.values())} in {len(number)} image(s){without}"

    def target() -> str:
        if (nm := parse_bands(recipe.prepare.bands)) is None:
            return "bands: the camera's own; the model's size is known once the store is there"
        bands.append(nm)
        return f"bands: {len(nm)} from {nm[0]:g} to {nm[-1]:g} nm"

    if attempt(sources):
        attempt(purposes)
        attempt(sizes)
        attempt(plants)
        if labels is not None:
            attempt(lambda: labels(tables[0]))
    if attempt(target) and bands:
        model(bands[0])


def _are_small(paths: Iterable[Path]) -> bool:
    """Whether files are so small together that check may read them whole."""
    return sum(path.stat().st_size for path in paths if path.is_file()) <= MOST_SEARCHED_BYTES


def _require_statistics(
    images: Mapping[str, ImageToPrepare], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Work out what training normalises by, as when the store is written.

    Raises:
        ValueError: no training image has a plant, or a band cannot be normalised.
    """
    training = [name for name, row in zip(images, rows, strict=True) if row["split"] == "train"]
    nm = images[training[0]].maker.wavelength_nm
    moments = RunningMoments(len(nm))
    for name in training:
        image = images[name]
        mask = image.found.labels()[:, image.columns] > 0
        first = 0
        for block in image.blocks(block_lines(len(nm), image.width)):
            add_plants(moments, block, mask[first : first + block.shape[1]])
            first += block.shape[1]
    spectral_statistics(moments, nm, training)


def expected_bands(recipe: PlantRecipe) -> NDArray[np.float64]:
    """Return the bands that a recipe will train on, of its store or of what will be in it.

    Raises:
        ValueError: there is no store yet and the recipe does not say its bands.
    """
    if Path(recipe.data.store).exists():
        return CubeStore.open(recipe.data.store).wavelength_nm
    if (nm := parse_bands(recipe.prepare.bands)) is None:
        raise ValueError(
            f"There is no store {recipe.data.store}, and prepare.bands native does not say how "
            f"many bands there are: prepare it first, or set prepare.bands."
        )
    return nm
