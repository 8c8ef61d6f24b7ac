"""Bands of a store out of those of a camera."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from plant_files import WAVELENGTH_NM, leaf, raw
from scipy.signal import savgol_filter

from sciml_dchag.plants.prepare.bands import BandMaker, apply, parse_bands
from sciml_dchag.plants.read.raw_cube import RawCube


def camera(nm: NDArray[np.float64] = WAVELENGTH_NM, **changes: Any) -> RawCube:
    return raw(np.zeros((1, 1, len(nm)), np.float32), wavelength_nm=nm, **changes)


def make(maker: BandMaker, spectra: NDArray[np.float64], gaps: bool = False) -> NDArray[np.float32]:
    """Make bands of (bands, pixels) in the camera's order, as `prepare` does."""
    out = np.empty((len(maker.wavelength_nm), spectra.shape[1]), np.float32)
    apply(list(maker.products()), spectra[maker.used].astype(np.float32), out, gaps=gaps)
    return out


def test_band_sets_are_read(tmp_path: Path) -> None:
    span = parse_bands("400-900x500")
    assert span is not None and len(span) == 500 and (span[0], span[-1]) == (400, 900)
    assert parse_bands("native") is None
    np.testing.assert_array_equal(parse_bands("680, 450,550"), [450, 550, 680])
    (tmp_path / "bands.csv").write_text("wavelength_nm\n500\n600\n")
    np.testing.assert_array_equal(parse_bands(str(tmp_path / "bands.csv")), [500, 600])
    for wrong in ("900-400x50", "400-900x1", "450", "450,450", "all", "400-900"):
        with pytest.raises(ValueError, match=r"band set|two bands"):
            parse_bands(wrong)


@pytest.mark.parametrize("response", ["gaussian", "linear"])
def test_a_straight_spectrum_stays_straight(response: Any) -> None:
    nm = np.linspace(380, 920, 541)
    maker = BandMaker.for_camera(camera(nm), np.linspace(400, 900, 101), response=response)
    np.testing.assert_allclose(maker.matrix.sum(axis=1), 1.0, rtol=1e-12)
    found = make(maker, (0.2 + 0.001 * (nm - 400))[:, None])
    np.testing.assert_allclose(found[:, 0], 0.2 + 0.001 * (maker.wavelength_nm - 400), atol=2e-6)


def test_gaussian_response_is_that_of_the_library() -> None:
    from spectral import BandResampler

    target = np.linspace(400, 900, 100)
    fwhm = np.full(len(WAVELENGTH_NM), 12.0)
    maker = BandMaker.for_camera(camera(fwhm_nm=fwhm), target)
    wanted = BandResampler(WAVELENGTH_NM, target, fwhm)(leaf())
    np.testing.assert_allclose(make(maker, leaf()[:, None])[:, 0], wanted, rtol=1e-5)


def test_unsorted_and_bad_bands_of_a_camera() -> None:
    order = np.random.default_rng(0).permutation(len(WAVELENGTH_NM))
    good = np.ones(len(order), bool)
    good[np.argmin(np.abs(WAVELENGTH_NM[order] - 600))] = False
    maker = BandMaker.for_camera(camera(WAVELENGTH_NM[order], good_bands=good), None)
    kept = np.sort(WAVELENGTH_NM[order][good])
    np.testing.assert_array_equal(maker.wavelength_nm, kept)
    assert maker.selects
    np.testing.assert_array_equal(WAVELENGTH_NM[order][maker.used], kept)
    to = BandMaker.for_camera(camera(WAVELENGTH_NM[order]), np.linspace(420, 880, 40))
    straight = BandMaker.for_camera(camera(), np.linspace(420, 880, 40))
    np.testing.assert_array_equal(make(to, leaf()[order][:, None]), make(straight, leaf()[:, None]))


def test_repeated_wavelengths_are_averaged_when_asked() -> None:
    nm = np.array([500.0, 500.0, 510.0, 520.0])
    with pytest.raises(ValueError, match=r"2 bands at 500 nm.*merge_bands=True"):
        BandMaker.for_camera(camera(nm), None)
    maker = BandMaker.for_camera(camera(nm), None, merge_bands=True)
    found = make(maker, np.array([[1.0], [3.0], [5.0], [7.0]]))
    np.testing.assert_array_equal(found[:, 0], [2, 5, 7])


def test_what_the_camera_does_not_cover_is_refused() -> None:
    with pytest.raises(ValueError, match=r"covers 395 to 905 nm in 60 .* 300 to 900"):
        BandMaker.for_camera(camera(), np.linspace(300, 900, 20))
    with pytest.raises(ValueError, match=r"59 of them .*too few to make 500"):
        BandMaker.for_camera(camera(), np.linspace(400, 905, 500))
    narrow = np.full(len(WAVELENGTH_NM), 1.0)
    with pytest.raises(ValueError, match=r"none of which overlaps .*response=linear"):
        BandMaker.for_camera(camera(fwhm_nm=narrow), np.linspace(400, 900, 200))
    with pytest.raises(ValueError, match="1 usable band"):
        BandMaker.for_camera(camera(np.array([500.0])), None)


def test_smoothing_is_savitzky_golay() -> None:
    spectra = leaf()[:, None] + np.random.default_rng(0).normal(0, 0.02, (60, 3))
    maker = BandMaker.for_camera(camera(), None, smooth=(11, 2))
    wanted = savgol_filter(spectra, 11, 2, axis=0)
    np.testing.assert_allclose(make(maker, spectra), wanted, rtol=1e-5)
    for wrong in ((10, 2), (3, 3), (61, 2)):
        with pytest.raises(ValueError, match="smooth=WINDOW,ORDER"):
            BandMaker.for_camera(camera(), None, smooth=wrong)
    with pytest.raises(ValueError, match="evenly spaced"):
        BandMaker.for_camera(camera(np.geomspace(400, 900, 60)), None, smooth=(11, 2))


def test_a_missing_band_touches_what_is_made_from_it_and_no_more() -> None:
    maker = BandMaker.for_camera(camera(), np.linspace(400, 900, 100))
    spectra = np.repeat(leaf()[:, None], 4, axis=1)
    whole = make(maker, spectra)
    spectra[30, 2] = np.nan
    found = make(maker, spectra, gaps=True)
    touched = maker.matrix[:, np.flatnonzero(maker.used == 30)[0]] != 0
    assert 0 < touched.sum() < 6
    np.testing.assert_array_equal(np.isnan(found[:, 2]), touched)
    found[touched, 2] = whole[touched, 2]
    np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize("response", ["gaussian", "linear"])
def test_nothing_is_invented_in_gaps(response: Any) -> None:
    """Bands that are bad, dropped or absent: whatever lies between them was not measured."""
    nm = np.arange(400.0, 901.0, 5.0)
    inside = (nm > 650) & (nm < 700)
    target = np.linspace(400, 900, 101)
    for cube in (camera(nm, good_bands=~inside), camera(nm[~inside])):
        with pytest.raises(ValueError, match=r"no good band between 650 and 700 nm.*bands=native"):
            BandMaker.for_camera(cube, target, response=response)
        beside = target[(target <= 650) | (target >= 700)]
        maker = BandMaker.for_camera(cube, beside, response=response)
        whole = BandMaker.for_camera(camera(nm), beside, response=response)
        bump = np.exp(-(((nm - 655) / 4) ** 2))
        found = make(maker, (bump if cube.bands == len(nm) else bump[~inside])[:, None])
        wanted = make(whole, bump[:, None])
        away = np.abs(beside - 675) > 35
        np.testing.assert_allclose(found[away], wanted[away], atol=1e-6)


def test_cameras_of_few_or_uneven_bands_have_no_gaps() -> None:
    few = np.array([475.0, 560, 668, 717, 840])
    maker = BandMaker.for_camera(camera(few), np.linspace(480, 840, 20), response="linear")
    np.testing.assert_allclose(maker.matrix.sum(axis=1), 1.0)
    joined = np.concatenate([np.arange(400, 1000, 3.0), np.arange(1003, 1700, 8.0)])
    BandMaker.for_camera(camera(joined), np.linspace(950, 1100, 60), response="linear")
    # One dead band under responses that are wider than its distance.
    nm = np.arange(400.0, 901.0, 3.0)
    dead = camera(nm, good_bands=nm != 640, fwhm_nm=np.full(len(nm), 6.0))
    BandMaker.for_camera(dead, np.linspace(400, 898, 300))
