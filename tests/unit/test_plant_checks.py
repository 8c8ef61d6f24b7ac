"""`check` of a plant recipe, before anything is prepared, and what scores leave out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plant_files import counts, scene, write_envi, write_scan

from sciml_dchag.checking import check_recipe
from sciml_dchag.inspecting import describe
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.plants.masked.scores import number_of_components
from sciml_dchag.plants.prepare.images import prepare_plants
from sciml_dchag.tasks import recipe_from_mapping

MODEL = {"embed_dim": 16, "depth": 1, "heads": 2, "decoder_dim": 16, "patch": 4}


def findings(
    folder: Path, size: tuple[int, int] = (16, 16), training: Any = None, **prepare: Any
) -> dict[str, str]:
    settings = {"sources": [str(folder / "scan.hdr")], "bands": "400-900x80", **prepare}
    recipe = recipe_from_mapping(
        {"name": "x", "task": {"kind": "masked"}, "prepare": settings, "model": MODEL,
         "data": {"store": str(folder / "s.zarr"), "image_size": list(size)},
         "training": training or {}}
    )  # fmt: skip
    assert isinstance(recipe, MaskedRecipe)
    found = check_recipe(recipe, folder / "runs")
    return {finding.what: finding.verdict for finding in found}


def failing(found: dict[str, str]) -> list[str]:
    return [what for what, verdict in found.items() if verdict == "fails"]


def test_counts_without_a_white_reference(tmp_path: Path) -> None:
    write_scan(tmp_path)
    white, dark = (str(tmp_path / f"{name}.hdr") for name in ("white", "dark"))
    assert not failing(findings(tmp_path, white=white, dark=dark))
    (said,) = failing(findings(tmp_path, own_references=False))
    assert "no reflectance: give its references with `white`" in said
    with_own = findings(tmp_path)
    assert not failing(with_own)
    assert any("1 image(s) of 60 bands, 2 reference(s)" in what for what in with_own)


@pytest.mark.parametrize("split", ["1", "spatial:0.6,guard=4"])
def test_images_smaller_than_a_crop(tmp_path: Path, split: str) -> None:
    write_scan(tmp_path)
    assert not failing(findings(tmp_path, (16, 16), split=split))
    (said,) = failing(findings(tmp_path, (32, 32) if split != "1" else (44, 48), split=split))
    assert "fewer than a crop of" in said and "lower data.image_size" in said


def test_images_that_would_be_left_out(tmp_path: Path) -> None:
    write_scan(tmp_path)
    write_envi(tmp_path / "other", counts(scene()), **{"gain": 4})
    (said,) = failing(findings(tmp_path, sources=[str(tmp_path)]))
    assert "1 image(s) would be left out" in said and "other.raw" in said and "gain 4" in said


def test_what_images_are_for(tmp_path: Path) -> None:
    write_scan(tmp_path)
    found = findings(tmp_path, split="1")
    counted = "images: 1 for train, 0 for validation, 0 for test"
    assert f"{counted}: `evaluate` and `run` need a test image, `train` none" in found
    assert not failing(found)
    training = {"validate_every": 10, "steps": 20, "warmup_steps": 1}
    (said,) = failing(findings(tmp_path, training=training, split="1"))
    assert "training.validate_every is 10, but the images are 1 for train" in said
    cut = findings(tmp_path, (8, 8), training, split="spatial:0.4/0.3/0.3,guard=2")
    assert "images: 1 for train, 1 for validation, 1 for test" in cut and not failing(cut)


def test_a_store_without_a_test_image(tmp_path: Path) -> None:
    write_scan(tmp_path)
    settings = {"bands": "400-900x80", "split": "1", "quicklooks": False}
    prepare_plants([str(tmp_path / "scan.hdr")], tmp_path / "s.zarr", **settings)
    found = findings(tmp_path)
    (note,) = (what for what, verdict in found.items() if verdict == "note")
    assert not failing(found) and "is for testing, which `evaluate` and `run` score" in note


def test_the_pca_has_fewer_components_than_bands() -> None:
    assert number_of_components(0, 500) == 100 and number_of_components(0, 4) == 1
    assert number_of_components(7, 8) == 7
    with pytest.raises(ValueError, match="evaluation.components is 8 for 8 bands"):
        number_of_components(8, 8)


def test_inspect_of_raw_images_and_folders(tmp_path: Path) -> None:
    write_scan(tmp_path / "scans", **{"exposure": 12.5, "gain": 2})
    facts = describe(str(tmp_path / "scans" / "scan.hdr"))
    assert facts["kind"] == "hyperspectral image" and facts["exposure"] == "12.5 ms"
    assert facts["size"] == "40 lines x 50 samples x 60 bands" and facts["gain"] == "2"
    assert facts["wavelengths"] == "395 to 905 nm" and facts["type"] == "uint16"
    (tmp_path / "scans" / "orphan.hdr").write_text("ENVI\n")
    folder = describe(str(tmp_path / "scans"))
    assert folder["images"] == [
        "scan.raw (40 x 50, 60 bands, uint16, white white.raw and dark dark.raw)"
    ]
    assert "orphan.hdr" in folder["cannot be read"][0]
    np.save(tmp_path / "x.npy", scene().astype("f4"))
    with pytest.raises(ValueError, match="says no wavelengths"):
        describe(str(tmp_path / "x.npy"))
