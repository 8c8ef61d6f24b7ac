"""Plants told from background, on made scenes and, against a drawn mask, on the embedded kernel."""

import gc
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from plant_files import WAVELENGTH_NM, leaf, scene
from skimage.io import imread, imsave

from sciml_dchag.files.samples import sample_path
from sciml_dchag.plants.prepare.calibration import calibrate
from sciml_dchag.plants.prepare.mask_files import read_mask
from sciml_dchag.plants.prepare.plant_mask import NoPlantError, index_bands, segment
from sciml_dchag.plants.read.cube_files import open_cube

DRAWN = Path(__file__).parents[1] / "data" / "plants" / "maize_kernel_mask.png"
TRUE = np.zeros(scene().shape[:2], int)
TRUE[10:18, 6:16], TRUE[5:25, 30:45] = 1, 2


def colours(
    reflectance: NDArray[np.float64], nm: NDArray[np.float64] = WAVELENGTH_NM
) -> dict[str, NDArray[np.float32]]:
    """Mean reflectance in the spans, from (lines, samples, bands)."""
    spans = index_bands(nm)
    return {name: reflectance[..., b].mean(axis=-1).astype("f4") for name, b in spans.items()}


def agreement(found: NDArray[np.int32], true: NDArray[np.int_]) -> float:
    """Intersection over union."""
    return float(((found > 0) & (true > 0)).sum() / ((found > 0) | (true > 0)).sum())


def test_leaves_on_soil_by_ndvi_numbered_from_left_to_right() -> None:
    noisy = scene() + np.random.default_rng(0).normal(0, 0.01, scene().shape)
    found = segment(colours(noisy), "scan")
    assert found.index == "ndvi" and found.plants.max() == 2
    # An opening by a disc rounds the corners, of one pixel each.
    np.testing.assert_array_equal(found.plants[TRUE == 0], 0)
    assert agreement(found.plants, TRUE) > 0.97
    assert found.plants[14, 10] == 1 and found.plants[14, 38] == 2


def test_the_largest_are_kept() -> None:
    found = segment(colours(scene()), "scan", most=1)
    assert found.plants.max() == 1 and found.plants[14, 38] == 1 and found.plants[14, 10] == 0


def test_without_near_infrared_by_the_excess_of_green() -> None:
    seen = WAVELENGTH_NM < 700
    found = segment(colours(scene()[..., seen], WAVELENGTH_NM[seen]), "scan")
    assert found.index == "excess-green" and agreement(found.plants, TRUE) > 0.97


def test_plants_that_fill_the_image() -> None:
    """Otsu would part green from greener."""
    reflectance = np.broadcast_to(leaf(), (30, 30, len(WAVELENGTH_NM))).copy()
    assert (segment(colours(reflectance), "scan").plants == 1).all()
    reflectance *= np.random.default_rng(0).uniform(0.8, 1.0, (30, 30, 1))
    reflectance += np.random.default_rng(1).normal(0, 0.003, reflectance.shape)
    assert (segment(colours(reflectance), "scan").plants == 1).all()


def test_specks_are_dropped_and_holes_filled() -> None:
    reflectance = scene()
    reflectance[30, 20] = reflectance[33:36, 10:13] = leaf()
    reflectance[8:20, 32:42] = reflectance[0, 0]  # soil that is seen between leaves
    reflectance[12:16, 35:39] = leaf()
    reflectance[22, 37] = reflectance[0, 0]
    found = segment(colours(reflectance), "scan").plants
    assert found[22, 37] == 2 and found[34, 11] == 0 and found[9, 33] == 0


@pytest.mark.parametrize("plain", [0.02, 0.9])
def test_seeds_on_black_and_on_white(plain: float) -> None:
    reflectance = np.full(scene().shape, plain)
    reflectance[TRUE > 0] = 0.4 + 0.0002 * (WAVELENGTH_NM - 400)
    with pytest.raises(NoPlantError, match=r"no plant with NDVI above 0.4.*index=brightness"):
        segment(colours(reflectance), "seeds")
    found = segment(colours(reflectance), "seeds", index="brightness")
    assert found.index == "brightness" and agreement(found.plants, TRUE) > 0.97


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_nothing_but_background_is_refused(noise: float) -> None:
    bare = scene(plants=False) + np.random.default_rng(0).normal(0, noise, scene().shape)
    with pytest.raises(ValueError, match=r"scan.raw shows nothing but background.*mask=none"):
        segment(colours(bare), "scan.raw")


def test_what_is_not_known_is_no_plant() -> None:
    reflectance = scene()
    reflectance[5:25, 30:45] = np.nan
    found = segment(colours(reflectance), "scan").plants
    assert found.max() == 1 and not found[5:25, 30:45].any()
    with pytest.raises(ValueError, match="nothing but background"):
        segment(colours(np.full_like(reflectance, np.nan)), "scan")


def test_an_index_that_the_bands_do_not_allow_is_refused() -> None:
    seen = WAVELENGTH_NM < 700
    visible = colours(scene()[..., seen], WAVELENGTH_NM[seen])
    with pytest.raises(ValueError, match="no bands of near infrared"):
        segment(visible, "scan", index="ndvi")


def test_the_kernel_agrees_with_a_drawn_mask() -> None:
    """The mask was drawn by eye on the colour picture, before any threshold was looked at."""
    image, white, dark = (
        open_cube(sample_path(f"maize_{name}")) for name in ("kernel", "white", "dark")
    )
    calibration = calibrate(image, white, dark)
    out = np.empty((image.lines, image.bands, image.samples), np.float32)
    for line, numbers in enumerate(image.read_lines(slice(0, image.lines))):
        calibration.apply(numbers.T, out[line])
    seen = colours(out.transpose(0, 2, 1), image.wavelength_nm)
    found = segment(seen, "kernel", index="brightness")
    # A seed is not green: what NDVI would find is an edge where bands are out of register.
    assert found.index == "brightness" and found.plants.max() == 1
    assert agreement(found.plants, imread(DRAWN)) > 0.9
    with pytest.raises(NoPlantError, match="no plant with NDVI above"):
        segment(seen, "kernel", index="ndvi")


def test_masks_of_the_user(tmp_path: Path) -> None:
    drawn = (255 * (TRUE > 0)).astype(np.uint8)
    imsave(tmp_path / "a.png", drawn, check_contrast=False)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", TRUE.shape, []), TRUE > 0)
    imsave(tmp_path / "rgb.png", np.repeat(drawn[..., None], 3, axis=2), check_contrast=False)
    np.testing.assert_array_equal(read_mask(tmp_path / "rgb.png", TRUE.shape, []), TRUE > 0)
    np.save(tmp_path / "b.npy", 7 * TRUE)
    np.testing.assert_array_equal(read_mask(tmp_path / "b.npy", TRUE.shape, []), 7 * TRUE)
    imsave(tmp_path / "c.tif", TRUE.astype(np.uint16), check_contrast=False)
    np.testing.assert_array_equal(read_mask(tmp_path / "c.tif", TRUE.shape, []), TRUE)


def test_masks_that_do_not_do_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", TRUE)
    with pytest.raises(ValueError, match=r"40 x 50 values and the image 40 x 51"):
        read_mask(tmp_path / "a.npy", (40, 51), [])
    np.save(tmp_path / "b.npy", 0 * TRUE)
    with pytest.raises(ValueError, match="all background"):
        read_mask(tmp_path / "b.npy", TRUE.shape, [])
    np.save(tmp_path / "c.npy", np.where(TRUE, 0.5, np.nan))
    with pytest.raises(ValueError, match="whole numbers"):
        read_mask(tmp_path / "c.npy", TRUE.shape, [])
    (tmp_path / "d.png").write_text("no picture")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # scikit-image leaves such a file open
        with pytest.raises(ValueError, match="cannot be read"):
            read_mask(tmp_path / "d.png", TRUE.shape, [])
        gc.collect()
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_mask(tmp_path / "none.png", TRUE.shape, [])


def test_seedlings_beside_bright_plastic() -> None:
    """NDVI parts plastic from the rest, and brightness finds it: neither is a plant."""
    reflectance = scene(plants=False)
    reflectance[5:11, 6:12] = reflectance[25:31, 20:26] = leaf()
    reflectance[:, 36:] = 0.5 - 0.0006 * (WAVELENGTH_NM - 400)
    reflectance += np.random.default_rng(0).normal(0, 0.003, reflectance.shape)
    for index in (None, "ndvi"):
        found = segment(colours(reflectance), "tray", index=index).plants
        assert found.max() == 2 and not found[:, 36:].any()
        assert (found > 0).sum() == 72
    reflectance[5:11, 6:12] = reflectance[25:31, 20:26] = reflectance[0, 0]
    with pytest.raises(NoPlantError, match="nothing but background"):  # an empty pot
        segment(colours(reflectance), "tray")


@pytest.mark.parametrize("radius", [2, 4])
def test_soil_within_a_rosette_is_no_plant(radius: int) -> None:
    rows, columns = np.mgrid[: scene().shape[0], : scene().shape[1]]
    far = (rows - 20) ** 2 + (columns - 25) ** 2
    reflectance = scene(plants=False)
    reflectance[(far <= 100) & (far > radius**2)] = leaf()
    found = segment(colours(reflectance), "rosette").plants
    np.testing.assert_array_equal(found > 0, (far <= 100) & (far > radius**2))


def test_a_glint_is_filled_and_thin_leaves_and_petioles_are_kept() -> None:
    reflectance = scene(plants=False)
    reflectance[10:16, 10:16] = reflectance[10:16, 18:24] = leaf()
    reflectance[12, 16:18] = 0.5 * (leaf() + reflectance[0, 0])  # a petiole, half soil
    reflectance[30, 5:30] = leaf()  # a leaf of grass, one pixel wide
    reflectance[12:14, 12:14] = np.nan
    found = segment(colours(reflectance), "scan").plants
    assert found.max() == 2 and found[12, 12] == found[12, 20] == 1
    assert (found[30, 5:30] == 2).all()
