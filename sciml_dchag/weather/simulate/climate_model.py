"""A world of 80 channels without a download: an `era5_80` store made by a climate model.

JCM 3 (https://github.com/climate-analytics-lab/jax-gcm) runs the SPEEDY physics (Molteni 2003,
doi:10.1007/s00382-002-0268-2; Kucharski et al. 2013, doi:10.1175/BAMS-D-11-00238.1) at T31 with 8
sigma levels. Here: setting it up, running it in segments, turning its output into our channels.
Not here: interpolation between levels (`vertical.py`), and regridding what comes out (`era5.py`).
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import importlib.util
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag._version import __version__
from sciml_dchag.channels import ChannelSet
from sciml_dchag.files.places import check_place, held, remove
from sciml_dchag.files.resumable import Progress
from sciml_dchag.files.zarr_groups import partial_path
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.simulate.vertical import SigmaToPressure
from sciml_dchag.weather.store.writing import WEATHER_STORE, write_store

CHANNELS = "era5_80"
ATTRIBUTION = "Simulated with JCM 3 (SPEEDY physics); not observations or reanalysis"
START = np.datetime64("2000-01-01", "ns")
"""The model's first time; its forcing is a climatology, so the year itself means nothing."""

TIME_STEP_MINUTES = 30.0
SEGMENT_DAYS = 5
"""Days that are run, and held in memory, at a time."""

REFERENCE_PRESSURE = 1.0e5
"""Pa; JCM gives surface pressure as a fraction of it."""

VIRTUAL_EFFECT = 0.608
"""Virtual temperature is T (1 + 0.608 q): ratio of the gas constants of vapour and dry air, - 1."""

GRID_SHAPE = (48, 96)

MODEL_FIELDS = {
    "u_wind": ("u", "m s-1"),
    "v_wind": ("v", "m s-1"),
    "temperature": ("t", "K"),
    "specific_humidity": ("q", "kg kg-1"),
    "geopotential": ("z", "m²/s²"),
    "normalized_surface_pressure": ("normalized_pressure", "1"),
    "surface_flux.t0": ("t2m", "K"),
    "surface_flux.u0": ("u10", "m/s"),
    "surface_flux.v0": ("v10", "m/s"),
}
"""JCM's names: ours, and the units, as JCM spells them, that are relied on."""


def simulate(
    out: str | Path,
    *,
    days: int = 425,
    spin_up_days: int = 60,
    step_hours: int = 6,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Run the climate model and write its weather as an `era5_80` store on its Gaussian grid.

    The model starts on 2000-01-01 from an isothermal atmosphere at rest, with the annual cycle of
    sea-surface temperature, sea ice, snow and soil that JCM packages, the same every year. The
    first `spin_up_days` are thrown away: 425 days give a year, 2000-03-01T06 to 2001-03-01T00.
    Two runs with one seed agree on one machine; on another they drift apart, as weather does.

    Levels are interpolated in log pressure. Beyond the model's outer levels (25 hPa, and 0.95 of
    surface pressure) fields are held constant and geopotential follows hydrostatically from that
    constant (virtual) temperature; pressures below ground, under mountains, count as beyond. `t2m`,
    `u10` and `v10` are what the surface fluxes are computed from, one model step of 30 minutes
    before the others: temperature extrapolated to the ground, and 0.95 of the lowest level's wind.

    Args:
        out: the store's place; segments lie beside it in the meantime.
        days: days to run, spin-up included.
        spin_up_days: days to throw away at the beginning.
        step_hours: hours between the times of the store; a divisor of 24.
        seed: of the noise in the first surface pressure, from which all weather grows.
        overwrite: replace a store at `out`.
        progress: called as the work goes on.

    Returns:
        `out`.

    Raises:
        ModuleNotFoundError: JCM is not installed.
        ValueError: settings that make no sense, or a simulation that became unstable.
        FileExistsError: `out` exists, or was begun, and `overwrite` is off.
        OSError: not enough room on the disk.
    """
    out = Path(out)
    _check_settings(days, spin_up_days, step_hours)
    _check_place(out, overwrite, bytes_needed=_bytes_needed(days - spin_up_days, step_hours))
    _check_installed()
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        held(out, WEATHER_STORE, overwrite),
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f"{out.name}.segments.") as beside,
    ):
        remove(partial_path(out))
        world = _World.create(seed)
        segments: list[xr.DataArray] = []
        for done, dataset in _segments(world, days, spin_up_days, step_hours):
            if dataset is not None:
                values = to_channels(dataset, ChannelSet.of(CHANNELS))
                _require_finite(values, seed)
                segments.append(_spilled(values, Path(beside) / f"{len(segments):04d}.npy"))
            if progress is not None:
                progress(done, days, "simulating")
        state = xr.concat(segments, dim="time")
        settings = {
            "days": days, "spin_up_days": spin_up_days, "step_hours": step_hours, "seed": seed,
        }  # fmt: skip
        attrs = _attributes(Grid.of(state), world.sources, settings)
        try:
            return write_store(
                state, out, attrs=attrs, static=world.static, overwrite=overwrite, progress=progress
            )
        except BaseException:
            # A repeated run may differ in its last bits, and weather grows from those: a store
            # must not be finished from another run than began it.
            remove(partial_path(out))
            raise


def to_channels(dataset: xr.Dataset, channels: ChannelSet) -> xr.DataArray:
    """Turn a model's output on sigma levels into channels on pressure levels.

    Args:
        dataset: JCM's `ModelPredictions.to_xarray()`: `MODEL_FIELDS` on (time, level, lon, lat) or
            (time, lon, lat), with units, and sigma as the coordinate `level`.
        channels: those wanted, out of t2m, u10, v10 and levels of z, t, u, v, q.

    Returns:
        state(time, channel, latitude, longitude), float32, in the vocabulary's units.

    Raises:
        ValueError: units other than those relied on, or a channel that the model does not have.
    """
    dataset = dataset.sortby("level")  # JCM's output begins at the ground
    fields = {ours: _field(dataset, name, units) for name, (ours, units) in MODEL_FIELDS.items()}
    pressure = fields.pop("normalized_pressure") * REFERENCE_PRESSURE
    virtual_temperature = fields["t"] * (1 + VIRTUAL_EFFECT * fields["q"])
    values = np.empty((len(dataset["time"]), len(channels), *pressure.shape[1:]), np.float32)
    levels = sorted({channel.level_hpa for channel in channels if channel.level_hpa is not None})
    vertical = SigmaToPressure(pressure, dataset["level"].values, levels)
    for variable in dict.fromkeys(channel.variable for channel in channels):
        if variable not in fields:
            raise ValueError(
                f"The simulation has no {variable!r} but {', '.join(fields)}: choose from those."
            )
        if fields[variable].ndim == 3:
            values[:, channels.index(variable)] = fields[variable]
            continue
        if variable == "z":
            on_levels = vertical.interpolate_geopotential(fields["z"], virtual_temperature)
        else:
            on_levels = vertical.interpolate(fields[variable])
        for position, channel in enumerate(channels):
            if channel.variable == variable and channel.level_hpa is not None:
                values[:, position] = on_levels[:, levels.index(channel.level_hpa)]
    return xr.DataArray(
        values,
        dims=("time", "channel", "latitude", "longitude"),
        coords={
            "time": dataset["time"].values.astype("datetime64[ns]"),
            "channel": channels.names,
            "latitude": dataset["lat"].values.astype(np.float64),
            "longitude": dataset["lon"].values.astype(np.float64),
        },
    )


def _field(dataset: xr.Dataset, name: str, units: str) -> NDArray[np.floating[Any]]:
    """Return a field as (time, [level,] latitude, longitude), its units checked."""
    field = dataset[name]
    if field.attrs.get("units") != units:
        raise ValueError(
            f"JCM gives {name!r} in {field.attrs.get('units')!r} where {units!r} is relied on: "
            "install a version of jcm 3.0."
        )
    field = field.transpose("time", ..., "lat", "lon")
    return np.asarray(field.values)


@dataclass(frozen=True)
class _World:
    """The model with its forcing, ready to go on, and what does not change."""

    model: Any
    forcing: Any
    static: xr.DataArray
    """orography (m2 s-2, smoothed to T31 as the dynamics see it) and lsm, (2, 48, 96)."""
    sources: list[dict[str, Any]]
    """Packaged files that went in: path's name, bytes, sha256."""

    @classmethod
    def create(cls, seed: int) -> _World:
        import jcm
        from jcm.forcing import ForcingData
        from jcm.model import Model
        from jcm.physics.speedy.speedy_coords import get_speedy_coords
        from jcm.physics.speedy.speedy_terms import speedy_physics
        from jcm.terrain import TerrainData

        boundary = Path(jcm.__file__).parent / "data" / "bc" / "t30" / "clim"
        files = [boundary / "terrain.nc", boundary / "forcing.nc"]
        coords = get_speedy_coords(layers=8, spectral_truncation=31)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # that jcm calls xarray and pandas in ways to be changed
            terrain = TerrainData.from_file(str(files[0]), coords=coords)
            forcing = ForcingData.from_file(str(files[1]), coords=coords, align_mode="wrap_year")
        model = Model(
            coords=coords,
            terrain=terrain,
            physics=speedy_physics(),
            time_step=TIME_STEP_MINUTES,
            start_time=str(START.astype("datetime64[D]")),
        )
        model.bootstrap_state(model.dycore.initial_state(None, random_seed=seed))
        static = xr.DataArray(
            np.stack([np.asarray(terrain.phis0).T, np.asarray(terrain.fmask).T]),
            dims=("static_channel", "latitude", "longitude"),
            coords={"static_channel": ["orography", "lsm"]},
        )
        return cls(model, forcing, static, [_described(file) for file in files])


def _segments(
    world: _World, days: int, spin_up_days: int, step_hours: int
) -> Iterator[tuple[int, xr.Dataset | None]]:
    """Run the model segment by segment; yields the days done and what is kept of the segment.

    All segments are equally long, so that the model is compiled once; days beyond the last are
    cut off.
    """
    segment = min(SEGMENT_DAYS, days)
    first, last = START + np.timedelta64(spin_up_days, "D"), START + np.timedelta64(days, "D")
    for begun in range(0, days, segment):
        # The model keeps its own state and clock from one call to the next.
        predictions = world.model.resume(
            forcing=world.forcing,
            save_interval=f"{step_hours} hours",
            total_time=f"{segment} days",
        )
        times = predictions.time_labels()
        kept = np.flatnonzero((times > first) & (times <= last))
        dataset = predictions.to_xarray().isel(time=kept) if kept.size else None
        yield min(begun + segment, days), dataset


def _spilled(values: xr.DataArray, file: Path) -> xr.DataArray:
    """Move values from memory to a file, mapped back where they are read."""
    np.save(file, values.values)
    mapped = np.load(file, mmap_mode="r")
    return values.copy(data=dask.array.from_array(mapped, chunks=mapped.shape))


def _attributes(
    grid: Grid, sources: list[dict[str, Any]], settings: dict[str, int]
) -> dict[str, Any]:
    jcm = importlib.metadata.version("jcm")
    return {
        "title": "Simulated weather, 80 channels, T31 Gaussian grid",
        "attribution": ATTRIBUTION,
        "simulated": 1,
        "grid": grid.name,
        "grid_kind": "gaussian",
        "grid_sha256": grid.content_hash,
        "provenance": {
            "sources": sources,
            "model": f"jcm {jcm}, SPEEDY physics, T31, 8 sigma levels, {TIME_STEP_MINUTES:g} min",
            "vertical": "linear in log pressure; beyond the outer levels held constant, "
            "geopotential hydrostatic with that constant temperature",
            "package": f"sciml-dchag {__version__}",
            "settings": settings,
        },
    }


def _described(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    return {
        "path": file.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip


def _require_finite(values: xr.DataArray, seed: int) -> None:
    if not np.isfinite(values.values).all():
        raise ValueError(
            f"The simulation with seed {seed} became unstable before "
            f"{str(values['time'].values[-1])[:10]}: run it with another seed."
        )


def _check_settings(days: int, spin_up_days: int, step_hours: int) -> None:
    if spin_up_days < 0 or days <= spin_up_days:
        raise ValueError(
            f"{days} days were asked for, of which {spin_up_days} are spin-up: ask for more days "
            "than spin-up."
        )
    if step_hours < 1 or 24 % step_hours:
        raise ValueError(
            f"A step of {step_hours} h does not divide a day: choose 1, 2, 3, 4, 6, 8, 12 or 24."
        )


def _check_installed() -> None:
    if importlib.util.find_spec("jcm") is None:
        raise ModuleNotFoundError(
            "The climate model JCM is not installed: `pip install 'sciml-dchag[simulate]'`.",
            name="jcm",
        )


def _bytes_needed(days: int, step_hours: int) -> int:
    """Twice the store: it and the segments it is made of lie side by side for a while."""
    times = days * 24 // step_hours
    return 2 * times * len(ChannelSet.of(CHANNELS)) * int(np.prod(GRID_SHAPE)) * 4


def _check_place(out: Path, overwrite: bool, bytes_needed: int) -> None:
    partial = partial_path(out)
    check_place(out, WEATHER_STORE, overwrite)
    if partial.exists() and not overwrite:
        raise FileExistsError(
            f"{partial} exists: choose another name, or replace it with `overwrite=True`."
        )
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < bytes_needed:
        raise OSError(
            errno.ENOSPC,
            f"The simulation needs {bytes_needed / 1e9:.1f} GB at {parent}, where "
            f"{free / 1e9:.1f} GB are free: make room, or ask for fewer days",
        )
