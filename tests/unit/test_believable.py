"""What is taken for reflectance is believable everywhere, or refused with what to set."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from plant_files import BANDS, SAMPLES, WAVELENGTH_NM, counts, raw, scene

from sciml_dchag.plants.prepare.bands import parse_spans, without_bands
from sciml_dchag.plants.prepare.believable import require_believable
from sciml_dchag.plants.prepare.calibration import calibrate
from sciml_dchag.plants.read.raw_cube import RawCube

NUMBERS = np.round(scene() * 10000)


def believable(image: RawCube, *references: RawCube | None) -> list[str]:
    calibration = calibrate(image, *(references or (None, None)))
    good = np.ones(BANDS, bool) if image.good_bands is None else image.good_bands
    return require_believable(image, calibration, np.flatnonzero(good))


def line_of_nodata(numbers: NDArray[Any]) -> None:
    numbers[18:22] = -9999


def half_of_nodata(numbers: NDArray[Any]) -> None:
    numbers[:, :28] = -9999


def leaves_alone(numbers: NDArray[Any]) -> None:
    numbers[:, :, :][scene()[..., 50] < 0.3] = 0


@pytest.mark.parametrize(
    ("change", "dtype", "missing"),
    [
        (line_of_nodata, "int32", -9999.0),
        (leaves_alone, "uint16", None),
        (leaves_alone, "float32", None),
        (half_of_nodata, "int16", -9999.0),
    ],
)
def test_numbers_of_another_scale_wherever_the_plants_stand(
    change: Any, dtype: str, missing: float | None
) -> None:
    numbers = NUMBERS.astype(dtype)
    change(numbers)
    image = raw(numbers, missing=missing)
    with pytest.raises(ValueError, match=r"scan.raw has values from .*`scale=10000`"):
        believable(image)
    assert not believable(replace(image, scale=10000.0))
    with pytest.raises(ValueError, match=r"`scale=100`"):
        believable(raw((numbers / 100).astype("f4"), missing=missing and missing / 100))


@pytest.mark.parametrize("fill", [-9999.0, 65535.0, 1e34, -3.4e38])
@pytest.mark.parametrize("part", [0.5, 0.02])
def test_undeclared_numbers_for_no_data(fill: float, part: float) -> None:
    values = scene().astype("f4")
    values[:, : round(part * SAMPLES)] = fill
    with pytest.raises(ValueError, match=r"holds .* in .*% of its values.*`nodata="):
        believable(raw(values))
    assert not believable(raw(values, missing=float(np.float32(fill))))


def test_noise_of_some_bands_and_numbers_divided_twice() -> None:
    values = scene().astype("f4")
    bad = (WAVELENGTH_NM > 700) & (WAVELENGTH_NM < 750)
    values[..., bad] = 5 * np.random.default_rng(0).random(values[..., bad].shape)
    with pytest.raises(ValueError, match=r"no reflectance at 706-750 nm.*`drop_bands=706-750`"):
        believable(raw(values))
    assert not believable(without_bands(raw(values), parse_spans("700-750")))
    with pytest.raises(ValueError, match=r"divided by 10000: .*`scale=1`"):
        believable(raw(scene().astype("f4"), scale=10000.0))
    with pytest.raises(ValueError, match=r"`drop_bands` 1350-1460 holds no band of scan.raw"):
        without_bands(raw(values), parse_spans("1350-1460"))
    with pytest.raises(ValueError, match="no span of wavelengths"):
        parse_spans("1350")


def test_reflectance_of_eight_bits_is_suspected_by_its_own_scale() -> None:
    eight = np.round(scene() * 255).astype(np.uint8)
    with pytest.raises(ValueError, match=r"from 13 to 115, .* with `scale=100` or `scale=255`, as"):
        believable(raw(eight))
    with pytest.raises(ValueError, match=r"from 26 to 229, .* divided by with `scale=255`, as it"):
        believable(raw(np.round(2 * scene() * 255).astype(np.uint8)))
    assert not believable(raw(eight, scale=255.0))
    with pytest.raises(ValueError, match=r"divided by with `scale=100`"):  # percent, and no uint8
        believable(raw(np.round(scene() * 100).astype(np.uint16)))


def test_a_few_glints_are_believable() -> None:
    values = scene().astype("f4")
    values[3, 4:6] = 6.0
    assert not believable(raw(values))


def test_references_of_another_light_and_reflectance_that_needs_none() -> None:
    image = raw(counts(scene()))
    white, dark = (raw(counts(np.full((5, SAMPLES, BANDS), level))) for level in (0.03, 0.0))
    with pytest.raises(ValueError, match="by its references, which cannot be"):
        believable(image, white, dark)
    white = raw(counts(np.ones((5, SAMPLES, BANDS))))
    assert not believable(image, white, dark)
    with pytest.raises(ValueError, match="reflectance already, to which none belong"):
        believable(raw(scene().astype("f4") + 100), white, raw(np.full_like(dark.read_lines(
            slice(0, 5)), 100)))  # fmt: skip


def test_gains_and_offsets_by_band_are_applied() -> None:
    gain = np.linspace(1e-4, 2e-4, BANDS)
    numbers = np.round((scene() + 0.1) / gain).astype(np.uint16)
    image = raw(numbers, band_gain=gain, band_offset=np.full(BANDS, -0.1))
    assert not believable(image)
    out = np.empty((BANDS, SAMPLES), np.float32)
    calibrate(image, None, None).apply(image.read_lines(slice(14, 15))[0].T, out)
    np.testing.assert_allclose(out.T, scene()[14], atol=2e-4)
    # References in other numbers of the same camera: what counts stand for is compared.
    white, dark = (counts(np.full((5, SAMPLES, BANDS), level)) for level in (1.0, 0.0))
    plain = raw(counts(scene()))
    twice = [replace(raw(2 * (c // 2)), scale=2.0) for c in (white, dark)]
    found = calibrate(replace(plain, band_gain=np.full(BANDS, 0.5)), *twice)
    found.apply(plain.read_lines(slice(14, 15))[0].T, out)
    np.testing.assert_allclose(out.T, scene()[14], atol=2e-3)


def test_dark_that_is_brighter_than_the_image() -> None:
    image = raw(counts(scene()))
    white = raw(counts(np.ones((5, SAMPLES, BANDS))))
    with pytest.raises(ValueError, match=r"below -0.05 in \d+% of its values.*dark reference"):
        believable(image, white, raw(counts(np.full((5, SAMPLES, BANDS), 0.25))))
    (said,) = believable(image, white, raw(counts(np.full((5, SAMPLES, BANDS), 0.12))))
    assert "as where its dark reference is brighter than it" in said
    scaled = raw(counts(scene()), scale=10000.0)  # counts of which the header says reflectance
    with pytest.raises(ValueError, match="reflectance already, to which none belong"):
        believable(scaled, white, raw(counts(np.zeros((5, SAMPLES, BANDS)))))


def test_reflectance_below_nothing_and_images_of_no_value() -> None:
    with pytest.raises(ValueError, match=r"below -0.05 in \d+% of its values, as where dark was"):
        believable(raw((scene() - 0.2).astype("f4")))
    (said,) = believable(raw((scene() - 0.12).astype("f4")))
    assert "below -0.05 in" in said
    assert not believable(raw((scene() - 0.04).astype("f4")))
    empty = np.full(scene().shape, np.nan, "f4")
    with pytest.raises(ValueError, match="scan.raw has no value that is known, and .* all are NaN"):
        believable(raw(empty))
    empty[20] = scene()[20]
    assert not believable(raw(empty))


@pytest.mark.parametrize(
    ("fill", "columns", "said"),
    [
        (1.5, 10, "holds 1.5 in all bands of 20.0% of its pixels, which is no light"),
        (-0.3, 1, "holds -0.3 in all bands of 2.0% of its pixels, which is no light"),
        (1.0, 10, ""), (0.5, 10, ""), (0.0, 10, None),
    ],
)  # fmt: skip
def test_spectra_of_one_number(fill: float, columns: int, said: str | None) -> None:
    """No light has one number in all bands, though it lies within what reflectance may be."""
    values = (scene() + np.random.default_rng(0).normal(0, 0.002, scene().shape)).astype("f4")
    values[:, :columns] = fill
    if said:
        with pytest.raises(ValueError, match=f"scan.raw {said}.*`nodata={fill:g}`"):
            believable(raw(values))
    else:
        found = believable(raw(values))
        assert len(found) == (said is not None) and all("if it stands for" in one for one in found)
    missing = float(np.float32(fill))
    assert fill == 0 or not believable(raw(values, missing=missing))


def test_the_largest_number_of_a_type_is_no_glint() -> None:
    numbers = NUMBERS.astype("u2")
    numbers[:2, :2] = 65535
    with pytest.raises(ValueError, match="holds 65535 in all bands of 0.2% of its pixels"):
        believable(raw(numbers, scale=10000.0))


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_a_band_unlike_its_neighbours_is_said(factor: float) -> None:
    values = scene().astype("f4")
    values[..., 20] *= factor
    (said,) = believable(raw(values))
    assert "times brighter or darker at 567-568 nm" in said and "`drop_bands=567-568`" in said
    values[..., 20] = np.nan
    (said,) = believable(raw(values))
    assert "no value but 0 in 1 band(s) at 567-568 nm" in said


def test_radiance_is_no_reflectance() -> None:
    image = raw((0.3 * scene()).astype("f4"), radiance=True)
    with pytest.raises(ValueError, match="says that it is radiance, .* `scale=NUMBER` if they are"):
        believable(image)
    white, dark = (raw(np.full((5, SAMPLES, BANDS), level, "f4")) for level in (0.3, 0.0))
    assert not believable(image, white, dark)
