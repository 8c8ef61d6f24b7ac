"""Tests of the simulated world: levels, channels and refusals without JCM, a short run with it."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from sciml_dchag.channels import ChannelSet
from sciml_dchag.weather.channels import VARIABLES
from sciml_dchag.weather.simulate import climate_model as module
from sciml_dchag.weather.simulate.climate_model import MODEL_FIELDS, simulate, to_channels
from sciml_dchag.weather.simulate.vertical import DRY_AIR_GAS_CONSTANT, SigmaToPressure

SIGMA = np.array([0.025, 0.095, 0.2, 0.34, 0.51, 0.685, 0.835, 0.95])


def columns(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Surface pressures as under mountains and highs, and the pressure of their levels, Pa."""
    surface_pressure = np.random.default_rng(seed).uniform(5.2e4, 1.06e5, (2, 3, 4))
    return surface_pressure, SIGMA[:, None, None] * surface_pressure[:, None]


def test_a_field_linear_in_log_pressure_is_interpolated_exactly() -> None:
    surface_pressure, pressure = columns()
    levels = [50, 100, 300, 450]  # within the outer levels of every column
    found = SigmaToPressure(surface_pressure, SIGMA, levels).interpolate(3 * np.log(pressure) - 7)
    expected = 3 * np.log(100.0 * np.array(levels)) - 7
    # Round-off of float64 alone.
    np.testing.assert_allclose(found, np.broadcast_to(expected[:, None, None], found.shape), 1e-13)


def test_a_curved_field_matches_numpy_interp_column_by_column() -> None:
    surface_pressure, pressure = columns()
    levels = [10, 50, 200, 500, 850, 1000]
    field = np.random.default_rng(1).normal(size=pressure.shape)
    found = SigmaToPressure(surface_pressure, SIGMA, levels).interpolate(field)
    target = np.log(100.0 * np.array(levels))
    for time, row, column in np.ndindex(surface_pressure.shape):
        where = (time, slice(None), row, column)
        # np.interp too holds the outer values; 1e-12 is round-off of the logarithms.
        expected = np.interp(target, np.log(pressure[where]), field[where])
        np.testing.assert_allclose(found[where], expected, atol=1e-12)


def test_geopotential_beyond_the_levels_is_hydrostatic() -> None:
    surface_pressure, pressure = columns()
    temperature = 250.0
    # An isothermal atmosphere, whose geopotential is known at every pressure.
    exact = -DRY_AIR_GAS_CONSTANT * temperature * np.log(pressure / surface_pressure[:, None])
    levels = [1, 10, 500, 1000, 1080]
    found = SigmaToPressure(surface_pressure, SIGMA, levels).interpolate_geopotential(
        exact, np.full(exact.shape, temperature)
    )
    target = 100.0 * np.array(levels)[:, None, None]
    expected = -DRY_AIR_GAS_CONSTANT * temperature * np.log(target / surface_pressure[:, None])
    # Round-off of values up to 5e5 m2 s-2.
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-8)


def test_each_end_is_continued_with_its_own_temperature() -> None:
    pressure = np.full((1, 1), 1e5)
    temperature = np.linspace(200.0, 300.0, SIGMA.size)[:, None, None]
    vertical = SigmaToPressure(pressure, SIGMA, [10, 1000])
    found = vertical.interpolate_geopotential(np.zeros_like(temperature), temperature)[:, 0, 0]
    expected = [
        DRY_AIR_GAS_CONSTANT * 200.0 * np.log(0.025 / 0.010),
        DRY_AIR_GAS_CONSTANT * 300.0 * np.log(0.95 / 1.000),
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_levels_and_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not ascend"):
        SigmaToPressure(np.ones((2, 2)), SIGMA[::-1], [500])
    with pytest.raises(ValueError, match=r"need \(8, 2, 2\)"):
        SigmaToPressure(np.ones((2, 2)), SIGMA, [500]).interpolate(np.ones((7, 2, 2)))


def model_output(**changed_units: str) -> xr.Dataset:
    """Build a Dataset like JCM's: ground first, longitude before latitude, its names and units."""
    rng = np.random.default_rng(2)
    shape = {"time": 2, "level": SIGMA.size, "lon": 6, "lat": 4}
    variables: dict[str, Any] = {}
    for name, (ours, units) in MODEL_FIELDS.items():
        surface = ours in ("normalized_pressure", "t2m", "u10", "v10")
        dims = [dim for dim in shape if dim != "level" or not surface]
        values = rng.uniform(0.9, 1.0, [shape[dim] for dim in dims]).astype(np.float32)
        variables[name] = (dims, values, {"units": changed_units.get(ours, units)})
    coords = {
        "time": np.array(["2000-03-01T06", "2000-03-01T12"], dtype="datetime64[ms]"),
        "level": SIGMA[::-1],
        "lon": np.arange(6) * 60.0,
        "lat": np.array([-60.0, -20.0, 20.0, 60.0]),
    }
    return xr.Dataset(variables, coords=coords)


def test_channels_carry_the_fields_they_name() -> None:
    output = model_output()
    channels = ChannelSet.of("era5_80")
    state = to_channels(output, channels)
    assert state.dims == ("time", "channel", "latitude", "longitude")
    assert state.dtype == np.float32
    assert list(state["channel"].values) == channels.names
    for name, source in (("t2m", "surface_flux.t0"), ("u10", "surface_flux.u0")):
        expected = output[source].transpose("time", "lat", "lon").values
        np.testing.assert_array_equal(state.sel(channel=name).values, expected)
    # 20 hPa lies above the top level of every column, 1000 hPa below the lowest: held constant.
    for name, source, sigma in (("q20", "specific_humidity", 0.025), ("v1000", "v_wind", 0.95)):
        expected = output[source].sel(level=sigma).transpose("time", "lat", "lon").values
        np.testing.assert_allclose(state.sel(channel=name).values, expected, rtol=1e-6)  # float32


def test_other_units_than_relied_on_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'specific_humidity' in 'g kg-1' where 'kg kg-1'"):
        to_channels(model_output(q="g kg-1"), ChannelSet.of("q500"))


def test_a_channel_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="has no 'msl'"):
        to_channels(model_output(), ChannelSet.of("msl"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"days": 60}, "60 days were asked for, of which 60 are spin-up"),
        ({"days": 5, "spin_up_days": -1}, "more days than spin-up"),
        ({"step_hours": 5}, "5 h does not divide a day"),
    ],
)
def test_settings_without_sense_are_refused(
    tmp_path: Path, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(tmp_path / "world.zarr", **settings)
    assert not list(tmp_path.iterdir())


def test_without_the_model_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jcm", None)  # as if not installed, where it is
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sciml-dchag\[simulate\]'"):
        simulate(tmp_path / "world.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["world.zarr", "world.zarr.partial"])
def test_an_output_that_exists_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(FileExistsError, match=f"{name} exists"):
        simulate(tmp_path / "world.zarr")


def test_what_is_no_store_is_never_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "world.zarr"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="has no readable zarr.json"):
        simulate(out, overwrite=True)
    assert (out / "thesis.tex").exists()


def test_too_little_room_is_refused_before_the_run(tmp_path: Path) -> None:
    # More days than any disk holds, rather than a disk that is made to look full.
    days = shutil.disk_usage(tmp_path).free // 10**7 + 1000
    with pytest.raises(OSError, match="GB are free") as caught:
        simulate(tmp_path / "world.zarr", days=days)
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("default")  # JAX's and the model's own are not ours to fix
@pytest.mark.slow
def test_two_days_of_the_model_make_a_store(tmp_path: Path) -> None:
    pytest.importorskip("jcm", reason="the extra `simulate` (jcm) is not installed")
    from sciml_dchag.weather.grid import Grid
    from sciml_dchag.weather.store.store import Store

    reports: list[tuple[int, int, str]] = []
    out = simulate(
        tmp_path / "world.zarr",
        days=2,
        spin_up_days=1,
        progress=lambda done, total, what: reports.append((done, total, what)),
    )
    store = Store.open(out)
    expected = np.datetime64("2000-01-02T06", "ns") + np.arange(4) * np.timedelta64(6, "h")
    np.testing.assert_array_equal(store.times, expected)
    assert store.channels == ChannelSet.of("era5_80")
    assert store.step_hours == 6
    assert store.simulated
    assert store.attribution == module.ATTRIBUTION
    assert Grid(store.latitude, store.longitude).kind == store.attrs["grid_kind"] == "gaussian"
    assert json.loads(store.attrs["provenance"])["settings"]["days"] == 2
    assert (2, 2, "simulating") in reports
    assert [path.name for path in tmp_path.iterdir()] == ["world.zarr"]

    state = store.read(slice(None))
    assert np.isfinite(state).all()
    weights = np.cos(np.deg2rad(store.latitude))
    means = np.average(state.mean(axis=(0, 3)), axis=1, weights=weights)
    for channel, mean in zip(store.channels, means, strict=True):
        low, high = VARIABLES[channel.variable].plausible
        assert low <= mean <= high, channel.name
    # Hydrostatic balance between geopotential and temperature, level by level the same air. 1 %
    # covers vapour (below 0.5 % of temperature here) and a mean over three levels only.
    mean = dict(zip(store.channels.names, means, strict=True))
    thickness = mean["z300"] - mean["z500"]
    temperature = (mean["t300"] + mean["t400"] + mean["t500"]) / 3
    assert thickness == pytest.approx(
        DRY_AIR_GAS_CONSTANT * temperature * np.log(500 / 300), rel=0.01
    )

    orography, land = store.static(["orography", "lsm"])
    assert orography.max() > 4e4  # Tibet at T31: 4 to 5 km
    # The Earth is 29 % land; the mask at T31 differs by a few per cent.
    assert np.average(land.mean(axis=1), weights=weights) == pytest.approx(0.29, abs=0.05)
    # High land lies where the mask says land: both fields have their rows the same way up.
    assert land[orography > 1.5e4].mean() > 0.9
