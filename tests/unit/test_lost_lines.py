"""Scans that were aborted or lost frames: lines of zeros, or of a line that is repeated."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plant_files import BANDS, LINES, SAMPLES, counts, raw, scene, write_envi

from sciml_dchag.plants.prepare.calibration import calibrate
from sciml_dchag.plants.prepare.images import prepare_plants
from sciml_dchag.plants.prepare.lost_lines import lost_lines
from sciml_dchag.plants.store.cubes import CubeStore

ONES = np.ones((8, SAMPLES, BANDS))


def noisy(values: Any = None) -> Any:
    noise = np.random.default_rng(3).normal(0, 3, scene().shape)
    return np.round((counts(scene()) if values is None else values) + noise).astype(np.uint16)


def cut(what: str) -> tuple[Any, list[int]]:
    """An image with lines that were not scanned, and which these are."""
    values, lost = noisy(), [*range(7, 11), *range(30, LINES)]
    for line in lost:
        values[line] = 0 if what == "zeros" else values[6 if line < 20 else 29]
    return values, lost


@pytest.mark.parametrize("what", ["zeros", "repeats"])
@pytest.mark.parametrize("most_bytes", [2**25, 14 * SAMPLES * BANDS * 2])
def test_lines_that_were_not_scanned(what: str, most_bytes: int) -> None:
    """Whether every line is looked at, or every third and the ends of what is found."""
    values, lost = cut(what)
    found, (said,) = lost_lines(raw(values), referenced=True, most_bytes=most_bytes)
    assert sorted(found) == lost
    words = "holds zeros alone" if what == "zeros" else "repeats one line"
    assert f"scan.raw {words} in lines 7 to 10, 30 to 39, 14 of 40 lines, as where" in said


def test_lines_that_are_alike_for_other_reasons() -> None:
    enlarged = np.repeat(noisy()[:10], 4, axis=0)
    once = noisy()
    once[5] = once[4]
    cut_out = noisy()
    cut_out[:20, :10], cut_out[:5], cut_out[-8:] = 0, 0, 0
    border = noisy()
    border[:6] = border[0, 0]
    for values in (counts(scene()), enlarged, once, cut_out, border):
        assert lost_lines(raw(values), referenced=False) == (frozenset(), [])
    assert sorted(lost_lines(raw(cut_out), referenced=True)[0]) == [*range(5), *range(32, LINES)]
    few = raw(cut("zeros")[0][..., :3], wavelength_nm=np.array([460.0, 550.0, 640.0]))
    assert lost_lines(few, referenced=False) == (frozenset(), [])
    assert lost_lines(raw(np.zeros_like(cut_out)), referenced=True) == (frozenset(), [])


@pytest.mark.parametrize("bands", ["native", "400-900x40"])
@pytest.mark.parametrize("referenced", [True, False])
@pytest.mark.parametrize("what", ["zeros", "repeats"])
def test_they_have_no_value_in_the_store(
    what: str, referenced: bool, bands: str, tmp_path: Path
) -> None:
    values, lost = cut(what)
    if not referenced:
        values = (values / 60000).astype(np.float32)
    header = write_envi(tmp_path / "x", values)
    given = {}
    if referenced:
        given = {"white": str(write_envi(tmp_path / "white", counts(ONES))),
                 "dark": str(write_envi(tmp_path / "dark", counts(0 * ONES)))}  # fmt: skip
    drawn = what == "zeros" and bands == "native"
    with pytest.warns(UserWarning, match=r"lines 7 to 10, 30 to 39, 14 of 40 lines"):
        prepare_plants(
            [header], tmp_path / "s.zarr", bands=bands, split="1", quicklooks=drawn, **given
        )
    found = CubeStore.open(tmp_path / "s.zarr").reflectance("x")
    kept = [line for line in range(LINES) if line not in lost]
    assert np.isnan(found[:, lost]).all() and np.isfinite(found[:, kept]).all()
    if referenced and bands == "native":
        np.testing.assert_allclose(np.moveaxis(found, 0, -1)[kept], scene()[kept], atol=0.01)


def test_zeros_of_a_reference_are_left_out() -> None:
    """The end of a dark scan that was aborted made dark too dark."""
    dark = counts(0 * ONES)
    dark[5:] = 0
    calibration = calibrate(raw(counts(scene())), raw(counts(ONES)), raw(dark, "dark.raw"))
    whole = calibrate(raw(counts(scene())), raw(counts(ONES)), raw(counts(0 * ONES)))
    np.testing.assert_array_equal(calibration.dark, whole.dark)
    np.testing.assert_array_equal(calibration.gain, whole.gain)
    assert calibration.remarks == (
        "The reference dark.raw holds zeros alone in 3 of its 8 lines, as where its scan was "
        "aborted: they are left out.",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        none = calibrate(raw(counts(scene())), raw(counts(ONES)), raw(0 * dark))
    assert not none.dark.any() and not none.remarks
