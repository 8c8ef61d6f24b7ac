"""The plants of all images, found and numbered before the first image is written.

All images are needed for numbers that last: the same pot has the same number in every image of a
series. What was found is kept packed, as images may be many.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.files.resumable import Progress
from sciml_dchag.plants.prepare import plant_mask
from sciml_dchag.plants.prepare.config import NO_MASK, PreparePlants
from sciml_dchag.plants.prepare.mask_files import of_drawings, read_mask
from sciml_dchag.plants.prepare.numbering import (
    Labels,
    Place,
    Pots,
    by_pots,
    in_series,
    read_pots,
    row_by_row,
)
from sciml_dchag.plants.prepare.opening import OpenedImage
from sciml_dchag.plants.read.raw_cube import read_lines

_MASK_LINES = 32
NO_PLANT = "no plant"
"""How plants of an image without one are said to be found."""
MOST_NAMED = 5
LEAST_SIMILAR, SIMILAR, MUCH_LARGER = 3, 2.0, 1.5
"""An object is taken for touching plants where it is larger by the third number than the next of at
least so many others, whose sizes differ by no more than the second."""
MOST_OF_BORDER = 0.9
"""A mask whose plant has so much of the image's border may be one of the background."""
LEAST_GREEN = 0.005
"""A smaller fraction of an image that is green says nothing of a mask."""
MOST_OF_PLANTS = 1.1
"""No plant reflects more in the median."""
MOSTLY_KNOWN = 0.5
"""Bands that have a value in fewer columns, as where white is saturated, show no plants."""


@dataclass(frozen=True, kw_only=True)
class FoundPlants:
    """The plants of an image, packed."""

    shape: tuple[int, int]
    packed: bytes
    """Numbers of plants, int32, compressed."""
    details: dict[str, Any] = field(default_factory=dict)
    """How plants were separated from background and numbered, for the store's attributes."""
    doubt: str = ""
    """Why there are none, or what is doubtful."""

    @classmethod
    def of(cls, labels: Labels, details: dict[str, Any], doubt: str = "") -> FoundPlants:
        """Pack labels, (lines, columns)."""
        packed = zlib.compress(np.ascontiguousarray(labels, np.int32).tobytes(), 1)
        return cls(
            shape=(labels.shape[0], labels.shape[1]), packed=packed, details=details, doubt=doubt
        )

    def labels(self) -> Labels:
        """0 for background, and the number of the plant, (lines, columns)."""
        return np.frombuffer(zlib.decompress(self.packed), np.int32).reshape(self.shape)


def find_all_plants(
    config: PreparePlants, images: Mapping[str, OpenedImage], progress: Progress | None
) -> tuple[dict[str, FoundPlants], list[str]]:
    """Find the plants of all images and number them.

    Args:
        config: the settings.
        images: by name.
        progress: called after each image.

    Returns:
        Plants by image, and remarks.

    Raises:
        ValueError: no image has a plant, or pots of another size than an image.
        FileNotFoundError: there is no label image of the pots.
    """
    drawings: list[str] = []
    pots = read_pots(config.pots, drawings)
    found: dict[str, FoundPlants] = {}
    for done, (name, image) in enumerate(images.items(), start=1):
        found[name] = _plants_of(config, image, pots)
        if progress is not None:
            progress(done, len(images), "finding plants")
    empty = [plants for plants in found.values() if not plants.labels().any()]
    if len(empty) == len(found):
        seen = any(plants.details["mask"] != NO_PLANT for plants in empty)
        raise ValueError(
            "No image has a plant in one of the pots: look at `pots`." if seen else empty[0].doubt
        )
    remarks = of_drawings(drawings)
    if config.mask is None and pots is None:
        remarks += _number_series(found)
    remarks += [plants.doubt for plants in found.values() if plants.doubt]
    return found, remarks


def _plants_of(config: PreparePlants, image: OpenedImage, pots: Pots | None) -> FoundPlants:
    raw = image.raw
    shape = (raw.lines, raw.samples)
    doubts, details = list[str](), dict[str, Any]()
    if config.mask == NO_MASK:
        labels, details["mask"] = np.ones(shape, np.int32), "none: all pixels are plant 1"
    elif image.mask is not None:
        labels, details["mask"] = read_mask(image.mask, shape, []), f"given: {image.mask.name}"
        doubts += _exchanged(labels, image.mask.name) or _elsewhere(image, labels)
    else:
        try:
            colours = _colours(image)
            seen = plant_mask.segment(colours, raw.path.name, config.index, config.plants)
        except plant_mask.NoPlantError as error:
            return FoundPlants.of(np.zeros(shape, np.int32), {"mask": NO_PLANT}, str(error))
        labels = seen.plants
        details = {"mask": seen.index, "mask_threshold": seen.threshold}
        if pots is None and config.plants is None:
            doubts += _much_larger(labels, raw.path.name)
        doubts += _too_bright(colours, labels, raw.path.name)
    if pots is not None:
        labels, beside = by_pots(labels, pots.at(shape))
        details |= {"numbers": f"by pots: {pots.source}"}
        if beside:
            doubts.append(
                f"{raw.path.name} has {beside} pixels of plants in no pot, which are left out."
            )
    return FoundPlants.of(labels, details, " ".join(doubts))


def _exchanged(labels: Labels, name: str) -> list[str]:
    """Say that a mask's one plant lies around what is none; else nothing."""
    border = np.concatenate([labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1]]) > 0
    if labels.max() != 1 or labels.all() or border.mean() < MOST_OF_BORDER:
        return []
    return [
        f"The mask {name} takes {border.mean():.0%} of the image's border for plant: look whether "
        f"plant and background are exchanged in it."
    ]


def _elsewhere(image: OpenedImage, labels: Labels) -> list[str]:
    """Say that what is green lies beside the mask's plants and not on them; else nothing.

    A mask of an image turned or mirrored, or of another one of the same size, fits as well.
    """
    green = plant_mask.green_pixels(_colours(image))
    plants = labels > 0
    if green is None or not green[~plants].sum() > green[plants].sum():
        return []
    if green[plants].mean() > 0.5 or green.mean() < LEAST_GREEN:
        return []
    assert image.mask is not None
    return [
        f"The mask {image.mask.name} has {green[plants].mean():.0%} green pixels on its plants, "
        f"and {green[~plants].sum() / green.sum():.0%} of what is green in {image.raw.path.name} "
        f"lies beside them: look whether it is that image's, and not turned or mirrored."
    ]


def _too_bright(colours: Mapping[str, NDArray[np.float32]], labels: Labels, name: str) -> list[str]:
    """Say that most of the plants reflects more than a white panel; else nothing."""
    level = max(
        (float(np.nanmedian(of_span[labels > 0])) for of_span in colours.values()), default=0.0
    )
    if not level > MOST_OF_PLANTS:
        return []
    return [
        f"The plants of {name} reflect {level:.2g} in the median, more than a perfect panel: "
        f"look at its white reference, at `white_reflectance` and at whether they are nearer to "
        f"the lamp."
    ]


def _much_larger(labels: Labels, name: str) -> list[str]:
    """Say that one object is as large as several others, which differ little; else nothing."""
    sizes = np.bincount(labels.ravel())[1:]
    order = np.argsort(sizes)[::-1]
    others = sizes[order[1:]]
    if len(others) < LEAST_SIMILAR or others[0] > SIMILAR * others[-1]:
        return []
    if sizes[order[0]] < MUCH_LARGER * others[0]:
        return []
    return [
        f"Plant {order[0] + 1} of {name} is {sizes[order[0]] / np.median(others):.1f} times as "
        f"large as the others, as if plants touched, which are one without `pots`: look at its "
        f"picture."
    ]


def _number_series(found: dict[str, FoundPlants]) -> list[str]:
    """Give plants of a series the number of their place, the same in all images."""
    places = {name: _places(plants.labels()) for name, plants in found.items()}
    shared = None
    if len({plants.shape for plants in found.values()}) == 1:
        shared = in_series({name: [place for place, _ in of] for name, of in places.items()})
    if shared is None:
        for name, plants in found.items():
            details = {**plants.details, "numbers": "row by row in the image"}
            found[name] = replace(plants, details=details)
        return []
    sites: dict[int, list[tuple[Place, float]]] = {}
    for name, of_image in places.items():
        for site, place in zip(shared[name], of_image, strict=True):
            sites.setdefault(site, []).append(place)
    order = sorted(sites)
    middle = [_mean([place for place, _ in sites[site]]) for site in order]
    heights = [float(np.median([height for _, height in sites[site]])) for site in order]
    numbers = dict(zip(order, row_by_row(middle, heights), strict=True))
    places_of = {numbers[site]: middle[i] for i, site in enumerate(order)}
    touching: list[str] = []
    for name, plants in found.items():
        labels = plants.labels()
        new = np.zeros(1 + int(labels.max()), np.int32)
        new[1:] = [numbers[site] for site in shared[name]]
        renumbered = new[labels]
        touching += _touching(name, renumbered, places_of)
        details = {**plants.details, "numbers": f"by place in {len(found)} images"}
        found[name] = FoundPlants.of(renumbered, details, plants.doubt)
    return touching[:MOST_NAMED]


def _places(labels: Labels) -> list[tuple[Place, float]]:
    """Centroid (y, x) and height of each plant 1, 2, ...."""
    from skimage.measure import regionprops

    return [
        ((float(r.centroid[0]), float(r.centroid[1])), float(r.bbox[2] - r.bbox[0]))
        for r in regionprops(labels)
    ]


def _mean(places: Sequence[Place]) -> Place:
    y, x = np.mean(np.asarray(places), axis=0)
    return float(y), float(x)


def _touching(name: str, labels: Labels, places: Mapping[int, Place]) -> list[str]:
    """Say where one object covers the places of several plants."""
    said = []
    for number, (y, x) in places.items():
        here = int(labels[round(y), round(x)])
        if here not in (0, number) and not (labels == number).any():
            said.append(
                f"Plant {here} of {name} covers the place of plant {number} too, as if they "
                f"touched: separate pots with `pots`."
            )
    return said


def _colours(image: OpenedImage) -> dict[str, NDArray[np.float32]]:
    """Mean reflectance of the whole image in the few bands that show plants."""
    raw = image.raw
    calibration = image.calibrate()
    good = np.ones(raw.bands, bool) if raw.good_bands is None else raw.good_bands
    known = good & (np.isfinite(calibration.gain).mean(axis=1) > MOSTLY_KNOWN)
    usable = np.flatnonzero(known if known.any() else good)
    spans = plant_mask.index_bands(raw.wavelength_nm[usable])
    of_span = {name: usable[span] for name, span in spans.items()}
    used = np.unique(np.concatenate(list(of_span.values())))
    calibration = calibration.select(used, slice(None))
    place = {name: np.searchsorted(used, span) for name, span in of_span.items()}
    shape = (raw.lines, raw.samples)
    colours = {name: np.empty(shape, np.float32) for name in spans}
    line_buffer = np.empty((len(used), shape[1]), np.float32)
    for first in range(0, shape[0], _MASK_LINES):
        block = read_lines(raw, slice(first, min(first + _MASK_LINES, shape[0])))
        for line, numbers in enumerate(block, start=first):
            calibration.apply(numbers.T[used], line_buffer)
            for name, where in place.items():
                colours[name][line] = line_buffer[where].mean(axis=0)
    for colour in colours.values():
        colour[sorted(raw.lost_lines)] = np.nan
    return colours


def require_in_part(labels: Labels, columns: slice, path: Path) -> None:
    """Refuse a part of an image without a plant.

    Raises:
        ValueError: there is none in these columns.
    """
    if not labels[:, columns].any():
        raise ValueError(
            f"Columns {columns.start} to {columns.stop - 1} of {path.name} hold no plant: choose "
            f"another `split`."
        )
