"""Synthetic poplars: labelled, reproducible, and alike enough to leaves and cameras to learn from."""

import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from sciml_dchag.cli import main
from sciml_dchag.plants.read.cube_files import expand_cubes, open_cube
from sciml_dchag.plants.simulate.glasshouse_scene import draw_in_glasshouse
from sciml_dchag.plants.simulate.line_camera import WHITE_REFLECTANCE
from sciml_dchag.plants.simulate.poplars import parse_size, simulate_poplars
from sciml_dchag.plants.simulate.simple_scene import PHOTOSYNTHESIS, TRAIT_RANGES, draw_poplar

pytest.importorskip("prosail", reason="the extra `simulate` (prosail) is not installed")
SIZE, BANDS, CUBES = (48, 64), 60, 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plants") / "poplars"
    simulate_poplars(path, cubes=CUBES, size=SIZE, bands=BANDS)
    return path


def reflectance(path: Path) -> np.ndarray:
    """Calibrate with the references, as the user's pipeline would."""
    image, white, dark = (
        open_cube(file)
        for file in (path, *(path.with_name(f"{kind}_reference.raw") for kind in ("white", "dark")))
    )
    without = dark.read_lines(slice(None)).mean(axis=0)
    panel = white.read_lines(slice(None)).mean(axis=0) - without
    longer = image.exposure_ms / white.exposure_ms
    return (image.read_lines(slice(None)) - without) / panel / longer * WHITE_REFLECTANCE


def leaf_pixels(index: int) -> np.ndarray:
    """Where the drawing has leaf and nothing else."""
    return draw_poplar(0, index, SIZE).canopy.leaf_share() == 1


def band(path: Path, nm: float) -> int:
    return int(np.abs(open_cube(path).wavelength_nm - nm).argmin())


def test_files_are_complete_and_labelled_synthetic(folder: Path) -> None:
    paths = expand_cubes([folder])
    assert [path.name for path in paths] == [f"poplar_{i:04d}.raw" for i in range(CUBES)]
    for path in [*paths[:2], folder / "white_reference.raw", folder / "dark_reference.raw"]:
        cube = open_cube(path)
        assert cube.simulated and not cube.remarks
        assert "SYNTHETIC, not an observation" in path.with_suffix(".hdr").read_text()
        assert (cube.samples, cube.bands, cube.dtype) == (SIZE[1], BANDS, np.uint16)
        assert cube.wavelength_nm[[0, -1]].tolist() == [400.0, 900.0]
        assert cube.fwhm_nm is not None and cube.saturation == 4095
    exposures = [
        open_cube(folder / f"{kind}_reference.raw").exposure_ms for kind in ("white", "dark")
    ]
    assert exposures == [8.0, 12.0] and open_cube(paths[0]).exposure_ms == 12.0


def test_an_image_depends_on_its_seed_and_place_alone(folder: Path, tmp_path: Path) -> None:
    simulate_poplars(tmp_path / "two", cubes=2, size=SIZE, bands=BANDS)
    for file in (tmp_path / "two").iterdir():
        if file.name != "traits.csv":
            assert file.read_bytes() == (folder / file.name).read_bytes(), file.name
    first = pd.read_csv(folder / "traits.csv").head(2)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "two" / "traits.csv"), first)
    (other,) = simulate_poplars(tmp_path / "seed", cubes=1, size=SIZE, bands=BANDS, seed=1)
    assert other.read_bytes() != (folder / other.name).read_bytes()


def test_leaves_look_like_leaves(folder: Path) -> None:
    for index, path in enumerate(expand_cubes([folder])[:8]):
        leaf = reflectance(path)[leaf_pixels(index)]
        assert len(leaf) > 0.1 * SIZE[0] * SIZE[1]
        at = {nm: np.median(leaf[:, band(path, nm)]) for nm in (450, 550, 680, 720, 800)}
        red, infrared = leaf[:, band(path, 680)], leaf[:, band(path, 800)]
        # A share of 1% may be deep in the shadow of others.
        assert np.quantile((infrared - red) / (infrared + red), 0.01) > 0.6
        assert at[450] < at[550] > at[680] and at[680] < at[720] < at[800]
        assert 0.02 < at[680] < 0.10 and 0.3 < at[800] < 0.6
        bare = reflectance(path)[draw_poplar(0, index, SIZE).canopy.leaf_share() == 0]
        red, infrared = bare[:, band(path, 680)], bare[:, band(path, 800)]
        assert np.median((infrared - red) / (infrared + red)) < 0.3


def test_reflectance_in_full_light_is_that_of_prospect(folder: Path) -> None:
    """The tray, which is 0.04 at every wavelength, comes back from counts within the noise."""
    path = expand_cubes([folder])[0]
    canopy = draw_poplar(0, 0, SIZE).canopy
    tray = (canopy.material == canopy.leaves + 1).reshape(SIZE[0], 2, SIZE[1], 2).all(axis=(1, 3))
    lit = (canopy.filtered == 0).reshape(SIZE[0], 2, SIZE[1], 2).all(axis=(1, 3))
    spectrum = reflectance(path)[tray & lit].mean(axis=0)
    # 600 pixels or more; 1% is the mean of the lamp's flicker and of what 24 lines average.
    clear = open_cube(path).wavelength_nm > 480
    np.testing.assert_allclose(spectrum[clear], 0.04, atol=0.0015)


def test_references_are_sane(folder: Path) -> None:
    white = open_cube(folder / "white_reference.raw").read_lines(slice(None)).astype(float)
    dark = open_cube(folder / "dark_reference.raw").read_lines(slice(None)).astype(float)
    assert white.max() < 4095 and dark.min() > 0 and dark.max() < 300
    assert (white.mean(axis=0) > dark.mean(axis=0)).all()
    columns = (white - dark).mean(axis=(0, 2))
    assert columns.std() / columns.mean() > 0.05  # columns differ, as they do in such cameras
    by_band = (white - dark).mean(axis=(0, 1))
    assert by_band.argmax() not in (0, BANDS - 1) and by_band.min() < 0.2 * by_band.max()
    assert (white.std(axis=0) > dark.std(axis=0)).mean() > 0.9  # photons bring noise


def test_few_pixels_are_saturated(folder: Path) -> None:
    shares = []
    for path in expand_cubes([folder]):
        cube = open_cube(path)
        shares.append((cube.read_lines(slice(None)) >= cube.saturation).any(axis=-1).mean())
    assert 0 < np.mean(shares) < 2e-3


def test_traits_show_in_the_spectra(folder: Path) -> None:
    traits = pd.read_csv(folder / "traits.csv", index_col="cube")
    assert list(traits.columns) == ["genotype", "treatment", *TRAIT_RANGES, PHOTOSYNTHESIS]
    assert traits.index.tolist() == [path.stem for path in expand_cubes([folder])]
    assert set(traits["genotype"]) == {"G1", "G2", "G3", "G4"}
    watered, dry = (traits[traits["treatment"] == kind] for kind in ("watered", "drought"))
    for name in ("cab_ug_cm2", "cw_g_cm2", PHOTOSYNTHESIS):
        assert dry[name].mean() < 0.85 * watered[name].mean()
    red_edge = []
    for index, path in enumerate(expand_cubes([folder])):
        leaf = np.median(reflectance(path)[leaf_pixels(index)], axis=0)
        red_edge.append(leaf[band(path, 780)] / leaf[band(path, 710)] - 1)
    # Red-edge chlorophyll index (Gitelson et al. 2003); 24 plants, so 0.8 is far from chance.
    assert np.corrcoef(red_edge, traits["cab_ug_cm2"])[0, 1] > 0.8
    assert np.corrcoef(red_edge, traits[PHOTOSYNTHESIS])[0, 1] > 0.5


def test_what_is_there_is_kept_unless_it_is_ours(folder: Path, tmp_path: Path) -> None:
    small = {"cubes": 1, "size": (16, 16), "bands": 10}
    out = tmp_path / "poplars"
    simulate_poplars(out, **small)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        simulate_poplars(out, **small)
    simulate_poplars(out, **{**small, "bands": 12}, overwrite=True)
    assert open_cube(out / "poplar_0000.raw").bands == 12
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"holds thesis.tex, which is not of it"):
        simulate_poplars(out, **small, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["poplars"]


def test_an_interrupted_call_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_poplars(tmp_path / "out", cubes=2, size=(16, 16), bands=10, progress=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"cubes": 0}, "0 images were asked for"),
        ({"size": (4, 40)}, "4 x 40 were asked for"),
        ({"bands": 3}, "3 bands"),
        ({"bits": 24}, "24 bits"),
        ({"seed": -1}, "seed is -1"),
        ({"scene": "field"}, "scene is 'field': choose one of simple, glasshouse"),
        ({"cubes": 10**9}, "GB are free"),
    ],
)
def test_settings_without_sense_are_refused(tmp_path: Path, settings: dict, sentence: str) -> None:
    with pytest.raises((ValueError, OSError), match=sentence):
        simulate_poplars(tmp_path / "out", **settings)
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["simulate", "poplars", str(tmp_path / "out"), "--cubes", "1", "--bands", "10"]
    result = CliRunner().invoke(main, [*words, "--size", "16x20", "--seed", "3"])
    assert result.exit_code == 0 and "synthetic, not observations" in result.output
    cube = open_cube(tmp_path / "out" / "poplar_0000.raw")
    assert (cube.lines, cube.samples, cube.bands) == (16, 20, 10)
    assert CliRunner().invoke(main, [*words, "--size", "16"]).exit_code == 2
    with pytest.raises(ValueError, match="not ROWSxCOLUMNS"):
        parse_size("16x")
    monkeypatch.setitem(sys.modules, "prosail", None)  # as if not installed, where it is
    result = CliRunner().invoke(main, [*words, "--overwrite"])
    assert result.exit_code == 2 and "sciml-dchag[simulate]" in result.output
    assert cube.path.exists()


@pytest.mark.parametrize("scene", ["simple", "glasshouse"])
def test_label_images_are_what_was_drawn(
    scene: Literal["simple", "glasshouse"], tmp_path: Path
) -> None:
    folder, plain = tmp_path / "poplars", tmp_path / "plain"
    for path, labels in ((folder, True), (plain, False)):
        simulate_poplars(path, cubes=1, size=SIZE, bands=20, scene=scene, labels=labels)
    assert (folder / "poplar_0000.raw").read_bytes() == (plain / "poplar_0000.raw").read_bytes()
    leaves, lesions = (
        np.asarray(Image.open(folder / name / "poplar_0000.png")) for name in ("leaves", "lesions")
    )
    assert leaves.shape == lesions.shape == SIZE and (lesions > 0).tolist() == (leaves > 0).tolist()
    drawn = draw_poplar if scene == "simple" else draw_in_glasshouse
    poplar = drawn(0, 0, SIZE)
    number = len(poplar.leaves) // poplar.states
    assert 10 < len(np.unique(leaves)) - 1 <= number and leaves.max() <= number
    # A leaf alone is where the drawing has nothing but leaf, and mostly so the other way around.
    assert (leaves > 0)[poplar.canopy.leaf_share() == 1].all()
    share = float((lesions == 2).sum() / (lesions > 0).sum())
    assert share == pytest.approx(poplar.traits.get("lesion_share", 0.0), abs=0.03)
    # As a folder of poplars it is replaced when asked for.
    simulate_poplars(folder, cubes=1, size=SIZE, bands=20, scene=scene, overwrite=True)
    assert not (folder / "leaves").exists()
