"""Writing reconstructions of whole images: a plant store and ENVI files, image by image.

What the model makes of a pixel is the mean over the passes that hid it; none has seen it. An
interrupted call goes on with the images that are not finished when it is repeated.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sciml_dchag._version import __version__
from sciml_dchag.files.digests import sampled_digest
from sciml_dchag.files.resumable import Progress
from sciml_dchag.files.zarr_groups import partial_path
from sciml_dchag.plants.masked.reconstructor import Reconstructor
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.store.new_cube import NewCube
from sciml_dchag.plants.store.writing import write_cubes

RECONSTRUCTED = "reconstructed"
"""The word in a header by which a reconstruction is recognised."""
ENVI_FOLDER = "envi"
"""Where the ENVI files lie, beside the store."""


def find_stores(path: Path) -> list[Path]:
    """Resolve a plant store, or a folder of some, to the stores.

    Raises:
        FileNotFoundError: there is none.
    """
    if (path / "zarr.json").exists() or not path.is_dir():
        return [path]
    stores = sorted(p for p in path.glob("*.zarr") if (p / "zarr.json").exists())
    if not stores:
        raise FileNotFoundError(
            f"There is no store NAME.zarr in {path}: write one with `sciml-dchag prepare plants`."
        )
    return stores


def reconstruct_store(
    checkpoint: str | os.PathLike[str],
    store_path: str | os.PathLike[str],
    out: Path,
    *,
    batch: int = 8,
    overwrite: bool = False,
    device: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Reconstruct every image of a store into `out/NAME.zarr` and `out/envi/`.

    Args:
        checkpoint: a checkpoint or run folder of a masked autoencoder.
        store_path: the images.
        out: a folder.
        batch: passes that are computed at once.
        overwrite: replace reconstructions that are there.
        device: as `parallel.device`; None is the run's.
        progress: called for lines.

    Returns:
        The store of reconstructions.

    Raises:
        FileNotFoundError: no checkpoint or store.
        FileExistsError: the reconstructions are there and `overwrite` is off.
        ValueError: checkpoint and store do not fit together.
        OSError: the disk is full; what is finished is kept.
    """
    store = CubeStore.open(store_path)
    model = Reconstructor(checkpoint, store, device)
    for cube in store.names:  # refused before work starts
        model.tiles(cube)
    envi = out / ENVI_FOLDER
    _refuse_foreign_images(envi, store.names)
    provenance = {
        "checkpoint": str(model.path),
        "step": model.step,
        "store": str(store.path),
        "checkpoint_digest": sampled_digest(model.path),
        "store_digest": sampled_digest(store.path),
        "package": f"sciml-dchag {__version__}",
    }
    cubes = [_new_cube(model, cube, envi, batch) for cube in store.names]
    return write_cubes(
        cubes,
        out / store.path.name,
        wavelength_nm=store.wavelength_nm,
        table=store.table,
        attrs={
            "title": f"Reconstructed: {store.attrs.get('title', store.path.name)}",
            "attribution": store.attribution,
            "simulated": int(store.simulated),
            "quantity": f"reconstructed {store.attrs.get('quantity', 'reflectance')}",
            "provenance": provenance,
        },
        overwrite=overwrite,
        progress=progress,
    )


def _refuse_foreign_images(envi: Path, cubes: Iterable[str]) -> None:
    """Refuse to replace ENVI files that are no reconstructions.

    Raises:
        FileExistsError: there is such a file.
    """
    for image in (envi / f"{cube}.img" for cube in cubes):
        header = image.with_suffix(".hdr")
        ours = header.is_file() and RECONSTRUCTED in header.read_text("utf-8", "replace")
        # An image is renamed after its header is there.
        if (image.exists() or header.exists()) and not ours:
            raise FileExistsError(
                f"{image if image.exists() else header} exists and is no reconstruction, which "
                f"alone is replaced: choose another folder."
            )


def _new_cube(model: Reconstructor, cube: str, envi: Path, batch: int) -> NewCube:
    store = model.store
    rows, columns = store.size(cube)
    image = envi / f"{cube}.img"

    def blocks(lines: int) -> Iterator[NDArray[np.float32]]:
        envi.mkdir(parents=True, exist_ok=True)
        with partial_path(image).open("wb") as file:
            for block in _in_runs(_strips(model, cube, batch), lines):
                # Line by line, as cameras write: (lines, C, columns).
                file.write(np.ascontiguousarray(block.transpose(1, 0, 2), "<f4").tobytes())
                yield block

    def finish(_: Path) -> None:
        header = envi_header(store, cube, rows, columns)
        image.with_suffix(".hdr").write_text(header, encoding="utf-8")
        partial_path(image).replace(image)

    return NewCube(
        name=cube,
        rows=rows,
        columns=columns,
        mask=lambda: store.plants(cube),
        blocks=blocks,
        attrs=lambda: {"reconstructed_from": store.path.name},
        finish=finish,
    )


def _strips(model: Reconstructor, cube: str, batch: int) -> Iterator[NDArray[np.float32]]:
    """Reconstruct an image by rows of crops: (C, lines, columns), one after the other."""
    store = model.store
    _, columns = store.size(cube)
    bands, height = len(store.channels), model.config.image_size[0]
    tiles = list(enumerate(model.tiles(cube)))
    done = 0
    for start in sorted({tile.rows.start for _, tile in tiles}):
        strip = np.empty((bands, height, columns), np.float32)
        for index, tile in tiles:
            if tile.rows.start == start:
                reflectance = store.reflectance(cube, rows=tile.rows, columns=tile.columns)
                strip[:, :, tile.columns] = _mean_of_hidden(model, reflectance, index, batch)
        yield strip[:, done - start :]
        done = start + height


def _mean_of_hidden(
    model: Reconstructor, reflectance: NDArray[np.float32], index: int, batch: int
) -> NDArray[np.float32]:
    total = np.zeros(reflectance.shape)
    count = np.zeros(reflectance.shape, np.int32)
    for one in model.reconstruct(reflectance, index, batch):
        total[one.hidden] += one.predicted[one.hidden]
        count += one.hidden
    assert count.min() > 0
    return (total / count).astype(np.float32)


def _in_runs(strips: Iterable[NDArray[np.float32]], lines: int) -> Iterator[NDArray[np.float32]]:
    """Cut strips of any height into runs of so many lines, the last one shorter."""
    waiting: NDArray[np.float32] | None = None
    for strip in strips:
        waiting = strip if waiting is None else np.concatenate([waiting, strip], axis=1)
        while waiting.shape[1] >= lines:
            yield waiting[:, :lines]
            waiting = waiting[:, lines:]
    if waiting is not None and waiting.shape[1]:
        yield waiting


def envi_header(store: CubeStore, cube: str, rows: int, columns: int) -> str:
    """Write the header of a BIL image of float32 that has a store's bands."""
    wavelengths = ",\n".join(f"{nm:.3f}" for nm in store.wavelength_nm)
    label = "SYNTHETIC. " if store.simulated else ""
    return (
        "ENVI\n"
        f"description = {{{label}Reflectance of {cube}, {RECONSTRUCTED}. {store.attribution}}}\n"
        f"samples = {columns}\nlines = {rows}\nbands = {len(store.wavelength_nm)}\n"
        "header offset = 0\nfile type = ENVI Standard\ndata type = 4\ninterleave = bil\n"
        "byte order = 0\nwavelength units = nm\n"
        f"wavelength = {{\n{wavelengths}\n}}\n"
    )
