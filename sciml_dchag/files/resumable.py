"""Stores that grow beside their place: resuming after an interruption, full disks.

A store grows as `NAME.zarr.partial/` with a `progress.json`, and is renamed once it is whole. What
is written into it is `writing`'s (weather) and `cube_writing`'s (plants); what may be replaced, and
how, is `places`'.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sciml_dchag.files.atomic import FULL
from sciml_dchag.files.places import complete, remove
from sciml_dchag.files.zarr_groups import PROGRESS_FILE, partial_path, read_progress

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what) as the work goes on."""


def was_finished(path: Path, fingerprint: str, overwrite: bool) -> bool:
    """Complete a store that a killed call had put in its place; say whether it is the one wanted.

    Args:
        path: the store's place, held.
        fingerprint: of all that decides what the store will hold.
        overwrite: whether another store there may be replaced.

    Raises:
        FileExistsError: another store is there and `overwrite` is off.
    """
    found = read_progress(path)
    if found is not None and found["fingerprint"] == fingerprint:
        complete(path)
        return True
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{path} exists: choose another name, or replace it with `overwrite=True`."
        )
    return False


def resume(
    partial: Path,
    fingerprint: str,
    overwrite: bool,
    *,
    values: Path,
    usable: Callable[[], object],
) -> int | None:
    """Return how many parts were finished earlier, or None to begin in an empty place.

    Args:
        partial: where the store grows, held.
        fingerprint: of all that decides what the store will hold.
        overwrite: whether to begin again where something else was begun.
        values: a path inside, which exists once more than metadata was written.
        usable: opens what was begun; if it fails, that is begun again.

    Raises:
        ValueError: something else was begun there.
    """
    if not partial.exists():
        return None
    found = read_progress(partial)
    if found is not None and found["fingerprint"] == fingerprint:
        try:
            usable()
        except Exception:  # whatever a damaged Zarr store raises
            shutil.rmtree(partial)
            return None
        return int(found["done"])
    # Killed before anything but metadata was written, or asked to begin again.
    if overwrite or (found is None and not values.exists()):
        remove(partial)
        return None
    raise ValueError(
        f"{partial} was begun with other settings or sources: repeat the command that began it to "
        "finish it, or begin again with `overwrite=True`."
    )


def write_progress(
    partial: Path, fingerprint: str, done: int, total: int, parts: str = "times"
) -> None:
    """Record how many of the store's parts are finished."""
    beside = partial / f"{PROGRESS_FILE}.new"
    record = {"fingerprint": fingerprint, "done": done, "total": total, "parts": parts}
    beside.write_text(json.dumps(record))
    beside.replace(partial / PROGRESS_FILE)


@contextmanager
def nothing_kept_of_refused_data(partial: Path) -> Iterator[None]:
    """Remove what was written before: fixed data are other data, so that nothing goes on there."""
    try:
        yield
    except ValueError:
        shutil.rmtree(partial)
        raise


@contextmanager
def full_disk_explained(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Turn a full disk into one sentence; what is finished is kept for resuming, else removed.

    Args:
        path: the place that is written.
        partial: where it grows; None is `partial_path(path)`.

    Raises:
        OSError: the disk is full, with what is kept.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # the latter from HDF5, where it closes a file
        if (number := _full(error)) is None:
            raise
        partial = partial or partial_path(path)
        found = read_progress(partial)
        if found is None or found["done"] == 0:
            shutil.rmtree(partial, ignore_errors=True)
            kept = "nothing is left behind; make room and repeat the command"
        else:
            kept = (
                f"{found['done']} of {found['total']} {found.get('parts', 'parts')} are kept in "
                f"{partial}; make room and repeat the command, which resumes from there"
            )
        explained = OSError(f"No room to write {path} ({os.strerror(number).lower()}): {kept}.")
        explained.errno = number
        raise explained from error


def _full(error: Exception) -> int | None:
    """Return the number of an error that says that there is no room; None of another one."""
    said = re.search(r"errno = (\d+)", str(error))  # how HDF5 quotes the system
    number = getattr(error, "errno", None) or (int(said[1]) if said else None)
    return number if number in FULL else None
