"""Whether something can be written at a place, before any work is done for it."""

from __future__ import annotations

import os
from pathlib import Path


def require_writable(path: Path, what: str = "") -> None:
    """Refuse a place in a folder where nothing can be written.

    Args:
        path: of a file or folder that is to be made, with all folders on the way.
        what: what messages call it; the last name of the path by default.

    Raises:
        PermissionError: the file system is read-only, or the folder is not the user's.
    """
    above = nearest_above(path)
    if not above.is_dir() or os.access(above, os.W_OK | os.X_OK):
        return
    read_only = os.statvfs(above).f_flag & os.ST_RDONLY
    why = "its file system is read-only" if read_only else "no permission"
    raise PermissionError(
        f"Nothing can be written in {above} ({why}): choose another place for {what or path.name}."
    )


def nearest_above(path: Path) -> Path:
    """Return the first of the folders that a path lies in that exists."""
    return next(parent for parent in path.absolute().parents if os.path.lexists(parent))
