"""The simple scene: one plant an image, each of its leaves of one kind all over.

Traits, treatments and streams of random numbers are those of all scenes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciml_dchag.plants.simulate.canopy import FINER, Canopy, draw_canopy

GENOTYPES = 4
TREATMENTS = ("watered", "drought")

# Streams of random numbers that share a seed.
CAMERA, GENOTYPE, PLANT, NOISE = range(4)

TRAIT_RANGES = {
    "n_layers": (1.35, 1.75),
    "cab_ug_cm2": (36.0, 56.0),
    "car_ug_cm2": (7.5, 11.5),
    "ant_ug_cm2": (0.5, 1.5),
    "cbrown": (0.0, 0.03),
    "cw_g_cm2": (0.010, 0.015),
    "cm_g_cm2": (0.005, 0.009),
}
"""PROSPECT-D's parameters of a watered genotype: structure, chlorophyll a + b, carotenoids,
anthocyanins, brown pigments, water, dry matter; ranges usual for leaves of broadleaved trees."""
DROUGHT = {
    "cab_ug_cm2": (0.60, 0.85),
    "car_ug_cm2": (0.80, 0.95),
    "ant_ug_cm2": (1.5, 3.0),
    "cw_g_cm2": (0.60, 0.80),
    "cm_g_cm2": (1.0, 1.1),
}
"""What drought multiplies them by."""
PHOTOSYNTHESIS = "synthetic_photosynthesis_umol_m2_s"


@dataclass(frozen=True)
class Poplar:
    """A plant: what `traits.csv` says of it, its leaves and its shape."""

    name: str
    traits: dict[str, Any]
    """The row of the table; PROSPECT's parameters are means over the leaves."""
    leaves: pd.DataFrame
    """PROSPECT's parameters, one row per leaf."""
    canopy: Canopy
    light: NDArray[np.float32] | None = None
    """(rows, columns, 2): how bright the lamps are, as a share of those that the references were
    taken under, and the share of a second, bluer lamp in it; None where they are the same."""
    states: int = 1
    """States that each leaf may be in: healthy, and the second, if there is one, lesion."""

    def leaf_numbers(self) -> NDArray[np.uint16]:
        """Number of the leaf that is seen at each pixel's corner, 1, 2, ... or 0: (rows, columns).

        Leaves of all plants are counted on, the topmost first.
        """
        leaf = self._seen() % (self.canopy.leaves // self.states) + 1
        return np.where(self._seen() < self.canopy.leaves, leaf, 0).astype(np.uint16)

    def lesions(self) -> NDArray[np.uint8]:
        """What is seen at each pixel's corner: 0 no leaf, 1 leaf, 2 lesion; (rows, columns)."""
        lesion = self._seen() // (self.canopy.leaves // self.states) == 1
        return np.where(self._seen() < self.canopy.leaves, 1 + lesion, 0).astype(np.uint8)

    def _seen(self) -> NDArray[np.int16]:
        return self.canopy.material[::FINER, ::FINER]


def draw_poplar(seed: int, index: int, size: tuple[int, int]) -> Poplar:
    """Draw plant `index` of a seed: its genotype, treatment, leaves and shape."""
    genotype, treatment = index % GENOTYPES, TREATMENTS[index // GENOTYPES % len(TREATMENTS)]
    of_genotype, rng = random_stream(seed, GENOTYPE, genotype), random_stream(seed, PLANT, index)
    plant = {name: of_genotype.uniform(*limits) for name, limits in TRAIT_RANGES.items()}
    plant = {name: value * rng.lognormal(0, 0.05) for name, value in plant.items()}
    if treatment == "drought":
        for name, limits in DROUGHT.items():
            plant[name] *= rng.uniform(*limits)
        plant["cbrown"] += rng.uniform(0.0, 0.05)
    count = int(rng.integers(38, 60))
    # Leaf 0 is the youngest, at the top: pale and thin; pigments are full some leaves below.
    age = np.linspace(0, 1, count)
    ripe = 1 - np.exp(-age / 0.12)
    leaves = pd.DataFrame(
        {name: value * rng.lognormal(0, 0.06, count) for name, value in plant.items()}
    )
    leaves["cab_ug_cm2"] *= 0.55 + 0.45 * ripe
    leaves["car_ug_cm2"] *= 0.65 + 0.35 * ripe
    leaves["cm_g_cm2"] *= 0.8 + 0.2 * ripe
    leaves["n_layers"] = leaves["n_layers"].clip(lower=1.05)
    wilting = rng.uniform(0.3, 0.7) if treatment == "drought" else rng.uniform(0.0, 0.2)
    canopy = draw_canopy(rng, size, count, wilting)
    means = {name: float(mean) for name, mean in leaves.mean().items()}
    traits = {
        "cube": f"poplar_{index:04d}",
        "genotype": f"G{genotype + 1}",
        "treatment": treatment,
        **means,
        PHOTOSYNTHESIS: photosynthesis(rng, means["cab_ug_cm2"], means["cw_g_cm2"]),
    }
    return Poplar(str(traits["cube"]), traits, leaves, canopy)


def photosynthesis(rng: np.random.Generator, chlorophyll: float, water: float) -> float:
    """Make a trait of chlorophyll and water (ug cm-2, g cm-2) by a formula of our own, 5% noise."""
    value = 30 * chlorophyll / (chlorophyll + 25) * water / (water + 0.004)
    return float(value * rng.lognormal(0, 0.05))


def random_stream(seed: int, *stream: int) -> np.random.Generator:
    """Return one of the streams of random numbers that share a seed."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=stream))
