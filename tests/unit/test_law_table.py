"""Tables of channels and gradients for laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sciml_dchag.files.samples import sample_path
from sciml_dchag.weather.law_table import EARTH_RADIUS, EARTH_ROTATION, write_law_table

ERA5 = sample_path("era5_state_1959")


def field(latitude: np.ndarray, longitude: np.ndarray) -> xr.Dataset:
    """Geopotential 1000 sin(2 longitude) cos(latitude) + 500 sin(latitude), m2 s-2."""
    phi, lam = np.deg2rad(latitude)[:, None], np.deg2rad(longitude)
    values = 1000 * np.sin(2 * lam) * np.cos(phi) + 500 * np.sin(phi)
    return xr.Dataset(
        {"geopotential": (("time", "level", "latitude", "longitude"), values[None, None])},
        {
            "time": [np.datetime64("2020-01-01", "ns")], "level": [500],
            "latitude": latitude, "longitude": longitude,
        },
    ).assign(geopotential=lambda d: d["geopotential"].assign_attrs(units="m**2 s**-2"))  # fmt: skip


@pytest.mark.parametrize("region", ["globe", "globe north first", "region"])
def test_derivatives_are_those_of_the_sphere(tmp_path: Path, region: str) -> None:
    latitude, longitude = np.arange(-88.0, 89, 2), np.arange(0.0, 360, 2)
    if region == "globe north first":
        latitude = latitude[::-1]
    if region == "region":
        latitude, longitude = latitude[50:80], longitude[20:60]
    field(latitude, longitude).to_netcdf(tmp_path / "z.nc", engine="h5netcdf")
    table = write_law_table(
        tmp_path / "z.nc", tmp_path / "t.csv", ["dz500_dx", "dz500_dy", "f"], band=(20, 70)
    )
    if region == "region":  # one-sided differences at its edges
        inner = table["longitude"].between(42, 116) & table["latitude"].between(14, 68)
        table = table[inner]
    phi, lam = np.deg2rad(table["latitude"]), np.deg2rad(table["longitude"])
    eastward = 2000 * np.cos(2 * lam) / EARTH_RADIUS
    northward = (-1000 * np.sin(2 * lam) * np.sin(phi) + 500 * np.cos(phi)) / EARTH_RADIUS
    np.testing.assert_allclose(table["dz500_dx [m s-2]"], eastward, atol=1e-6)
    np.testing.assert_allclose(table["dz500_dy [m s-2]"], northward, atol=1e-6)
    np.testing.assert_allclose(table["f [s-1]"], 2 * EARTH_ROTATION * np.sin(phi))
    assert table["latitude"].abs().between(20, 70).all()


def test_a_gradient_keeps_the_size_of_its_units(tmp_path: Path) -> None:
    """Of pressure in hPa its heading said kg m-2 s-2, and its values were hPa m-1."""
    latitude, longitude = np.arange(-88.0, 89, 2), np.arange(0.0, 360, 2)
    pressure = field(latitude, longitude)["geopotential"].isel(level=0, drop=True) + 1e5
    tables = []
    for units, scale in (("Pa", 1.0), ("hPa", 100.0)):
        given = (pressure / scale).assign_attrs(units=units).to_dataset(name="msl")
        given.to_netcdf(tmp_path / "p.nc", engine="h5netcdf")
        tables.append(
            write_law_table(
                tmp_path / "p.nc", tmp_path / "t.csv", ["msl", "dmsl_dx"], overwrite=True
            )
        )
    ours, theirs = (table["dmsl_dx [kg m-2 s-2]"] for table in tables)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)
    assert "msl [hPa]" in tables[1]


def test_there_is_no_east_at_a_pole(tmp_path: Path) -> None:
    """A rounding of 1e-3 there, divided by the cosine, was a gradient of thousands."""
    latitude, longitude = np.linspace(-90.0, 90, 37), np.arange(0.0, 360, 5)
    z = field(latitude, longitude)
    z["geopotential"] += np.random.default_rng(0).normal(0, 1e-3, z["geopotential"].shape)
    z.to_netcdf(tmp_path / "z.nc", engine="h5netcdf")
    table = write_law_table(tmp_path / "z.nc", tmp_path / "t.csv", ["dz500_dx", "dz500_dy"])
    at_pole = table["latitude"].abs() == 90
    assert table["dz500_dx [m s-2]"].isna().equals(at_pole) and at_pole.sum() == 2 * 72
    assert table["dz500_dx [m s-2]"].abs().max() < 1e-3 and table["dz500_dy [m s-2]"].notna().all()


def test_the_real_state_has_the_geostrophic_wind_outside_the_tropics(tmp_path: Path) -> None:
    table = write_law_table(ERA5, tmp_path / "t.csv", ["v500", "dz500_dx", "f"], band=(30, 75))
    read = pd.read_csv(tmp_path / "t.csv")
    assert list(read.columns) == [
        "time", "day", "sector", "latitude", "longitude", "v500 [m s-1]", "dz500_dx [m s-2]",
        "f [s-1]",
    ]  # fmt: skip
    assert len(read) == len(table) == 1024 + 128 and sorted(set(read["sector"])) == list(range(12))
    wind = read["dz500_dx [m s-2]"] / read["f [s-1]"]
    slope = float((wind * read["v500 [m s-1]"]).sum() / (wind**2).sum())
    # An independent computation has 1.040 on 400 of these points.
    assert slope == pytest.approx(1.04, abs=0.03)
    thinned = write_law_table(ERA5, tmp_path / "u.csv", ["v500"], every=97)
    assert len(thinned) == -(-2048 // 97)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"columns": ["f"]}, ValueError, "no channel is named"),
        ({"columns": ["z700"]}, ValueError, "no channel z700"),
        ({"every": 0}, ValueError, "every is 0"),
        ({"band": (80.0, 80.1)}, ValueError, "no latitudes between 80 and 80.1"),
        ({"out": Path("t.txt")}, ValueError, "must end in .csv"),
        ({"source": Path("none.nc")}, FileNotFoundError, "does not exist"),
        ({"period": ("1960", None)}, ValueError, "1960"),
    ],
)
def test_what_is_not_there_is_refused(
    tmp_path: Path, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    wanted = {"source": ERA5, "out": tmp_path / "t.csv", "columns": ["v500"]} | changes
    with pytest.raises(error, match=message):
        write_law_table(**wanted)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_table_is_replaced_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_law_table(ERA5, tmp_path / "t.csv", ["v500"])
    assert (tmp_path / "t.csv").read_text() == "mine"
    write_law_table(ERA5, tmp_path / "t.csv", ["v500"], overwrite=True)
    assert (tmp_path / "t.csv").read_text().startswith("time,day,sector")
