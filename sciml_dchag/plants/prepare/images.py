"""Raw hyperspectral images to a plant store ready for training: `prepare_plants`.

Opening the files is `cube_files`' work, reflectance `calibration`'s, bands `bands`', plants
`plant_mask`'s, what an image is for `splits`', writing `data.cube_writing`'s; here they are put in
order.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag._version import __version__
from sciml_dchag.config.knobs import takes
from sciml_dchag.config.mapping import to_mapping
from sciml_dchag.files.digests import sampled_digest
from sciml_dchag.files.places import check_place
from sciml_dchag.files.resumable import Progress
from sciml_dchag.files.samples import attribution_of, resolve_samples
from sciml_dchag.plants.prepare.bands import BandMaker, parse_bands
from sciml_dchag.plants.prepare.blocks import ImageToPrepare
from sciml_dchag.plants.prepare.calibration import Calibration, calibrate
from sciml_dchag.plants.prepare.config import NO_MASK, PreparePlants
from sciml_dchag.plants.prepare.plant_mask import read_mask
from sciml_dchag.plants.prepare.splits import Split, assign, name_images, read_table
from sciml_dchag.plants.read.cube_files import expand_cubes, open_cube
from sciml_dchag.plants.read.raw_cube import RawCube
from sciml_dchag.plants.store.new_cube import NewCube
from sciml_dchag.plants.store.writing import PLANT_STORE, write_cubes

_NOT_SETTINGS = {"sources", "white", "dark", "wavelengths", "table", "attribution", "quicklooks"}
"""Knobs that name files, which are described beside the settings, or change no reflectance."""
MOST_REMARKS = 5
"""Remarks of one kind of file that are worth a warning each."""


@takes(PreparePlants)
def prepare_plants(
    sources: Sequence[str],
    out: str | Path,
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
        ValueError: images, references, table or settings are refused; nothing is left behind.
        OSError: the disk is full; what is finished is kept.
    """
    config = PreparePlants(sources=tuple(sources), **knobs)
    settings = {
        key: value for key, value in to_mapping(config).items() if key not in _NOT_SETTINGS
    } | {"seed": seed}
    out = Path(out)
    check_place(out, PLANT_STORE, overwrite)
    parts, target_nm = Split.parse(config.split), parse_bands(config.bands)
    references_given = [_reference(source) for source in (config.white, config.dark)]
    given = [path for path in references_given if path is not None]
    paths = expand_cubes(config.sources, given)
    names = name_images(paths)
    known = pd.DataFrame(index=pd.Index(names, name="cube"))
    if config.table is not None:
        known = read_table(Path(config.table), paths, names)
    if parts.guard is None:
        known["split"] = assign(known, parts, config.group_by, seed, config.table)
    raws = [open_cube(path, config.wavelengths) for path in paths]
    white_cube, dark_cube = (
        None if path is None else open_cube(path, config.wavelengths) for path in references_given
    )

    def calibration_of(raw: RawCube) -> Calibration:
        return calibrate(
            raw, white_cube, dark_cube, white_reflectance=config.white_reflectance,
            references=config.references,
        )  # fmt: skip

    # What can be refused is refused for all images before the first one is written.
    remarks = [remark for raw in (*raws, white_cube, dark_cube) if raw for remark in raw.remarks]
    images: dict[str, ImageToPrepare] = {}
    rows: list[dict[str, Any]] = []
    for path, name, raw in zip(paths, names, raws, strict=True):
        remarks += calibration_of(raw).remarks
        maker = BandMaker.for_camera(
            raw, target_nm, response=config.response, merge_bands=config.merge_bands,
            smooth=config.smooth,
        )  # fmt: skip
        whole = ImageToPrepare(
            raw=raw, calibrate=partial(calibration_of, raw), maker=maker,
            columns=slice(0, raw.samples), mask=_mask_of(config.mask, path, raw),
            everything=config.mask == NO_MASK, index=config.index, plants=config.plants,
            clip=config.clip, snv=config.snv,
            draw=config.quicklooks,
        )  # fmt: skip
        row = {str(key): value for key, value in known.loc[name].items()}
        if parts.guard is None:
            images[name] = whole
            rows.append(row)
            continue
        for purpose, columns in parts.cut(raw.samples, name).items():
            images[f"{name}_{purpose}"] = replace(whole, columns=columns)
            rows.append({**row, "split": purpose})
    _require_same_bands(list(images.values()))
    if not any(row["split"] == "train" for row in rows):
        raise ValueError("No image is for training: choose another `split`.")
    _warn(remarks)
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
        "quantity": "standard normal variate of reflectance" if config.snv else "reflectance",
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
                    *(image.mask for image in images.values()),
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


def _reference(source: str | None) -> Path | None:
    return None if source is None else Path(resolve_samples([source])[0])


def _digests(sources: Sequence[object]) -> dict[str, str]:
    """SHA-256 of those of the sources that are files, by path."""
    paths = {str(source) for source in sources if isinstance(source, str | Path)}
    return {path: sampled_digest(path) for path in sorted(paths) if Path(path).is_file()}


def _described(path: Path) -> dict[str, Any]:
    """A source without its hash, which is taken while it is read; changed files differ in time."""
    stat = path.stat()
    return {"path": path.name, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}


def _require_same_bands(images: Sequence[ImageToPrepare]) -> None:
    first: NDArray[np.float64] = images[0].maker.wavelength_nm
    for image in images:
        other = image.maker.wavelength_nm
        if len(other) != len(first) or not np.allclose(other, first, rtol=0, atol=1e-3):
            raise ValueError(
                f"{images[0].raw.path.name} has {len(first)} bands from {first[0]:g} to "
                f"{first[-1]:g} nm and {image.raw.path.name} {len(other)} from {other[0]:g} to "
                f"{other[-1]:g} nm: bring them to the same with `bands`, such as 400-900x500."
            )


def _mask_of(mask: str | None, image: Path, raw: RawCube) -> Path | None:
    """Find the mask that the user gives for an image, and see that it fits."""
    if mask is None or mask == NO_MASK:
        return None
    path = Path(mask)
    if path.is_dir():
        beside = [path / f"{image.stem}{suffix}" for suffix in (".png", ".npy", ".tif", ".tiff")]
        path = next((file for file in beside if file.is_file()), beside[0])
    read_mask(path, (raw.lines, raw.samples))
    return path


def _warn(remarks: Sequence[str]) -> None:
    told = list(dict.fromkeys(remarks))
    for remark in told[:MOST_REMARKS]:
        warnings.warn(remark, stacklevel=3)
    if len(told) > MOST_REMARKS:
        warnings.warn(f"... and {len(told) - MOST_REMARKS} remarks like these.", stacklevel=3)
