"""Pictures of leaves made into a store, and commands on it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import zarr
from click.testing import CliRunner, Result

from sciml_dchag.cli import main
from sciml_dchag.files.checksums import LIST
from sciml_dchag.pipeline import train
from sciml_dchag.plants.prepare.images import prepare_plants
from sciml_dchag.tasks import recipe_from_mapping, task_of
from sciml_dchag.training.evaluation import Evaluation

SPLITS = ("train", "train", "train", "validation", "test", "test")
"""Splits of images, in turn."""


def command(*words: object) -> Result:
    """Run a command as the command line does."""
    return CliRunner().invoke(main, [str(word) for word in words])


def prepared(folder: Path, table: str) -> Path:
    """Prepare `images` of a folder into `leaves.zarr` there, and return the folder."""
    with pytest.warns(UserWarning, match="Pictures of three colours"):
        prepare_plants(
            folder / "images", folder / "leaves.zarr", table=str(folder / table),
            bands="native", mask="none", quicklooks=False, attribution="Drawn.",
        )  # fmt: skip
    return folder


def scores_of_standardised_spectra(recipe: dict[str, Any], place: Path) -> Evaluation:
    """Train two steps on a copy of a recipe's store that says it was standardised, and score."""
    copy = place / "snv.zarr"
    shutil.copytree(recipe["data"]["store"], copy)
    (copy / LIST).unlink()
    zarr.open_group(copy, mode="r+").attrs["quantity"] = "standard normal variate of reflectance"
    data, training = {**recipe["data"], "store": str(copy)}, {**recipe["training"], "steps": 2}
    short = {**recipe, "data": data, "training": {**training, "warmup_steps": 1}}
    changed = recipe_from_mapping(short)
    train(changed, place / "run")
    return task_of(changed).evaluate(place / "run")
