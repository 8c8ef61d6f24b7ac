"""Writing weather stores by blocks of times: bounded memory, resumable, never half of one in place.

A store grows as `NAME.zarr.partial/` and is renamed at the end. `progress.json` inside says how
many times are finished and for which settings, so that the same command goes on where it stopped.
Reading is `data.store`'s; opening and regridding what is written is `prepare`'s.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
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
from sciml_dchag.data.layout import (
    DIMENSIONS,
    FORMAT,
    PROGRESS_FILE,
    REQUIRED_ATTRS,
    block_times,
    consolidate,
    iso,
    partial_path,
    read_progress,
    write_metadata,
)

Progress = Callable[[int, int, str], None]
"""Told (done, total, what) as the work goes on."""
Check = Callable[[NDArray[np.float32], NDArray[np.datetime64], ChannelSet], None]
"""Told (block, its times, channels) before a block is written; raises to refuse it."""


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

    Repeating a call that was interrupted goes on after the last finished block.

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
        FileExistsError: `path` exists, and `overwrite` is off or it is no store.
        ValueError: `state` is not what a store holds; another store was begun at `path`.
        OSError: the disk is full, or files may not grow so large.
    """
    path = Path(path)
    channels = _check_state(state, static, attrs)
    check_place(path, overwrite)
    partial = partial_path(path)
    times_a_block = block_times(state)
    fingerprint = _fingerprint(state, static, attrs, times_a_block)
    total = state.sizes["time"]
    with _cluster(scheduler) as client, _full_disk_explained(path):
        done = _resume(partial, fingerprint, overwrite)
        if done is None:
            write_metadata(state, static, attrs, partial, times_a_block)
            done = 0
            _write_progress(partial, fingerprint, done, total)
        array = zarr.open_array(partial / "state", mode="r+")
        if progress is not None:
            progress(done, total, "writing")
        spans = [slice(a, min(a + times_a_block, total)) for a in range(done, total, times_a_block)]
        blocks = _computed(state, spans, client)
        for span in spans:
            with _nothing_kept_of_refused_data(partial):
                block = next(blocks)
                if check is not None:
                    check(block, state["time"].values[span], channels)
            array[span] = block
            _write_progress(partial, fingerprint, span.stop, total)
            if progress is not None:
                progress(span.stop, total, "writing")
        if finish is not None:
            finish(partial)
        consolidate(partial)
        _install(partial, path)
    return path


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
    if wrong := np.flatnonzero(np.diff(times) <= np.timedelta64(0)).tolist():
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


def check_place(path: Path, overwrite: bool) -> None:
    """Refuse a place that is taken, before any work starts.

    Raises:
        FileExistsError: `path` exists, and `overwrite` is off or it is no store.
    """
    if not path.exists():
        return
    if not overwrite:
        raise FileExistsError(
            f"{path} exists: choose another name, or replace it with `--overwrite`."
        )
    metadata = path / "zarr.json"
    if not metadata.exists() or FORMAT not in metadata.read_text():
        raise FileExistsError(
            f"{path} exists and is no weather store, which alone is overwritten: choose another "
            "name."
        )


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


def _resume(partial: Path, fingerprint: str, overwrite: bool) -> int | None:
    """Return the number of times finished earlier, or None to begin in an empty place."""
    if not partial.exists():
        return None
    found = read_progress(partial)
    if found is not None and found["fingerprint"] == fingerprint:
        return int(found["times_done"])
    # Killed before anything but metadata was written, or told to begin again.
    if overwrite or (found is None and not (partial / "state" / "c").exists()):
        shutil.rmtree(partial)
        return None
    raise ValueError(
        f"{partial} was begun with other settings or sources: repeat the command that began it to "
        "finish it, or begin again with `--overwrite`."
    )


def _write_progress(partial: Path, fingerprint: str, done: int, total: int) -> None:
    beside = partial / f"{PROGRESS_FILE}.new"
    record = {"fingerprint": fingerprint, "times_done": done, "times": total}
    beside.write_text(json.dumps(record))
    beside.replace(partial / PROGRESS_FILE)


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Connect to a Dask scheduler, or to none."""
    if address is None:
        yield None
        return
    from distributed import Client

    try:
        client = Client(address, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ValueError(
            f"No Dask scheduler answers at {address!r}: start one with `dask scheduler`, or leave "
            "`--scheduler` out."
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


@contextmanager
def _nothing_kept_of_refused_data(partial: Path) -> Iterator[None]:
    """Remove what was written before: mended data are other data, so that nothing goes on there."""
    try:
        yield
    except ValueError:
        shutil.rmtree(partial)
        raise


def _install(partial: Path, path: Path) -> None:
    """Put the finished store in its place; a former one leaves only when the new one is there."""
    former = path.with_name(f"{path.name}.former")
    if path.exists():
        shutil.rmtree(former, ignore_errors=True)
        path.rename(former)
    partial.rename(path)
    (path / PROGRESS_FILE).unlink()
    shutil.rmtree(former, ignore_errors=True)


@contextmanager
def _full_disk_explained(path: Path) -> Iterator[None]:
    """Turn a full disk into one sentence; what is finished is kept for resuming, else removed."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        partial = partial_path(path)
        found = read_progress(partial)
        if found is None or found["times_done"] == 0:
            shutil.rmtree(partial, ignore_errors=True)
            kept = "nothing is left behind; make room and repeat the command"
        else:
            kept = (
                f"{found['times_done']} of {found['times']} times are kept in {partial}; make room "
                "and repeat the command, which goes on from there"
            )
        explained = OSError(
            f"No room to write {path} ({os.strerror(error.errno).lower()}): {kept}."
        )
        explained.errno = error.errno
        raise explained from error
