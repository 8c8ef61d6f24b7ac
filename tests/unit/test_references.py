"""References: which belong to which scan, and what of them can be used."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plant_files import BANDS, LINES, SAMPLES, WAVELENGTH_NM, counts, raw, scene, write_envi

from sciml_dchag.plants.prepare.calibration import Calibration, calibrate
from sciml_dchag.plants.read.cube_files import find_images
from sciml_dchag.plants.read.own_references import sort_folder

ONES = np.ones((8, SAMPLES, BANDS))
DARK = raw(counts(0 * ONES), "dark.raw")
IMAGE = raw(counts(scene()))


def reflectance(calibration: Calibration, image: Any = IMAGE) -> Any:
    out = np.empty((BANDS, SAMPLES), np.float32)
    calibration.apply(image.read_lines(slice(14, 15))[0].T, out)
    return out.T


@pytest.mark.parametrize("ceiling", [4095, 16383, 65520, 9000])
def test_a_plateau_is_saturation(ceiling: int) -> None:
    """A lamp too bright for the camera; the header says neither bits nor ceiling."""
    full = counts(ONES).astype(float)
    scale = 1.4 * ceiling / full.max()
    white, image, dark = (
        raw(np.minimum(np.round(scale * c), ceiling).astype(np.uint16))
        for c in (full, counts(scene()), counts(0 * ONES))
    )
    calibration = calibrate(image, white, dark)
    clipped = (white.read_lines(slice(0, 8)) >= ceiling).any(axis=0).T
    assert 0.1 < clipped.mean() < 0.9
    np.testing.assert_array_equal(np.isnan(calibration.gain), clipped)
    found = reflectance(calibration, image)
    np.testing.assert_allclose(found[~clipped.T], scene()[14][~clipped.T], atol=5e-3)
    assert f"saturated (at {ceiling:g})" in calibration.remarks[0]
    assert calibration.saturation == ceiling


def test_no_plateau_of_a_lamp_or_of_a_constant() -> None:
    for white in (counts(ONES), np.full((8, SAMPLES, BANDS), 2100, np.uint16)):
        calibration = calibrate(IMAGE, raw(white), DARK)
        assert not calibration.remarks and not np.isnan(calibration.gain).any()
    said = replace(IMAGE, saturation=4095.0, ceiling_said=True)  # the user's word goes before
    assert calibrate(said, raw(counts(ONES) // 8), raw(counts(0 * ONES) // 8)).saturation == 4095.0


def test_dead_columns_have_no_value() -> None:
    """A column without light, in white and in the image, whose few lines show little noise."""
    lit = np.ones((8, SAMPLES, BANDS))
    lit[:, 7] = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        white, dark = (
            raw(np.round(counts(level) + rng.normal(0, 3, lit.shape)).astype(np.uint16))
            for level in (lit, 0 * lit)
        )
        gain = calibrate(IMAGE, white, dark).gain
        assert np.isnan(gain[:, 7]).all() and not np.isnan(np.delete(gain, 7, axis=1)).any()


def test_white_and_dark_that_are_one_scan_are_refused() -> None:
    noise = np.random.default_rng(0).normal(0, 3, (2, *ONES.shape))
    white, again = (
        raw(np.round(counts(0 * ONES) + one).astype(np.uint16), "dark.raw") for one in noise
    )
    lit = raw(counts(ONES), "white.raw")
    for one, other in ((lit, lit), (white, white), (white, again)):
        with pytest.raises(ValueError, match=r"nowhere above the dark one, noise|shows its panel"):
            calibrate(IMAGE, one, other)


def test_a_panel_in_a_part_of_the_white_scan() -> None:
    part = 0.06 * ONES
    part[2:6] = 1.0
    calibration = calibrate(IMAGE, raw(counts(part), "white.raw"), DARK)
    np.testing.assert_allclose(reflectance(calibration), scene()[14], atol=2e-3)
    assert "shows its panel in lines 2 to 5 of 8" in calibration.remarks[0]
    narrow = 0.06 * ONES
    narrow[:, 10:40] = 1.0
    white = raw(counts(narrow), "white.raw")
    with pytest.raises(ValueError, match=r"panel in columns 10 to 39 of 50 .*references=band"):
        calibrate(IMAGE, white, DARK)
    calibration = calibrate(IMAGE, white, DARK, references="band")
    whole = calibrate(IMAGE, raw(counts(ONES)), DARK, references="band")
    np.testing.assert_allclose(calibration.gain, whole.gain, rtol=0.05)
    fading = ONES * (1 - 0.8 * np.abs(np.linspace(-1, 1, SAMPLES)))[None, :, None]
    assert not calibrate(IMAGE, raw(counts(fading)), DARK).remarks


def test_a_panel_in_few_lines_of_a_long_scan() -> None:
    """Fewer than a twentieth: what lies around it was taken for the panel."""
    part = 0.06 * np.ones((60, SAMPLES, BANDS))
    part[20:22] = 1.0
    calibration = calibrate(IMAGE, raw(counts(part), "white.raw"), DARK)
    np.testing.assert_allclose(reflectance(calibration), scene()[14], atol=2e-3)
    assert "shows its panel in lines 20 to 21 of 60" in calibration.remarks[0]
    part[21] = 0.06
    lost_frame = calibrate(IMAGE, raw(counts(part), "white.raw"), DARK)
    assert not any("shows its panel" in said for said in lost_frame.remarks)


def test_a_dark_reference_on_another_scale_is_said() -> None:
    small = raw((counts(0 * ONES) / 65535).astype(np.float32), "dark.raw")
    (said,) = calibrate(IMAGE, raw(counts(ONES)), small).remarks
    assert "dark.raw has no number above 0.0018 and scan.raw holds counts" in said
    mean = raw(counts(0 * ONES).mean(axis=0, keepdims=True).astype(np.float32), "dark.raw")
    assert not calibrate(IMAGE, raw(counts(ONES)), mean).remarks


def test_white_barely_above_dark_is_masked_or_said() -> None:
    rng = np.random.default_rng(0)
    white, dark = (counts(level * ONES).astype(float) for level in (1, 0))
    white[..., :4] = dark[..., :4] + 4.0
    white[..., 4:8] = dark[..., 4:8] + 11.0
    noisy = [
        raw(np.round(c + rng.normal(0, 4, c.shape)).astype("u2"), "w.raw") for c in (white, dark)
    ]
    calibration = calibrate(IMAGE, *noisy)
    assert np.isnan(calibration.gain[:4]).all()
    assert np.isfinite(calibration.gain[8:]).all()
    said = " ".join(calibration.doubts(np.arange(BANDS), WAVELENGTH_NM))
    assert "w.raw is barely above dark in 4 bands from 395 to" in said and "no value" in said
    assert f"bands from {WAVELENGTH_NM[4]:g} to {WAVELENGTH_NM[7]:g} nm, where reflectance" in said
    assert not calibration.doubts(np.arange(20, BANDS), WAVELENGTH_NM)


def test_settings_of_the_camera_that_differ_are_refused() -> None:
    white = raw(counts(ONES), "white.raw", settings=(("gain", "1"),))
    with pytest.raises(ValueError, match=r"white.raw was taken at gain 1 and scan.raw at gain 4"):
        calibrate(replace(IMAGE, settings=(("gain", "4"),)), white, DARK)
    with pytest.raises(ValueError, match=r"white.raw says gain 1, and scan.raw says none"):
        calibrate(IMAGE, white, DARK)


def names(folder: Path, *stems: str) -> list[Path]:
    return [folder / f"{stem}.raw" for stem in stems]


def test_names_with_dark_and_white_are_images_unless_they_are_references() -> None:
    place = Path("scans")
    images = names(place, "arabidopsis_dark_01", "clover_white_3", "light_dark", "x", "x2")
    white, dark = names(place, "WHITEREF_x", "DARKREF_x")
    pair = names(place, "x2_white", "x2_dark")
    (orphan,) = names(place, "WHITEREF_gone")
    common = names(place, "white_reference", "dark")
    treatments = names(place, "dark", "light")
    assert list(sort_folder(treatments).images) == treatments
    assert sort_folder(names(place, "a", "white", "dark")).images == (place / "a.raw",)
    found = sort_folder([*images, white, dark, *pair, orphan, *common])
    assert list(found.images) == images and found.unused == (orphan,)
    x, x2, other = (found.references(image) for image in (images[3], images[4], images[0]))
    assert (x["white"].path, x["dark"].path, x["white"].of_scan) == (white, dark, True)
    assert [x2["white"].path, x2["dark"].path] == pair
    assert [other["white"].path, other["dark"].path] == common and not other["white"].of_scan
    # One alone may be a treatment.
    assert len(sort_folder(names(place, "x", "x_dark")).images) == 2


def test_folders_are_searched_below_and_odd_files_do_not_stop_the_others(tmp_path: Path) -> None:
    for day in ("d1", "d2"):
        folder = tmp_path / day / "capture"
        folder.mkdir(parents=True)
        for name in ("scan", "WHITEREF_scan", "DARKREF_scan"):
            write_envi(folder / name, counts(scene()[:2]))
    (tmp_path / "d1" / "orphan.hdr").write_text("ENVI\n")
    write_envi(tmp_path / "odd", counts(scene()[:2]))
    (tmp_path / "odd.raw").rename(tmp_path / "odd.cube")
    (tmp_path / "s.zarr" / "c").mkdir(parents=True)
    np.save(tmp_path / "s.zarr" / "x.npy", np.zeros(3))
    for source in (tmp_path, tmp_path / "*", f"{tmp_path}/**/*.hdr"):
        found = find_images([source])
        assert [str(path.relative_to(tmp_path)) for path in sorted(found.images)] == [
            "d1/capture/scan.raw", "d2/capture/scan.raw", "odd.cube",
        ]  # fmt: skip
        assert [path.name for path in found.failed] == ["orphan.hdr"]
        own = found.references[tmp_path / "d2" / "capture" / "scan.raw"]
        assert own["white"].path == tmp_path / "d2" / "capture" / "WHITEREF_scan.raw"
    assert LINES > 2


def even_camera(column_noise: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    """Dark counts and those of a lamp that fades to the sides, whose columns differ by little."""
    rng = np.random.default_rng(5)
    fading = np.cos(np.linspace(-1.1, 1.1, SAMPLES))[:, None]
    lamp = 20000 * np.exp(-(((WAVELENGTH_NM - 650) / 300) ** 2)) * fading
    return rng.uniform(80, 120, (SAMPLES, BANDS)), lamp * rng.normal(1, column_noise, (SAMPLES, 1))


def seen(reflectance: Any, name: str = "scan.raw") -> Any:
    dark, lamp = even_camera()
    noise = np.random.default_rng(len(name)).normal(0, 3, np.shape(reflectance))
    return raw(np.round(dark + lamp * reflectance + noise).clip(0).astype(np.uint16), name)


@pytest.mark.parametrize("factor", [0.85, 0.7, 0.6])
@pytest.mark.parametrize(
    ("columns", "said"), [((0, 10), "0 to 9"), ((38, 50), "38 to 49"), ((15, 25), "15 to 24")]
)
def test_a_panel_in_shadow_is_refused(factor: float, columns: tuple[int, int], said: str) -> None:
    """Not where the image has the same step, as of a lamp or of a slit."""
    dark, share = seen(0 * ONES, "dark.raw"), ONES.copy()
    share[:, slice(*columns)] = factor
    white = seen(share, "white.raw")
    with pytest.raises(ValueError, match=rf"white.raw is darker by .* in columns {said} of 50"):
        calibrate(seen(scene()), white, dark)
    same_light = seen(scene() * share[0])
    calibration = calibrate(same_light, white, dark)
    assert not calibration.remarks
    np.testing.assert_allclose(reflectance(calibration, same_light), scene()[14], atol=0.01)
    assert not calibrate(seen(scene()), seen(ONES, "white.raw"), dark).remarks
    if factor == 0.6:
        (said,) = calibrate(seen(scene()), white, dark, references="band").remarks
        assert "of 50 alone: the others are left out" in said


@pytest.mark.parametrize("columns", [50, 20])
def test_lines_of_a_panel_in_light_shadow_are_said(columns: int) -> None:
    share = ONES.copy()
    share[:4, :columns] = 0.82
    calibration = calibrate(seen(scene()), seen(share, "white.raw"), seen(0 * ONES, "dark.raw"))
    (said,) = calibration.remarks
    assert "% darker in lines 0 to 4 of columns 0 to" in said and "averaged with them" in said
    flicker = ONES * np.random.default_rng(0).normal(1, 0.03, (8, 1, 1))
    dark = seen(0 * ONES, "dark.raw")
    assert not calibrate(seen(scene()), seen(flicker, "white.raw"), dark).remarks
