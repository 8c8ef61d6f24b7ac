"""Headers with a wrong interleave, or lines and samples exchanged: right in size, wrong all over."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plant_files import BANDS, WAVELENGTH_NM, scene, write_envi

from sciml_dchag.files.samples import sample_path
from sciml_dchag.plants.read.cube_files import open_cube
from sciml_dchag.plants.read.jumbled import AXES


def scan(level: Any = None) -> Any:
    """Counts of a camera whose columns differ by 3 %, (60, 50, bands)."""
    rng = np.random.default_rng(0)
    lamp = 20000 * np.exp(-(((WAVELENGTH_NM - 650) / 300) ** 2)) * rng.normal(1, 0.03, (50, 1))
    level = np.concatenate([scene(), scene()[:12]]) if level is None else level
    values = 100 + lamp * level + rng.normal(0, 5, (52, 50, BANDS))
    return np.round(values).clip(0).astype(np.uint16)


def write(path: Path, values: Any, true: str, **said: Any) -> Path:
    """Write an image in one order, with what its header says instead."""
    header = write_envi(path, values, **{"interleave": true, **said})
    np.ascontiguousarray(values.transpose(AXES[true])).tofile(path.with_suffix(".raw"))
    return header


@pytest.mark.parametrize(("true", "said"), [*itertools.permutations(AXES, 2)])
def test_a_wrong_interleave_is_refused(tmp_path: Path, true: str, said: str) -> None:
    header = write(tmp_path / "x", scan(), true, interleave=said)
    fix = f"interleave {said} of 52 lines and 50 samples: .* with interleave = {true}, so correct"
    with pytest.raises(ValueError, match=fix):
        open_cube(header)
    assert open_cube(write(tmp_path / "x", scan(), true)).lines == 52


@pytest.mark.parametrize("true", AXES)
def test_lines_and_samples_that_are_exchanged_are_refused(tmp_path: Path, true: str) -> None:
    header = write(tmp_path / "x", scan()[:34], true, lines=50, samples=34)
    with pytest.raises(ValueError, match="similar with lines = 34 and samples = 50, so correct"):
        open_cube(header)


@pytest.mark.parametrize("interleave", AXES)
def test_images_that_are_as_they_say(tmp_path: Path, interleave: str) -> None:
    """Also without any likeness (dark), without differences, and with bands in another order."""
    noise = np.random.default_rng(1).normal(0, 1, (52, 50, BANDS)).astype(np.float32)
    endless = np.where(noise > 1, np.inf, noise).astype(np.float32)
    for values in (scan(), scan(0.0), scan(1.0), noise, 0 * noise, endless):
        assert open_cube(write(tmp_path / "x", values, interleave)).samples == 50
    order = np.random.default_rng(2).permutation(BANDS)
    listed = {"wavelength": f"{{{', '.join(map(str, WAVELENGTH_NM[order]))}}}"}
    assert open_cube(write(tmp_path / "x", scan()[..., order], interleave, **listed)).bands == BANDS


def test_the_embedded_kernel(tmp_path: Path) -> None:
    kernel = open_cube(sample_path("maize_kernel"))
    numbers = kernel.read_lines(slice(None))
    assert kernel.bands == 580
    header = write_envi(tmp_path / "x", numbers, kernel.wavelength_nm, interleave="bip")
    with pytest.raises(ValueError, match="neighbours are similar with interleave = bil"):
        open_cube(header)
