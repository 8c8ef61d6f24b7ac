"""Writing weather stores by blocks of times: bounded memory, resumable, never half of one in place.

A store grows as `NAME.zarr.partial/` and is renamed at the end. `progress.json` inside says how
many times are finished and for which settings, so that the same command resumes where it stopped.
Reading is `data.store`'s; opening and regridding what is written is `prepare`'s.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from sciml_dchag._version import __version__
from sciml_dchag.channels import ChannelSet
from sciml_dchag.files.checksums import note, part_of, seal
from sciml_dchag.files.places import held, install, zarr_kind
from sciml_dchag.files.resumable import (
    Progress,
    full_disk_explained,
    nothing_kept_of_refused_data,
    resume,
    was_finished,
    write_progress,
)
from sciml_dchag.files.zarr_groups import (
    consolidate,
    open_to_write,
    partial_path,
    read_attrs,
    require_format,
)
from sciml_dchag.weather.store.layout import (
    DIMENSIONS,
    FORMAT,
    REQUIRED_ATTRS,
    block_times,
    iso,
    write_metadata,
)

WEATHER_STORE = zarr_kind("a weather store", FORMAT)

Check = Callable[[NDArray[np.float32], NDArray[np.datetime64], ChannelSet], None]
"""Called with (block, its times, channels) before a block is written; raises to refuse it."""


def write_store(
    state: xr.DataArray,
    path: str | os.PathLike[str],
    *,
    attrs: Mapping[str, Any],
    static: xr.DataArray | None = None,
    overwrite: bool = False,
    scheduler: str | None = None,
    progress: Progress | None = None,
    check: Check | None = None,
    finish: Callable[[Path], None] | None = None,
) -> Path:
    """Write a weather store, block by block of times.

    Repeating a call that was interrupted resumes after the last finished block.

    Args:
        state: (time, channel, latitude, longitude), lazy (Dask) or in memory; written as float32.
        path: the store's place.
        attrs: root attributes; `REQUIRED_ATTRS` must be there, `provenance` may be a mapping.
        static: fields that do not change, (static_channel, latitude, longitude).
        overwrite: replace a store at `path`, or one begun there with other settings.
        scheduler: address of a Dask cluster that computes the blocks; None computes them in the
            threads of this process.
        progress: called after each block.
        check: called with each block before it is written; on its ValueError, or one of reading,
            nothing is kept.
        finish: called with the path of the store, complete but not yet in its place, to add groups.

    Returns:
        `path`.

    Raises:
        FileExistsError: `path` exists, and `overwrite` is off or it is not only a store.
        ValueError: `state` is not what a store holds; another store was begun at `path`; another
            process is writing there.
        OSError: the disk is full, or files may not grow so large.
    """
    path = Path(path)
    channels = _check_state(state, static, attrs)
    partial = partial_path(path)
    times_a_block = block_times(state)
    fingerprint = _fingerprint(state, static, attrs, times_a_block)
    total = state.sizes["time"]
    with (
        held(path, WEATHER_STORE, overwrite),
        _cluster(scheduler) as client,
        full_disk_explained(path),
    ):
        if was_finished(path, fingerprint, overwrite):
            return path
        done = resume(
            partial,
            fingerprint,
            overwrite,
            values=partial / "state" / "c",
            usable=lambda: _require_usable(partial, state.shape),
        )
        if done is None:
            write_metadata(state, static, attrs, partial, times_a_block)
            done = 0
            write_progress(partial, fingerprint, done, total)
        array = open_to_write(partial / "state")
        if progress is not None:
            progress(done, total, "writing")
        spans = [slice(a, min(a + times_a_block, total)) for a in range(done, total, times_a_block)]
        blocks = _computed(state, spans, client)
        for span in spans:
            with nothing_kept_of_refused_data(partial):
                block = next(blocks)
                if check is not None:
                    check(block, state["time"].values[span], channels)
            array[span] = block
            note(partial, [part_of(partial, f"state/c/{span.start // times_a_block}/0/0/0")])
            write_progress(partial, fingerprint, span.stop, total)
            if progress is not None:
                progress(span.stop, total, "writing")
        if finish is not None:
            finish(partial)
        consolidate(partial)
        seal(partial)
        install(partial, path)
    return path


def _require_usable(partial: Path, shape: tuple[int, ...]) -> None:
    """Refuse a begun store that lacks its metadata, or has another shape."""
    require_format(partial, read_attrs(partial), FORMAT, "weather", "prepare era5")
    if zarr.open_array(partial / "state", mode="r").shape != shape:
        raise ValueError(f"{partial} has states of another shape: begin again.")


def _check_state(
    state: xr.DataArray, static: xr.DataArray | None, attrs: Mapping[str, Any]
) -> ChannelSet:
    if state.dims != DIMENSIONS:
        raise ValueError(f"A state has the dimensions {DIMENSIONS}, but {state.dims} was given.")
    if missing := [name for name in REQUIRED_ATTRS if name not in attrs]:
        raise ValueError(f"The store's attributes lack {missing[0]!r}: add it to `attrs`.")
    if 0 in state.shape:
        empty = DIMENSIONS[state.shape.index(0)]
        raise ValueError(f"The state has no {empty}: choose a period and channels that exist.")
    times = state["time"].values
    if wrong := np.flatnonzero(np.diff(times) <= np.timedelta64(0, "h")).tolist():
        raise ValueError(
            f"Time {iso(times[wrong[0] + 1])} follows {iso(times[wrong[0]])}: give times that "
            "ascend, each once."
        )
    if (times != times.astype("datetime64[h]")).any():
        odd = times[times != times.astype("datetime64[h]")][0]
        raise ValueError(f"Time {iso(odd)} is no whole hour: select the whole hours first.")
    for name in ("latitude", "longitude"):
        if not (np.diff(state[name].values) > 0).all():
            raise ValueError(f"The {name}s of a store ascend: sort the state by {name} first.")
    if static is not None and static.shape[1:] != state.shape[2:]:
        raise ValueError(
            f"The static fields have {static.shape[1:]} cells but the state {state.shape[2:]}: "
            "regrid them to one grid."
        )
    return ChannelSet(str(name) for name in state["channel"].values)


def _fingerprint(
    state: xr.DataArray, static: xr.DataArray | None, attrs: Mapping[str, Any], times_a_block: int
) -> str:
    """Hash of all that decides what a store will hold, but for the states themselves."""
    digest = hashlib.sha256()
    described = {"attrs": dict(attrs), "times_a_block": times_a_block, "version": __version__}
    digest.update(json.dumps(described, sort_keys=True, default=str).encode())
    digest.update("\n".join(str(name) for name in state["channel"].values).encode())
    for name in ("time", "latitude", "longitude"):
        digest.update(np.ascontiguousarray(state[name].values).tobytes())
    if static is not None:
        digest.update(np.ascontiguousarray(static.values, dtype=np.float32).tobytes())
    return digest.hexdigest()


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Connect to a Dask scheduler, or to none."""
    if address is None:
        yield None
        return
    from distributed import Client

    try:
        client = Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"No Dask scheduler answers at {address!r}: start one with `dask scheduler`, or leave "
            "`scheduler` out."
        ) from error
    with client:
        yield client


def _computed(
    state: xr.DataArray, spans: list[slice], client: Any
) -> Iterator[NDArray[np.float32]]:
    """Compute the blocks one after the other; on a cluster the next one starts meanwhile."""
    if client is None:
        for span in spans:
            block = state.isel(time=span).compute(scheduler="threads")
            yield block.values.astype(np.float32, copy=False)
        return
    lazy = state if state.chunks is not None else state.chunk(time=1)
    # Two blocks at most are under way, so that neither memory nor the graph grows.
    ahead = [client.compute(lazy.isel(time=span).data) for span in spans[:1]]
    for following in [*spans[1:], None]:
        if following is not None:
            ahead.append(client.compute(lazy.isel(time=following).data))
        yield np.asarray(ahead.pop(0).result(), dtype=np.float32)
