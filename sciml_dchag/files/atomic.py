"""Writing a file whole or not at all."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which replaces `path` once the block ends without error.

    Folders on the way are made. What stood at `path` stays as it was if anything fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: processes, threads and hosts of one file system may write one file at once.
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with written_beside(path) as partial:
        partial.write_text(text, encoding="utf-8")
