"""Grids: names, edges, areas, and the refusal of coordinates that are no grid."""

import numpy as np
import pytest
import scipy.special
import xarray as xr

from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.grid_checks import check_grid


def gaussian_rows(n):
    return np.rad2deg(np.arcsin(scipy.special.roots_legendre(n)[0]))


@pytest.mark.parametrize(
    ("name", "shape", "first_row"),
    [
        ("5.625", (32, 64), -87.1875),
        ("2.8125", (64, 128), -88.59375),
        ("1.40625", (128, 256), -89.296875),
        ("32x64", (32, 64), -87.1875),
        ("721x1440", (721, 1440), -90.0),
        ("1.5", (120, 240), -89.25),
    ],
)
def test_named_grids(name, shape, first_row):
    grid = Grid.of(name)
    assert grid.shape == shape
    assert grid.latitude[0] == first_row == -grid.latitude[-1]
    assert grid.longitude[0] == 0.0
    assert grid.longitude[-1] == pytest.approx(360.0 - 360.0 / shape[1])
    assert grid.is_periodic
    assert grid.kind == "regular"


def test_a_step_from_a_recipe_is_a_number():
    assert Grid.of(5.625).content_hash == Grid.of("5.625").content_hash


def test_grid_of_anything_with_coordinates():
    grid = Grid.of("5.625")
    dataset = xr.Dataset(coords={"lat": grid.latitude, "lon": grid.longitude})
    for carrier in (dataset, {"latitude": grid.latitude, "longitude": grid.longitude}, grid):
        assert Grid.of(carrier).content_hash == grid.content_hash


def test_hash_tells_apart_grids_of_one_shape():
    south_first = Grid.of("5.625")
    north_first = Grid(south_first.latitude[::-1], south_first.longitude)
    shifted = Grid(south_first.latitude, south_first.longitude - 180.0)
    assert len({g.content_hash for g in (south_first, north_first, shifted)}) == 3


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "rows", [np.linspace(-90, 90, 73), gaussian_rows(32), Grid.of("5.625").latitude]
)
def test_areas_of_a_global_grid_are_the_sphere(rows, order):
    grid = Grid(rows[::order], np.arange(-180.0, 180.0, 2.5))
    assert grid.cell_areas().sum() == pytest.approx(4 * np.pi, rel=1e-14)
    assert grid.cell_areas().min() > 0
    assert np.all(np.diff(grid.latitude_edges) * order > 0)


def test_edges_of_a_region_are_half_a_step_out():
    grid = Grid([30.0, 32.0, 34.0], [350.0, 353.0, 356.0, 359.0, 2.0])
    np.testing.assert_allclose(grid.latitude_edges, [29, 31, 33, 35])
    np.testing.assert_allclose(grid.longitude_edges, [348.5, 351.5, 354.5, 357.5, 360.5, 363.5])
    assert not grid.is_periodic
    assert grid.reaches_poles == (False, False)


@pytest.mark.parametrize("n", [16, 32, 48, 160, 640])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gaussian_rows_are_recognised(n, dtype):
    longitude = np.arange(2 * n) * 180.0 / n
    assert check_grid(gaussian_rows(n).astype(dtype), longitude) == "gaussian"
    assert check_grid(gaussian_rows(n)[::-1], longitude, label="regular_gg") == "gaussian"
    with pytest.raises(ValueError, match=r'labelled "regular_ll".*are gaussian'):
        check_grid(gaussian_rows(n).astype(dtype), longitude, label="regular_ll")


def test_regular_rows_labelled_gaussian_are_refused():
    grid = Grid.of("5.625")
    assert check_grid(grid.latitude, grid.longitude, label="regular_ll") == "regular"
    with pytest.raises(ValueError, match=r'labelled "gaussian".*are regular'):
        check_grid(grid.latitude, grid.longitude, label="gaussian")


def test_part_of_a_gaussian_grid_may_keep_its_label():
    check_grid(gaussian_rows(64)[20:30], np.arange(0.0, 40.0, 2.8125), label="regular_gg")


@pytest.mark.parametrize("n", [32, 48, 640])
def test_evenly_spaced_rows_between_gaussian_ends_are_refused(n):
    end = gaussian_rows(n)[-1]
    with pytest.raises(ValueError, match="a Gaussian grid labelled regular"):
        check_grid(np.linspace(-end, end, n), np.arange(2 * n) * 180.0 / n)


def test_label_of_a_grib_reader_is_checked():
    data = xr.DataArray(
        np.zeros((32, 64)),
        coords={"latitude": gaussian_rows(32), "longitude": np.arange(64) * 5.625},
        dims=("latitude", "longitude"),
        attrs={"GRIB_gridType": "regular_ll"},
    )
    with pytest.raises(ValueError, match="correct the label or the latitudes"):
        Grid.of(data)
    with pytest.raises(ValueError, match="correct the label or the latitudes"):
        Grid.of(data.to_dataset(name="t"))


@pytest.mark.parametrize(
    ("latitude", "longitude", "message"),
    [
        ([0.0, 1.0, 1.0], [0.0, 1.0], "1 follows 1"),
        ([0.0, 2.0, 1.0], [0.0, 1.0], "1 follows 2"),
        ([0.0, 91.0], [0.0, 1.0], "Latitudes run to 91"),
        ([0.0, np.nan], [0.0, 1.0], "1 values of latitude are missing"),
        ([0.0], [0.0, 1.0], "at least two"),
        ([[0.0, 1.0]], [0.0, 1.0], "curvilinear"),
        ([0.0, 1.0], [0.0, 90.0, 180.0, 270.0, 360.0], "360 is there twice"),
        ([0.0, 1.0], [0.0, 90.0, 90.0], "90 is there twice"),
        ([0.0, 1.0], [0.0, 90.0, 45.0, 180.0], "45 follows 90"),
        ([0.0, 1.0], [90.0, 45.0, 0.0], "45 follows 90"),
    ],
)
def test_unusable_coordinates_are_refused(latitude, longitude, message):
    with pytest.raises(ValueError, match=message):
        check_grid(latitude, longitude)
    with pytest.raises(ValueError, match=message):
        Grid(np.array(latitude), np.array(longitude))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("5.65", 'does not divide 180.*did you mean "5.625"'),
        ("5.625deg", 'There is no grid.*did you mean "5.625"'),
        ("64x32", '"32x64"'),
        ("1x2", "at least two"),
        ({"latitude": [0, 1]}, "without longitude or lon"),
        (object(), "without latitude or lat"),
        ("0", "does not divide"),
        ("100000x200000", "the most that can be named"),
        ("0.000001", "the most that can be named"),
    ],
)
def test_unknown_targets_are_refused(target, message):
    with pytest.raises(ValueError, match=message):
        Grid.of(target)


@pytest.mark.parametrize(
    ("first", "bounds"), [(-84.3705, (-87.183, 87.183)), (-84.375, (-90.0, 90.0))]
)
def test_scores_and_regridding_have_one_definition_of_a_rows_area(first, bounds):
    """Rows of which the outermost just do not, and just do, reach the poles."""
    latitude = np.linspace(first, -first, 31)
    inner = (latitude[1:] + latitude[:-1]) / 2
    half = (latitude[1] - latitude[0]) / 2
    edges = np.concatenate([[bounds[0]], inner, [bounds[1]]])
    if bounds[1] < 90:
        edges[[0, -1]] = latitude[0] - half, latitude[-1] + half
    exact = np.diff(np.sin(np.deg2rad(edges)))
    grid = Grid(latitude, np.arange(0.0, 360.0, 5.625))
    np.testing.assert_allclose(grid.latitude_edges, edges, rtol=0, atol=1e-12)
    np.testing.assert_allclose(grid.cell_areas().sum(1), 2 * np.pi * exact, rtol=1e-13)
    np.testing.assert_allclose(latitude_weights(latitude), exact / exact.mean(), rtol=1e-13)
