"""Raw images made from arrays, in memory or as ENVI files, for the tests of `prepare plants`."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.plants.read.raw_cube import RawCube

BANDS, LINES, SAMPLES = 60, 40, 50
WAVELENGTH_NM = np.linspace(395, 905, BANDS)


def leaf(nm: NDArray[np.float64] = WAVELENGTH_NM) -> NDArray[np.float64]:
    """Reflectance of something like a leaf."""
    return 0.05 + 0.08 * np.exp(-(((nm - 550) / 40) ** 2)) + 0.4 / (1 + np.exp(-(nm - 715) / 12))


def scene(plants: bool = True) -> NDArray[np.float64]:
    """Reflectance (lines, samples, bands): soil, and two leaves of different size."""
    reflectance = np.broadcast_to(0.1 + 0.0002 * (WAVELENGTH_NM - 400), (LINES, SAMPLES, BANDS))
    reflectance = reflectance.copy()
    if plants:
        reflectance[5:25, 30:45] = leaf()
        reflectance[10:18, 6:16] = leaf()
    return reflectance


def camera(seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Dark counts and counts of a perfect reflector above them, (samples, bands)."""
    rng = np.random.default_rng(seed)
    dark = rng.uniform(80, 120, (SAMPLES, BANDS))
    lamp = 20000 * np.exp(-(((WAVELENGTH_NM - 650) / 300) ** 2))
    return dark, lamp * rng.uniform(0.8, 1.2, (SAMPLES, 1))


def raw(values: NDArray[Any], name: str = "scan.raw", **changes: Any) -> RawCube:
    """An image in memory, from (lines, samples, bands)."""
    fields: dict[str, Any] = {
        "path": Path(name), "lines": values.shape[0], "samples": values.shape[1],
        "wavelength_nm": WAVELENGTH_NM, "dtype": values.dtype,
        "read_lines": lambda lines: values[lines],
    }  # fmt: skip
    return RawCube(**{**fields, **changes})


def write_envi(
    path: Path, values: NDArray[Any], nm: NDArray[np.float64] = WAVELENGTH_NM, **fields: Any
) -> Path:
    """Write (lines, samples, bands) as BIL; returns the header."""
    codes = {"uint16": 12, "float32": 4}
    np.ascontiguousarray(values.transpose(0, 2, 1)).tofile(path.with_suffix(".raw"))
    header: dict[str, Any] = {
        "samples": values.shape[1], "lines": values.shape[0], "bands": values.shape[2],
        "header offset": 0, "file type": "ENVI Standard", "data type": codes[values.dtype.name],
        "interleave": "bil", "byte order": 0, "wavelength units": "nm",
        "wavelength": f"{{{', '.join(f'{w:.4f}' for w in nm)}}}", **fields,
    }  # fmt: skip
    text = "".join(f"{name} = {value}\n" for name, value in header.items() if value is not None)
    path.with_suffix(".hdr").write_text(f"ENVI\n{text}")
    return path.with_suffix(".hdr")


def counts(reflectance: NDArray[np.float64], exposure: float = 1.0) -> NDArray[np.uint16]:
    """What the camera would count."""
    dark, lamp = camera()
    return np.round(dark + exposure * lamp * reflectance).astype(np.uint16)


def write_scan(folder: Path, name: str = "scan", **fields: Any) -> Path:
    """Write the scene with its references `white.hdr` and `dark.hdr`; returns its header."""
    folder.mkdir(exist_ok=True)
    shape = (5, SAMPLES, BANDS)
    write_envi(folder / "white", counts(np.ones(shape)), **fields)
    write_envi(folder / "dark", counts(np.zeros(shape)), **fields)
    return write_envi(folder / name, counts(scene()), **fields)
