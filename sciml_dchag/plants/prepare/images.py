"""Raw hyperspectral images to a plant store ready for training: `prepare_plants`.

Opening files with their references and bands is `opening`'s work, plants `finding`'s, what an
image is for `splits`', reflectance `blocks`', writing `store.writing`'s; here they are put in
order.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from sciml_dchag._version import __version__
from sciml_dchag.config.common import require_at_least
from sciml_dchag.config.knobs import takes
from sciml_dchag.config.mapping import from_keywords, of_kind, to_mapping
from sciml_dchag.files.digests import sampled_digest
from sciml_dchag.files.places import check_place
from sciml_dchag.files.resumable import Progress
from sciml_dchag.files.samples import Sources, attribution_of, resolve_samples, several
from sciml_dchag.plants.prepare.bands import parse_bands
from sciml_dchag.plants.prepare.blocks import ImageToPrepare
from sciml_dchag.plants.prepare.config import PreparePlants
from sciml_dchag.plants.prepare.finding import FoundPlants, find_all_plants, require_in_part
from sciml_dchag.plants.prepare.opening import (
    OpenedImages,
    find_sources,
    open_images,
    used_references,
)
from sciml_dchag.plants.prepare.splits import Split, known_images, name_images
from sciml_dchag.plants.read.raw_cube import BrokenImageError, read_lines
from sciml_dchag.plants.store.new_cube import NewCube
from sciml_dchag.plants.store.writing import PLANT_STORE, write_cubes

_NOT_SETTINGS = {"sources", "white", "dark", "wavelengths", "table", "attribution", "quicklooks"}
"""Knobs that name files, which are described beside the settings, or change no reflectance."""
MOST_REMARKS = 5
"""Remarks of one kind of file that are worth a warning each."""


@takes(PreparePlants)
def prepare_plants(
    sources: Sources,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
    **knobs: Any,
) -> Path:
    """Calibrate images to reflectance, find their plants, and write a store with statistics.

    A call that was interrupted resumes with the images that are not finished when it is repeated.

    Args:
        sources: images, patterns, folders, or `sample:NAME`.
        out: the store's place.
        seed: of the draw of images for training, validation and test.
        overwrite: replace a store at `out`.
        progress: called as the work goes on.
        **knobs: as below.

    Returns:
        `out`.

    Raises:
        FileExistsError: `out` exists and `overwrite` is off.
        FileNotFoundError: a file does not exist.
        ValueError: all images, or the table or settings, are refused; nothing is left behind. Some
            images that are refused are left out with a warning, and listed in the store's attribute
            `left_out`.
        OSError: the disk is full; what is finished is kept.
    """
    config = from_keywords(PreparePlants, {"sources": several(sources), **knobs})
    overwrite, seed = of_kind(bool, overwrite, "overwrite"), of_kind(int, seed, "seed")
    require_at_least(0, "seed", seed)
    settings = {
        key: value for key, value in to_mapping(config).items() if key not in _NOT_SETTINGS
    } | {"seed": seed}
    out = Path(out)
    check_place(out, PLANT_STORE, overwrite)
    parts, target_nm = Split.parse(config.split), parse_bands(config.bands)
    there = find_sources(config)
    names = dict(zip(there.images, name_images(there.images), strict=True))
    # What can be refused is refused of all images before the first one is written.
    opened = open_images(config, there, names, target_nm)
    while True:
        try:
            written = _write(config, opened, names, parts, settings, out, overwrite, progress)
            break
        except BrokenImageError as broken:
            _leave_out_broken(opened, broken)
    for path, reason in opened.reasons().items():
        warnings.warn(f"{Path(path).name} is left out: {reason}", stacklevel=2)
    return written


def _leave_out_broken(opened: OpenedImages, broken: BrokenImageError) -> None:
    """Leave out an image that broke while it was written, and all others that do not end well.

    Raises:
        BrokenImageError: no image is left.
    """
    for path, image in list(opened.images.items()):
        try:
            if image.raw.path == broken.path:
                raise broken
            # All broken ones now, so that writing begins again once.
            read_lines(image.raw, slice(image.raw.lines - 1, image.raw.lines))
        except BrokenImageError as error:
            opened.left_out[path] = error
            del opened.images[path]
    if not opened.images:
        raise broken


def _write(
    config: PreparePlants,
    opened: OpenedImages,
    names: Mapping[Path, str],
    parts: Split,
    settings: Mapping[str, Any],
    out: Path,
    overwrite: bool,
    progress: Progress | None,
) -> Path:
    """Find the plants of opened images, and write the store.

    Raises:
        BrokenImageError: an image cannot be read to its end.
    """
    paths = list(opened.images)
    known, remarks = known_images(
        config, parts, paths, [names[path] for path in paths], settings["seed"]
    )
    opened.remarks += remarks
    found, remarks = find_all_plants(
        config, {names[path]: image for path, image in opened.images.items()}, progress
    )
    images, rows = to_prepare(config, opened, names, found, known, parts)
    _warn([*opened.remarks, *remarks])
    opened.remarks.clear()  # said once, should an image break and writing begin again
    raws = [image.raw for image in opened.images.values()]
    given = used_references(opened.images.values())
    maker = next(iter(opened.images.values())).maker
    nm = maker.wavelength_nm
    simulated = any(raw.simulated for raw in raws)
    attribution = config.attribution or (
        "Synthetic, not an observation." if simulated else attribution_of(config.sources)
    )
    attrs = {
        "title": f"{'Simulated plant' if simulated else 'Plant'} images, {len(images)} of "
        f"{len(nm)} bands, {nm[0]:g} to {nm[-1]:g} nm",
        "attribution": attribution,
        "simulated": int(simulated),
        **({} if config.pixel_mm is None else {"pixel_mm": config.pixel_mm}),
        **({"left_out": opened.reasons()} if opened.left_out else {}),
        "quantity": _quantity(config),
        "provenance": {
            "sources": [_described(path) for path in [*paths, *given]],
            "package": f"sciml-dchag {__version__}",
            "settings": settings,
            # Paths say nothing of a file that is edited while the store is being written.
            "files": _digests(
                [
                    config.white_reflectance,
                    config.wavelengths,
                    config.bands,
                    config.table,
                    config.pots,
                    *(image.mask for image in opened.images.values()),
                ]
            ),
        },
    }
    return write_cubes(
        [_new_cube(name, image, attribution) for name, image in images.items()],
        out,
        wavelength_nm=nm,
        table=pd.DataFrame(rows, index=pd.Index(list(images), name="cube")),
        attrs=attrs,
        overwrite=overwrite,
        progress=progress,
    )


def to_prepare(
    config: PreparePlants,
    opened: OpenedImages,
    names: Mapping[Path, str],
    found: Mapping[str, FoundPlants],
    known: pd.DataFrame,
    parts: Split,
) -> tuple[dict[str, ImageToPrepare], list[dict[str, Any]]]:
    """Put together what is prepared, each image or its parts, with its row of the table.

    Args:
        config: the settings.
        opened: the images.
        names: their names in the store, by file.
        found: their plants, by name.
        known: what is known of them, from `splits.known_images`.
        parts: how they are split.

    Returns:
        What is prepared by its name in the store, and the row of each.

    Raises:
        ValueError: a part of an image without a plant.
    """
    images: dict[str, ImageToPrepare] = {}
    rows: list[dict[str, Any]] = []
    for path, image in opened.images.items():
        name = names[path]
        both = (("white", image.white), ("dark", image.dark))
        whole = ImageToPrepare(
            raw=image.raw, calibrate=image.calibrate, maker=image.maker,
            references={kind: cube.path.name for kind, cube in both if cube is not None},
            columns=slice(0, image.raw.samples), found=found[name], clip=config.clip,
            snv=config.snv, derivative=image.derivative, draw=config.quicklooks,
        )  # fmt: skip
        row = {str(key): value for key, value in known.loc[name].items()}
        if parts.guard is None:
            images[name] = whole
            rows.append(row)
            continue
        for purpose, columns in parts.cut(image.raw.samples, name).items():
            require_in_part(found[name].labels(), columns, path)
            images[f"{name}_{purpose}"] = replace(whole, columns=columns)
            rows.append({**row, "split": purpose})
    return images, rows


def _new_cube(name: str, image: ImageToPrepare, attribution: str) -> NewCube:
    return NewCube(
        name=name,
        rows=image.raw.lines,
        columns=image.width,
        mask=image.mask_to_write,
        blocks=image.blocks,
        attrs=image.attrs,
        finish=lambda store: image.draw_into(store, name, attribution),
    )


def _quantity(config: PreparePlants) -> str:
    """What a store's values are."""
    if config.derivative is not None:
        return "first derivative of reflectance, its change from band to band"
    return "standard normal variate of reflectance" if config.snv else "reflectance"


def _digests(sources: Sequence[object]) -> dict[str, str]:
    """SHA-256 of those of the sources that are files, by path."""
    paths = set(resolve_samples([str(s) for s in sources if isinstance(s, str | Path)]))
    return {path: sampled_digest(path) for path in sorted(paths) if Path(path).is_file()}


def _described(path: Path) -> dict[str, Any]:
    """A source without its hash, which is taken while it is read; changed files differ in time."""
    stat = path.stat()
    return {"path": path.name, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}


def _warn(remarks: Sequence[str]) -> None:
    unique = list(dict.fromkeys(remarks))
    for remark in unique[:MOST_REMARKS]:
        warnings.warn(remark, stacklevel=3)
    if len(unique) > MOST_REMARKS:
        warnings.warn(f"... and {len(unique) - MOST_REMARKS} remarks like these.", stacklevel=3)
