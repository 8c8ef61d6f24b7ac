"""Where data came from: name, size and hash of each source, for the attributes of a store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sciml_dchag.files.remote import filesystem_of, is_remote
from sciml_dchag.files.resumable import Progress


def describe_sources(
    sources: Sequence[str], progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Describe sources, one mapping each.

    A file has `bytes` and `sha256` of its content. A directory (Zarr) has `bytes` and
    `sha256_of_listing`, over the names and sizes of its files alone: its content may be terabytes.
    A URL has what its store tells without a download: `bytes` and `etag`, where known.
    """
    described = []
    for done, source in enumerate(sources, start=1):
        path = Path(source)
        if is_remote(source):
            described.append(_remote(source))
        elif path.is_dir():
            described.append(_directory(path))
        else:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            described.append({"path": path.name, "bytes": path.stat().st_size, "sha256": digest})
        if progress is not None:
            progress(done, len(sources), "hashing sources")
    return described


def _directory(path: Path) -> dict[str, Any]:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    sizes = [file.stat().st_size for file in files]
    listing = "".join(
        f"{file.relative_to(path).as_posix()}\t{size}\n"
        for file, size in zip(files, sizes, strict=True)
    )
    digest = hashlib.sha256(listing.encode()).hexdigest()
    return {"path": path.name, "bytes": sum(sizes), "sha256_of_listing": digest}


def _remote(url: str) -> dict[str, Any]:
    filesystem = filesystem_of(url)
    told = filesystem.info(url) if filesystem.exists(url) else {}
    described: dict[str, Any] = {"path": url}
    if told.get("type") == "file":
        described["bytes"] = told.get("size")
        etag = told.get("etag") or told.get("ETag")
        if etag:
            described["etag"] = str(etag).strip('"')
    else:
        described["note"] = "a remote directory: neither size nor hash is known"
    return described
