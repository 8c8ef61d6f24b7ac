"""Folders of results that appear whole or not at all.

Stores, which grow for long and are resumed, are `writing`'s and `cube_writing`'s.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sciml_dchag.data.layout import partial_path


@contextmanager
def whole_folder(path: Path, *, contains: str, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder beside `path`, which takes its place once the block ends without error.

    What stood at `path` stays as it was if anything fails.

    Args:
        path: the folder's place.
        contains: a file that every such folder has, by which one that may be replaced is known.
        overwrite: replace such a folder.

    Raises:
        FileExistsError: `path` exists, and `overwrite` is off or it is something else.
    """
    check_folder(path, contains=contains, overwrite=overwrite)
    partial, former = partial_path(path), path.with_name(f"{path.name}.former")
    for left in (partial, former):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            path.rename(former)
        partial.rename(path)
        shutil.rmtree(former, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_folder(path: Path, *, contains: str, overwrite: bool) -> None:
    """Refuse a place that is taken, before any work starts.

    Raises:
        FileExistsError: `path` exists, and `overwrite` is off or it is something else.
    """
    if not path.exists():
        return
    if not overwrite:
        raise FileExistsError(
            f"{path} exists: choose another name, or replace it with `--overwrite`."
        )
    if not (path / contains).exists():
        raise FileExistsError(
            f"{path} exists and has no {contains}, so that it is not what would be written there "
            f"and is not overwritten: choose another name."
        )
