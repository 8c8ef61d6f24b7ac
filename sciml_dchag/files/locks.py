"""One writer at a place: a lock file that names its holder and ends with its process.

The lock of `x.zarr` is the file `.x.zarr.lock` beside it, that of a run folder the file `.lock`
inside. The kernel holds it (`flock`), so that a killed process leaves a file but no lock. That
file also says that what lies beside the place, `x.zarr.partial` and `x.zarr.former`, was made by
this package. This module knows nothing of stores.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sciml_dchag.files.writable import require_writable

PATIENCE_SECONDS = 1.0
"""How long to wait for a lock: one that is only being looked at is free again at once."""
ORPHANS_SECONDS = 15.0
"""The same where the holder has died: its loader processes notice within some seconds."""

_held: dict[tuple[Path, int], int] = {}
"""How often each lock is held by each thread of this process."""


def lock_path(path: Path) -> Path:
    """Return the file that locks a place."""
    place = path.absolute()
    return place.with_name(f".{place.name}.lock")


def marked(path: Path) -> bool:
    """Whether a writer of this package was, or is, at work at a place."""
    return bool(_holder(lock_path(path)))


@contextlib.contextmanager
def locked(file: Path, what: Path, keep: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Hold a lock, which is released when the block or this process ends.

    The same thread may take it again.

    Args:
        file: the lock's file; its folder is made.
        what: what messages call the place.
        keep: asked at the end whether the file stays, as the mark of what lies beside the place.

    Raises:
        ValueError: another process, or another thread, holds it.
        PermissionError: the file cannot be made.
    """
    key = (file.absolute(), threading.get_ident())
    if key in _held:
        _held[key] += 1
        try:
            yield
        finally:
            _held[key] -= 1
        return
    require_writable(file, str(what))
    made = [folder for folder in file.absolute().parents if not folder.exists()]
    descriptor = _take(file, what)
    _held[key] = 1
    try:
        record = {"host": socket.gethostname(), "pid": os.getpid(), "started": _now()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(record).encode(), 0)
        yield
    finally:
        del _held[key]
        with contextlib.suppress(OSError):  # the folder may be gone, or be read-only by now
            if not keep():
                file.unlink()
                for folder in made:  # a refused command leaves no empty folder
                    folder.rmdir()
        os.close(descriptor)


def refuse_locked(file: Path, what: Path) -> None:
    """Refuse a place that another process holds, without taking it.

    Raises:
        ValueError: it is held.
    """
    if (file.absolute(), threading.get_ident()) in _held or not file.exists():
        return
    with contextlib.suppress(FileNotFoundError):  # released meanwhile
        os.close(_flock(file, os.O_RDONLY, fcntl.LOCK_SH, what))


def remove_stale(file: Path) -> None:
    """Remove a lock's file that a killed process has left; one that is held stays."""
    if (file.absolute(), threading.get_ident()) in _held:
        return
    with contextlib.suppress(OSError):  # none, a place that is read-only, or held
        descriptor = os.open(file, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == file.stat().st_ino:
                file.unlink()
        finally:
            os.close(descriptor)


MOST_VANISHED = 100
"""How often a folder is made again for a lock; in some, as in /proc, no file can be made."""


def _take(file: Path, what: Path) -> int:
    vanished = 0
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = _flock(file, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX, what)
        except FileNotFoundError as error:
            vanished += 1  # whoever held it before has removed the empty folder
            if vanished > MOST_VANISHED:
                raise OSError(
                    f"Nothing can be written in {file.parent}: choose another place for {what}."
                ) from error
            continue
        # Whoever held it before may have removed the file that was just locked.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == file.stat().st_ino:
                return descriptor
        os.close(descriptor)


def _flock(file: Path, flags: int, operation: int, what: Path) -> int:
    descriptor = os.open(file, flags, 0o644)
    started = time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
            return descriptor
        except OSError as error:
            holder = _holder(file)
            if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                # A file system without locks: what can be known is whether the holder lives here.
                if not holder or holder["host"] != socket.gethostname() or not _alive(holder):
                    return descriptor
            elif error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(descriptor)
                raise
            here = holder.get("host") == socket.gethostname()
            limit = ORPHANS_SECONDS if here and not _alive(holder) else PATIENCE_SECONDS
            if time.monotonic() - started < limit:
                time.sleep(0.05)
                continue
            os.close(descriptor)
            raise ValueError(_refusal(holder, what)) from None


def _refusal(holder: dict[str, Any], what: Path) -> str:
    if not holder:
        return f"Another process is writing {what}: wait until it has ended."
    return (
        f"Process {holder.get('pid')} on {holder.get('host')} has been writing {what} since "
        f"{holder.get('started')}: wait until it has ended, end it, or choose another name."
    )


def _holder(file: Path) -> dict[str, Any]:
    """Read who holds, or held, a lock; nothing where nobody has written that down yet."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(found) if isinstance(found, dict) and {"host", "pid"} <= found.keys() else {}


def _alive(holder: dict[str, Any]) -> bool:
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except (KeyError, TypeError, ValueError, OSError):
        return True
    return True


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
