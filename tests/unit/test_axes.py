"""An axis is a pressure, a latitude or a longitude only if its file says so."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from raw_files import COLUMNS, ROWS, on_levels, read, saved, surface

from sciml_dchag.weather.prepare.contents import list_contents


def temperature(axis: str, values: list[float], **attrs: str) -> xr.Dataset:
    field = on_levels([1] * len(values), "t", "K").rename(level=axis)
    field["t"] = (field["t"] / 230).assign_attrs(units="K")
    return field.assign_coords({axis: (axis, np.array(values), attrs)})


@pytest.mark.parametrize(
    ("axis", "values", "attrs", "words"),
    [
        ("level", [50, 100], {"long_name": "model_level_number"}, "model levels"),
        ("level", [50, 100], {"standard_name": "model_level_number"}, "model levels"),
        ("level", [50, 100, 137], {}, "no usual set of pressure levels"),
        ("lev", [100, 200], {"units": "1"}, "levels in '1'"),
        ("lev", [100, 200], {"units": "hPa", "long_name": "hybrid level at midpoints"}, "model levels"),
        ("lev", [100, 200], {"units": "hPa", "formula_terms": "a: hyam b: hybm p0: P0"}, "model levels"),
        ("lev", [100, 200], {"units": "layer", "long_name": "vertical level"}, "levels in 'layer'"),
        ("hybrid", [50, 100], {}, "model levels"),
        ("model_level", [50, 100], {}, "model levels"),
        ("level", [300, 350], {"units": "K"}, "levels in 'K'"),
        ("theta", [300, 350], {}, "potential temperature"),
        ("level", [100, 500], {"long_name": "height above ground"}, "heights"),
        ("level", [100, 500], {"units": "m"}, "levels in 'm'"),
        ("depth", [100, 500], {"units": "m"}, "depths"),
        ("plev", [1000, 500], {}, "where plev is in Pa by convention"),
    ],
)  # fmt: skip
def test_levels_that_are_no_pressures_are_refused(
    tmp_path: Path, axis: str, values: list[float], attrs: dict[str, str], words: str
) -> None:
    file = saved(temperature(axis, values, **attrs), tmp_path / "t.nc")
    with pytest.raises(ValueError, match=f"t of .*t.nc lies on {axis} .*{words}") as refused:
        read([file], "t100")
    assert "assign_coords" not in str(refused.value) and "\n" not in str(refused.value)
    other = xr.merge([temperature(axis, values, **attrs), surface()])
    assert read([saved(other, tmp_path / "both.nc")], "t2m").shape == (4, 1, 5, 8)


@pytest.mark.parametrize(
    ("axis", "values", "attrs"),
    [
        ("isobaric", [5000, 10000], {"units": "Pa"}), ("isobaric1", [50, 100], {"units": "hPa"}),
        ("air_pressure", [50, 100], {"units": "hPa"}), ("plev", [5000, 10000], {"units": "Pa"}),
        ("plev", [5000, 10000], {}), ("LEV", [50, 100], {"units": "millibar"}),
        ("Level", [50, 100], {"units": "hPa"}), ("level", [50, 100], {}),
        ("lev", [50, 100], {"units": "hPa", "long_name": "vertical level", "positive": "down"}),
        ("p", [5000, 10000], {"units": "Pa", "standard_name": "air_pressure"}),
        ("isobaricInhPa", [50, 100], {}), ("isobaricInPa", [5000, 10000], {}),
    ],
)  # fmt: skip
def test_pressures_by_whatever_name_are_read(
    tmp_path: Path, axis: str, values: list[float], attrs: dict[str, str]
) -> None:
    dataset = temperature(axis, values, **attrs)
    state = read([saved(dataset, tmp_path / "t.nc")], "t100,t50")
    expected = dataset["t"].values[:, ::-1].astype(np.float32)
    np.testing.assert_array_equal(state.values, expected)


def bare(means: dict[int, float], name: str, units: str) -> xr.Dataset:
    """Fields of these means on an axis `level` that says nothing."""
    field = on_levels(list(means), name, units)
    field[name] -= field[name].mean(("time", "latitude", "longitude"))
    field[name] = field[name] / 1e3 + xr.DataArray(list(means.values()), dims="level")
    field[name] = field[name].transpose("time", "level", ...).assign_attrs(units=units)
    return field.assign_coords(level=list(means))


ISENTROPES = {300: 265.0, 350: 217.0, 500: 212.0}
"""Mean temperature on surfaces of potential temperature."""


@pytest.mark.parametrize(
    ("means", "name", "units", "words"),
    [
        (ISENTROPES, "t", "K", "t of 265.* K on level 300, in no units, and at 300 hPa it can be"),
        ({300: 250.0, 350: 231.0, 400: 217.0}, "t", "K", "t of 250.* K on level 300.* and 217 on 400"),
        ({100: 287.5, 500: 285.0, 1000: 281.7}, "t", "K", "t of 287.* K on level 100"),
        ({1000: 281.7, 2000: 275.2, 5000: 255.7}, "t", "K", "t of 281.* K on level 10,"),
        ({300: 4e4, 350: 1.1e5}, "z", "m2 s-2", "z of 4e.04 m2 s-2 on level 300"),
        ({300: 4080.0, 350: 11200.0}, "zg", "m", "z of 4.*e.04 m2 s-2 on level 300"),
    ],
)  # fmt: skip
def test_bare_levels_at_which_the_atmosphere_is_another(
    tmp_path: Path, means: dict[int, float], name: str, units: str, words: str
) -> None:
    both = xr.merge([bare(means, name, units), bare(means, "w", "Pa s-1")])
    file = saved(both, tmp_path / "a.nc")
    level = min(means) if min(means) < 1000 else 10
    for channel in (f"w{level}", f"{ {'zg': 'z'}.get(name, name) }{level}"):
        with pytest.raises(ValueError, match=f"a.nc has {words}.*no pressures") as refused:
            read([file], channel)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "means",
    [
        {50: 211.0, 300: 229.0, 500: 252.0, 850: 279.0, 1000: 287.0},  # the globe
        {50: 190.0, 200: 228.0, 300: 226.0, 500: 231.0, 700: 243.0, 850: 241.0, 1000: 236.0},
        {1: 262.0, 10: 228.0, 100: 195.0, 300: 242.0, 500: 268.0, 850: 298.0, 1000: 310.0},
    ],
)  # fmt: skip
def test_bare_levels_of_any_climate_are_read_in_silence(
    tmp_path: Path, means: dict[int, float]
) -> None:
    files = [saved(bare(means, "t", "K"), tmp_path / "t.nc"),
             saved(bare(means, "u", "m s-1"), tmp_path / "u.nc")]  # fmt: skip
    state = read(files, "t500,u300")
    assert float(state[:, 0].mean()) == pytest.approx(means[500], abs=0.1)


def test_bare_levels_without_anything_to_compare_are_said_once(tmp_path: Path) -> None:
    files = [saved(bare(ISENTROPES, n, "m s-1"), tmp_path / f"{n}.nc") for n in ("u", "v")]
    with pytest.warns(UserWarning, match="300, 350, 500 on the axis level .* taken for") as said:
        read(files, "u300,v300")
    assert len(said) == 1
    told = bare(ISENTROPES, "u", "m s-1")
    told["level"].attrs["long_name"] = "air_pressure"
    read([saved(told, tmp_path / "told.nc")], "u300")


def test_one_model_level_with_a_pressure_beside_it(tmp_path: Path) -> None:
    one = surface("t").assign_coords(hybrid=100, level=100)
    with pytest.raises(ValueError, match="lies on hybrid .model levels."):
        read([saved(one, tmp_path / "t.nc")], "t100")


def test_a_height_of_one_value_is_a_name(tmp_path: Path) -> None:
    """As NCEP's air.2m.gauss, and CMIP's tas with its height."""
    field = surface("air").expand_dims(level=[2.0]).transpose("time", "level", ...)
    field["level"].attrs["units"] = "m"
    state = read([saved(field, tmp_path / "air.nc")], "t2m")
    np.testing.assert_array_equal(state[:, 0].values, field["air"].values[:, 0])
    tas = surface("tas").assign_coords(height=((), 2.0, {"units": "m", "axis": "Z"}))
    assert read([saved(tas, tmp_path / "tas.nc")], "t2m").shape == (4, 1, 5, 8)
    two = surface().expand_dims(height=[2.0, 10.0])
    with pytest.raises(ValueError, match="holds 2 values of t2m .dimension height"):
        read([saved(two, tmp_path / "two.nc")], "t2m")


def projected(d: xr.Dataset) -> xr.Dataset:
    flat = {"latitude": (("y", "x"), np.zeros((5, 8))), "longitude": (("y", "x"), np.zeros((5, 8)))}
    return d.rename(latitude="y", longitude="x").assign_coords(flat)


def with_units(d: xr.Dataset, latitude: str, longitude: str) -> xr.Dataset:
    d["latitude"].attrs["units"], d["longitude"].attrs["units"] = latitude, longitude
    return d


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: projected(d.assign_coords(latitude=np.arange(5), longitude=np.arange(8))),
         "latitude and longitude on two dimensions .y, x."),
        (lambda d: projected(d).drop_vars(["y", "x"]), "on two dimensions"),
        (lambda d: d.assign_coords(latitude=np.arange(5), longitude=np.arange(8)).rename(latitude="y", longitude="x"),
         "do not say what they are"),
        (lambda d: with_units(d, "m", "m"), "in 'm', where degrees of latitude"),
        (lambda d: with_units(d, "radians", "radians"), "in radians"),
        (lambda d: d.assign_coords(latitude=np.deg2rad(ROWS), longitude=np.deg2rad(COLUMNS)), "in radians, by their values"),
        (lambda d: d["latitude"].attrs.update(standard_name="grid_latitude", units="degrees") or d,
         "grid latitude, as rotated"),
        (lambda d: d.assign(crs=((), 0, {"grid_mapping_name": "lambert_conformal_conic"}))
         .assign(t2m=d["t2m"].assign_attrs(grid_mapping="crs")), "lambert_conformal_conic"),
    ],
)  # fmt: skip
def test_axes_that_are_no_degrees_are_named(
    tmp_path: Path, change: Callable[[xr.Dataset], xr.Dataset], words: str
) -> None:
    file = saved(change(surface()), tmp_path / "a.nc")
    with pytest.raises(ValueError, match=words) as refused:
        read([file], "t2m")
    assert "\n" not in str(refused.value)
    notes = list_contents([file])["notes"]
    assert isinstance(notes, list) and len(notes) == 1


@pytest.mark.parametrize(
    ("names", "units"),
    [
        (("LAT", "LON"), ("degrees_north", "degrees_east")), (("Latitude", "Longitude"), ("degN", "degE")),
        (("y", "x"), ("degrees_north", "degrees_east")), (("y", "x"), ("", "")),
        (("lat", "lon"), ("degree", "degree")), (("lat", "lon"), ("degrees_N", "degrees_E")),
    ],
)  # fmt: skip
def test_degrees_by_whatever_name_are_read(
    tmp_path: Path, names: tuple[str, str], units: tuple[str, str]
) -> None:
    dataset = with_units(surface(), *units).rename(latitude=names[0], longitude=names[1])
    state = read([saved(dataset.rename(time="Time"), tmp_path / "a.nc")], "t2m")
    np.testing.assert_array_equal(state[:, 0].values, dataset["t2m"].values)


def bare_axes(rows: np.ndarray, columns: np.ndarray) -> xr.Dataset:
    """A field whose horizontal axes say nothing but their names."""
    field = np.full((2, len(rows), len(columns)), 280.0, np.float32)
    field += np.arange(len(columns))
    return xr.Dataset(
        {"t2m": (("time", "lat", "lon"), field, {"units": "K"})},
        coords={
            "time": np.array(["2001-01-01T00", "2001-01-01T06"], "datetime64[ns]"),
            "lat": rows,
            "lon": columns,
        },
    )


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [
        (np.deg2rad(np.linspace(-80, 80, 9)), np.arange(0, 360, 45.0), "in radians"),
        (np.deg2rad(np.arange(20, 60, 2.5)), np.deg2rad(np.arange(0, 40, 2.5)), "in radians"),
        (np.arange(16.0), np.arange(32.0), "that count cells"),
        (np.arange(16, 0, -1.0), np.arange(1, 33.0), "that count cells"),
    ],
)
def test_axes_called_lat_and_lon_that_are_no_degrees_are_refused(
    tmp_path: Path, rows: np.ndarray, columns: np.ndarray, words: str
) -> None:
    file = saved(bare_axes(rows, columns), tmp_path / "t.nc")
    with pytest.raises(ValueError, match=f"axes lat and lon .*{words}"):
        read([file], "t2m")


def test_degrees_without_units_and_axes_known_by_units_are_read(tmp_path: Path) -> None:
    for number, rows in enumerate((np.arange(-1.5, 1.6, 0.25), np.arange(35.0, 45.0))):
        field = bare_axes(rows, np.arange(10.0, 30.0))
        assert read([saved(field, tmp_path / f"{number}.nc")], "t2m").shape[2:] == (len(rows), 20)
    field = bare_axes(np.arange(-60, 61, 30.0), np.arange(0, 360, 45.0))
    named = field.rename(lat="g0_lat_1", lon="g0_lon_2")
    named["g0_lat_1"].attrs["units"] = "degrees_north"
    named["g0_lon_2"].attrs["units"] = "degrees_east"
    assert read([saved(named, tmp_path / "ncl.nc")], "t2m").shape == (2, 1, 5, 8)


def test_an_axis_of_unknown_kind_is_named_with_a_cure_that_helps(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lies on k, of which the file does not say") as refused:
        read([saved(temperature("k", [1, 2]), tmp_path / "k.nc")], "t500")
    assert "assign_coords" not in str(refused.value)
