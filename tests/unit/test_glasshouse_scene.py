"""The glasshouse scene: each effect is there, does what its physics says, and is in the table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from sciml_dchag.cli import main
from sciml_dchag.plants.simulate import canopy as canopies
from sciml_dchag.plants.simulate.canopy import FINER, draw_canopy
from sciml_dchag.plants.simulate.glasshouse_scene import (
    CHLOROTIC,
    LESION,
    SHARES,
    STATES,
    STRESSED,
    XANTHOPHYLL_DEPTH,
    XANTHOPHYLL_NM,
    draw_in_glasshouse,
    lamp_light,
)
from sciml_dchag.plants.simulate.poplars import leaf_and_background_spectra, simulate_poplars
from sciml_dchag.plants.simulate.simple_scene import TRAIT_RANGES

pytest.importorskip("prosail", reason="the extra `simulate` (prosail) is not installed")
SIZE = (32, 48)
NM = np.linspace(400.0, 900.0, 251)


def at(nm: float) -> int:
    return int(np.abs(NM - nm).argmin())


def test_the_table_is_what_the_material_map_holds(tmp_path: Path) -> None:
    simulate_poplars(tmp_path / "out", cubes=3, size=SIZE, bands=20, scene="glasshouse", seed=4)
    table = pd.read_csv(tmp_path / "out" / "traits.csv")
    for index, row in table.iterrows():
        poplar = draw_in_glasshouse(4, int(str(index)), SIZE)
        each = poplar.canopy.leaves // len(STATES)
        kinds = [kind for kind in poplar.canopy.material.ravel() if kind < poplar.canopy.leaves]
        states = np.array(kinds) // each
        for name, state in SHARES.items():
            assert row[name] == pytest.approx((states == state).mean(), rel=1e-5)
            assert 0 < row[name] < 1
        for name in TRAIT_RANGES:
            mean = np.mean([poplar.leaves[name].iloc[kind] for kind in kinds])
            assert row[name] == pytest.approx(mean, rel=1e-4)


def test_an_image_depends_on_its_seed_and_place_alone(tmp_path: Path) -> None:
    small = {"size": SIZE, "bands": 20, "scene": "glasshouse"}
    two = simulate_poplars(tmp_path / "two", cubes=2, seed=5, **small)
    one = simulate_poplars(tmp_path / "one", cubes=1, seed=5, **small)
    other = simulate_poplars(tmp_path / "other", cubes=1, seed=6, **small)
    assert one[0].read_bytes() == two[0].read_bytes() != other[0].read_bytes()
    assert "SYNTHETIC, not an observation" in one[0].with_suffix(".hdr").read_text()


def test_states_change_spectra_as_their_pigments_do() -> None:
    poplar = draw_in_glasshouse(0, 0, SIZE)
    each = poplar.canopy.leaves // len(STATES)
    spectra = leaf_and_background_spectra(poplar.leaves, NM, 2.0)[: poplar.canopy.leaves]
    healthy, *others = spectra.reshape(len(STATES), each, len(NM))
    lesion, chlorotic, stressed = (others[s - 1] for s in (LESION, CHLOROTIC, STRESSED))

    def red_edge(leaf: np.ndarray) -> np.ndarray:  # chlorophyll index of Gitelson et al. 2003
        return leaf[:, at(780)] / leaf[:, at(710)] - 1

    assert (red_edge(chlorotic) < 0.9 * red_edge(healthy)).all()
    assert (red_edge(lesion) < 0.7 * red_edge(healthy)).all()
    assert (lesion[:, at(800)] < healthy[:, at(800)]).all()  # brown pigment absorbs there too
    # Stress shows at 531 nm, and nowhere else by more than what water does below 900 nm.
    change = stressed / healthy - 1
    np.testing.assert_allclose(change[:, at(XANTHOPHYLL_NM)], -XANTHOPHYLL_DEPTH, atol=0.012)
    assert np.abs(change[:, np.abs(NM - XANTHOPHYLL_NM) > 30]).max() < 0.01


def test_gloss_adds_the_spectrum_of_the_lamp() -> None:
    """Mirrored light is the same at every wavelength, as a share of the lamp's."""
    shapes = [
        draw_canopy(np.random.default_rng(0), SIZE, 40, 0.1, tilt=0.35, gloss=gloss)
        for gloss in (0.0, 0.15)
    ]
    leaves = pd.DataFrame([draw_in_glasshouse(0, 0, SIZE).leaves.iloc[0]] * 40)
    spectra = leaf_and_background_spectra(leaves, NM, 2.0)
    matt, glossy = (shape.weights(0, SIZE[0]) @ spectra for shape in shapes)
    added = glossy - matt
    np.testing.assert_allclose(added, added[:, :1] * np.ones(len(NM)), atol=1e-5)
    assert added.min() >= 0 and 0.02 < added.max() <= 0.15 + 1e-5
    assert (added[shapes[0].leaf_share().ravel() == 0] < 1e-6).all()


def test_gloss_is_largest_where_a_leaf_mirrors_the_lamp() -> None:
    lamp = np.array([0.0, 1.0])
    half_angle = (np.pi / 2 - canopies.SUN_ELEVATION) / 2
    tilts = np.tan(np.linspace(-0.6, 0.9, 301))
    shine = [canopies._mirrored((0.0, slope), lamp) for slope in tilts]
    assert np.arctan(tilts[int(np.argmax(shine))]) == pytest.approx(half_angle, abs=0.006)
    assert max(shine) == pytest.approx(1, abs=1e-4)


def test_higher_leaves_shade_more_and_shaded_ones_do_not_shine() -> None:
    low, high = (
        draw_canopy(np.random.default_rng(1), SIZE, 40, 0.1, heights=(h, h), gloss=0.15)
        for h in (0.03, 0.10)
    )
    np.testing.assert_array_equal(low.material, high.material)
    assert (high.filtered > 0).sum() > 1.3 * (low.filtered > 0).sum()
    shaded = (high.filtered > 0).reshape(SIZE[0], FINER, SIZE[1], FINER).all(axis=(1, 3))
    assert shaded.any() and high.glint[shaded].max() == 0
    steep, flat = (
        draw_canopy(np.random.default_rng(1), SIZE, 40, 0.0, tilt=tilt) for tilt in (0.5, 0.05)
    )
    lit = [c.direct[(c.material < 40) & (c.filtered == 0)].std() for c in (steep, flat)]
    assert lit[0] > 1.2 * lit[1]


def test_plants_touch() -> None:
    """Leaves of both plants are seen, side by side, and some of them are neighbours."""
    shape = draw_canopy(np.random.default_rng(2), SIZE, 60, 0.1, plants=2)
    plant = np.where(shape.material < 60, shape.material % 2, -1)
    columns = [np.nonzero(plant == number)[1].mean() for number in (0, 1)]
    assert columns[1] - columns[0] > 0.2 * plant.shape[1]
    beside = (plant[:, 1:] >= 0) & (plant[:, :-1] >= 0) & (plant[:, 1:] != plant[:, :-1])
    assert beside.sum() > 10


def test_lamps_are_uneven_and_of_two_colours() -> None:
    light = draw_in_glasshouse(0, 1, SIZE).light
    assert light is not None and np.ptp(light[..., 0]) > 0.2 and np.ptp(light[..., 1]) > 0.1
    one = lamp_light(np.array([[0.8, 0.0], [1.2, 0.5]]), NM)
    np.testing.assert_allclose(one[0], 0.8, rtol=1e-6)  # the lamp of the references, dimmer
    assert (np.diff(one[1]) < 0).all()  # a hotter lamp is bluer
    assert one[1, at(650)] == pytest.approx(1.2, rel=1e-3)


def test_the_command(tmp_path: Path) -> None:
    words = ["simulate", "poplars", str(tmp_path / "out"), "--cubes", "1", "--bands", "10"]
    result = CliRunner().invoke(main, [*words, "--size", "16x24", "--scene", "glasshouse"])
    assert result.exit_code == 0 and "synthetic, not observations" in result.output
    table = pd.read_csv(tmp_path / "out" / "traits.csv")
    assert set(SHARES) <= set(table.columns) and table["genotype"].tolist() == ["G01"]
    assert CliRunner().invoke(main, [*words, "--scene", "field"]).exit_code == 2
