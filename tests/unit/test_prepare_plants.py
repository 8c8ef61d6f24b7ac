"""The whole way from raw files to a store, on a made scan and on the embedded maize kernel."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray
from plant_files import (
    BANDS,
    LINES,
    SAMPLES,
    WAVELENGTH_NM,
    counts,
    leaf,
    scene,
    write_envi,
    write_scan,
)

from sciml_dchag.plants.colour import colour_matching, colour_weights
from sciml_dchag.plants.prepare.images import prepare_plants
from sciml_dchag.plants.store.cubes import CubeStore

MAIZE = {
    "white": "sample:maize_white", "dark": "sample:maize_dark", "index": "brightness",
}  # fmt: skip
NOTED = {"bands": "400-900x80", "split": "1"}


def prepared(folder: Path, *sources: str, **options: Any) -> CubeStore:
    given = {"white": str(folder / "white.hdr"), "dark": str(folder / "dark.hdr"), **NOTED}
    images = sources or (str(folder / "scan.hdr"),)
    return CubeStore.open(prepare_plants(images, folder / "store.zarr", **{**given, **options}))


@pytest.fixture(scope="module")
def maize(tmp_path_factory: pytest.TempPathFactory) -> CubeStore:
    path = tmp_path_factory.mktemp("maize") / "maize.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the fields that the headers leave out
        return CubeStore.open(prepare_plants(["sample:maize_kernel"], path, **MAIZE))


@pytest.mark.parametrize(
    ("nm", "reflectance"), [(450, 0.18), (550, 0.54), (680, 0.82), (800, 0.86)]
)
def test_the_kernel_has_the_reflectance_measured(
    maize: CubeStore, nm: float, reflectance: float
) -> None:
    band = int(np.abs(maize.wavelength_nm - nm).argmin())
    centre = maize.reflectance("maize_kernel_b73", range(band, band + 1))[0, 10:21, 14:29]
    assert abs(float(np.median(centre)) - reflectance) < 0.03


def test_the_kernels_store(maize: CubeStore) -> None:
    assert maize.size("maize_kernel_b73") == (31, 43) and len(maize.wavelength_nm) == 500
    assert "PlantCV" in maize.attribution and not maize.simulated
    attrs = maize.cube_attrs("maize_kernel_b73")
    assert attrs["source"] == "maize_kernel_b73.raw" and attrs["mask"] == "brightness"
    settings = json.loads(maize.attrs["provenance"])["settings"]
    assert settings["bands"] == "400-900x500" and settings["response"] == "gaussian"
    values = maize.reflectance("maize_kernel_b73").astype(np.float64)
    inside = values[:, maize.plants("maize_kernel_b73") > 0]
    np.testing.assert_allclose(maize.statistics().mean, inside.mean(axis=1), rtol=1e-12)
    picture = imread(maize.path / "quicklooks" / "maize_kernel_b73.png")
    assert picture.shape[1] > 1000 and picture[..., :3].std() > 0.1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CubeStore:
    folder = tmp_path_factory.mktemp("made") / "scans"
    write_scan(folder, **{"simulated": 1})
    return prepared(folder)


def test_the_scene_comes_back_with_its_plants(made: CubeStore) -> None:
    values, mask = made.reflectance("scan"), made.plants("scan")
    wanted = np.interp(made.wavelength_nm, WAVELENGTH_NM, leaf())
    # The camera's bands are 8.6 nm apart and steps of the red edge are as wide.
    np.testing.assert_allclose(values[:, 14, 38], wanted, atol=0.03)
    assert mask.max() == 2 and mask[14, 10] == 1 and mask[14, 38] == 2 and mask[0, 0] == 0
    assert made.simulated and made.attrs["title"].startswith("Simulated plant images")
    assert made.cube_attrs("scan")["count_values"] == LINES * SAMPLES * BANDS


@pytest.mark.parametrize("interleave", ["bil", "bip", "bsq"])
def test_interleaves_give_the_same(tmp_path: Path, made: CubeStore, interleave: str) -> None:
    write_scan(tmp_path, **{"simulated": 1})
    raw = counts(scene())
    order = {"bil": (0, 2, 1), "bip": (0, 1, 2), "bsq": (2, 0, 1)}[interleave]
    np.ascontiguousarray(raw.transpose(order)).tofile(tmp_path / "scan.raw")
    header = (tmp_path / "scan.hdr").read_text()
    (tmp_path / "scan.hdr").write_text(header.replace("bil", interleave))
    store = prepared(tmp_path, quicklooks=False)
    np.testing.assert_array_equal(store.reflectance("scan"), made.reflectance("scan"))


def test_long_images_in_several_blocks_of_all_threads(tmp_path: Path) -> None:
    """Lines repeat, so that whatever order threads work in, the blocks have to be alike."""
    write_scan(tmp_path)
    write_envi(tmp_path / "scan", np.concatenate([counts(scene())] * 3)[:100])
    values = prepared(tmp_path, quicklooks=False).reflectance("scan")
    np.testing.assert_array_equal(values[:, :LINES], values[:, LINES : 2 * LINES])
    np.testing.assert_array_equal(values[:, :20], values[:, 2 * LINES :])


def test_clipping_is_by_choice_and_counted(tmp_path: Path) -> None:
    write_scan(tmp_path)
    free = prepared(tmp_path, quicklooks=False).reflectance("scan")
    store = prepared(tmp_path, clip=(0.05, 0.45), quicklooks=False, overwrite=True)
    np.testing.assert_array_equal(store.reflectance("scan"), np.clip(free, 0.05, 0.45))
    counted = ((free < np.float32(0.05)) | (free > np.float32(0.45))).sum()
    assert store.cube_attrs("scan")["count_clipped"] == counted > 0
    with pytest.raises(ValueError, match="lower bound first"):
        prepared(tmp_path, clip=(1.0, 0.0), overwrite=True)


def test_standard_normal_variate(tmp_path: Path) -> None:
    write_scan(tmp_path)
    plain = prepared(tmp_path, quicklooks=False).reflectance("scan").astype(np.float64)
    store = prepared(tmp_path, snv=True, quicklooks=False, overwrite=True)
    wanted = (plain - plain.mean(axis=0)) / plain.std(axis=0, ddof=1)
    np.testing.assert_allclose(store.reflectance("scan"), wanted, atol=2e-6)
    assert store.attrs["quantity"].startswith("standard normal variate")


def test_derivatives_are_the_change_from_band_to_band(tmp_path: Path) -> None:
    """Those of a line fitted to the bands around; a dead band is missing within the window alone."""
    write_scan(tmp_path)
    white = counts(np.ones((5, SAMPLES, BANDS)))
    white[:, 7, 30] = 0
    write_envi(tmp_path / "white", white)
    settings: dict[str, Any] = {"bands": "native", "quicklooks": False}
    plain = prepared(tmp_path, **settings).reflectance("scan").astype(np.float64)
    store = prepared(tmp_path, derivative=(5, 1), overwrite=True, **settings)
    values = store.reflectance("scan")
    slopes = sum(step * plain[2 + step : BANDS - 2 + step] for step in (-2, -1, 1, 2)) / 10
    whole = np.isfinite(values[2:-2])
    np.testing.assert_allclose(values[2:-2][whole], slopes[whole], atol=1e-6)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(values[:, 0, 7])), range(28, 33))
    assert np.isnan(values).sum() == 5 * LINES
    assert store.attrs["quantity"].startswith("first derivative of reflectance")
    with pytest.raises(ValueError, match="have no meaning: prepare a store without"):
        store.require_reflectance("indices")
    with pytest.raises(ValueError, match="choose one of them"):
        prepared(tmp_path, derivative=(5, 1), snv=True, overwrite=True, **settings)
    with pytest.raises(ValueError, match="derivative=WINDOW,ORDER"):
        prepared(tmp_path, derivative=(5, 0), overwrite=True, **settings)


def test_a_dead_pixel_of_the_sensor_is_nan_and_counted(tmp_path: Path) -> None:
    write_scan(tmp_path)
    white = counts(np.ones((5, SAMPLES, BANDS)))
    white[:, 7, 30] = 0
    write_envi(tmp_path / "white", white)
    store = prepared(tmp_path, bands="native")
    values = store.reflectance("scan")
    assert np.isnan(values[30, :, 7]).all() and np.isnan(values).sum() == LINES
    assert store.cube_attrs("scan")["count_masked"] == LINES
    assert np.isfinite(store.statistics().mean).all()
    assert (store.path / "quicklooks" / "scan.png").exists()


def test_a_spatial_cut_holds_the_columns_it_says(tmp_path: Path) -> None:
    write_scan(tmp_path)
    whole = prepared(tmp_path, quicklooks=False)
    values, plants = whole.reflectance("scan"), whole.plants("scan")
    store = prepared(tmp_path, split="spatial:0.7,guard=3", overwrite=True, quicklooks=False)
    assert store.split("train") == ["scan_train"] and store.split("test") == ["scan_test"]
    for part in store.names:
        first, last = json.loads(store.cube_attrs(part)["source_columns"])
        # Products of another number of columns may add up in another order: one rounding.
        found = store.reflectance(part)
        np.testing.assert_allclose(found, values[:, :, first:last], rtol=0, atol=1e-7)
        np.testing.assert_array_equal(store.plants(part), plants[:, first:last])
    assert json.loads(store.cube_attrs("scan_train")["source_columns"]) == [0, 33]
    assert json.loads(store.cube_attrs("scan_test")["source_columns"]) == [36, 50]
    assert store.statistics().cubes == ("scan_train",)


def test_masks_given_and_none(tmp_path: Path) -> None:
    write_scan(tmp_path)
    drawn = np.zeros((LINES, SAMPLES), int)
    drawn[2:9, 3:20] = 5
    np.save(tmp_path / "drawn.npy", drawn)
    with pytest.warns(UserWarning, match="drawn.npy has 0% green pixels on its plants"):
        store = prepared(tmp_path, mask=str(tmp_path / "drawn.npy"), quicklooks=False)
    np.testing.assert_array_equal(store.plants("scan"), drawn)  # numbers are kept
    store = prepared(tmp_path, mask="none", quicklooks=False, overwrite=True)
    assert (store.plants("scan") == 1).all()
    (tmp_path / "masks").mkdir()
    with pytest.raises(FileNotFoundError, match=r"scan\.png"):
        prepared(tmp_path, mask=str(tmp_path / "masks"), overwrite=True)


def test_a_table_and_groups(tmp_path: Path) -> None:
    for i in range(4):
        write_scan(tmp_path, f"pot{i}")
    rows = "".join(f"pot{i}.raw,G{i % 2},{i}\n" for i in (3, 1, 0, 2))
    (tmp_path / "table.csv").write_text(f"file,genotype,day\n{rows}")
    store = prepared(
        tmp_path, str(tmp_path), table=str(tmp_path / "table.csv"), group_by="genotype",
        split="0.5", quicklooks=False,
    )  # fmt: skip
    assert store.names == ["pot0", "pot1", "pot2", "pot3"]
    assert list(store.table["day"]) == [0, 1, 2, 3]
    assert len(store.split("train")) == len(store.split("test")) == 2
    assert len(set(store.table["genotype"][store.split("train")])) == 1


def test_goes_on_with_the_images_that_are_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sciml_dchag.plants.prepare import blocks as cube_blocks

    for name in ("a", "b"):
        write_scan(tmp_path, name)
    begun: list[str] = []
    original = cube_blocks.ImageToPrepare.blocks

    def interrupted(image: cube_blocks.ImageToPrepare, lines: int) -> Iterator[NDArray[np.float32]]:
        begun.append(image.raw.path.stem)
        if begun == ["a", "b"]:
            raise KeyboardInterrupt
        yield from original(image, lines)

    monkeypatch.setattr(cube_blocks.ImageToPrepare, "blocks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path, str(tmp_path))
    store = prepared(tmp_path, str(tmp_path))
    assert begun == ["a", "b", "b"] and store.names == ["a", "b"]
    np.testing.assert_array_equal(store.reflectance("a"), store.reflectance("b"))
    assert sorted(p.name for p in (store.path / "quicklooks").iterdir()) == ["a.png", "b.png"]


def test_colours_are_those_of_the_standard_observer() -> None:
    """Peaks and values of CIE 1931 as tabulated (CIE 15), to the fit's stated accuracy."""
    nm = np.arange(380.0, 781.0)
    x, y, z = colour_matching(nm)
    at = dict(zip(nm, range(len(nm)), strict=True))
    assert abs(y[at[555]] - 1.0) < 0.02 and abs(nm[y.argmax()] - 555) <= 4
    assert abs(x[at[600]] - 1.0622) < 0.03 and abs(z[at[450]] - 1.7721) < 0.06
    weights, _ = colour_weights(nm)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=2e-3)  # a perfect reflector is white
    red, green, blue = weights @ np.exp(-(((nm - 540) / 30) ** 2))
    assert green > max(red, blue)
    _, nearest = colour_weights(np.linspace(1000, 2500, 50))
    assert nearest.endswith("nm")
