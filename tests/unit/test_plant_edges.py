"""Inputs of `prepare plants` that are not what they seem, from files to the store."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from plant_files import BANDS, SAMPLES, WAVELENGTH_NM, camera, counts, scene, write_envi
from scipy import io

from sciml_dchag.plants.prepare.images import prepare_plants
from sciml_dchag.plants.read.cube_files import open_cube
from sciml_dchag.plants.store.cubes import CubeStore

ONES = np.ones((5, SAMPLES, BANDS))


def prepared(source: Path, **options: Any) -> CubeStore:
    given = {"bands": "native", "split": "1", "quicklooks": False}
    return CubeStore.open(prepare_plants(source, source.parent / "s.zarr", **given | options))


@pytest.mark.parametrize("which", ["white", "dark", "scan"])
def test_counts_that_wrapped_are_refused(which: str, tmp_path: Path) -> None:
    """Counts above 32767 under data type 2, 16 bits with a sign, are negative."""
    level = {"white": 2.2 * ONES, "dark": 0 * ONES, "scan": 0.2 * scene()}
    level[which] = (2.2 if which == "white" else 4.0) * (0 * level[which] + 1)
    dark, lamp = camera()
    for name, light in level.items():
        sign = {"data type": 2} if name == which else {}
        write_envi(tmp_path / name, np.round(dark + lamp * light).astype(np.uint16), **sign)
    references = {name: str(tmp_path / f"{name}.hdr") for name in ("white", "dark")}
    with pytest.raises(ValueError, match=rf"{which}.raw holds numbers down to -\d+ in .* a sign"):
        prepared(tmp_path / "scan.hdr", **references)
    assert not (tmp_path / "s.zarr").exists()


def test_small_negative_counts_and_undeclared_nodata(tmp_path: Path) -> None:
    dark, lamp = camera()
    white = np.round(lamp * ONES).astype(np.int16).view(np.uint16)
    scan = (counts(scene()).astype(int) - np.round(dark).astype(int)).astype(np.int16)
    scan[0] -= 60  # noise about a dark that was subtracted
    for name, numbers in (("white", white), ("scan", scan.view(np.uint16))):
        write_envi(tmp_path / name, numbers, **{"data type": 2})
    given = {"white": str(tmp_path / "white.hdr")}
    with pytest.warns(UserWarning, match="has no dark reference"):
        store = prepared(tmp_path / "scan.hdr", **given)
    np.testing.assert_allclose(store.reflectance("scan")[:, 14], scene()[14].T, atol=0.02)
    scan[:4] = -9999
    write_envi(tmp_path / "scan", scan.view(np.uint16), **{"data type": 2})
    with pytest.raises(ValueError, match="which no camera counts: .* with `nodata=-9999`"):
        prepared(tmp_path / "scan.hdr", overwrite=True, **given)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_a_matlab_file_that_is_cut_off(compressed: bool, kept: float, tmp_path: Path) -> None:
    """Its last array is not listed any more: what is left looks like a file without it."""
    path, noise = tmp_path / "x.mat", np.random.default_rng(0).normal(0, 0.01, scene().shape)
    io.savemat(
        path, {"cube": scene() + noise, "wavelength_nm": WAVELENGTH_NM}, do_compression=compressed
    )
    assert open_cube(path).bands == BANDS
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"x.mat is cut off: it has \d+ bytes where .* ends after"):
        open_cube(path)


def test_drawings_are_said_once(tmp_path: Path) -> None:
    drawn = Image.fromarray(np.where(scene()[..., 50] > 0.3, 255, 0).astype(np.uint8))
    (tmp_path / "masks").mkdir()
    for name in "abcde":
        noise = np.random.default_rng(0).normal(0, 0.002, scene().shape)
        write_envi(tmp_path / name, (scene() + noise).astype(np.float32))
        drawn.filter(ImageFilter.GaussianBlur(1)).save(tmp_path / "masks" / f"{name}.png")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        prepare_plants(
            tmp_path, tmp_path / "s.zarr", mask=str(tmp_path / "masks"), bands="native", split="1",
            quicklooks=False,
        )  # fmt: skip
    (once,) = [str(one.message) for one in said]
    assert once.startswith("a.png, b.png, c.png and 2 others: masks that are drawings in black and")
