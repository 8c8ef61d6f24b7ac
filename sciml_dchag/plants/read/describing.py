"""What `inspect` shows of a camera's files: one image, or a folder of scans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sciml_dchag.files.samples import resolve_samples
from sciml_dchag.plants.read.cube_files import (
    ENVI_SUFFIXES,
    MIXED_SUFFIXES,
    OPENERS,
    find_images,
    open_cube,
)
from sciml_dchag.plants.read.hdf5_products import is_known_hdf5
from sciml_dchag.plants.read.raw_cube import RawCube

MOST_LISTED = 20
"""Images of a folder that are listed one by one."""


def describe(path: str) -> dict[str, Any] | None:
    """Describe a hyperspectral image or a folder of them; None where `path` is neither.

    Raises:
        ValueError, OSError: an image that cannot be opened.
    """
    place = Path(resolve_samples([path])[0])
    if place.is_dir():
        return _describe_folder(place)
    if not place.is_file() or not _is_image(place):
        return None
    return {"kind": "hyperspectral image", **facts(open_cube(place))}


def _is_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in MIXED_SUFFIXES:
        return is_known_hdf5(path)
    if suffix in ENVI_SUFFIXES or suffix in OPENERS:
        return True
    return any(path.with_name(path.name + hdr).is_file() for hdr in (".hdr", ".HDR"))


def facts(cube: RawCube) -> dict[str, Any]:
    """What is known of an image before it is prepared."""
    nm = cube.wavelength_nm
    said: dict[str, Any] = {
        "file": str(cube.path),
        "size": f"{cube.lines} lines x {cube.samples} samples x {cube.bands} bands",
        "type": cube.dtype.name,
        "wavelengths": f"{nm.min():g} to {nm.max():g} nm",
    }
    if cube.fwhm_nm is not None:
        said["width of bands"] = f"{cube.fwhm_nm.min():g} to {cube.fwhm_nm.max():g} nm"
    if cube.good_bands is not None:
        said["bad bands"] = int((~cube.good_bands).sum())
    said["exposure"] = "not said" if cube.exposure_ms is None else f"{cube.exposure_ms:g} ms"
    said |= dict(cube.settings)
    said["scale"] = "by band" if cube.band_gain is not None else f"{cube.scale:g}"
    said["no data"] = "not said" if cube.missing is None else f"{cube.missing:g}"
    if cube.ceiling_said:
        said["saturation"] = f"{cube.saturation:g}"
    if cube.radiance:
        said["quantity"] = "radiance, by its header"
    if cube.simulated:
        said["simulated"] = "yes, not an observation"
    if cube.remarks:
        said["remarks"] = list(cube.remarks)
    return said


def _describe_folder(folder: Path) -> dict[str, Any] | None:
    if (folder / "zarr.json").exists() or (folder / ".zgroup").exists():
        return None
    try:
        found = find_images([folder])
    except FileNotFoundError:
        return None
    except ValueError as error:
        return {"kind": "folder of hyperspectral images", "not an image": [str(error)]}
    images, odd = [], [str(error) for error in found.failed.values()]
    for path in found.images[:MOST_LISTED]:
        try:
            cube = open_cube(path)
        except (ValueError, OSError, ImportError) as error:
            odd.append(" ".join(str(error).split()))
            continue
        own = [f"{kind} {own.path.name}" for kind, own in found.references[path].items()]
        beside = f", {' and '.join(own)}" if own else ""
        images.append(
            f"{path.relative_to(folder)} ({cube.lines} x {cube.samples}, {cube.bands} bands, "
            f"{cube.dtype.name}{beside})"
        )
    if not images:
        return None if not found.failed else {
            "kind": "folder of hyperspectral images", "cannot be read": odd,
        }  # fmt: skip
    more = len(found.images) - MOST_LISTED
    said: dict[str, Any] = {
        "kind": "folder of hyperspectral images",
        "number of images": len(found.images),
        "images": images + ([f"and {more} others"] if more > 0 else []),
    }
    if found.unused:
        said["references of no image"] = [path.name for path in found.unused]
    if odd:
        said["cannot be read"] = odd
    return said
