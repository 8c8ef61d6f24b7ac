"""Many images at once: none vanishes, and one that is odd does not stop the others."""

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from plant_files import BANDS, LINES, SAMPLES, counts, leaf, scene, write_envi, write_scan

from sciml_dchag.inspecting import describe
from sciml_dchag.plants.masked.training import MaskedTrainingStore
from sciml_dchag.plants.opened import PlantStore, index
from sciml_dchag.plants.prepare import images
from sciml_dchag.plants.prepare.blocks import ImageToPrepare
from sciml_dchag.plants.prepare.images import prepare_plants
from sciml_dchag.plants.store.summary import summarise
from sciml_dchag.plants.traits.index_maps import write_indices
from sciml_dchag.tasks import recipe_from_mapping
from sciml_dchag.weather.prepare.era5 import prepare_era5

PLAIN: dict[str, Any] = {"bands": "native", "quicklooks": False, "split": "1"}


def prepared(folder: Path, **knobs: Any) -> tuple[PlantStore, list[str]]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        out = prepare_plants([str(folder)], folder / "s.zarr", **{**PLAIN, **knobs})
    return PlantStore.open(out), [str(one.message) for one in said]


def float_image(path: Path, plants: bool = True) -> None:
    noise = np.random.default_rng(0).normal(0, 0.002, scene().shape)
    write_envi(path, (scene(plants) + noise).astype(np.float32))


def test_empty_pots_and_odd_files_are_said_and_the_others_kept(tmp_path: Path) -> None:
    for name, plants in (("pot0", True), ("pot1", False), ("dark_02", True)):
        float_image(tmp_path / name, plants)
    float_image(tmp_path / "odd")
    header = (tmp_path / "odd.hdr").read_text()
    (tmp_path / "odd.hdr").write_text(header.replace("samples = 50", "samples = 51"))
    (tmp_path / "orphan.raw").write_bytes(b"\0" * 100)
    store, said = prepared(tmp_path, quicklooks=True)
    assert store.names == ["dark_02", "pot0", "pot1"]
    assert not store.plants("pot1").any() and store.plants("pot0").max() == 2
    assert any("pot1.raw shows nothing but background" in one for one in said)
    left = json.loads(store.attrs["left_out"])
    assert sorted(Path(path).name for path in left) == ["odd.raw", "orphan.raw"]
    assert any(one.startswith("odd.raw is left out: ") for one in said)
    assert any(line.startswith("Left out: orphan.raw: ") for line in summarise(store))
    assert (store.path / "quicklooks" / "pot1.png").exists()
    table = write_indices(store.path, tmp_path / "i", names=["NDVI"])
    assert table.empty == ("pot1",)  # and no row of no pixels, here and in the file
    written = pd.read_csv(tmp_path / "i" / "indices.csv")
    assert set(written["cube"]) == {"dark_02", "pot0"} and (written["pixels"] > 0).all()
    assert set(store.indices(["NDVI"])["cube"]) == {"dark_02", "pot0"}
    assert describe(str(tmp_path / "i")) == {
        "kind": "spectral indices by plant", "images": 2, "plants": 4, "indices": ["NDVI"],
        "maps": 3,
    }  # fmt: skip
    with pytest.raises(ValueError, match="is a picture, a table or text, which is not described"):
        describe(str(tmp_path / "i" / "indices.csv"))


@pytest.mark.parametrize("when", ["before plants are found", "while blocks are written"])
def test_images_that_break_after_opening_are_said_and_the_others_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    for name in ("a", "b", "c", "d"):
        float_image(tmp_path / name)
    original, broken = ImageToPrepare.blocks, [tmp_path / "b.raw", tmp_path / "d.raw"]

    def cut() -> None:
        for file in broken:
            os.truncate(file, 2000)

    def blocks(image: ImageToPrepare, lines: int) -> Iterator[NDArray[np.float32]]:
        if image.raw.path.stem == "b":
            cut()
        yield from original(image, lines)

    if when == "while blocks are written":
        monkeypatch.setattr(ImageToPrepare, "blocks", blocks)
    else:
        opening = images.open_images
        monkeypatch.setattr(images, "open_images", lambda *a: [opening(*a), cut()][0])
    store, said = prepared(tmp_path)
    assert store.names == ["a", "c"]
    np.testing.assert_array_equal(store["a"]["reflectance"], store["c"]["reflectance"])
    left = json.loads(store.attrs["left_out"])
    assert sorted(Path(path).name for path in left) == ["b.raw", "d.raw"]
    assert any(
        one.startswith("b.raw is left out: ") and "cannot be read to its end" in one for one in said
    )
    assert sorted(path.name for path in tmp_path.glob("s.zarr*")) == ["s.zarr"]


@pytest.mark.parametrize("changed", ["a mask", "the white reflectance"])
def test_files_that_change_after_a_kill_do_not_go_on_in_one_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    scans, masks, panel = tmp_path / "scans", tmp_path / "masks", tmp_path / "panel.csv"
    masks.mkdir()
    for name in ("a", "b"):
        write_scan(scans, name)
        np.save(masks / f"{name}.npy", np.ones((LINES, SAMPLES), int))
    panel.write_text("wavelength,factor\n300,0.9\n1000,0.9\n")
    knobs = {"mask": str(masks), "white_reflectance": str(panel), "quicklooks": False,
             "white": str(scans / "white.hdr"), "dark": str(scans / "dark.hdr")}  # fmt: skip
    original = ImageToPrepare.blocks

    def killed(image: ImageToPrepare, lines: int) -> Iterator[NDArray[np.float32]]:
        if image.raw.path.stem == "b":
            raise KeyboardInterrupt
        yield from original(image, lines)

    with monkeypatch.context() as patched:
        patched.setattr(ImageToPrepare, "blocks", killed)
        with pytest.raises(KeyboardInterrupt):
            prepared(scans, **knobs)
    if changed == "a mask":  # of the image that is finished
        half = np.ones((LINES, SAMPLES), int)
        half[:, :25] = 0
        np.save(masks / "a.npy", half)
    else:
        panel.write_text("wavelength,factor\n300,0.5\n1000,0.5\n")
    with pytest.raises(ValueError, match=r"begun with other settings or sources.*overwrite"):
        prepared(scans, **knobs)
    store, _ = prepared(scans, **knobs, overwrite=True)
    np.testing.assert_array_equal(store["a"]["reflectance"], store["b"]["reflectance"])
    assert (store.plants("a") == np.load(masks / "a.npy")).all()
    factor = 0.9 if changed == "a mask" else 0.5
    np.testing.assert_allclose(
        store.reflectance("b"), np.moveaxis(factor * scene(), 2, 0), atol=2e-3
    )


def test_spectra_say_where_their_plants_are(tmp_path: Path) -> None:
    float_image(tmp_path / "pot")
    drawn = np.zeros((LINES, SAMPLES), int)
    drawn[5:25, 30:45], drawn[10:18, 6:16] = 7, 2
    np.save(tmp_path / "drawn.npy", drawn)
    store, _ = prepared(tmp_path, mask=str(tmp_path / "drawn.npy"), pixel_mm=2.0)
    found = store.spectra()
    assert found["number"].values.tolist() == [2, 7]
    for name, expected in {
        "cube": ["pot", "pot"], "pixels": [80, 300], "centroid_y": [13.5, 14.5],
        "centroid_x": [10.5, 37.0], "box_top": [10, 5], "box_left": [6, 30],
        "box_bottom": [17, 24], "box_right": [15, 44], "area_cm2": [3.2, 12.0],
    }.items():  # fmt: skip
        values = found[name].values.tolist()
        assert values == (pytest.approx(expected) if name != "cube" else expected), name
    values = store.reflectance("pot")[:, drawn == 7]
    np.testing.assert_allclose(found.values[1], values.mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("field", ["plants", "weather"])
def test_an_output_below_a_file_is_refused_in_a_sentence(tmp_path: Path, field: str) -> None:
    """What a folder without the right to write is for others is this for root too."""
    float_image(tmp_path / "pot")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises((OSError, ValueError), match="taken") as refused:
        if field == "plants":
            prepare_plants([str(tmp_path / "pot.hdr")], tmp_path / "taken" / "s.zarr", **PLAIN)
        else:
            prepare_era5(["sample:era5_msl"], tmp_path / "taken" / "s.zarr", channels="msl")
    assert "\n" not in str(refused.value) and (tmp_path / "taken").read_text() == "a file"


def test_where_all_are_odd_nothing_is_written(tmp_path: Path) -> None:
    float_image(tmp_path / "a", plants=False)
    float_image(tmp_path / "b", plants=False)
    with pytest.raises(ValueError, match="a.raw shows nothing but background"):
        prepared(tmp_path)
    write_envi(tmp_path / "a", counts(scene()))
    write_envi(tmp_path / "b", counts(scene()))
    with pytest.raises(ValueError, match=r"a.raw has values from .* no reflectance"):
        prepared(tmp_path)
    assert not list(tmp_path.glob("s.zarr*"))


def test_each_scan_has_the_references_beside_it(tmp_path: Path) -> None:
    ones = np.ones((4, SAMPLES, BANDS))
    for scan, light in (("s1", 1.0), ("s2", 1.5)):
        place = tmp_path / scan / "capture"
        place.mkdir(parents=True)
        for name, level in (
            (scan, scene()),
            (f"WHITEREF_{scan}", ones),
            (f"DARKREF_{scan}", 0 * ones),
        ):
            write_envi(place / name, counts(level, exposure=light))
    store, said = prepared(tmp_path)
    assert not said and store.names == ["s1", "s2"]
    for name in store:
        found = store.reflectance(name).transpose(1, 2, 0)
        np.testing.assert_allclose(found, scene(), atol=1e-3)
        assert store.cube_attrs(name)["white"] == f"WHITEREF_{name}.raw"
    assert "References of 1 image: WHITEREF_s1.raw and DARKREF_s1.raw" in summarise(store)
    given = {kind: str(tmp_path / "s1" / "capture" / f"{kind.upper()}REF_s1.hdr")
             for kind in ("white", "dark")}  # fmt: skip
    right = store.reflectance("s2")
    again, said = prepared(tmp_path, overwrite=True, **given)
    assert "WHITEREF_s2.raw for s2.raw" in said[0]
    np.testing.assert_array_equal(again.reflectance("s2"), right)
    forced, said = prepared(tmp_path, overwrite=True, own_references=False, **given)
    assert "WHITEREF_s2.raw" in said[0]
    assert np.median(forced.reflectance("s2") / right) == pytest.approx(1.5, rel=0.01)


def test_bands_that_no_column_of_the_white_reference_has_are_unknown(tmp_path: Path) -> None:
    """A camera of 12 bits, whose lamp saturates the middle of the white reference."""
    ones = np.ones((4, SAMPLES, BANDS))
    noisy = scene() + np.random.default_rng(0).normal(0, 0.01, scene().shape)
    for name, level in (("scan", noisy), ("white", ones), ("dark", 0 * ones)):
        write_envi(tmp_path / name, np.minimum(counts(level) // 3, 4095).astype(np.uint16))
    store, said = prepared(tmp_path)
    assert any("is saturated (at 4095) in" in one for one in said)
    (lost,) = [one for one in said if "cannot be used in any column" in one]
    found = store.reflectance("scan").transpose(1, 2, 0)
    known = np.isfinite(found)
    np.testing.assert_allclose(found[known], noisy[known], atol=3e-3)
    empty = ~known.any(axis=(0, 1))
    assert 10 < empty.sum() < 50
    np.testing.assert_array_equal(np.isnan(store.statistics().mean), empty)
    recipe = recipe_from_mapping(
        {"name": "x", "task": {"kind": "masked"}, "data": {"store": str(store.path)}}
    )
    with pytest.raises(ValueError, match=r"have no value on plants .*drop_bands="):
        MaskedTrainingStore(recipe)
    spans = lost.split("drop_bands=")[1].split("`")[0]
    again, _ = prepared(tmp_path, drop_bands=spans, overwrite=True)
    assert np.isfinite(again.statistics().mean).all()


def disc(centres: list[tuple[int, int]], radius: int) -> NDArray[np.float32]:
    rows, columns = np.mgrid[: scene().shape[0], : scene().shape[1]]
    image = scene(plants=False)
    for y, x in centres:
        image[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = leaf()
    image += np.random.default_rng(0).normal(0, 0.002, image.shape)
    return image.astype(np.float32)


def test_a_pot_keeps_its_number_through_a_series(tmp_path: Path) -> None:
    pots = [(10, 10), (11, 25), (9, 40), (30, 11), (29, 24), (31, 41)]
    write_envi(tmp_path / "d1", disc([pots[i] for i in (0, 2, 3, 4, 5)], 3))
    write_envi(tmp_path / "d2", disc([(y - 1, x + 1) for y, x in pots], 5))
    store, _ = prepared(tmp_path, pixel_mm=2.0)
    for day, alive in (("d1", (0, 2, 3, 4, 5)), ("d2", range(6))):
        plants = store.plants(day)
        assert [plants[pots[i]] for i in alive] == [i + 1 for i in alive]
    assert "Plants are numbered by place in 2 images" in summarise(store)
    table = store.indices(["NDVI"])
    row = table[(table["cube"] == "d1") & (table["plant"] == 3)].iloc[0]
    assert (row["centroid_y"], row["centroid_x"]) == (9, 40)
    assert (row["box_top"], row["box_left"], row["box_bottom"], row["box_right"]) == (6, 37, 12, 43)
    assert row["pixels"] == 29 and row["area_cm2"] == pytest.approx(29 * 0.04)
    written = write_indices(store.path, tmp_path / "i", names=["NDVI"]).table
    assert list(written["area_cm2"]) == list(table["area_cm2"])
    units = pd.read_csv(tmp_path / "i" / "indices_units.csv").set_index("column")["units"]
    assert units["area_cm2"] == "cm2" and units["centroid_x"] == "pixels"
    by_pot, _ = prepared(tmp_path, pots="2x3", overwrite=True)
    assert [by_pot.plants("d1")[pots[i]] for i in (0, 2, 3, 4, 5)] == [1, 3, 4, 5, 6]


def test_plants_that_touch_and_masks_of_the_background_are_said(tmp_path: Path) -> None:
    pots = [(10, 8), (10, 24), (10, 40), (30, 8), (30, 24)]
    write_envi(tmp_path / "apart", disc(pots, 5))
    write_envi(tmp_path / "touch", disc([*pots, (30, 33)], 5))
    _, said = prepared(tmp_path)
    (note,) = [one for one in said if "as if plants touched" in one]
    assert note.startswith("Plant 5 of touch.raw is 2.0 times as large as the others, as if")
    _, said = prepared(tmp_path, pots="2x3", overwrite=True)
    assert not [one for one in said if "as if plants touched" in one]
    (tmp_path / "masks").mkdir()
    for name, others in (("apart", False), ("touch", True)):
        drawn = np.where((scene()[..., 50] > 0.3) != others, 255, 0).astype(np.uint8)
        Image.fromarray(drawn).save(tmp_path / "masks" / f"{name}.PNG")
    _, said = prepared(tmp_path, mask=str(tmp_path / "masks"), overwrite=True)
    (note,) = [one for one in said if "exchanged in it" in one]
    assert note.startswith("The mask touch.PNG takes 100% of the image's border for plant")


def test_indices_of_standardised_spectra_are_refused(tmp_path: Path) -> None:
    float_image(tmp_path / "x")
    store, _ = prepared(tmp_path, snv=True)
    for refused in (
        lambda: write_indices(store.path, tmp_path / "i"),
        lambda: store.indices(["NDVI"]),
        lambda: index("NDVI", store["x"]),
    ):
        with pytest.raises(ValueError, match="standard normal variate of reflectance, of which"):
            refused()


def test_bands_that_are_made_are_said(tmp_path: Path) -> None:
    float_image(tmp_path / "x")
    store, _ = prepared(tmp_path, bands="400-900x120")
    (line,) = [line for line in summarise(store) if line.startswith("Bands")]
    assert "60 of the camera made into 120 (bands 400-900x120, gaussian)" in line
