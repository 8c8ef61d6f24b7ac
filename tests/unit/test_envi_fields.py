"""What an ENVI header says beside the layout: fields without a value, and what numbers stand for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plant_files import BANDS, SAMPLES, camera, counts, scene, write_envi

from sciml_dchag.plants.prepare.calibration import calibrate
from sciml_dchag.plants.prepare.images import prepare_plants
from sciml_dchag.plants.read.cube_files import open_cube
from sciml_dchag.plants.read.raw_cube import RawCube
from sciml_dchag.plants.store.cubes import CubeStore


@pytest.mark.parametrize(
    ("fields", "radiance"),
    [
        ({"z plot titles": "{Wavelength, Radiance}"}, True),
        ({"data units": "Radiance (W m-2 sr-1 nm-1)"}, True),
        ({"description": "{radiance, 12 May}"}, True),
        ({"data units": "uW/(cm^2 nm sr)"}, True),
        ({"units": "W m-2 sr-1 um-1"}, True),
        ({"units": "W m-2 um-1"}, False),
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


ONES = np.ones((5, SAMPLES, BANDS))
GAIN = np.linspace(1e-5, 2e-5, BANDS)
TO_RADIANCE = {"data gain values": "{" + ", ".join(f"{gain:.8g}" for gain in GAIN) + "}"}


def test_gains_to_radiance_make_no_reflectance_alone(tmp_path: Path) -> None:
    """`data gain values` of ENVI: small radiance may pass for reflectance."""

    def of(values: Any, name: str, **fields: Any) -> RawCube:
        return open_cube(write_envi(tmp_path / name, counts(values), **fields))

    image = of(scene(), "scan", **TO_RADIANCE)
    with pytest.raises(ValueError, match="scan.raw says that it is radiance, which is no refl"):
        calibrate(image, None, None)
    assert not of(scene(), "x", **TO_RADIANCE, **{"data units": "reflectance"}).radiance
    white, dark = of(ONES, "white"), of(0 * ONES, "dark")
    with pytest.raises(ValueError, match="scan.raw is radiance by its header and The white ref"):
        calibrate(image, white, dark)
    with pytest.raises(ValueError, match="radiance by its header and plain.raw says nothing"):
        calibrate(of(scene(), "plain"), of(ONES, "white", **TO_RADIANCE), dark)


def test_exposures_and_gains_of_the_camera_are_no_part_of_radiance(tmp_path: Path) -> None:
    """A white of a quarter of the exposure, whose gains to radiance are four times as large."""
    _, lamp = camera()
    fourfold = {"data gain values": "{" + ", ".join(f"{4 * gain:.8g}" for gain in GAIN) + "}"}
    values = {"scan": lamp * scene(), "white": 0.25 * lamp * ONES}
    scan, white = (
        open_cube(write_envi(tmp_path / name, np.round(values[name]).astype("u2"), **fields))
        for name, fields in (
            ("scan", {"exposure": 4, "gain": 1, **TO_RADIANCE}),
            ("white", {"exposure": 1, "gain": 2, **fourfold}),
        )
    )
    out = np.empty((BANDS, SAMPLES), np.float32)
    calibrate(scan, white, None).apply(scan.read_lines(slice(14, 15))[0].T, out)
    np.testing.assert_allclose(out.T, scene()[14], atol=2e-3)


@pytest.mark.parametrize(
    ("field", "value", "scale"),
    [
        ("reflectance scale factor", "10000", 10000), ("reflectance_scale_factor", "{1e4}", 10000),
        ("Scale_Factor", "0.0001", 10000), ("data scale factor", "100.0", 100),
    ],
)  # fmt: skip
def test_scales_in_every_spelling(tmp_path: Path, field: str, value: str, scale: float) -> None:
    header = write_envi(tmp_path / "x", np.round(scene() * scale).astype("u2"), **{field: value})
    assert open_cube(header).scale == pytest.approx(scale)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("reflectance scale factor", "{1, 2}", "where a number above 0 is needed"),
        ("scale factor", "-1", "where a number above 0 is needed"),
        ("add offset", "-0.1", "an offset of all bands, which is not applied"),
        ("reflectance_offset", "1000", "an offset of all bands, which is not applied"),
    ],
)
def test_scales_and_offsets_that_cannot_be_applied(
    tmp_path: Path, field: str, value: str, sentence: str
) -> None:
    header = write_envi(tmp_path / "x", scene().astype("f4"), **{field: value})
    with pytest.raises(ValueError, match=sentence):
        open_cube(header)
    assert open_cube(write_envi(tmp_path / "x", scene().astype("f4"), **{"add offset": 0}))


def test_references_of_another_black_level(tmp_path: Path) -> None:
    scan = open_cube(write_envi(tmp_path / "scan", counts(scene()), **{"black level": 10}))
    white = open_cube(write_envi(tmp_path / "white", counts(ONES), **{"black level": 200}))
    with pytest.raises(ValueError, match="white.raw was taken at offset 200 and scan.raw at off"):
        calibrate(scan, white, None)


@pytest.mark.parametrize("widths", [(8, 800), (8, 200), (0.001, 8)])
def test_widths_of_some_bands_that_cannot_be(tmp_path: Path, widths: tuple[float, float]) -> None:
    listed = "{" + ", ".join([f"{widths[0]}"] * 30 + [f"{widths[1]}"] * 30) + "}"
    cube = open_cube(write_envi(tmp_path / "x", counts(scene()), fwhm=listed))
    assert cube.fwhm_nm is None and "left aside" in cube.remarks[0]


@pytest.mark.parametrize(
    ("name", "value", "missing"),
    [
        ("data ignore value", f"{{{', '.join(['0'] * BANDS)}}}", 0.0),
        ("data ignore value", "-9999 ; no data", -9999.0),
        ("data ignore value", "nan", None),
        ("data ignore value", "-1.#IND", None),
        ("data ignore value", "none", None),
        ("nodata", "-9999.0", -9999.0),
    ],
)
def test_what_stands_for_no_data(
    name: str, value: str, missing: float | None, tmp_path: Path
) -> None:
    write_envi(tmp_path / "x", scene().astype(np.float32), **{name: value})
    assert open_cube(tmp_path / "x.raw").missing == missing


@pytest.mark.parametrize("value", ["{0, 1, 0}", "zero"])
def test_no_number_that_stands_for_no_data(value: str, tmp_path: Path) -> None:
    write_envi(tmp_path / "x", scene().astype(np.float32), **{"data ignore value": value})
    with pytest.raises(ValueError, match="where one number is needed: correct it, or remove it"):
        open_cube(tmp_path / "x.raw")


def test_zeros_that_a_list_says_are_no_data_are_missing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.002, scene().shape)
    values = (scene() + noise).astype(np.float32)
    values[:3] = 0
    zeros = f"{{{', '.join(['0'] * BANDS)}}}"
    header = write_envi(tmp_path / "x", values, **{"data ignore value": zeros})
    prepare_plants([header], tmp_path / "s.zarr", bands="native", split="1", quicklooks=False)
    found = CubeStore.open(tmp_path / "s.zarr").reflectance("x")
    assert np.isnan(found[:, :3]).all() and np.isfinite(found[:, 3:]).all()


@pytest.mark.parametrize(
    "field",
    [
        {"z plot titles": "{Wavelength, Absorbance}"},
        {"description": "{log(1/R) of leaf 3}"},
        {"description": "{continuum removed reflectance}"},
        {"data units": "first derivative of reflectance"},
    ],
)
def test_headers_that_say_what_is_made_from_reflectance(
    field: dict[str, str], tmp_path: Path
) -> None:
    write_envi(tmp_path / "x", scene().astype(np.float32), **field)
    with pytest.raises(ValueError, match="which is no reflectance: name the image that it was"):
        open_cube(tmp_path / "x.raw")
