"""Our regridding weights against those that ESMF made.

The files in `regrid/` were made by xESMF 0.9.2 on ESMF 9.0; each holds its grids. Not here: what
`regrid` does with data (`tests/unit/test_regrid.py`).
"""

import time
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import xarray as xr
from optional_packages import needs_esmf

from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.regrid.weights import METHODS, finished, native_weights, read_weights

FOLDER = Path(__file__).parent / "regrid"
BILINEAR = (
    "era5_0p25_to_5p625_bilinear",
    "latlon_1p5_to_5p625_bilinear",
    "cellcentred_5p625_to_2p8125_bilinear_poles",
)


def load(name: str) -> tuple[Grid, Grid, sp.csr_array]:
    path = FOLDER / f"{name}.nc"
    with xr.open_dataset(path) as file:
        source = Grid(file["src_lat"].to_numpy(), file["src_lon"].to_numpy())
        target = Grid(file["dst_lat"].to_numpy(), file["dst_lon"].to_numpy())
    return source, target, read_weights(path, source, target)


@pytest.mark.parametrize("name", BILINEAR)
def test_native_bilinear_weights_are_esmfs(name):
    source, target, expected = load(name)
    weights = native_weights(source, target, "bilinear")
    # ESMF solves for the same (u, v) in double precision; 1e-9 leaves room for its stopping rule.
    assert abs(weights - expected).max() < 1e-9
    # The zeros that were dropped must not have hidden whole rows.
    assert np.all(np.diff(weights.indptr) > 0)


@pytest.mark.parametrize("name", BILINEAR)
def test_dropping_rounded_zeros_leaves_the_same_contributors(name):
    """Missing values spread alike with either engine's weights."""
    source, target, expected = load(name)
    ours, esmfs = native_weights(source, target, "bilinear"), finished(expected)
    assert np.array_equal(ours.indptr, esmfs.indptr)
    assert np.array_equal(ours.indices, esmfs.indices)


def test_native_conservative_weights_are_close_to_esmfs():
    source, target, expected = load("latlon_1p5_to_5p625_conservative")
    weights = native_weights(source, target, "conservative")
    # ESMF's cells have great-circle edges, ours parallels: 2.3e-3 is that difference.
    assert abs(weights - expected).max() < 2.3e-3
    field = np.random.default_rng(0).standard_normal(source.size)
    assert np.abs(weights @ field - expected @ field).max() < 0.02
    assert np.abs(weights.sum(axis=1) - 1.0).max() < 1e-12


def test_golden_target_is_our_named_grid():
    _, target, _ = load("era5_0p25_to_5p625_bilinear")
    assert target.content_hash == Grid.named("5.625").content_hash


def test_weights_of_the_quarter_degree_grid_take_under_a_fifth_of_a_second():
    source, target, _ = load("era5_0p25_to_5p625_bilinear")
    durations = []
    for _ in range(3):
        start = time.perf_counter()
        native_weights(source, target, "bilinear")
        durations.append(time.perf_counter() - start)
    assert min(durations) < 0.2


@pytest.mark.filterwarnings("default")  # ESMF's and xESMF's own are not ours to fix
@needs_esmf
@pytest.mark.parametrize("name", [*BILINEAR, "latlon_1p5_to_5p625_conservative"])
def test_xesmf_weights_are_the_golden_ones(name):
    from sciml_dchag.weather.regrid.weights import xesmf_weights

    source, target, expected = load(name)
    method = next(part for part in name.split("_") if part in METHODS)
    weights = xesmf_weights(source, target, method)
    assert abs(weights - expected).max() < 1e-9
