"""Spectra as colours: all bands scaled alike, what is not known black."""

import numpy as np

from sciml_dchag.data.colour import true_colour

NM = np.array([450.0, 550.0, 650.0])


def test_hues_are_kept_and_gamma_is_applied() -> None:
    spectrum = np.array([0.1, 0.2, 0.4], np.float32)
    picture = true_colour(np.broadcast_to(spectrum[:, None, None], (3, 2, 2)), NM)
    np.testing.assert_allclose(picture[0, 0], np.array([1.0, 0.5, 0.25]) ** (1 / 2.2), rtol=1e-6)


def test_a_pixel_that_is_not_known_in_one_band_is_black() -> None:
    reflectance = np.full((3, 2, 2), 0.5, np.float32)
    reflectance[2, 0, 1] = np.nan
    picture = true_colour(reflectance, NM)
    assert (picture[0, 1] == 0).all()
    assert (picture[0, 0] == 1).all() and (picture[1] == 1).all()
