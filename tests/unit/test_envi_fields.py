"""What an ENVI header says beside the layout: fields without a value, and what numbers stand for."""

from pathlib import Path

import numpy as np
import pytest
from plant_files import counts, scene, write_envi

from sciml_dchag.plants.prepare.calibration import calibrate
from sciml_dchag.plants.read.cube_files import open_cube


@pytest.mark.parametrize(
    ("fields", "radiance"),
    [
        ({"z plot titles": "{Wavelength, Radiance}"}, True),
        ({"data units": "Radiance (W m-2 sr-1 nm-1)"}, True),
        ({"description": "{radiance, 12 May}"}, True),
        ({"description": "{Reflectance made from radiance}"}, False),
        ({"description": "{with a lamp of known irradiance}"}, False),
        ({}, False),
    ],
)
def test_headers_that_say_radiance(
    tmp_path: Path, fields: dict[str, object], radiance: bool
) -> None:
    header = write_envi(tmp_path / "x", scene().astype(np.float32), **fields)
    assert open_cube(header.with_suffix(".raw")).radiance == radiance


def test_fields_without_a_value_say_nothing(tmp_path: Path) -> None:
    blank = {"bbl": "{}", "fwhm": "{ }", "data gain values": "", "data ignore value": "",
             "reflectance scale factor": "", "exposure": "", "header offset": ""}  # fmt: skip
    write_envi(tmp_path / "x", counts(scene()), **blank)
    cube = open_cube(tmp_path / "x.raw")
    assert cube.good_bands is None and cube.fwhm_nm is None and cube.band_gain is None
    assert (cube.scale, cube.missing, cube.exposure_ms) == (1.0, None, None)
    (said,) = cube.remarks
    assert "assumed: header offset 0 by the file's size" in said
    np.testing.assert_array_equal(cube.read_lines(slice(None)), counts(scene()))
    write_envi(tmp_path / "y", counts(scene()), samples="", interleave="")
    with pytest.raises(ValueError, match="has no samples and no interleave"):
        open_cube(tmp_path / "y.raw")


def test_exposures_that_are_no_numbers_have_to_be_the_same(tmp_path: Path) -> None:
    """Otherwise counts of one exposure would be divided by those of another."""
    for image, white, same in (
        ("auto", "auto", True),
        ("auto", "fast", False),
        ("auto", "5", False),
    ):
        for name, level, said in (("scan", scene(), image), ("white", np.ones((4, 50, 60)), white)):
            write_envi(tmp_path / name, counts(level), exposure=said)
        scan, reference = (open_cube(tmp_path / f"{name}.raw") for name in ("scan", "white"))
        if same:
            assert calibrate(scan, reference, None).gain.shape == (60, 50)
            continue
        with pytest.raises(ValueError, match=r"exposure.* counts (may )?(do )?not compare"):
            calibrate(scan, reference, None)
