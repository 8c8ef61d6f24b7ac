"""What the package carries beside code: real data for a first run, its recipe, job templates."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

SAMPLES = {
    "era5_msl": "era5_msl_2025-12_2p5deg_6h.nc",
    "era5_msl_vo850": "era5_msl_vo850_2025-12_2026-02-14_5p625deg_6h.nc",
    "era5_lows": "era5_lows_2025-12_2026-02-14_2p5deg.csv.gz",
    "era5_state_1959": "era5_state_1959-01-02T00_gaussian_3levels.nc",
    "maize_kernel": "maize_kernel_b73.raw",
    "maize_white": "white_reference.raw",
    "maize_dark": "dark_reference.raw",
    "coffee_leaves": "coffee_leaves/images",
    "coffee_lesions": "coffee_leaves/lesions",
    "coffee_grades": "coffee_leaves/grades.csv",
}
"""File or folder of each sample in `sciml_dchag.samples`; its licence lies beside it.

`era5_msl`: ERA5 mean sea level pressure, December 2025, 6-hourly, 2.5 degrees. Contains modified
Copernicus Climate Change Service information (CC-BY 4.0).
`era5_msl_vo850`: the same and relative vorticity at 850 hPa, 1 December 2025 to 14 February 2026,
5.625 degrees, regridded from 2.5 degrees by this package; PyStormTracker-Data (CC-BY 4.0).
`era5_lows`: the lows of these 76 days on 2.5 degrees, as the command `objects` finds them: 20 to 75
degrees from the equator, 4 hPa and more below their surroundings; same source and licence.
`era5_state_1959`: u, v, z, t and q at 250, 500 and 850 hPa, 2 January 1959 00 UTC, 64 x 32 Gaussian
grid, cut from NeuralGCM's test data (Apache-2.0; CC-BY 4.0).
`maize_kernel`: raw counts of a maize kernel in 580 bands, ENVI with the header beside it;
`maize_white` and `maize_dark` are its references. PlantCV hyperspectral tutorial (CC-BY 4.0).
`coffee_leaves`: folder of 258 pictures of coffee leaves, 192 x 96 pixels; `coffee_lesions` has a
label image of each, `coffee_grades` their severity, 0 to 4, and splits. lara2018, Esgario, Krohling
and Ventura 2020 (MIT).
"""

COFFEE_ATTRIBUTION = "Coffee leaves: lara2018, Esgario, Krohling and Ventura 2020 (MIT)."
MAIZE_ATTRIBUTION = "Maize kernel: PlantCV hyperspectral tutorial (CC-BY 4.0)."


def recipe_path(name: str) -> Path:
    """Return the file of a demonstration's recipe."""
    return Path(str(resources.files("sciml_dchag") / "samples" / f"{name}.yaml"))


def job_template_path(name: str) -> Path:
    """Return the file of a Slurm script that jobs are made from."""
    return Path(str(resources.files("sciml_dchag") / "samples" / f"{name}.sh"))


def resolve_samples(sources: Sequence[str]) -> list[str]:
    """Replace each `sample:NAME` by the path of that embedded sample."""
    prefix = "sample:"
    return [
        str(sample_path(source.removeprefix(prefix))) if source.startswith(prefix) else source
        for source in sources
    ]


Sources = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""One or several."""


def several(sources: Sources) -> Iterable[str | os.PathLike[str]]:
    """Return several sources where one may be given, whose name may hold a comma."""
    return [sources] if isinstance(sources, str | os.PathLike) else sources


def attribution_of(sources: Sequence[str]) -> str:
    """Return the sentence that pictures of an embedded plant sample carry; none for other files."""
    begins = {"sample:maize": MAIZE_ATTRIBUTION, "sample:coffee": COFFEE_ATTRIBUTION}
    found = [
        said for begin, said in begins.items() if any(one.startswith(begin) for one in sources)
    ]
    return " ".join(found)


def sample_path(name: str) -> Path:
    """Return the file, or the folder of files, of an embedded sample.

    Raises:
        ValueError: there is no such sample.
    """
    if name not in SAMPLES:
        raise ValueError(f"There is no sample {name!r}: choose from {', '.join(SAMPLES)}.")
    return Path(str(resources.files("sciml_dchag") / "samples" / SAMPLES[name]))
