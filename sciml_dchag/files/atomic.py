"""Writing a file whole or not at all."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sciml_dchag.files.writable import require_writable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of errors that say that there is no room."""


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which replaces `path` once the block ends without error.

    Folders on the way are made. What stood at `path` stays as it was if anything fails.

    Raises:
        OSError: nothing can be written there.
    """
    require_writable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # what the kernel says of a folder below /proc
        raise _nowhere(path) from error
    # A name of its own: processes, threads and hosts of one file system may write one file at once.
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    except FileNotFoundError as error:
        if str(error.filename) != str(partial):
            raise
        raise _nowhere(path) from error
    except OSError as error:
        if error.errno not in FULL or str(error).startswith("No room to write"):
            raise
        explained = OSError(
            f"No room to write {path} ({os.strerror(error.errno).lower()}): nothing is left "
            f"behind; make room and repeat the command."
        )
        explained.errno = error.errno
        raise explained from error
    finally:
        partial.unlink(missing_ok=True)


def _nowhere(path: Path) -> OSError:
    return OSError(
        f"Nothing can be written in {path.parent}: choose another place for {path.name}."
    )


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with written_beside(path) as partial:
        partial.write_text(text, encoding="utf-8")
