"""`regrid`: labelled data in and out, both methods, the cache, laziness and refusals.

Not here: agreement with ESMF (`tests/golden/test_regrid.py`).
"""

import warnings

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.special
import xarray as xr
from optional_packages import needs_esmf, xesmf_imports

from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.regrid import cache as regrid_cache
from sciml_dchag.weather.regrid.regrid import regrid
from sciml_dchag.weather.regrid.weights import native_weights

ERA5_LIKE = Grid(np.linspace(90, -90, 73), np.arange(0.0, 360.0, 2.5))
GAUSSIAN = Grid(
    np.rad2deg(np.arcsin(scipy.special.roots_legendre(48)[0])), np.arange(96) * 3.75, "gaussian"
)
REGION = Grid(np.arange(30.0, 61.0, 1.0), np.arange(-20.0, 41.0, 1.0))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sciml_dchag" / "weights"


def unit_vectors(grid):
    phi, theta = np.deg2rad(np.meshgrid(grid.latitude, grid.longitude, indexing="ij"))
    xyz = [np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)]
    return np.stack(xyz, axis=-1).reshape(-1, 3)


def smooth_field(grid):
    x, y, z = unit_vectors(grid).T
    return (280 + 20 * z**2 + 5 * x * y + 3 * x).reshape(grid.shape)


def labelled(grid, values=None, dims=("latitude", "longitude")):
    values = smooth_field(grid) if values is None else values
    coords = {dims[0]: grid.latitude, dims[1]: grid.longitude}
    return xr.DataArray(values, coords=coords, dims=dims, name="t2m", attrs={"units": "K"})


def sample_dataset(grid=ERA5_LIKE, n_time=3):
    values = np.stack([smooth_field(grid) + i for i in range(n_time)]).astype(np.float32)
    return xr.Dataset(
        {
            "t2m": (("time", "lat", "lon"), values, {"units": "K", "GRIB_gridType": "regular_ll"}),
            "count": (("lon", "lat"), np.ones(grid.shape[::-1], dtype=np.int16)),
            "scalar": ("time", np.arange(n_time)),
            "lat_bnds": (("lat", "bnds"), np.zeros((grid.shape[0], 2))),
        },
        coords={
            "lat": ("lat", grid.latitude, {"bounds": "lat_bnds"}),
            "lon": grid.longitude,
            "time": np.arange(n_time).astype("datetime64[D]").astype("datetime64[ns]"),
            "expver": "0001",
        },
        attrs={"title": "sample"},
    )


@pytest.mark.parametrize("source", [ERA5_LIKE, GAUSSIAN, Grid.of("5.625")])
def test_bilinear_points_towards_the_target(source):
    """Interpolated unit vectors are parallel to the target's: the method's defining equation."""
    target = Grid.of("2.8125")
    weights = native_weights(source, target, "bilinear")
    found = weights @ unit_vectors(source)
    wanted = unit_vectors(target)
    interpolated = np.diff(weights.indptr) <= 4  # not in a cap, whose pole is a mean of its row
    cosine = np.sum(found * wanted, axis=1) / np.linalg.norm(found, axis=1)
    assert interpolated.mean() > 0.95
    # Newton stops at 1e-13 in u and v; the cosine is quadratic in the error, rounding remains.
    assert np.abs(cosine[interpolated] - 1.0).max() < 1e-14
    assert weights.data.min() > 0
    assert np.abs(weights.sum(axis=1) - 1.0).max() < 1e-12


@pytest.mark.parametrize("grid", [ERA5_LIKE, GAUSSIAN, REGION, Grid.of("5.625")])
@pytest.mark.parametrize("method", ["bilinear", "conservative"])
def test_regridding_to_the_same_grid_changes_nothing(grid, method):
    field = np.random.default_rng(0).standard_normal(grid.shape)
    result = regrid(labelled(grid, field), grid, method, "native")
    # Coordinates round trip through radians: 1e-16 of a turn over a cell of 1/360.
    np.testing.assert_allclose(result.to_numpy(), field, atol=1e-12)


def test_a_pole_beyond_the_last_row_is_the_mean_of_that_row():
    source = Grid.of("5.625")
    field = np.random.default_rng(0).standard_normal(source.shape)
    result = regrid(labelled(source, field), Grid.regular(5.625, poles=True), engine="native")
    np.testing.assert_allclose(result[0], field[0].mean(), atol=1e-12)
    np.testing.assert_allclose(result[-1], field[-1].mean(), atol=1e-12)


def test_a_pole_that_is_a_row_keeps_its_meridians():
    """Wind components at a pole depend on the meridian they are given along."""
    target = Grid.regular(5.0, poles=True)
    field = np.cos(np.deg2rad(ERA5_LIKE.longitude))[None, :] * np.ones((73, 1))
    result = regrid(labelled(ERA5_LIKE, field), target, engine="native")
    # Columns of the target are columns of the source.
    np.testing.assert_allclose(result[-1], np.cos(np.deg2rad(target.longitude)), atol=1e-12)


@pytest.mark.parametrize("source", [ERA5_LIKE, GAUSSIAN, Grid.of("1.40625")])
@pytest.mark.parametrize("target", ["5.625", "2.8125", "91x180"])
def test_conservative_keeps_the_mean(source, target):
    target = Grid.of(target)
    field = np.random.default_rng(0).standard_normal(source.shape)
    result = regrid(labelled(source, field), target, "conservative", "native")
    before = np.average(field, weights=source.cell_areas())
    after = np.average(result.to_numpy(), weights=target.cell_areas())
    assert after == pytest.approx(before, abs=1e-10)
    matrix = native_weights(source, target, "conservative")
    assert np.abs(matrix.sum(axis=1) - 1.0).max() < 1e-12


@pytest.mark.parametrize("method", ["bilinear", "conservative"])
def test_order_of_rows_and_origin_of_longitude_do_not_matter(method):
    base = labelled(ERA5_LIKE)
    expected = regrid(base, "5.625", method, "native")
    upside_down = base.isel(latitude=slice(None, None, -1))
    from_date_line = base.roll(longitude=72, roll_coords=True).assign_coords(
        longitude=np.arange(-180.0, 180.0, 2.5)
    )
    for other in (upside_down, from_date_line, base.transpose("longitude", "latitude")):
        result = regrid(other, "5.625", method, "native")
        assert result.dims == ("latitude", "longitude")
        # The same sums in another order: rounding of values near 300.
        np.testing.assert_allclose(result, expected, rtol=1e-13)


@pytest.mark.parametrize(("method", "tolerance"), [("bilinear", 0.05), ("conservative", 0.2)])
def test_a_smooth_field_is_reproduced(method, tolerance):
    """Bilinear errs by h^2 / 8 times the curvature: 0.04 K for 2.5 degrees and amplitude 40 K;
    a cell mean differs from its centre by h^2 / 24 of it at 5.625 degrees, plus overlap noise."""
    target = Grid.of("5.625")
    result = regrid(labelled(ERA5_LIKE), target, method, "native")
    assert np.abs(result.to_numpy() - smooth_field(target)).max() < tolerance


def test_region_inside_a_region():
    target = {"latitude": np.arange(35.25, 55, 2.0), "longitude": np.arange(-15.3, 35, 2.0)}
    for method in ("bilinear", "conservative"):
        result = regrid(labelled(REGION), target, method, "native")
        assert np.abs(result.to_numpy() - smooth_field(Grid.of(target))).max() < 0.1
    # Targets on the outermost rows lie below the chord between two source points.
    edge = regrid(labelled(REGION), {"latitude": [30.0, 60.0], "longitude": [-20.0, 40.0]})
    corners = smooth_field(REGION)[np.ix_([0, -1], [0, -1])]
    np.testing.assert_allclose(edge, corners, rtol=1e-12)
    between = regrid(labelled(REGION), {"latitude": [30.0, 60.0], "longitude": [0.5, 1.5]})
    assert np.isfinite(between).all()
    assert np.abs(between.to_numpy() - smooth_field(Grid.of(between))).max() < 0.01


def test_dataset_keeps_what_is_not_horizontal():
    source = sample_dataset()
    result = regrid(source, "5.625", engine="native")
    assert list(result.data_vars) == ["t2m", "count", "scalar"]
    assert result["t2m"].dims == ("time", "latitude", "longitude")
    assert result["count"].dims == ("latitude", "longitude")
    assert set(result.coords) == {"time", "expver", "latitude", "longitude"}
    assert result["t2m"].dtype == np.float32
    assert result["count"].dtype == np.float64
    np.testing.assert_allclose(result["count"], 1.0, rtol=1e-12)
    xr.testing.assert_identical(result["scalar"], source["scalar"])
    assert result["t2m"].attrs == {"units": "K"}  # no more of the grid that it left
    assert result["latitude"].attrs["units"] == "degrees_north"
    assert result.attrs["title"] == "sample"
    assert result.attrs["regrid_method"] == "bilinear"
    assert result.attrs["regrid_engine"] == "native"
    assert len(result.attrs["regrid_weights_sha256"]) == 64


def test_float32_sums_are_in_float64():
    field = smooth_field(ERA5_LIKE)
    single = regrid(labelled(ERA5_LIKE, field.astype(np.float32)), "5.625", engine="native")
    double = regrid(labelled(ERA5_LIKE, field.astype(np.float32).astype(float)), "5.625")
    np.testing.assert_array_equal(single, double.astype(np.float32))


def test_dataarray_in_dataarray_out():
    result = regrid(labelled(ERA5_LIKE).rename("latitude_of_something"), "5.625")
    assert isinstance(result, xr.DataArray)
    assert result.name == "latitude_of_something"
    assert result.attrs["units"] == "K"
    assert result.attrs["regrid_method"] == "bilinear"


def test_big_endian_and_empty_leading_dimensions():
    field = smooth_field(ERA5_LIKE).astype(">f4")
    assert regrid(labelled(ERA5_LIKE, field), "5.625").dtype == np.dtype(np.float32)
    empty = labelled(ERA5_LIKE).expand_dims(time=3).isel(time=slice(0, 0))
    assert regrid(empty, "5.625").shape == (0, 32, 64)


@pytest.mark.parametrize("method", ["bilinear", "conservative"])
def test_missing_values_spread_to_where_they_contribute(method):
    field = smooth_field(ERA5_LIKE)
    field[20, 30] = np.nan
    result = regrid(labelled(ERA5_LIKE, field), "5.625", method, "native")
    weights = native_weights(ERA5_LIKE, Grid.of("5.625"), method)
    contributes = weights[:, [20 * 144 + 30]].toarray().reshape(32, 64) > 0
    np.testing.assert_array_equal(np.isnan(result), contributes)
    assert 0 < contributes.sum() <= 9


def test_missing_values_do_not_reach_targets_that_coincide_with_neighbours():
    field = smooth_field(ERA5_LIKE)
    field[20, 30] = np.nan
    result = regrid(labelled(ERA5_LIKE, field), ERA5_LIKE, engine="native")
    assert np.isnan(result).sum() == 1


def test_dask_stays_lazy_and_keeps_its_chunks():
    source = sample_dataset(n_time=6).chunk({"time": 2, "lat": 40, "lon": 100})
    with dask.config.set(scheduler=_refuse_to_compute):
        result = regrid(source, "5.625", engine="native")
    assert isinstance(result["t2m"].data, da.Array)
    assert result["t2m"].chunks == ((2, 2, 2), (32,), (64,))
    assert result["t2m"].dtype == np.float32
    expected = regrid(sample_dataset(n_time=6), "5.625", engine="native")
    xr.testing.assert_identical(result.compute(scheduler="synchronous"), expected)


def _refuse_to_compute(*_args, **_kwargs):
    raise AssertionError("regridding computed lazy data")


def test_weights_are_kept_and_reused(cache, monkeypatch):
    first = regrid(labelled(ERA5_LIKE), "5.625", engine="native")
    (path,) = cache.iterdir()
    with xr.open_dataset(path) as file:
        assert set(file.variables) == {"S", "row", "col"}
        assert file["S"].dims == ("n_s",)
        assert file["row"].min() == 1
        assert file["row"].max() == 32 * 64

    def fail(*_args):
        raise AssertionError("weights were made again")

    monkeypatch.setitem(regrid_cache._BUILDERS, "native", fail)
    xr.testing.assert_identical(regrid(labelled(ERA5_LIKE), "5.625", engine="native"), first)


def test_cache_tells_grids_of_one_shape_apart(tmp_path):
    for grid in (ERA5_LIKE, Grid(ERA5_LIKE.latitude[::-1], ERA5_LIKE.longitude)):
        for method in ("bilinear", "conservative"):
            regrid(labelled(grid), "5.625", method, "native", weights_directory=tmp_path / "w")
    assert len(list((tmp_path / "w").iterdir())) == 4


@pytest.mark.parametrize("damage", ["truncated", "garbage", "wrong values", "wrong indices"])
def test_damaged_weights_are_made_anew(cache, damage):
    first = regrid(labelled(ERA5_LIKE), "5.625", engine="native")
    (path,) = cache.iterdir()
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "garbage":
        path.write_bytes(b"not a weight file")
    else:
        weights = xr.load_dataset(path)
        if damage == "wrong values":
            weights["S"][5] += 0.5
        else:
            weights["col"][5] = 10**6
        weights.to_netcdf(path)
    with pytest.warns(UserWarning, match="are damaged"):
        second = regrid(labelled(ERA5_LIKE), "5.625", engine="native")
    xr.testing.assert_identical(first, second)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xr.testing.assert_identical(regrid(labelled(ERA5_LIKE), "5.625", engine="native"), first)
    assert list(cache.iterdir()) == [path]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="could not be kept"):
        result = regrid(
            labelled(ERA5_LIKE), "5.625", engine="native", weights_directory=tmp_path / "file"
        )
    assert np.isfinite(result).all()


@pytest.mark.skipif(xesmf_imports(), reason="xESMF is installed, so it is not refused")
def test_xesmf_where_it_does_not_import():
    with pytest.raises(ValueError, match=r'engine="native" or the conda environment'):
        regrid(labelled(ERA5_LIKE), "5.625", engine="xesmf")
    assert regrid(labelled(ERA5_LIKE), "5.625").attrs["regrid_engine"] == "native"


@pytest.mark.skipif(xesmf_imports(), reason="xESMF is installed, so it makes its own weights")
def test_auto_takes_weights_that_xesmf_left(cache):
    """A file as xESMF writes it, with none of our attributes and 64-bit indices."""
    target = Grid.of("5.625")
    matrix = native_weights(ERA5_LIKE, target, "bilinear").tocoo()
    cache.mkdir(parents=True)
    xr.Dataset(
        {
            "S": ("n_s", matrix.data),
            "col": ("n_s", matrix.col.astype(np.int64) + 1),
            "row": ("n_s", matrix.row.astype(np.int64) + 1),
        }
    ).to_netcdf(regrid_cache.weight_file(ERA5_LIKE, target, "bilinear", "xesmf", cache))
    result = regrid(labelled(ERA5_LIKE), "5.625")
    assert result.attrs["regrid_engine"] == "xesmf"
    native = regrid(labelled(ERA5_LIKE), "5.625", engine="native")
    assert native.attrs["regrid_engine"] == "native"
    np.testing.assert_allclose(result, native, rtol=1e-14)


@pytest.mark.filterwarnings("default")  # ESMF's and xESMF's own are not ours to fix
@needs_esmf
@pytest.mark.parametrize("method", ["bilinear", "conservative"])
def test_both_engines_give_the_same(method):
    source = sample_dataset()
    source["t2m"][1, 20, 30] = np.nan
    ours = regrid(source, "5.625", method, "native")
    esmfs = regrid(source, "5.625", method, "xesmf")
    assert esmfs.attrs["regrid_engine"] == "xesmf"
    # Bilinear: float32 rounding of 300; conservative: great-circle edges of ESMF's cells.
    xr.testing.assert_allclose(ours, esmfs, rtol=2e-7 if method == "bilinear" else 1e-3)


@pytest.mark.parametrize("method", ["bilinear", "conservative"])
@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (REGION, "5.625", "covers latitudes"),
        (
            Grid(ERA5_LIKE.latitude, np.arange(0.0, 181.0, 2.5)),
            "5.625",
            "covers longitudes.*once around",
        ),
        (
            REGION,
            {"latitude": [40.0, 41.0], "longitude": [30.0, 35.0, 40.0, 45.0]},
            "covers longitudes",
        ),
        (
            Grid(np.arange(-60.0, 61.0, 2.0), ERA5_LIKE.longitude),
            "5.625",
            "covers latitudes -6[01] to 6[01]",
        ),
    ],
)
def test_targets_outside_the_source_are_refused(source, target, message, method, cache):
    with pytest.raises(ValueError, match=message):
        regrid(labelled(source), target, method, "native")
    assert not cache.exists()


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda ds: ds, {"method": "bilinaer"}, "no regridding method"),
        (lambda ds: ds, {"engine": "esmf"}, "no engine"),
        (lambda ds: ds, {"target": "5.6"}, "does not divide 180"),
        (lambda ds: ds.drop_vars("lat"), {}, "no coordinate latitude or lat"),
        (lambda ds: ds.rename(lon="x"), {}, "no coordinate longitude or lon"),
        (lambda ds: ds[["scalar"]].assign_coords(ds.coords), {}, "No variable lies on both"),
        (lambda ds: ds.assign(weight=("lat", np.ones(73))), {}, '"weight" lies on lat alone'),
        (
            lambda ds: ds.assign(when=(("lat", "lon"), np.zeros((73, 144), "M8[ns]"))),
            {},
            "which has no mean",
        ),
        (lambda ds: ds.isel(lon=slice(None, None, -1)), {}, "run eastward"),
        (lambda ds: ds.to_dict(), {}, "not a dict"),
    ],
)
def test_bad_input_is_refused(change, arguments, message):
    arguments = {"target": "5.625", **arguments}
    with pytest.raises(ValueError, match=message):
        regrid(change(sample_dataset()), **arguments)


@pytest.mark.parametrize(
    "attrs", [{"standard_name": "grid_latitude", "units": "degrees"}, {"units": "radians"}]
)
def test_rows_that_are_no_degrees_of_latitude_are_refused(attrs):
    rows = ("latitude", np.linspace(-88, 88, 16), attrs)
    data = xr.Dataset(
        {"t": (("latitude", "longitude"), np.ones((16, 32)))},
        {"latitude": rows, "longitude": np.arange(32) * 11.25},
    )
    with pytest.raises(ValueError, match="latitude in degrees is needed"):
        regrid(data, "4x8")
