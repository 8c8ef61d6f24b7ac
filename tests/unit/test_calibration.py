"""Counts to reflectance: the known scene comes back; what cannot be known is NaN and counted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from plant_files import BANDS, LINES, SAMPLES, WAVELENGTH_NM, camera, counts, raw, scene

from sciml_dchag.plants.prepare.believable import require_believable
from sciml_dchag.plants.prepare.calibration import Calibration, Counts, calibrate, panel_factor
from sciml_dchag.plants.read.raw_cube import RawCube

WHITE = raw(counts(np.ones((7, SAMPLES, BANDS))), "white.raw")
DARK = raw(counts(np.zeros((7, SAMPLES, BANDS))), "dark.raw")


def apply(calibration: Calibration, image: RawCube) -> tuple[NDArray[np.float32], Counts]:
    """Calibrate line by line, as `prepare` does: (lines, samples, bands)."""
    out = np.empty((image.lines, image.bands, image.samples), np.float32)
    total = Counts()
    for line, numbers in enumerate(image.read_lines(slice(0, image.lines))):
        total.add(calibration.apply(numbers.T, out[line]))
    return out.transpose(0, 2, 1), total


def test_the_scene_comes_back() -> None:
    found, counted = apply(calibrate(raw(counts(scene())), WHITE, DARK), raw(counts(scene())))
    # Counts are rounded to one in some 7000 at the dimmest band: half of one, twice.
    np.testing.assert_allclose(found, scene(), atol=3e-4)
    assert counted == Counts(values=LINES * SAMPLES * BANDS)


def test_columns_are_told_apart_and_bands_alone_are_not() -> None:
    narrow = raw(WHITE.read_lines(slice(0, 7))[:, :9], "white.raw")
    image = raw(counts(scene()))
    with pytest.raises(ValueError, match=r"9 pixels wide .* 50.*references=band"):
        calibrate(image, narrow, DARK)
    by_band = calibrate(image, narrow, DARK, references="band")
    assert by_band.gain.shape == (BANDS, 1)
    found, _ = apply(by_band, image)
    # The columns of this camera differ by 20 percent either way, which is what remains.
    ratio = found[0, :, 30] / scene()[0, :, 30]
    assert ratio.min() < 0.95 and ratio.max() > 1.05


@pytest.mark.parametrize("longer", [1.0, 2.0, 0.25])
def test_exposures_scale_counts_above_dark(longer: float) -> None:
    image = raw(counts(scene(), exposure=longer), exposure_ms=10.0 * longer)
    white, dark = replace(WHITE, exposure_ms=10.0), replace(DARK, exposure_ms=10.0 * longer)
    found, _ = apply(calibrate(image, white, dark), image)
    np.testing.assert_allclose(found, scene(), atol=2e-3)


def test_a_dark_reference_of_another_exposure_is_remarked() -> None:
    image, white = (replace(one, exposure_ms=10.0) for one in (raw(counts(scene())), WHITE))
    (remark,) = calibrate(image, white, replace(DARK, exposure_ms=5.0)).remarks
    assert "5 ms" in remark and "10 ms" in remark


def test_without_a_dark_reference_it_is_zero_with_a_remark() -> None:
    image = raw(counts(scene()))
    calibration = calibrate(image, WHITE, None)
    assert not calibration.dark.any() and "no dark reference" in calibration.remarks[0]
    dark, lamp = camera()
    found, _ = apply(calibration, image)
    wanted = (dark + lamp * scene()) / (dark + lamp)
    np.testing.assert_allclose(found, wanted, atol=3e-4)


def test_where_white_is_not_above_dark_nothing_is_known() -> None:
    white = WHITE.read_lines(slice(0, 7)).copy()
    white[:, 3, 11] = DARK.read_lines(slice(0, 7))[:, 3, 11]
    white[:, 4, 11] = 0
    image = raw(counts(scene()))
    calibration = calibrate(image, raw(white, "white.raw"), DARK)
    found, counted = apply(calibration, image)
    assert calibration.unusable == 2 and counted.masked == 2 * LINES
    assert np.isnan(found[:, 3:5, 11]).all() and np.isnan(found).sum() == 2 * LINES
    assert not np.isinf(found).any()


def test_exchanged_references_are_refused() -> None:
    with pytest.raises(ValueError, match="exchanged"):
        calibrate(raw(counts(scene())), DARK, WHITE)


def test_saturated_missing_and_infinite_values_are_counted() -> None:
    values = counts(scene())
    values[2, 3, 4], values[5, 6, 7] = 65535, 0
    image = raw(values, saturation=65535.0, missing=0.0)
    found, counted = apply(calibrate(image, WHITE, DARK), image)
    assert (counted.saturated, counted.missing) == (1, 1)
    assert np.isnan(found[2, 3, 4]) and np.isnan(found[5, 6, 7]) and np.isnan(found).sum() == 2
    reflectance = scene().astype(np.float32)
    reflectance[1, 1, 1], reflectance[2, 2, 2] = np.inf, np.nan
    image = raw(reflectance)
    found, counted = apply(calibrate(image, None, None), image)
    assert counted.missing == 2 and np.isnan(found).sum() == 2 and not np.isinf(found).any()


def test_a_saturated_white_reference_says_nothing() -> None:
    white = WHITE.read_lines(slice(0, 7)).copy()
    white[1, 8, 9] = 65535
    calibration = calibrate(raw(counts(scene())), raw(white, "white.raw", saturation=65535.0), DARK)
    assert np.isnan(calibration.gain[9, 8]) and calibration.unusable == 1


def test_reflectance_is_divided_by_its_scale_and_counts_are_refused() -> None:
    image = raw(np.round(scene() * 10000).astype(np.uint16), scale=10000.0)
    found, _ = apply(calibrate(image, None, None), image)
    np.testing.assert_allclose(found, scene(), atol=6e-5)
    image = raw(counts(scene()))
    with pytest.raises(ValueError, match=r"values from .*`white`.*reflectance scale factor"):
        require_believable(image, calibrate(image, None, None), np.arange(BANDS))
    with pytest.raises(ValueError, match="white=FILE"):
        calibrate(raw(counts(scene())), None, DARK)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"wavelength_nm": WAVELENGTH_NM + 2}, "band 1 at 397 nm"),
        ({"exposure_ms": 10.0}, "does not say its own"),
    ],
)
def test_references_of_another_kind_are_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        calibrate(raw(counts(scene())), replace(WHITE, **changes), DARK)


def test_references_with_other_bands_are_refused() -> None:
    fewer = raw(
        WHITE.read_lines(slice(0, 7))[:, :, :50], "white.raw", wavelength_nm=WAVELENGTH_NM[:50]
    )
    with pytest.raises(ValueError, match=r"white.raw has 50 bands and scan.raw 60"):
        calibrate(raw(counts(scene())), fewer, DARK)


def test_the_panels_reflectance(tmp_path: Path) -> None:
    image = raw(counts(scene()))
    found, _ = apply(calibrate(image, WHITE, DARK, white_reflectance=0.5), image)
    np.testing.assert_allclose(found, 0.5 * scene(), atol=3e-4)
    table = tmp_path / "panel.csv"
    table.write_text("wavelength,factor\n1000,0.8\n300,0.94\n")
    np.testing.assert_allclose(
        panel_factor(str(table), np.array([300.0, 650.0, 1000.0])), [0.94, 0.87, 0.8]
    )
    with pytest.raises(ValueError, match="covers 300 to 1000 nm"):
        panel_factor(str(table), np.array([250.0, 400.0]))
    with pytest.raises(ValueError, match=r"99.*0\.99"):
        panel_factor("99", WAVELENGTH_NM)
    for text in (
        "wavelength;factor\n1000;0,8\n300;0,94\n", "# panel 12\n1000\t0,8\n300\t0.94\n",
        "Wavelength (nm);uncertainty;Reflectance\n300;0,01;0,94\n1000;0,02;0,8\n",
    ):  # fmt: skip
        for encoding in ("utf-8-sig", "utf-16"):
            table.write_text(text, encoding=encoding)
            np.testing.assert_allclose(panel_factor(str(table), np.array([650.0])), 0.87)
    for text in ("300,0.94,0.01\n1000,0.8,0.01\n", "300,nan\n1000,0.8\n", "nm,R\n300,0,94\n"):
        table.write_text(text)
        with pytest.raises(ValueError, match=r"no table of the panel's reflectance|row 2 has"):
            panel_factor(str(table), np.array([650.0]))
    table.write_text("a,b\nc,d\n")
    with pytest.raises(ValueError, match="two columns"):
        panel_factor(str(table), WAVELENGTH_NM)
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        panel_factor("none.csv", WAVELENGTH_NM)


def test_a_panel_that_has_two_values_at_a_wavelength(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("wavelength,factor\n300,0.5\n600,0.5\n1000,0.5\n600,0.9\n")
    with pytest.raises(ValueError, match="reflectance at 600 nm twice: keep one of the rows"):
        panel_factor(str(tmp_path / "p.csv"), np.array([400.0, 900.0]))
