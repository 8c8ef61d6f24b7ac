"""Values lost in part are refused: how many, where, in which file."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest
import xarray as xr
from raw_files import read, saved, times, to_zarr

from sciml_dchag import channels as core
from sciml_dchag.channels import OwnChannel, declare
from sciml_dchag.weather.prepare.era5 import prepare_era5
from sciml_dchag.weather.store.store import Store

LATITUDE, LONGITUDE = -84.375 + 11.25 * np.arange(16), 11.25 * np.arange(32)


def smooth(name: str, units: str, base: float, amplitude: float, count: int = 4) -> xr.Dataset:
    """A wave that moves eastward."""
    rows, columns = np.deg2rad(LATITUDE)[:, None], np.deg2rad(LONGITUDE)[None]
    waves = [np.sin(columns + 0.3 * t) * np.cos(rows) + 0.3 * np.sin(rows) for t in range(count)]
    values = (base + amplitude * np.stack(waves)).astype(np.float32)
    return xr.Dataset(
        {name: (("time", "latitude", "longitude"), values, {"units": units})},
        coords={"time": times(count), "latitude": LATITUDE, "longitude": LONGITUDE},
    )


def stored(source: str, tmp_path: Path, channels: str, **options: object) -> np.ndarray:
    out = tmp_path / "out.zarr"
    options = {"grid": "native", "climatology": "mean", **options}
    return Store.open(prepare_era5([source], out, channels=channels, **options)).read(slice(None))


def test_values_outside_what_a_cell_can_have(tmp_path: Path) -> None:
    for name, units, base, amplitude, wrong in (
        ("t2m", "K", 280, 12, -999.0), ("t2m", "K", 280, 12, 0.0), ("u10", "m s-1", 1, 8, -999.0),
        ("msl", "Pa", 101e3, 900, 32767.0), ("tp", "m", 3e-4, 1e-4, -999.0), ("sp", "hPa", 980, 20, 1e20),
    ):  # fmt: skip
        field = smooth(name, units, base, amplitude)
        assert np.isfinite(
            stored(saved(field, tmp_path / "whole.nc"), tmp_path, name, overwrite=True)
        ).all()
        field[name].values[2, 3, 5] = field[name].values[3, 4, 6] = wrong
        encoding = {name: {"_FillValue": None}}
        file = saved(field, tmp_path / f"{name}{wrong:g}broken.nc", encoding=encoding)
        place = "2001-01-01T12:00, latitude -50.625, longitude 56.25"
        for grid in ("native", "4x8"):  # looked at before regridding, which would dilute it
            with pytest.raises(
                ValueError, match=rf"broken.nc has {name} outside .*{place}"
            ) as refused:
                stored(file, tmp_path, name, grid=grid, overwrite=True)
            assert "1 of 512 cells" in str(refused.value) or "2 of 2048" in str(refused.value)
    field = smooth("t2m", "K", 280, 12)
    field["t2m"].values[2, 3, 5] = -999
    declared = saved(field, tmp_path / "declared.nc", encoding={"t2m": {"_FillValue": -999.0}})
    assert (
        np.isnan(stored(declared, tmp_path, "t2m", allow_missing=True, overwrite=True)).sum() == 1
    )


@pytest.mark.parametrize(("name", "units"), [("z", "m2 s-2"), ("t", "K"), ("q", "kg kg-1")])
def test_bounds_on_levels(tmp_path: Path, name: str, units: str) -> None:
    base = {"z": 54666, "t": 253, "q": 1e-3}[name]
    field = smooth(name, units, base, base * 0.01).assign_coords(level=((), 500, {"units": "hPa"}))
    channel = f"{name}500"
    assert stored(saved(field, tmp_path / "a.nc"), tmp_path, channel).shape == (4, 1, 16, 32)
    field[name].values[1, 2, 3] = 0 if name != "q" else 0.5
    with pytest.raises(ValueError, match=f"has {channel} outside"):
        stored(saved(field, tmp_path / "b.nc"), tmp_path, channel, overwrite=True)


@pytest.mark.parametrize(("name", "level", "standard", "least"), [
    ("z", 50, 2.0e5, 166_318), ("t", 20, 215, 116.9),
])  # fmt: skip
def test_a_simulated_polar_night_is_weather(
    tmp_path: Path, name: str, level: int, standard: float, least: float
) -> None:
    """Of four years of `simulate weather`, the coldest cells."""
    field = smooth(name, {"z": "m2 s-2", "t": "K"}[name], standard, 0.1 * standard)
    field[name].values[1, 2, 3] = least
    named = field.assign_coords(level=((), level, {"units": "hPa"}))
    assert stored(saved(named, tmp_path / "a.nc"), tmp_path, f"{name}{level}").min() <= least


@pytest.mark.parametrize("name", ["t2m", "u10"])
def test_a_missing_chunk_of_zarr(tmp_path: Path, name: str) -> None:
    units = {"t2m": "K", "u10": "m s-1"}[name]
    field = smooth(name, units, {"t2m": 280, "u10": 1}[name], 8).chunk(
        time=2, latitude=8, longitude=8
    )
    source = tmp_path / "a.zarr"
    to_zarr(field, source, zarr_format=3, encoding={name: {"fill_value": 0.0}})
    assert np.isfinite(stored(str(source), tmp_path, name)).all()
    (source / name / "c" / "1" / "0" / "1").unlink()
    with pytest.raises(ValueError, match=f"a.zarr lacks the chunk c/1/0/1 of {name}"):
        stored(str(source), tmp_path, name, overwrite=True)


def test_a_missing_chunk_that_reads_as_missing_values(tmp_path: Path) -> None:
    field = smooth("t2m", "K", 280, 8).chunk(time=2, latitude=8, longitude=8)
    source = to_zarr(field, tmp_path / "a.zarr", zarr_format=3)
    (tmp_path / "a.zarr" / "t2m" / "c" / "1" / "0" / "1").unlink()
    refusal = "lacks the chunk c/1/0/1 of t2m, which would read as missing values: .*allow_missing"
    with pytest.raises(ValueError, match=refusal):
        stored(source, tmp_path, "t2m")
    with pytest.warns(UserWarning, match="lacks 1 of 16 chunks of t2m, the first c/1/0/1, which"):
        state = stored(source, tmp_path, "t2m", allow_missing=True)
    assert np.isnan(state[2:, 0, :8, 8:16]).all() and np.isfinite(state[:2]).all()


def test_a_missing_chunk_that_is_not_asked_for(tmp_path: Path) -> None:
    field = smooth("t2m", "K", 280, 8).chunk(time=2, latitude=8, longitude=8)
    source = to_zarr(
        field, tmp_path / "a.zarr", zarr_format=3, encoding={"t2m": {"fill_value": 0.0}}
    )
    (tmp_path / "a.zarr" / "t2m" / "c" / "1" / "0" / "1").unlink()
    state = stored(source, tmp_path, "t2m", period=(None, "2001-01-01T06"))
    np.testing.assert_array_equal(state[:, 0], field["t2m"][:2])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_missing_chunk_of_remote_zarr(tmp_path: Path, zarr_format: int) -> None:
    files, url = fsspec.filesystem("memory"), f"memory://lost{zarr_format}/a.zarr"
    field = smooth("u10", "m s-1", 1, 8).chunk(time=2, latitude=8, longitude=8)
    local = tmp_path / "a.zarr"
    to_zarr(field, local, zarr_format=zarr_format, encoding={"u10": FILLED[zarr_format]})
    files.put(str(local), url, recursive=True)
    np.testing.assert_array_equal(stored(url, tmp_path, "u10")[:, 0], field["u10"])
    chunk = {2: "1.0.1", 3: "c/1/0/1"}[zarr_format]
    files.rm(f"{url}/u10/{chunk}")
    with pytest.raises(ValueError, match=f"a.zarr lacks the chunk {chunk} of u10"):
        stored(url, tmp_path, "u10", overwrite=True)


FILLED = {2: {"_FillValue": 0.0}, 3: {"fill_value": 0.0}}
"""By Zarr format, what makes a missing chunk read as 0."""


def test_no_rain_is_no_missing_chunk(tmp_path: Path) -> None:
    field = smooth("tp", "m", 3e-4, 1e-4)
    field["tp"].values[:, :8, :8] = 0
    source = to_zarr(
        field.chunk(latitude=8, longitude=8), tmp_path / "a.zarr", zarr_format=3,
        encoding={"tp": {"fill_value": 0.0}},
    )  # fmt: skip
    assert not (tmp_path / "a.zarr" / "tp" / "c" / "0" / "0" / "0").exists()
    assert (stored(source, tmp_path, "tp")[:, 0, :8, :8] == 0).all()


def test_a_block_of_zeros_in_a_wind(tmp_path: Path) -> None:
    field = smooth("u10", "m s-1", 1, 8)
    field["u10"].values[1, 4:9, 20:26] = 0
    with pytest.raises(ValueError, match=r"u10 exactly 0 in 30 of 512 cells at 2001-01-01T06:00"):
        stored(saved(field, tmp_path / "a.nc"), tmp_path, "u10")


def test_packed_values_that_wrapped_around(tmp_path: Path) -> None:
    cold, warm = smooth("t2m", "K", 262, 12), smooth("t2m", "K", 299, 12)
    scale = float(np.ptp(cold["t2m"].values)) / 65530
    offset = float(cold["t2m"].min()) + scale * 32765
    raw = np.round((np.concatenate([cold["t2m"], warm["t2m"]]) - offset) / scale).astype(np.int64)
    packed = ((raw + 32768) % 65536 - 32768).astype(np.int16)
    attrs = {"units": "K", "scale_factor": scale, "add_offset": offset}
    joined = xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), packed, attrs)},
        coords={"time": times(8), "latitude": LATITUDE, "longitude": LONGITUDE},
    )
    with pytest.raises(ValueError, match="joined.nc has t2m with .* jumps .* wrapped"):
        stored(saved(joined, tmp_path / "joined.nc"), tmp_path, "t2m")
    later = warm.assign_coords(time=times(8)[4:])
    for number, part in enumerate((cold, later)):  # each file is decoded with its own scale
        low, high = float(part["t2m"].min()), float(part["t2m"].max())
        packing = {"dtype": "int16", "_FillValue": -32768,
                   "scale_factor": (high - low) / 65530, "add_offset": (low + high) / 2}  # fmt: skip
        saved(part, tmp_path / f"part{number}.nc", encoding={"t2m": packing})
    state = stored(str(tmp_path / "part?.nc"), tmp_path, "t2m", overwrite=True)
    np.testing.assert_allclose(state[:4, 0], cold["t2m"], atol=1e-3)
    np.testing.assert_allclose(state[4:, 0], warm["t2m"], atol=1e-3)


def test_precipitation_in_mm_that_passes_for_metres(tmp_path: Path) -> None:
    for attrs in ({"units": "m"}, {}):
        field = smooth("tp", "m", 0.12, 0.05)
        field["tp"].attrs = attrs
        with pytest.raises(ValueError, match="tp of 0.1.* m on the mean of the globe .*in mm"):
            stored(saved(field, tmp_path / "a.nc"), tmp_path, "tp", overwrite=True)


@pytest.fixture
def own_channels() -> Iterator[None]:
    """Channels that a test declares are forgotten after it."""
    yield
    core._own.clear()
    core._own_channels.clear()


@pytest.mark.usefixtures("own_channels")
@pytest.mark.parametrize(
    ("name", "mark"), [("u10", -99.0), ("v850", -99.0), ("swh", -999.0), ("swh", 1e20)]
)
def test_marks_of_missing_values_that_bounds_let_pass(
    tmp_path: Path, name: str, mark: float
) -> None:
    declare([OwnChannel(name="swh", units="m")])
    variable = name.removesuffix("850")
    units = "m" if name == "swh" else "m s-1"
    field = smooth(variable, units, 4.0, 3.0)
    if name != variable:
        field = field.assign_coords(level=((), 850, {"units": "hPa"}))
    assert np.isfinite(stored(saved(field, tmp_path / "whole.nc"), tmp_path, name)).all()
    field[variable].values[2, 3, 5] = mark
    file = saved(field, tmp_path / "marked.nc", encoding={variable: {"_FillValue": None}})
    with pytest.raises(
        ValueError, match=rf"has {name} exactly {re.escape(f'{mark:g}')} .* else|has {name} outside"
    ):
        stored(file, tmp_path, name, overwrite=True)


@pytest.mark.usefixtures("own_channels")
def test_a_usual_mark_among_values_like_it_is_a_value(tmp_path: Path) -> None:
    declare([OwnChannel(name="depth", units="m")])
    field = smooth("depth", "m", -1000.0, 900.0)
    field["depth"].values[0, 3, 5] = -999.0
    file = saved(field, tmp_path / "a.nc")
    assert stored(file, tmp_path, "depth")[0, 0, 3, 5] == -999


def test_every_one_of_several_marks_is_missing(tmp_path: Path) -> None:
    """`_FillValue`, and a list of `missing_value`; xarray's warning of it says nothing to do."""
    values = np.random.default_rng(0).normal(280, 5, (4, 5, 8)).astype(np.float32)
    marked = values.copy()
    marked[0, 0, 0], marked[1, 2, 3], marked[3, 4, 5] = 1e20, -9999, -32767
    path = saved(
        xr.Dataset(
            {"t2m": (("time", "latitude", "longitude"), marked, {"units": "K"})},
            coords={"time": times(), "latitude": np.linspace(-90, 90, 5), "longitude": np.arange(0.0, 360, 45)},
        ),
        tmp_path / "a.nc", engine="h5netcdf",
    )  # fmt: skip
    with h5py.File(path, "r+") as file:
        del file["t2m"].attrs["_FillValue"]
        file["t2m"].attrs["_FillValue"] = np.float32(1e20)
        file["t2m"].attrs["missing_value"] = np.array([1e20, -9999, -32767])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = read([path], "t2m").values[:, 0]
    expected = np.where(np.abs(marked) > 5000, np.nan, values)
    np.testing.assert_array_equal(state, expected)
