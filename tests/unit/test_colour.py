"""Colours on a screen: all three scaled alike, what is not known black."""

import numpy as np

from sciml_dchag.plants.colour import colour_weights, show

NM = np.array([450.0, 550.0, 650.0])


def test_hues_are_kept_and_encoded_for_screens() -> None:
    weights, bands = colour_weights(NM)
    assert bands == "650, 550, 450 nm"  # too few for colours as the eye sees them
    spectrum = np.array([0.1, 0.2, 0.4], np.float32)
    linear = np.einsum("kc,chw->khw", weights, np.tile(spectrum[:, None, None], (1, 2, 2)))
    expected = 1.055 * np.array([1.0, 0.5, 0.25]) ** (1 / 2.4) - 0.055  # IEC 61966-2-1
    np.testing.assert_allclose(show(linear)[0, 0], expected, rtol=1e-5)


def test_a_pixel_that_is_not_known_in_one_of_them_is_black() -> None:
    linear = np.full((3, 2, 2), 0.5, np.float32)
    linear[2, 0, 1] = np.nan
    picture = show(linear)
    assert (picture[0, 1] == 0).all()
    np.testing.assert_allclose(picture[[0, 1, 1], [0, 0, 1]], 1, rtol=1e-6)
    brighter = show(linear, like=2 * linear)
    assert 0 < brighter[0, 0, 0] < 1
