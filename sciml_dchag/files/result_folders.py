"""Folders of results that appear whole or not at all.

Stores, which grow for long and are resumed, are `writing`'s and `cube_writing`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sciml_dchag.files.places import Kind, held, install, remove
from sciml_dchag.files.resumable import full_disk_explained
from sciml_dchag.files.zarr_groups import partial_path


@contextmanager
def whole_folder(path: Path, kind: Kind, *, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder beside `path`, which takes its place once the block ends without error.

    What stood at `path` stays as it was if anything fails.

    Raises:
        FileExistsError, ValueError: as `places.check_place` says.
        OSError: the disk is full; nothing is left behind.
    """
    partial = partial_path(path)
    with held(path, kind, overwrite), full_disk_explained(path):
        remove(partial)
        partial.mkdir(parents=True)
        try:
            yield partial
            install(partial, path)
        finally:
            remove(partial)
