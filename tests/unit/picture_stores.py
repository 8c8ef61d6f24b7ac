"""Pictures of leaves made into a store, and commands on it."""

import shutil
from pathlib import Path

import pytest
import zarr
from click.testing import CliRunner, Result

from sciml_dchag.cli import main
from sciml_dchag.files.checksums import LIST
from sciml_dchag.plants.prepare.images import prepare_plants

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


def standardised(store: Path, copy: Path) -> Path:
    """Copy a store and let it say that its spectra were standardised."""
    shutil.copytree(store, copy)
    (copy / LIST).unlink()
    zarr.open_group(copy, mode="r+").attrs["quantity"] = "standard normal variate of reflectance"
    return copy
