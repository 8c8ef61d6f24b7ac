"""Synthetic poplars as a camera would give them: ENVI images, their references, a table of traits.

Leaf spectra are PROSPECT-D's (Féret et al. 2017, doi:10.1016/j.rse.2017.03.004) from the package
`prosail`. Here: spectra and files. Not here: what is drawn (`simple_scene.py`,
`glasshouse_scene.py`), the shape of the canopy (`canopy.py`) and the camera (`line_camera.py`). All
of it is labelled synthetic.
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.files.places import check_place, folder_kind
from sciml_dchag.files.result_folders import whole_folder
from sciml_dchag.files.resumable import Progress
from sciml_dchag.plants.simulate.glasshouse_scene import (
    XANTHOPHYLL,
    draw_in_glasshouse,
    lamp_light,
    xanthophyll_dip,
)
from sciml_dchag.plants.simulate.line_camera import (
    EXPOSURE_MS,
    WHITE_EXPOSURE_MS,
    WHITE_REFLECTANCE,
    LineCamera,
)
from sciml_dchag.plants.simulate.simple_scene import (
    CAMERA,
    NOISE,
    Poplar,
    draw_poplar,
    random_stream,
)

Scene = Literal["simple", "glasshouse"]
LABEL = "SYNTHETIC, not an observation: made by sciml-dchag from PROSPECT-D leaf spectra"
TRAITS_FILE = "traits.csv"
POPLARS = folder_kind(
    "a folder of synthetic poplars",
    contains=TRAITS_FILE,
    holds=(
        "poplar_*.raw",
        "poplar_*.hdr",
        "*_reference.raw",
        "*_reference.hdr",
        "leaves",
        "lesions",
    ),
)
RANGE_NM = (400.0, 900.0)
REFERENCE_LINES = 24
BLOCK_LINES = 16
"""Lines that are drawn, and held in memory, at a time."""
GRID_NM = np.arange(400, 931)
"""Where leaf spectra are computed; beyond the last band, so that it has its full width."""


def simulate_poplars(
    folder: str | Path,
    *,
    cubes: int = 8,
    size: tuple[int, int] = (192, 384),
    bands: int = 500,
    bits: int = 12,
    scene: Scene = "simple",
    labels: bool = False,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write synthetic images of poplars with white and dark references and a table of traits.

    Seen from above: uint16 counts, ENVI in BIL with complete headers. `simple` has one plant an
    image, of four genotypes, watered or not; drought lowers chlorophyll and water, raises
    anthocyanins and lets leaves hang. Within 400 to 900 nm water itself hardly shows. `glasshouse`
    has two or three plants that touch, of twelve genotypes, with shading, gloss, uneven lamps of
    two colours, and patches of lesions, chlorosis and stress, which lowers reflectance at 531 nm.

    Equal seeds give equal files; an image is the same however many are asked for. `traits.csv` has
    one row per image, keyed by `cube` (the file's name without its suffix): genotype, treatment,
    the means of PROSPECT's parameters (over leaves; in `glasshouse` over the leaf that is seen),
    there the shares of it with lesions, chlorosis and stress (`lesion_share`, `chlorotic_share`,
    `stressed_share`, 0 to 1), and `synthetic_photosynthesis_umol_m2_s`, made from chlorophyll and
    water by a formula of our own with 5% noise.

    Args:
        folder: is made; all is written beside it and renamed at the end.
        cubes: number of images.
        size: lines and samples.
        bands: number of bands, evenly from 400 to 900 nm.
        bits: of the camera, 8 to 16; it saturates at 2**bits - 1.
        scene: `simple` or `glasshouse`.
        labels: write label images (PNG, called as the images) of what was drawn, too: `leaves` has
            the number of the leaf that is seen, `lesions` 1 for leaf and 2 for lesion.
        seed: of all that is drawn.
        overwrite: replace a folder that this function wrote.
        progress: called after each image.

    Returns:
        The files with the images' numbers.

    Raises:
        ModuleNotFoundError: prosail is not installed.
        ValueError: settings that make no sense, or another process is writing there.
        FileExistsError: `folder` exists, and `overwrite` is off or it holds something else.
        OSError: not enough room on the disk.
    """
    folder = Path(folder)
    _check_settings(cubes, size, bands, bits, scene, seed)
    _check_place(folder, overwrite, (cubes * size[0] + 2 * REFERENCE_LINES) * size[1] * bands * 2)
    _require_prosail()
    wavelength_nm = np.linspace(*RANGE_NM, bands)
    fwhm_nm = max(2.0, float(wavelength_nm[1] - wavelength_nm[0]))
    camera = LineCamera.build(random_stream(seed, CAMERA), size[1], wavelength_nm, bits)
    header = {
        "samples": size[1],
        "bands": bands,
        "bit depth": bits,
        "wavelength units": "nm",
        "wavelength": [f"{nm:.4f}" for nm in wavelength_nm],
        "fwhm": [f"{fwhm_nm:.4f}"] * bands,
        "simulated": 1,
    }
    draw = draw_poplar if scene == "simple" else draw_in_glasshouse
    with whole_folder(folder, POPLARS, overwrite=overwrite) as beside:
        _write_references(beside, camera, header, seed)
        rows = []
        for index in range(cubes):
            poplar = draw(seed, index, size)
            endmembers = leaf_and_background_spectra(poplar.leaves, wavelength_nm, fwhm_nm)
            path = beside / f"{poplar.name}.raw"
            noise = random_stream(seed, NOISE, index)
            with path.open("wb") as file:
                for first in range(0, size[0], BLOCK_LINES):
                    stop = min(first + BLOCK_LINES, size[0])
                    lines = poplar.canopy.weights(first, stop) @ endmembers
                    lines = lines.reshape(stop - first, size[1], bands)
                    lines *= _lamp(noise, stop - first)
                    if poplar.light is not None:
                        lines *= lamp_light(poplar.light[first:stop], wavelength_nm)
                    counts = camera.take(noise, lines, EXPOSURE_MS)
                    file.write(np.ascontiguousarray(counts.transpose(0, 2, 1)).astype("<u2").data)
            about = f"{LABEL}; {poplar.name}, {poplar.traits['treatment']}"
            _write_header(path, header, size[0], EXPOSURE_MS, about)
            rows.append(poplar.traits)
            if labels:
                _write_labels(beside, poplar)
            if progress is not None:
                progress(index + 1, cubes, "simulating poplars")
        pd.DataFrame(rows).to_csv(beside / TRAITS_FILE, index=False, float_format="%.6g")
    return [folder / f"{row['cube']}.raw" for row in rows]


def parse_size(text: str) -> tuple[int, int]:
    """Read `ROWSxCOLUMNS`.

    Raises:
        ValueError: it is something else.
    """
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise ValueError(f"The size {text!r} is not ROWSxCOLUMNS: give one such as 192x384.")
    return int(rows), int(columns)


def leaf_and_background_spectra(
    leaves: pd.DataFrame, wavelength_nm: NDArray[np.float64], fwhm_nm: float
) -> NDArray[np.float32]:
    """Return reflectance of what a pixel is mixed of, in the order of `Canopy.weights`.

    (2 * materials + 1, bands): leaves and background in plain light, the same in light that came
    through a leaf, and a mirror.
    """
    from prosail import spectral_library
    from prosail.prospect_d import run_prospect

    kept = len(GRID_NM)  # PROSPECT begins at 400 nm and goes by 1 nm, as the soils do
    reflected, passed = [], []
    dips = leaves[XANTHOPHYLL] if XANTHOPHYLL in leaves else np.zeros(len(leaves))
    for leaf, depth in zip(leaves.itertuples(index=False), dips, strict=True):
        _, reflectance, transmittance = run_prospect(
            leaf.n_layers, leaf.cab_ug_cm2, leaf.car_ug_cm2, leaf.cbrown, leaf.cw_g_cm2,
            leaf.cm_g_cm2, ant=leaf.ant_ug_cm2, prospect_version="D",
        )  # fmt: skip
        dip = xanthophyll_dip(float(depth), GRID_NM)
        reflected.append(reflectance[:kept] * dip)
        passed.append(transmittance[:kept] * dip)
    soil = spectral_library.get_spectra().soil
    bark = np.linspace(0.08, 0.45, kept)
    stem = 0.5 * np.mean(reflected, axis=0) + 0.5 * bark
    tray = np.full(kept, 0.04)
    plain = np.stack([*reflected, stem, tray, soil.rsoil1[:kept], soil.rsoil2[:kept]])
    through = plain * np.mean(passed, axis=0)
    spectra = np.concatenate([plain, through, np.ones((1, kept))])
    sigma = fwhm_nm / (2 * np.sqrt(2 * np.log(2)))
    response = np.exp(-0.5 * ((wavelength_nm[:, None] - GRID_NM) / sigma) ** 2)
    response /= response.sum(axis=1, keepdims=True)
    return (spectra @ response.T).astype(np.float32)


def _lamp(rng: np.random.Generator, lines: int) -> NDArray[np.float32]:
    """Return the lamp's flicker from line to line, which no reference knows, (lines, 1, 1)."""
    return (1 + rng.normal(0, 0.004, (lines, 1, 1))).astype(np.float32)


def _write_references(folder: Path, camera: LineCamera, header: dict[str, Any], seed: int) -> None:
    shape = (REFERENCE_LINES, header["samples"], header["bands"])
    for number, (name, level, exposure) in enumerate(
        (("white", WHITE_REFLECTANCE, WHITE_EXPOSURE_MS), ("dark", 0.0, EXPOSURE_MS))
    ):
        rng = random_stream(seed, CAMERA, number)
        counts = camera.take(rng, np.full(shape, level, np.float32), exposure)
        path = folder / f"{name}_reference.raw"
        np.ascontiguousarray(counts.transpose(0, 2, 1)).astype("<u2").tofile(path)
        kind = f"white panel of reflectance {level:g}" if level else "closed shutter"
        _write_header(path, header, REFERENCE_LINES, exposure, f"{LABEL}; {kind}")


def _write_labels(folder: Path, poplar: Poplar) -> None:
    """Write which leaf is seen where, and where lesions are."""
    from PIL import Image

    for name, numbers in (("leaves", poplar.leaf_numbers()), ("lesions", poplar.lesions())):
        (folder / name).mkdir(exist_ok=True)
        Image.fromarray(numbers).save(folder / name / f"{poplar.name}.png")


def _write_header(
    path: Path, header: dict[str, Any], lines: int, exposure_ms: float, about: str
) -> None:
    from spectral.io import envi

    fields = {
        **header,
        "description": about,
        "lines": lines,
        "header offset": 0,
        "data type": 12,
        "interleave": "bil",
        "byte order": 0,
        "exposure time (ms)": exposure_ms,
    }
    envi.write_envi_header(str(path.with_suffix(".hdr")), fields)


def _check_settings(
    cubes: int, size: tuple[int, int], bands: int, bits: int, scene: str, seed: int
) -> None:
    if cubes < 1:
        raise ValueError(f"{cubes} images were asked for: ask for 1 or more.")
    if min(size) < 8:
        raise ValueError(
            f"Images of {size[0]} x {size[1]} were asked for: a plant needs 8 pixels or more."
        )
    if not 10 <= bands <= 2000:
        raise ValueError(f"{bands} bands from 400 to 900 nm were asked for: ask for 10 to 2000.")
    if not 8 <= bits <= 16:
        raise ValueError(f"A camera of {bits} bits was asked for: choose 8 to 16, such as 12.")
    if scene not in get_args(Scene):
        raise ValueError(f"The scene is {scene!r}: choose one of {', '.join(get_args(Scene))}.")
    if seed < 0:
        raise ValueError(f"The seed is {seed}: choose 0 or more.")


def _check_place(folder: Path, overwrite: bool, bytes_needed: int) -> None:
    check_place(folder, POPLARS, overwrite)
    parent = next(above for above in folder.absolute().parents if above.exists())
    free = shutil.disk_usage(parent).free
    if free < bytes_needed:
        raise OSError(
            errno.ENOSPC,
            f"The images need {bytes_needed / 1e9:.1f} GB at {parent}, where {free / 1e9:.1f} GB "
            f"are free: make room, or ask for fewer",
        )


def _require_prosail() -> None:
    try:
        import prosail  # noqa: F401
    except ImportError as error:
        raise ModuleNotFoundError(
            "Leaf spectra need prosail, which is not installed: pip install "
            "'sciml-dchag[simulate]'.",
            name="prosail",
        ) from error
