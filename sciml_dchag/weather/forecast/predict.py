"""Batch inference: forecasts from many initial times into a Zarr store, resumable, or NetCDF.

`output` says what the store looks like. Ranks take initial times, a batch each, and ranks of tp the
variables of a batch, so that no chunk is written by two. Running the model is `forecaster`'s work.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from sciml_dchag._version import __version__
from sciml_dchag.config import from_mapping
from sciml_dchag.config.common import MOST_SAMPLES, require_at_least
from sciml_dchag.files.checksums import note, part_of, seal
from sciml_dchag.files.digests import sampled_digest
from sciml_dchag.files.places import Kind, check_place, held, install, zarr_kind
from sciml_dchag.files.resumable import (
    Progress,
    full_disk_explained,
    resume,
    was_finished,
    write_progress,
)
from sciml_dchag.files.zarr_groups import (
    every_chunk_written,
    partial_path,
    read_attrs,
    write_zarr,
)
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.parallel.runtime import joined, started_ranks
from sciml_dchag.training.export import SavedModel, find_model
from sciml_dchag.weather.forecast.config import FEWEST_MEMBERS, MOST_MEMBERS, ForecastRecipe
from sciml_dchag.weather.forecast.ensemble import Ensemble
from sciml_dchag.weather.forecast.ensemble_factor import calibrated
from sciml_dchag.weather.forecast.forecaster import Forecaster
from sciml_dchag.weather.forecast.initial_times import initial_positions
from sciml_dchag.weather.forecast.output import FORMAT, announced, by_variable, encoding_of
from sciml_dchag.weather.forecast.own_states import OwnStates
from sciml_dchag.weather.forecast.record import ForecastRecord
from sciml_dchag.weather.store.layout import FORMAT as STORE_FORMAT
from sciml_dchag.weather.store.layout import iso
from sciml_dchag.weather.store.states import States
from sciml_dchag.weather.store.store import Period, Store


def _objection_to_netcdf(path: Path) -> str | None:
    try:
        with xr.open_dataset(path, engine="h5netcdf", decode_cf=False) as dataset:
            found = dataset.attrs.get("format")
    except (OSError, ValueError):
        return "is no NetCDF file"
    return None if found == FORMAT else "has no format of this package"


FORECASTS = zarr_kind("a forecast store", FORMAT)
FORECASTS_NETCDF = Kind(name="a forecast file", objection=_objection_to_netcdf)
Source = Store | xr.Dataset | str | os.PathLike[str]
"""Where initial states come from."""


def predict(
    forecaster: Forecaster,
    out: Path,
    *,
    initial_indices: NDArray[np.int64],
    lead_hours: Sequence[int],
    batch: int = 16,
    ensemble: Ensemble | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Forecast from initial times and write a store, resuming where an interrupted call stopped.

    On several ranks each makes this call; any number of them goes on with what others began.

    Args:
        forecaster: the checkpoint on its store and ranks.
        out: where to; `.zarr` or `.nc`. While it grows it lies beside its place: `OUT.partial` or
            `.OUT.partial`.
        initial_indices: positions of the initial times in the forecaster's store.
        lead_hours: lead times.
        batch: initial times that are forecast at once, in a chunk each.
        ensemble: whose members are forecast; None for one forecast from each initial time.
        overwrite: replace finished forecasts, or such as were begun with other settings.
        progress: called for every batch, on the first rank.

    Raises:
        FileExistsError: `out` exists, and `overwrite` is off or it holds no forecasts.
        ValueError: lead times out of the forecaster's reach; the partial store was begun with
            another model, store or settings; another process is writing there.
        OSError: the disk is full; what was forecast is kept, and nothing else.
    """
    leads = sorted(set(lead_hours))
    forecaster.check_leads(leads)
    require_at_least(1, "batch", batch, MOST_SAMPLES)
    netcdf = out.suffix == ".nc"
    # A private name, so that no store of the user's is taken for what is only on the way.
    partial = out.with_name(f".{out.name}.partial") if netcdf else partial_path(out)
    times = forecaster.store.times[initial_indices]
    ranks = forecaster.ranks
    with contextlib.ExitStack() as stack:

        def begin() -> tuple[str, int]:
            kind = FORECASTS_NETCDF if netcdf else FORECASTS
            stack.enter_context(held(out, kind, overwrite, partial))
            stack.enter_context(full_disk_explained(out, partial))
            settings = {
                "checkpoint": sampled_digest(forecaster.path),
                "states": _identity(forecaster.store),
                "initial_times": [iso(time) for time in times],
                "lead_hours": leads,
                "batch": batch,
                "ensemble": _described(ensemble),
                "control": forecaster.control,
                "package": __version__,
            }
            fingerprint = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
            if was_finished(out, fingerprint, overwrite):
                return fingerprint, -1
            template = announced(forecaster, times, leads, batch, ensemble)
            done = resume(
                partial,
                fingerprint,
                overwrite,
                values=partial / str(next(iter(template.data_vars))) / "c",
                usable=lambda: _require_usable(partial, template),
            )
            if done is None:
                done = 0
                partial.parent.mkdir(parents=True, exist_ok=True)
                write_zarr(template, partial, encoding=encoding_of(template), compute=False)
                write_progress(partial, fingerprint, 0, len(times), "initial times")
            return fingerprint, done

        fingerprint, done = ranks.from_first(begin)
        if done >= 0:
            _forecast_into(
                forecaster, partial, initial_indices, leads, batch, ensemble, fingerprint, done,
                progress,
            )  # fmt: skip
            if ranks.first and netcdf:
                write_netcdf(partial, out)
                shutil.rmtree(partial)
            elif ranks.first:
                seal(partial)
                install(partial, out)
    return out


def _described(ensemble: Ensemble | None) -> list[str | int] | None:
    """What an ensemble's members follow from."""
    if ensemble is None:
        return None
    return [ensemble.members, ensemble.seed, sampled_digest(ensemble.training.path)]


def _identity(states: States) -> str:
    """Return a digest of a store or file; of a dataset in memory, of the values of its times."""
    if states.path.exists():
        return sampled_digest(states.path)
    digest = hashlib.sha256(states.times.tobytes())
    for position in states.with_history(()):
        digest.update(states.read([int(position)]).tobytes())
    return digest.hexdigest()


def _require_usable(partial: Path, template: xr.Dataset) -> None:
    """Refuse a begun store that lacks a variable, or has another shape."""
    with xr.open_zarr(partial, chunks=None) as found:
        for name, variable in template.variables.items():
            if found[name].shape != variable.shape:
                raise ValueError(f"{partial} has {name} of another shape: begin again.")


def _forecast_into(
    forecaster: Forecaster,
    partial: Path,
    initial_indices: NDArray[np.int64],
    leads: list[int],
    batch: int,
    ensemble: Ensemble | None,
    fingerprint: str,
    done: int,
    progress: Progress | None,
) -> None:
    """Forecast from the initial times after the first `done` and write them, on all ranks."""
    ranks, total = forecaster.ranks, len(initial_indices)
    windows = forecaster.windows()
    with every_chunk_written():
        arrays = dict(zarr.open_group(partial, mode="r+").arrays())
    for start, own in ranks.deal(range(done, total, batch)):
        indices = initial_indices[start : start + batch]
        written = []
        for lead, forecast in forecaster.forecast(windows, list(indices), leads, ensemble):
            if own:
                rows = slice(start, start + len(indices))
                shared = by_variable(forecaster.target_channels, forecast, ranks.channels)
                for name, fields in shared:
                    place, shape = leads.index(lead), arrays[name].shape[2:]
                    arrays[name][rows, place] = fields.reshape(len(indices), *shape)
                    others = "/0" * (arrays[name].ndim - 2)
                    written.append(f"{name}/c/{start // batch}/{place}{others}")
        # All have written their batch before any is noted, so that what is done has no gaps.
        parts = ranks.to_first([part_of(partial, path) for path in written])
        ranks.wait()
        done = min(done + batch * ranks.data[1], total)
        if ranks.first:
            note(partial, itertools.chain.from_iterable(parts))
            write_progress(partial, fingerprint, done, total, "initial times")
            if progress is not None:
                progress(done, total, "forecasting")


def predict_period(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    recipe: ForecastRecipe | None = None,
    store: Source | None = None,
    period: Period = (None, None),
    every_hours: int | None = None,
    lead_hours: Sequence[int] | None = None,
    batch: int | None = None,
    members: int = 0,
    seed: int = 0,
    control: bool = True,
    overwrite: bool = False,
    parallel: ParallelConfig | None = None,
    progress: Progress | None = None,
) -> Path:
    """Forecast from every initial time of a period into Zarr or, by the name's suffix, NetCDF.

    Under torchrun, as one of its processes.

    Args:
        checkpoint: a checkpoint, a run folder or an exported file.
        out: `.zarr` or `.nc`.
        recipe: what the defaults come from; None is the one that was trained.
        store: where the initial states come from, a store, a file or a Dataset; see
            `initial_states`. None is the recipe's store.
        period: initial times; (None, None) is the recipe's test period in its own store, else all.
        every_hours: between initial times; None is the recipe's.
        lead_hours: None is the recipe's.
        batch: initial times at once, or members; None is the recipe's.
        members: of an ensemble from each initial time, see `ensemble`; 0 forecasts once.
        seed: another one gives other members.
        control: False leaves the model's control branch out, so that its base forecasts.
        overwrite: replace forecasts that are there.
        parallel: degrees of `fsdp` and `tp`, `dp` takes the ranks that they leave; and the device.
            Of the recipe's the device alone is the default.
        progress: called for every batch, on the first rank.

    Raises:
        FileExistsError: `out` exists.
        ValueError: another suffix, or settings that the checkpoint or the ranks cannot meet.
    """
    out = Path(out)
    if out.suffix not in (".zarr", ".nc"):
        raise ValueError(f"{out} must end in .zarr or .nc to say what to write: rename it.")
    if started_ranks() == 1:  # ranks ask the first one, which may hold the place by then
        check_place(out, FORECASTS if out.suffix == ".zarr" else FORECASTS_NETCDF, overwrite)
    if members:
        require_at_least(FEWEST_MEMBERS, "members", members, MOST_MEMBERS)
    saved = find_model(checkpoint)
    recipe = recipe or from_mapping(ForecastRecipe, saved.checkpoint.recipe)
    opened = initial_states(saved, store if store is not None else recipe.data.store)
    if period == (None, None) and recipe.data.test is not None and _is_own(store, recipe):
        period = recipe.data.test
    every = recipe.evaluation.initial_every_hours if every_hours is None else every_hours
    require_at_least(0, "every_hours", every)
    initial = initial_positions(opened, period, every, recipe.data.history_hours)
    degrees = (parallel or recipe.parallel.elsewhere()).forecasting(started_ranks())
    leads = list(lead_hours or recipe.evaluation.lead_hours)
    batch = recipe.evaluation.batch if batch is None else batch
    require_at_least(1, "batch", batch, MOST_SAMPLES)
    with joined(degrees) as ranks:
        forecaster, ensemble = Forecaster(saved.path, opened, ranks, degrees, control), None
        forecaster.check_leads(leads)
        if members:
            ensemble = calibrated(forecaster, members, leads, seed=seed, at_once=batch)
        return predict(
            forecaster,
            out,
            initial_indices=initial,
            lead_hours=leads,
            batch=batch if ensemble is None else ensemble.initial_times_at_once,
            ensemble=ensemble,
            overwrite=overwrite,
            progress=progress,
        )


def _is_own(source: Source | None, recipe: ForecastRecipe) -> bool:
    """Whether a source is the store that the model was trained on."""
    path = source.path if isinstance(source, Store) else source
    if path is None or isinstance(path, xr.Dataset):
        return path is None
    return Path(path).resolve() == Path(recipe.data.store).resolve()


def initial_states(saved: SavedModel, source: Source) -> States:
    """Open what a model forecasts from.

    Args:
        saved: the model.
        source: an opened store or the path of one; or a user's own states, of one time or of
            several, with the history that the model needs: a Dataset, or a NetCDF, GRIB or Zarr
            file of any layout that `prepare` reads.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: the states are not what the model needs.
    """
    if isinstance(source, Store):
        return source
    if not isinstance(source, (xr.Dataset, str, os.PathLike)):
        raise ValueError(
            f"The states are a {type(source).__name__}, where a Dataset or the path of one is "
            f"needed: make one of a DataArray with its to_dataset(name=...)."
        )
    if not isinstance(source, xr.Dataset):
        path = Path(source)
        if not path.exists() or path.suffix == ".partial":
            return Store.open(path)  # says what is to be done
        if (path / "zarr.json").is_file() and read_attrs(path).get("format") == STORE_FORMAT:
            return Store.open(path)
        source = path
    recipe = from_mapping(ForecastRecipe, saved.checkpoint.recipe)
    return OwnStates(source, saved.checkpoint.read_data(ForecastRecord, saved.path), recipe)


HEADER_BYTES = 2**16
"""Room for what a NetCDF file holds beside its values."""


def _require_room(file: Path, size: int) -> None:
    """Reserve the room for a file and give it back: HDF5 crashes where the disk becomes full.

    Raises:
        OSError: there is none.
    """
    with file.open("wb") as place:
        os.posix_fallocate(place.fileno(), 0, size)
    file.unlink()


def write_netcdf(store: Path, out: Path) -> None:
    """Copy a forecast store into one NetCDF file, all of it or nothing."""
    partial = out.with_name(f".{out.stem}.partial.nc")
    try:
        with xr.open_zarr(store) as dataset:
            # Fletcher32 is HDF5's checksum, which every reader of HDF5 compares.
            packed = {
                name: {"zlib": True, "complevel": 1, "fletcher32": True}
                for name in dataset.data_vars
            }
            plain = dataset.drop_encoding()
            _require_room(partial, dataset.nbytes + HEADER_BYTES)
            plain.to_netcdf(partial, engine="h5netcdf", encoding=packed)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
