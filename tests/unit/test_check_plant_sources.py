"""`check` of a plant recipe fails for what `prepare plants` refuses, in the same words."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from plant_files import LINES, SAMPLES, scene, write_envi

from sciml_dchag.checking import check_recipe
from sciml_dchag.plants.prepare.images import prepare_plants
from sciml_dchag.tasks import recipe_from_mapping

MODEL = {"embed_dim": 16, "depth": 1, "heads": 2, "decoder_dim": 16, "patch": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    noise = np.random.default_rng(0).normal(0, 0.002, scene().shape)
    for name, plants in (("a", True), ("b", True), ("empty", False)):
        write_envi(folder / name, (scene(plants) + noise).astype(np.float32))
    stuck, odd = (scene() + noise).astype(np.float32), (scene() + noise).astype(np.float32)
    stuck[..., 2], odd[7] = 0.05, -9999
    write_envi(folder / "stuck", stuck)
    write_envi(folder / "odd", odd)
    for name, rows in {
        "known": "a,1,train\nb,2,test", "tested": "a,1,test\nb,2,test",
        "misspelt": "a,1,trian\nb,2,test", "without": "a,,train\nb,2,test", "short": "a,1,train",
    }.items():  # fmt: skip
        (folder / f"{name}.csv").write_text(f"file,g,split\n{rows}\n")
    (folder / "unsplit.csv").write_text("file,g\na,\nb,2\n")
    for name, values in {
        "small": np.ones((4, 5)), "black": np.zeros((LINES, SAMPLES)),
        "beside": np.pad(np.ones((2, 2)), ((LINES - 2, 0), (SAMPLES - 2, 0))),
    }.items():  # fmt: skip
        Image.fromarray(values.astype(np.uint8)).save(folder / f"{name}.png")
    return folder


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, ""),
    "a table": ({"table": "known.csv"}, ""),
    "pots": ({"pots": "2x2"}, ""),
    "cut": ({"split": "spatial:0.5,guard=2"}, ""),
    "an empty pot": ({"sources": ["a.hdr", "b.hdr", "empty.hdr"], "split": "1"}, ""),
    "no image to train on": ({"table": "tested.csv"}, "No image is for training"),
    "a word of a split": ({"table": "misspelt.csv"}, "holds 'trian': write train"),
    "a row too few": ({"table": "short.csv"}, "has no row of b.raw"),
    "no column to group by": ({"table": "unsplit.csv", "group_by": "zz"}, "`group_by=zz` needs"),
    "nothing to group by": ({"table": "unsplit.csv", "group_by": "g"}, "has no g of a"),
    "no table to group by": ({"group_by": "g"}, "but there is none: name another"),
    "no pots": ({"pots": "0x3"}, "`pots=0x3` has no pots"),
    "pots that are not there": ({"pots": "no.png"}, "neither ROWSxCOLUMNS"),
    "pots of another size": ({"pots": "small.png"}, "has 4 x 5 pixels and the image 40 x 50"),
    "black pots": ({"pots": "black.png"}, "is all background"),
    "plants beside the pots": ({"pots": "beside.png"}, "No image has a plant in one of the pots"),
    "clipped to one value": ({"clip": [0.6, 1.0]}, "has one value over all plant pixels"),
    "clipped in the infrared": ({"clip": [0.0, 0.3]}, "nm has one value over all plant pixels"),
    "a band of one value": ({"sources": ["stuck.hdr"]}, "The band at 412.288 nm has one value"),
    "numbers in a line": ({"sources": ["odd.hdr"]}, "odd.raw holds -9999 in"),
    "no plant": ({"sources": ["empty.hdr"]}, "shows nothing but background"),
    "no plant to train on": (
        {"sources": ["a.hdr", "empty.hdr"], "table": "only.csv"},
        "None of the 1 training images shows a plant",
    ),
    "a part without a plant": (
        {"split": "spatial:0.1/0.4/0.5,guard=1"},
        "Columns 0 to 4 of a.raw hold no plant",
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", CASES)
def test_check_fails_for_what_prepare_refuses(folder: Path, case: str, tmp_path: Path) -> None:
    given, why = CASES[case]
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "only.csv").write_text("file,split\na,test\nempty,train\n")
    settings = {"sources": ["a.hdr", "b.hdr"], "bands": "native", "quicklooks": False,
                "split": "0.5/0.25/0.25", **given}  # fmt: skip
    settings["sources"] = [str(tmp_path / name) for name in settings["sources"]]
    for key in ("table", "pots"):
        if str(settings.get(key)).endswith(("csv", "png")):
            settings[key] = str(tmp_path / settings[key])
    recipe = recipe_from_mapping(
        {"name": "x", "task": {"kind": "masked"}, "model": MODEL, "prepare": settings,
         "data": {"store": str(tmp_path / "s.zarr"), "image_size": [4, 4]}}
    )  # fmt: skip
    failing = [f.what for f in check_recipe(recipe, tmp_path / "runs") if f.verdict == "fails"]
    if not why:
        assert not failing
        prepare_plants(out=tmp_path / "s.zarr", **settings)
        return
    with pytest.raises((ValueError, OSError)) as refused:
        prepare_plants(out=tmp_path / "s.zarr", **settings)
    assert why in str(refused.value)
    assert failing == [str(refused.value)]
