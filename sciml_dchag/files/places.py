"""Places that results are written to: what may be replaced there, and how it is replaced.

One rule for every command that writes: what is at a place is replaced only with `overwrite`, and
only where it was made by this kind of command, with nothing of the user's in it. New results grow
beside their place; the former ones are moved aside, the new ones put in their place, and only then
the former ones removed. Killed anywhere, the old or the new results are whole.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sciml_dchag.files.checksums import GROWING, LIST
from sciml_dchag.files.locks import lock_path, locked, marked, refuse_locked, remove_stale
from sciml_dchag.files.writable import nearest_above, require_writable
from sciml_dchag.files.zarr_groups import (
    FINISHED_FOLDER,
    PICTURES_FOLDER,
    PROGRESS_FILE,
    partial_path,
    read_progress,
)

_ANYWHERE = (
    *(".DS_Store", "zarr.json", "zarr.json.*.partial"),
    *(LIST, GROWING, PROGRESS_FILE, f"{PROGRESS_FILE}.new"),
)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of result, and how one that this package wrote is recognised."""

    name: str
    """What messages call one: `a weather store`."""
    objection: Callable[[Path], str | None]
    """Says why what is at a path is not only of this kind (`holds notes.txt`); None where it is."""


def zarr_kind(name: str, store_format: str) -> Kind:
    """Return a kind of Zarr group with an attribute `format`."""

    def objection(path: Path) -> str | None:
        try:
            attrs = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
            found = attrs.get("format")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return "has no readable zarr.json"
        if found != store_format:
            return f"has format {found!r}" if found else "has no format of this package"
        return _stranger(path, (*_ANYWHERE, PICTURES_FOLDER, FINISHED_FOLDER), groups=True)

    return Kind(name=name, objection=objection)


def folder_kind(name: str, contains: str, holds: tuple[str, ...]) -> Kind:
    """Return a kind of folder.

    Args:
        name: what messages call one.
        contains: a file or folder that each has.
        holds: patterns of everything else that may be in it.
    """

    def objection(path: Path) -> str | None:
        if not (path / contains).exists():
            return f"has no {contains}"
        return _stranger(path, (contains, *holds, ".DS_Store"), groups=False)

    return Kind(name=name, objection=objection)


def _stranger(path: Path, known: tuple[str, ...], *, groups: bool) -> str | None:
    for entry in sorted(path.iterdir()):
        if any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in known):
            continue
        if not (groups and (entry / "zarr.json").is_file()):
            return f"holds {entry.name}, which is not of it"
    return None


def former_of(path: Path) -> Path:
    """Return where the former results lie while new ones take their place."""
    return path.with_name(f"{path.name}.former")


def check_place(path: Path, kind: Kind, overwrite: bool, partial: Path | None = None) -> None:
    """Refuse a place that is taken, before any work starts and before anything is removed.

    Args:
        path: where results are to be.
        kind: what they are.
        overwrite: whether results of this kind may be replaced.
        partial: where they grow; None is `partial_path(path)`.

    Raises:
        FileExistsError: `path` exists, and `overwrite` is off or it is not only of this kind; or
            what lies where the results would grow is not this package's.
        ValueError: another process is writing there.
        PermissionError: nothing can be written there.
    """
    if not path.name or path.name == "..":
        raise FileExistsError(f"{path} exists: choose another name.")
    above = nearest_above(path)
    if not above.is_dir():
        raise FileExistsError(
            f"{path} would lie in {above}, which is no folder: choose another name."
        )
    require_writable(path)
    refuse_locked(lock_path(path), path)
    grown = (partial or partial_path(path), former_of(path))
    for beside in grown:
        _refuse_foreign(beside, path, kind)
    if not _exists(path):
        return
    if not any(map(_exists, grown)):  # killed when all was in place, its lock's file may be left
        remove_stale(lock_path(path))
    objection = kind.objection(path)
    # Killed between taking its place and the removal of its progress, it is finished by repeating.
    if not overwrite and not (objection is None and (path / PROGRESS_FILE).is_file()):
        raise FileExistsError(
            f"{path} exists: choose another name"
            + (", or replace it with `overwrite=True`." if objection is None else ".")
        )
    if objection is not None:
        raise FileExistsError(
            f"{path} exists and {objection}, so that it is not, or not only, {kind.name}, which "
            "alone is overwritten: choose another name."
        )


def check_file(path: Path, overwrite: bool, suffix: str = "") -> None:
    """Refuse a place that is taken, or where no file can be written, before any work starts.

    Args:
        path: the file that is to be written.
        overwrite: whether it may replace another one.
        suffix: what its name must end in, such as .csv; empty for anything.

    Raises:
        ValueError: another suffix.
        FileExistsError: a file exists and `overwrite` is off, or it is a folder.
        PermissionError: nothing can be written there.
    """
    if suffix and path.suffix != suffix:
        raise ValueError(f"{path} is to be written, and its name must end in {suffix}.")
    if path.is_dir() or (path.exists() and not overwrite):
        raise FileExistsError(
            f"{path} exists: choose another name"
            + ("." if path.is_dir() else ", or replace it with `overwrite=True`.")
        )
    require_writable(path)


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _refuse_foreign(beside: Path, path: Path, kind: Kind) -> None:
    if not _exists(beside) or marked(path):
        return
    empty = beside.is_dir() and not beside.is_symlink() and not any(beside.iterdir())
    if empty or (beside.is_dir() and read_progress(beside)) or kind.objection(beside) is None:
        return
    raise FileExistsError(
        f"{beside} exists and was not made by this command, which needs that name while it writes "
        f"{path}: rename it, or choose another name."
    )


@contextlib.contextmanager
def held(path: Path, kind: Kind, overwrite: bool, partial: Path | None = None) -> Iterator[None]:
    """Hold a place for as long as the block lasts; see `check_place` for what is refused.

    Former results that a killed call had moved aside are moved back first.
    """
    check_place(path, kind, overwrite, partial)
    partial, former = partial or partial_path(path), former_of(path)
    with locked(lock_path(path), path, keep=lambda: _exists(partial) or _exists(former)):
        if _exists(former) and not _exists(path):
            former.rename(path)
        check_place(path, kind, overwrite, partial)
        yield


def install(partial: Path, path: Path) -> None:
    """Put finished results in their place, within `held`.

    What they replace is removed last, and their own `progress.json` after it, so that a call that
    was killed in between is completed by repeating it.
    """
    former = former_of(path)
    if _exists(path):
        remove(former)
        path.rename(former)
    partial.rename(path)
    complete(path)


def complete(path: Path) -> None:
    """Remove what only a growing place has, and the results that it replaces."""
    remove(former_of(path))
    remove(path / FINISHED_FOLDER)
    (path / PROGRESS_FILE).unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
