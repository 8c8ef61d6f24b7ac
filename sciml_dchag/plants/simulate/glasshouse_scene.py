"""The glasshouse scene: what makes traits hard to read off a mean spectrum.

Two or three plants that touch, leaves at many angles that shade each other and shine, lamps that
are uneven and of two colours, and leaves in patches: lesions, chlorosis, and water stress that
shows in a narrow band. Numbers are of usual size, not those of a species or a disease. The patches
are drawn independently of pigments, genotype and light, so that nothing but the patches shows them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import scipy.ndimage
from numpy.typing import NDArray

from sciml_dchag.plants.simulate.canopy import FINER, Canopy, draw_canopy
from sciml_dchag.plants.simulate.simple_scene import (
    GENOTYPE,
    PHOTOSYNTHESIS,
    PLANT,
    TRAIT_RANGES,
    TREATMENTS,
    Poplar,
    photosynthesis,
    random_stream,
)

GENOTYPES = 12
STATES = ("healthy", "lesion", "chlorotic", "stressed")
"""What a point of a leaf is in; where patches overlap, the first named after healthy."""
LESION, CHLOROTIC, STRESSED = 1, 2, 3
SHARES = {
    "lesion_share": LESION, "chlorotic_share": CHLOROTIC, "stressed_share": STRESSED,
}  # fmt: skip
"""Columns of the table of traits: the share of the points of leaves in the image in each state."""

MULTIPLIERS = {
    LESION: {"cab_ug_cm2": 0.15, "car_ug_cm2": 0.5, "cw_g_cm2": 0.4},
    CHLOROTIC: {"cab_ug_cm2": 0.45, "car_ug_cm2": 0.75},
    STRESSED: {"cw_g_cm2": 0.7},
}
"""What a state multiplies PROSPECT's parameters by."""
LESION_BROWN = 0.6
"""Brown pigment that a lesion adds."""
XANTHOPHYLL = "xanthophyll"
"""Column of leaves: depth of the dip at 531 nm, a share of reflectance."""
XANTHOPHYLL_DEPTH = 0.12
XANTHOPHYLL_NM, XANTHOPHYLL_SIGMA_NM = 531.0, 7.0
"""Stress turns violaxanthin into zeaxanthin, which lowers reflectance around 531 nm (Gamon et al.
1992, doi:10.1016/0034-4257(92)90059-S). PROSPECT-D has one spectrum for all carotenoids, so that
a Gaussian stands for it; its depth is that of a severely stressed leaf."""

GLOSS = 0.15
TILT = 0.35
HEIGHTS = (0.03, 0.12)
LAMP_UNEVENNESS = 0.35
"""Largest departure of the light from its mean over the bench."""
MOST_BLUE = 0.6
"""Largest share of the light that a second lamp gives."""
LAMPS_K = (3000.0, 4500.0)
"""Colour temperatures of the lamp that the references are taken under, and of the second one."""


def draw_in_glasshouse(seed: int, index: int, size: tuple[int, int]) -> Poplar:
    """Draw image `index` of a seed: plants of one genotype and treatment that touch.

    Traits are those of all leaf in the image: means over the points of leaves on top of
    PROSPECT's parameters, and `SHARES`.
    """
    genotype, treatment = index % GENOTYPES, TREATMENTS[index // GENOTYPES % len(TREATMENTS)]
    of_genotype, rng = random_stream(seed, GENOTYPE, genotype), random_stream(seed, PLANT, index)
    plants, count = int(rng.integers(2, 4)), int(rng.integers(54, 76))
    drought = treatment == "drought"
    canopy = draw_canopy(
        rng, size, count, rng.uniform(0.2, 0.5) if drought else rng.uniform(0.0, 0.2),
        plants=plants, tilt=TILT, heights=HEIGHTS, gloss=GLOSS * rng.uniform(0.5, 1.0),
    )  # fmt: skip
    stress = rng.uniform(0.2, 0.8) if drought else rng.uniform(0.0, 0.3)
    states = _draw_states(rng, canopy, rng.uniform(0, 0.25), rng.uniform(0, 0.35), stress)
    healthy = _draw_healthy(rng, of_genotype, count, plants)
    leaves = pd.concat([_in_state(healthy, state) for state in range(len(STATES))])
    leaves = leaves.reset_index(drop=True)
    canopy = in_states(canopy, states)
    of_leaf = traits_of(canopy, leaves)
    traits = {
        "cube": f"poplar_{index:04d}",
        "genotype": f"G{genotype + 1:02d}",
        "treatment": treatment,
        **of_leaf,
        PHOTOSYNTHESIS: photosynthesis(rng, of_leaf["cab_ug_cm2"], of_leaf["cw_g_cm2"]),
    }
    return Poplar(
        str(traits["cube"]), traits, leaves, canopy, draw_light(rng, size), states=len(STATES)
    )


def traits_of(canopy: Canopy, leaves: pd.DataFrame) -> dict[str, float]:
    """Return means over the points of leaves on top, and the share of them in each state.

    Args:
        canopy: whose `material` is a kind of leaf at each point.
        leaves: parameters, one row per kind of leaf: all leaves in each of `STATES` in turn.
    """
    kinds = np.bincount(canopy.material[canopy.material < canopy.leaves], minlength=canopy.leaves)
    weights = kinds / kinds.sum()
    means = {name: float(weights @ leaves[name]) for name in TRAIT_RANGES}
    by_state = weights.reshape(len(STATES), -1).sum(axis=1)
    return means | {name: float(by_state[state]) for name, state in SHARES.items()}


def in_states(canopy: Canopy, states: NDArray[np.int16]) -> Canopy:
    """Make each leaf in each state a material of its own.

    Args:
        canopy: of leaves without states.
        states: of each point of the map; what is no leaf has none.
    """
    on_leaf = canopy.material < canopy.leaves
    kinds = canopy.leaves * len(STATES)
    shift = np.where(on_leaf, states * canopy.leaves, kinds - canopy.leaves)
    material = (canopy.material + shift).astype(np.int16)
    return dataclasses.replace(canopy, leaves=kinds, material=material)


def draw_light(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float32]:
    """Draw how bright the lamps are, around 1, and the share of the second: (rows, columns, 2)."""
    level = 1 + LAMP_UNEVENNESS * _smooth(rng, size, 0.5)
    blue = MOST_BLUE * (0.5 + 0.5 * _smooth(rng, size, 0.5))
    return np.stack([level, blue], axis=-1).astype(np.float32)


def lamp_light(light: NDArray[Any], wavelength_nm: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return light at each wavelength as a share of that which the references were taken under.

    level (1 - blue + blue B(T2) / B(T1)), where B are Planck's photons, equal at 650 nm.

    Args:
        light: level and share of the second lamp, (..., 2).
        wavelength_nm: (bands,).

    Returns:
        (..., bands).
    """
    first, second = (_planck(wavelength_nm, kelvin) / _planck(650.0, kelvin) for kelvin in LAMPS_K)
    level, blue = light[..., :1], light[..., 1:]
    return np.asarray(level * (1 + blue * (second / first - 1)), np.float32)


def xanthophyll_dip(depth: float, wavelength_nm: NDArray[Any]) -> NDArray[np.float64]:
    """Return what stress multiplies reflectance and transmittance by, (bands,)."""
    away = (wavelength_nm - XANTHOPHYLL_NM) / XANTHOPHYLL_SIGMA_NM
    return np.asarray(1 - depth * np.exp(-0.5 * away**2))


def _planck(wavelength_nm: Any, kelvin: float) -> Any:
    """Photons of a black body by wavelength, in arbitrary units."""
    metres = np.asarray(wavelength_nm) * 1e-9
    return metres**-4 / np.expm1(1.438776877e-2 / (metres * kelvin))


def _draw_healthy(
    rng: np.random.Generator, of_genotype: np.random.Generator, count: int, plants: int
) -> pd.DataFrame:
    """Draw PROSPECT's parameters of healthy leaves: by genotype, plant, leaf, age and side."""
    genotype = {name: of_genotype.uniform(*limits) for name, limits in TRAIT_RANGES.items()}
    of_plant = np.arange(count) % plants
    age = np.arange(count) / (count - 1)  # leaf 0 is the youngest
    ripe = 1 - np.exp(-age / 0.12)
    leaves = pd.DataFrame(
        {
            name: value * rng.lognormal(0, 0.08, plants)[of_plant] * rng.lognormal(0, 0.12, count)
            for name, value in genotype.items()
        }
    )
    leaves["cab_ug_cm2"] *= 0.55 + 0.45 * ripe
    leaves["car_ug_cm2"] *= 0.65 + 0.35 * ripe
    leaves["cm_g_cm2"] *= 0.8 + 0.2 * ripe
    leaves["n_layers"] = leaves["n_layers"].clip(lower=1.05)
    leaves[XANTHOPHYLL] = 0.0
    return leaves


def _in_state(healthy: pd.DataFrame, state: int) -> pd.DataFrame:
    leaves = healthy.copy()
    for name, factor in MULTIPLIERS.get(state, {}).items():
        leaves[name] *= factor
    if state == LESION:
        leaves["cbrown"] += LESION_BROWN
    if state == STRESSED:
        leaves[XANTHOPHYLL] = XANTHOPHYLL_DEPTH
    return leaves


def _draw_states(
    rng: np.random.Generator, canopy: Canopy, lesions: float, chlorosis: float, stress: float
) -> NDArray[np.int16]:
    """Draw which state each point is in, given about the shares that each should have of leaves.

    Lesions are small spots, chlorosis is wide patches of single leaves, stress reaches over leaves.
    """
    on_leaf = canopy.material < canopy.leaves
    states = np.zeros(canopy.material.shape, np.int16)
    field = _smooth(rng, canopy.material.shape, 0.12)
    if on_leaf.any():
        states[on_leaf & (field < np.quantile(field[on_leaf], stress))] = STRESSED
    rows = canopy.material.shape[0]
    for state, share, radius in (
        (CHLOROTIC, chlorosis, 0.06 * rows),
        (LESION, lesions, max(0.02 * rows, 0.6 * FINER)),
    ):
        _spots(rng, canopy, states, state, share, radius)
    return states


def _spots(
    rng: np.random.Generator,
    canopy: Canopy,
    states: NDArray[np.int16],
    state: int,
    share: float,
    radius: float,
) -> None:
    """Put round spots on leaves, each on the one that its middle is on, up to a share of them."""
    y, x = np.nonzero(canopy.material < canopy.leaves)
    leaf = canopy.material[y, x]
    while len(y) and (states[y, x] == state).mean() < share:
        middle = int(rng.integers(len(y)))
        near = (y - y[middle]) ** 2 + (x - x[middle]) ** 2 < (radius * rng.uniform(0.6, 1.3)) ** 2
        spot = near & (leaf == leaf[middle])
        states[y[spot], x[spot]] = state


def _smooth(rng: np.random.Generator, size: tuple[int, ...], width: float) -> NDArray[np.float64]:
    """Draw a field from -1 to 1 whose features are `width` of its rows wide."""
    noise = rng.normal(size=size)
    field = scipy.ndimage.gaussian_filter(noise, width * size[0] / 2, mode="reflect")
    low, high = float(field.min()), float(field.max())
    return np.asarray(2 * (field - low) / (high - low) - 1)
