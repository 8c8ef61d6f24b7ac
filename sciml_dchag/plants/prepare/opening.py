"""Images on their way into a store, opened: each with its references, calibration and bands.

Whatever can be refused of an image is refused here, before the first one is written. One that is
refused is left out, with the reason, and does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.files.memory import memory_bytes
from sciml_dchag.files.samples import resolve_samples
from sciml_dchag.plants.prepare.bands import BandMaker, derivative_maker, parse_spans, without_bands
from sciml_dchag.plants.prepare.believable import require_believable, spans_of
from sciml_dchag.plants.prepare.calibration import Calibration, calibrate
from sciml_dchag.plants.prepare.config import NO_MASK, PreparePlants
from sciml_dchag.plants.prepare.lost_lines import lost_lines
from sciml_dchag.plants.prepare.mask_files import of_drawings, read_mask
from sciml_dchag.plants.prepare.references import ceiling_for, require_counts
from sciml_dchag.plants.prepare.sampling import SAMPLED_BYTES
from sciml_dchag.plants.prepare.splits import safe_name
from sciml_dchag.plants.read.cube_files import FoundImages, find_images, open_cube
from sciml_dchag.plants.read.own_references import KINDS, Kind, OwnReference
from sciml_dchag.plants.read.raw_cube import RawCube

MASK_SUFFIXES = (".png", ".npy", ".tif", ".tiff")
REFUSED = (ValueError, OSError, ImportError, MemoryError)
"""What an image may be refused with."""


@dataclass(frozen=True, eq=False, kw_only=True)
class OpenedImage:
    """An image that can be prepared."""

    raw: RawCube
    white: RawCube | None
    """Its white reference; None for one that is reflectance."""
    dark: RawCube | None
    calibrate: Callable[[], Calibration]
    """Works out its calibration anew."""
    maker: BandMaker
    derivative: BandMaker | None
    """Makes derivatives of spectra; None for reflectance itself."""
    mask: Path | None
    """A mask that the user gives."""


@dataclass(kw_only=True)
class OpenedImages:
    """All images that were asked for."""

    images: dict[Path, OpenedImage] = field(default_factory=dict)
    """Those that can be prepared, by their file."""
    left_out: dict[Path, Exception] = field(default_factory=dict)
    """Why the others cannot."""
    remarks: list[str] = field(default_factory=list)
    """What had to be assumed, one sentence each."""

    def reasons(self) -> dict[str, str]:
        """Why images are left out, in one line each, by file."""
        return {str(path): " ".join(str(e).split()) for path, e in self.left_out.items()}


def find_sources(config: PreparePlants) -> FoundImages:
    """Find the images of a configuration; what it names otherwise is none."""
    named = [config.white, config.dark, config.pots]
    given = [Path(path) for path in resolve_samples([path for path in named if path])]
    if config.mask not in (None, NO_MASK) and Path(str(config.mask)).exists():
        given.append(Path(str(config.mask)))
    return find_images(config.sources, [path for path in given if path.exists()])


def open_images(
    config: PreparePlants,
    found: FoundImages,
    names: Mapping[Path, str],
    target_nm: NDArray[np.float64] | None,
    *,
    most_bytes: int = SAMPLED_BYTES,
) -> OpenedImages:
    """Open images with their references, and see that they can be prepared.

    Args:
        config: the settings.
        found: the images.
        names: their names in the store, by file.
        target_nm: bands of the store; None for the camera's.
        most_bytes: how much of each image is looked at.

    Raises:
        FileNotFoundError, ValueError: a reference given that cannot be opened, or the reason of the
            first image, where all are refused.
    """
    opened = OpenedImages(left_out=dict(found.failed))
    parse_spans(config.drop_bands)
    drawings: list[str] = []
    references = _References(config)
    for path, name in names.items():
        try:
            image, remarks = _open(path, name, found, config, references, target_nm, most_bytes)
            if image.mask is not None:
                read_mask(image.mask, (image.raw.lines, image.raw.samples), drawings)
        except REFUSED as error:
            opened.left_out[path] = error
            continue
        opened.images[path] = image
        opened.remarks += remarks
    if not opened.images:
        raise next(iter(opened.left_out.values()))
    _require_same_bands(opened)
    opened.remarks += of_drawings(list(dict.fromkeys(drawings)))
    opened.remarks += _on_references(opened, found, references.given[0], config)
    return opened


def _lost_bands(raw: RawCube, made: Calibration) -> list[str]:
    """Say which bands have no value in any column, as where white is saturated."""
    good = np.ones(raw.bands, bool) if raw.good_bands is None else raw.good_bands
    lost = good & ~np.isfinite(made.gain).any(axis=1)
    if not lost.any():
        return []
    spans = spans_of(raw, np.flatnonzero(lost))
    return [
        f"{int(lost.sum())} bands of {made.white_name} cannot be used in any column (saturated, or "
        f"barely above dark) and have no value (NaN): leave them out with `drop_bands={spans}`."
    ]


class _References:
    """References of a configuration and of images, each opened once, as they are averaged once."""

    def __init__(self, config: PreparePlants) -> None:
        self._config = config
        self._opened: dict[Path, RawCube] = {}
        named = (config.white, config.dark)
        self.given = [self.open(Path(resolve_samples([n])[0])) if n else None for n in named]

    def open(self, path: Path) -> RawCube:
        if path not in self._opened:
            self._opened[path] = _open_with(path, self._config)
        return self._opened[path]

    def of(
        self, raw: RawCube, beside: Mapping[Kind, OwnReference]
    ) -> tuple[RawCube | None, RawCube | None]:
        """Choose white and dark of an image: its own before those given.

        Those of its folder give way to one that was given from that folder.
        """
        white, dark = self.given
        unfinished = raw.may_be_counts or raw.radiance
        if not self._config.own_references or (white is None and not unfinished):
            return white, dark
        chosen: list[RawCube | None] = []
        for kind, other in zip(KINDS, self.given, strict=True):
            own = beside.get(kind)
            here = other is not None and _folder(other.path) == _folder(raw.path)
            keep = own is None or (here and not own.of_scan)
            chosen.append(other if keep or own is None else self.open(own.path))
        return (None, None) if chosen[0] is None and white is None else (chosen[0], chosen[1])


def _folder(path: Path) -> Path:
    return path.resolve().parent


def _open(
    path: Path,
    name: str,
    found: FoundImages,
    config: PreparePlants,
    references: _References,
    target_nm: NDArray[np.float64] | None,
    most_bytes: int,
) -> tuple[OpenedImage, list[str]]:
    raw = _open_with(path, config)
    white, dark = references.of(raw, found.references[path])
    if white is not None:  # looked for once, and not each time that the image is calibrated
        for cube, most in ((raw, most_bytes), (white, SAMPLED_BYTES), (dark, SAMPLED_BYTES)):
            if cube is not None:
                require_counts(cube, most)
        ceiling = ceiling_for(raw, white, most_bytes) or raw.saturation
        raw = replace(raw, saturation=ceiling, ceiling_said=True)
    lost, gaps = lost_lines(raw, referenced=white is not None, most_bytes=most_bytes)
    raw = replace(raw, lost_lines=lost)

    def calibration() -> Calibration:
        return calibrate(
            raw, white, dark, white_reflectance=config.white_reflectance,
            references=config.references,
        )  # fmt: skip

    made = calibration()
    maker = BandMaker.for_camera(
        raw, target_nm, response=config.response, merge_bands=config.merge_bands,
        smooth=config.smooth,
    )  # fmt: skip
    derivative = None
    if config.derivative is not None:
        derivative = derivative_maker(maker.wavelength_nm, config.derivative)
    remarks = [remark for cube in (raw, white, dark) if cube for remark in cube.remarks]
    remarks += [
        *gaps,
        *made.remarks,
        *_lost_bands(raw, made),
        *made.doubts(maker.used, raw.wavelength_nm),
    ]
    remarks += require_believable(raw, made, maker.used, most_bytes=most_bytes)
    image = OpenedImage(
        raw=raw, white=white, dark=dark, calibrate=calibration, maker=maker,
        derivative=derivative, mask=_mask_of(config.mask, path, name),
    )  # fmt: skip
    return image, remarks


def _open_with(path: Path, config: PreparePlants) -> RawCube:
    """Open a file, and put what the user says in the place of what the file says."""
    raw = open_cube(path, config.wavelengths)
    raw.require_memory(memory_bytes())
    if config.scale is not None:
        raw = replace(raw, scale=config.scale, band_gain=None, band_offset=None, radiance=False)
    if config.nodata is not None:
        raw = replace(raw, missing=config.nodata)
    if config.bit_depth is not None:
        raw = replace(raw, saturation=2.0**config.bit_depth - 1, ceiling_said=True)
    return without_bands(raw, parse_spans(config.drop_bands))


def _on_references(
    opened: OpenedImages, found: FoundImages, white: RawCube | None, config: PreparePlants
) -> list[str]:
    """Say which references are used in place of those given, and which are not used."""
    said = []
    instead = [
        (path, image.white)
        for path, image in opened.images.items()
        if white is not None and image.white is not None
        and image.white.path.resolve() != white.path.resolve()
    ]  # fmt: skip
    if white is not None and instead:
        names = ", ".join(f"{used.path.name} for {path.name}" for path, used in instead[:5])
        more = f" and {len(instead) - 5} others" if len(instead) > 5 else ""
        said.append(
            f"References that lie beside images are used in place of {white.path.name}: {names}"
            f"{more}. To use those given for all, add `own_references=False`."
        )
    if found.unused:
        names = ", ".join(file.name for file in found.unused[:5])
        more = f" and {len(found.unused) - 5} others" if len(found.unused) > 5 else ""
        said.append(
            f"Named as references, of no image, and not used: {names}{more}. Give a reference with "
            f"`white` or `dark`, or name an image by its file."
        )
    if not config.own_references:
        beside = {own.path for of_image in found.references.values() for own in of_image.values()}
        used = {path.resolve() for path in used_references(opened.images.values())}
        if unused := sorted(path.name for path in beside if path.resolve() not in used):
            said.append(
                f"References beside images are not used, as asked: {', '.join(unused[:5])}."
            )
    return said


def _require_same_bands(opened: OpenedImages) -> None:
    """Refuse images of other bands than most have, or all where no two are alike.

    Raises:
        ValueError: no bands are those of more than half of the images.
    """
    nm = {path: image.maker.wavelength_nm for path, image in opened.images.items()}
    groups: list[list[Path]] = []
    for path, mine in nm.items():
        alike = next((group for group in groups if _same(mine, nm[group[0]])), None)
        if alike is None:
            groups.append([path])
        else:
            alike.append(path)
    most = max(groups, key=len)
    first = nm[most[0]]
    for path in [path for path in nm if path not in most]:
        mine = nm[path]
        error = ValueError(
            f"{most[0].name} has {len(first)} bands from {first[0]:g} to {first[-1]:g} nm and "
            f"{path.name} {len(mine)} from {mine[0]:g} to {mine[-1]:g} nm: bring them to the same "
            f"with `bands`, such as 400-900x500."
        )
        if 2 * len(most) <= len(nm):
            raise error
        opened.left_out[path] = error
        del opened.images[path]


def _same(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return len(one) == len(other) and np.allclose(one, other, rtol=0, atol=1e-3)


def _mask_of(mask: str | None, image: Path, name: str) -> Path | None:
    """Find the mask that the user gives for an image."""
    if mask is None or mask == NO_MASK:
        return None
    path = Path(mask)
    if path.is_dir():
        # A file name that repeats in other folders says nothing; its name in the store does.
        stems = [image.stem] if safe_name(image) == name else [name]
        beside = [path / f"{stem}{suffix}" for stem in stems for suffix in MASK_SUFFIXES]
        there = {f"{file.stem}{file.suffix.lower()}": file for file in path.iterdir()}
        path = next((there[file.name] for file in beside if file.name in there), beside[0])
    return path


def used_references(images: Iterable[OpenedImage]) -> list[Path]:
    """Files of references that are used, each once."""
    files = [cube.path for image in images for cube in (image.white, image.dark) if cube]
    return list(dict.fromkeys(files))
